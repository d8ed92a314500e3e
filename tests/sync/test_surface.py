"""The blocking classes have what the asynchronous ones have, word for word."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import dispatchkit
from dispatchkit import sync

SHARED = {"Done", "NotSent", "Outcome", "Rejected", "Report", "Snapshot", "Unknown"}
PAIRS = [(getattr(sync, name), getattr(dispatchkit, name)) for name in sync.__all__ if name not in SHARED]
MACHINERY = {"command_type"}
"""What a provider sets on its client."""
ASYNC_NAMES = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


MEMBERS = [(blocking, twin, name) for blocking, twin in PAIRS for name in sorted(public(twin) - MACHINERY)]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


def first_line(member: Any) -> str:
    return (inspect.getdoc(member) or "").partition("\n")[0]


def test_every_client_has_blocking_client() -> None:
    clients = [name for name in dispatchkit.__all__ if name.endswith("Client")]
    assert sorted(sync.__all__) == sorted([*clients, "FanOut", "Ledger", *SHARED])


@pytest.mark.parametrize("name", sorted(SHARED))
def test_values_are_the_same(name: str) -> None:
    assert getattr(sync, name) is getattr(dispatchkit, name)


@pytest.mark.parametrize(("blocking", "twin"), PAIRS)
def test_the_constructors_are_the_same(blocking: type, twin: type) -> None:
    assert parameters(blocking) == parameters(twin)
    annotations = [
        {each.name: each.annotation for each in inspect.signature(cls).parameters.values()} for cls in (blocking, twin)
    ]
    for each in annotations:
        each.pop("client", None)  # a blocking fan-out is given a blocking client
    assert annotations[0] == annotations[1]


@pytest.mark.parametrize(("blocking", "twin", "name"), MEMBERS)
def test_members_match_async_class(blocking: type, twin: type, name: str) -> None:
    ours, theirs = inspect.getattr_static(blocking, name), inspect.getattr_static(twin, name)
    assert first_line(ours) == first_line(theirs)
    assert first_line(ours)
    if isinstance(theirs, property):
        assert isinstance(ours, property)
        return
    if isinstance(theirs, classmethod):
        assert isinstance(ours, classmethod)
        ours, theirs = ours.__func__, theirs.__func__
    assert parameters(ours) == parameters(theirs)
    assert ours.__name__ == name
    assert not inspect.iscoroutinefunction(ours)
    assert not inspect.isasyncgenfunction(ours)
    if hasattr(ours, "__wrapped__"):
        assert inspect.getdoc(ours) == inspect.getdoc(theirs)


@pytest.mark.parametrize(("blocking", "twin"), PAIRS)
def test_blocks_and_loops_match(blocking: type, twin: type) -> None:
    for asynchronous, plain in ASYNC_NAMES.items():
        assert hasattr(blocking, plain) == hasattr(twin, asynchronous)


def test_members_were_found() -> None:
    assert {name for _, _, name in MEMBERS} >= {
        "activate",
        "add_messages",
        "add_messages_many",
        "batch",
        "change_account",
        "close",
        "counters",
        "counts",
        "deactivate",
        "dispatch",
        "dispatches",
        "finish",
        "in_flight",
        "launch_broadcast",
        "launch_many",
        "launch_regular",
        "launch_regular_many",
        "lift_pause",
        "log",
        "mailing",
        "mailings",
        "perform",
        "provider",
        "report",
        "start",
        "start_many",
        "statistics",
        "status",
        "stop",
        "targets",
    }


@pytest.mark.parametrize(("blocking", "twin"), PAIRS)
def test_blocking_class_adds_nothing(blocking: type, twin: type) -> None:
    assert public(blocking) <= public(twin)


def test_machinery_is_private() -> None:
    machinery = {"account", "call", "clock", "fingerprint", "pacer", "run_settings", "settings", "have_token"}
    assert not machinery & {*public(dispatchkit.DirectClient), *public(dispatchkit.AltcraftClient)}
    assert not {"create_journal", "open_store"} & public(dispatchkit.Ledger)
    assert not {"async_client", "handle"} & {*public(sync.DirectClient), *public(sync.Ledger)}

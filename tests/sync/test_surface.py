"""The blocking clients have the same surface as their asynchronous clients, word for word."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import dispatchkit
from dispatchkit import sync

SHARED = {"Done", "NotSent", "Outcome", "Rejected", "Report", "Unknown"}
PAIRS = [(getattr(sync, name), getattr(dispatchkit, name)) for name in sync.__all__ if name not in SHARED]
CLIENTS = [(blocking, twin) for blocking, twin in PAIRS if twin is not dispatchkit.FanOut]
METHODS = [
    (blocking, twin, name)
    for blocking, twin in CLIENTS
    for name, method in inspect.getmembers(twin, inspect.isfunction)
    if not name.startswith("_") and (inspect.iscoroutinefunction(method) or name.endswith("_many"))
]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


def test_every_client_has_blocking_client() -> None:
    clients = [name for name in dispatchkit.__all__ if name.endswith("Client")]
    assert sorted(sync.__all__) == sorted([*clients, "FanOut", *SHARED])


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


@pytest.mark.parametrize(("blocking", "twin", "name"), METHODS)
def test_methods_match_async_client(blocking: type, twin: type, name: str) -> None:
    ours, theirs = getattr(blocking, name), getattr(twin, name)
    assert parameters(ours) == parameters(theirs)
    assert inspect.getdoc(ours) == inspect.getdoc(theirs)
    assert inspect.getdoc(ours)
    assert ours.__name__ == name
    assert not inspect.iscoroutinefunction(ours)


def test_methods_were_found() -> None:
    assert {name for _, _, name in METHODS} >= {
        "start",
        "stop",
        "dispatches",
        "dispatch",
        "status",
        "log",
        "activate",
        "launch_broadcast",
        "deactivate",
        "perform",
        "start_many",
        "launch_many",
    }


@pytest.mark.parametrize(("blocking", "twin"), PAIRS)
def test_blocking_client_adds_nothing(blocking: type, twin: type) -> None:
    extra = {name for name in dir(blocking) if not name.startswith("_")} - {"handle", "async_client"}
    assert extra <= set(dir(twin))

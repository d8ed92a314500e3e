"""The quick lines of targets are those of `to_dict`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal

import pytest

from dispatchkit import ActivateMailing, Audience, LaunchBroadcast, StartDispatch, StopDispatch
from dispatchkit.cli.output.tables import as_csv
from dispatchkit.cli.views.target_lines import TargetLines
from dispatchkit.ledger.codec import encode
from dispatchkit.ledger.target import Target, TargetRow
from dispatchkit.values import as_json, columns

AT = datetime(2026, 11, 27, 2, 9, 13, tzinfo=UTC)
COMMANDS: list[Any] = [
    StartDispatch(7),
    StartDispatch(10_000_000_001),
    StopDispatch(7),
    StopDispatch(8),
    LaunchBroadcast(5, limit=5),
    LaunchBroadcast(6, limit=5),
    LaunchBroadcast(55, audience=Audience("list", 3)),
    ActivateMailing(7, content={"a": 1}),
    ActivateMailing(8, content={"b": 1}),
]
RESULTS: list[dict[str, Any]] = [
    {"state": "planned"},
    {"state": "sending", "request_id": "0f8fad5b-d9cb-469f-a165-70867728950e", "at": AT},
    {"state": "done", "attempts": 1, "at": AT},
    {"state": "done", "attempts": 2, "at": AT + timedelta(microseconds=5), "request_id": "=1+1"},
    {"state": "rejected", "summary": 'no "such", dispatch\nline \u0436', "code": 4040, "attempts": 1, "at": AT},
    {"state": "rejected", "summary": "=cmd()", "code": "-X", "request_id": "-a", "attempts": 1, "at": AT},
    {
        "state": "rejected",
        "code": -5,
        "request_id": "a,b",
        "attempts": 1,
        "at": AT.astimezone(timezone(timedelta(hours=3))),
    },
    {"state": "unknown", "is_final": True, "attempts": 3, "at": AT, "request_id": ""},
]
TARGETS = [
    Target(index, command if isinstance(command, str) else encode(command)[1], **result)
    for index, (command, result) in enumerate(
        (command, result) for result in RESULTS for command in (*COMMANDS, "junk", COMMANDS[1])
    )
]


def row_of(target: Target) -> TargetRow:
    at = None if target.at is None else target.at.isoformat()
    fields = (target.index, target.command, target.state, target.summary, target.code, target.request_id)
    return (*fields, target.attempts, at, target.is_final)


@pytest.mark.parametrize("form", ["json", "csv"])
def test_lines_match_to_dict(form: Literal["json", "csv"]) -> None:
    lines = TargetLines(form)
    for target in (*TARGETS, *TARGETS[::-1]):
        assert lines.of([row_of(target)]) == plain(form, target)
    assert lines.header == ("" if form == "json" else as_csv(columns(Target), ()))


@pytest.mark.parametrize("form", ["json", "csv"])
@pytest.mark.parametrize("commands", [[StartDispatch(5)] * 2, [StartDispatch(5), StopDispatch(5), StartDispatch(6)]])
def test_pages_match_to_dict(form: Literal["json", "csv"], commands: list[Any]) -> None:
    """Pages of commands that differ in their number, and of any commands."""
    texts = [encode(command)[1] for command in commands]
    targets = [
        Target(index, text, **result)
        for index, (result, text) in enumerate((each, text) for each in RESULTS for text in texts)
    ]
    lines = TargetLines(form)
    for page in (targets, targets[:5], TARGETS, targets):
        assert lines.of([row_of(target) for target in page]) == "".join(plain(form, target) for target in page)


def plain(form: Literal["json", "csv"], target: Target) -> str:
    return f"{as_json(target)}\n" if form == "json" else as_csv(None, [target.to_dict(flat=True)])

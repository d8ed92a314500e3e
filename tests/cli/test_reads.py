"""The commands that only read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dispatchkit.sandbox import Call, Fault
from tests.cli.conftest import Played, Result, Terminal, run
from tests.cli.test_terminal import plain


def start(played: Played, *ids: int) -> None:
    headers = {"Authorization": f"Basic {played.sandbox.direct_token}"}
    for number in ids:
        played.sandbox.direct.answer(Call("POST", f"/api/v1/dispatch/{number}/start", headers=headers))


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.out.splitlines()]


def direct(played: Played, *arguments: object) -> Result:
    return run("direct", "list", *arguments, "--base-url", played.url)


def test_dispatches_are_shown_as_table(played: Played) -> None:
    played.sandbox.direct.scheduled = 0
    start(played, 5, 7)
    result = direct(played, "--status", "sending")
    assert (result.code, result.err) == (0, "")
    header, first, second = result.out.splitlines()
    assert header.split() == ["dispatch", "status", "name", "created", "(UTC)", "messages", "delivered"]
    assert first.split()[:4] == ["5", "sending", "рассылка", "5"]
    assert second.split()[0] == "7"
    assert len(played.sandbox.acts) == 2


def test_dispatches_are_listed_as_objects(played: Played) -> None:
    [told] = objects(direct(played, "--dispatch-id", 5, "--json"))
    assert (told["dispatch_id"], told["status"], told["messages"]["total"]) == (5, "initiated", 1235)
    assert told["created"].endswith("Z")
    assert "message" not in told
    assert told["message_length"] > 0


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ((), 1000),
        (("--dispatch-name", "рассылка 9"), 1),
        (("--traffic-center-id", 12), 1000),
        (("--traffic-center-id", 13), 0),
        (("--created-from", "2020-01-01"), 1000),
        (("--created-to", "2020-01-01T00:00:00+03:00"), 0),
        (("--status", "done"), 0),
        (("--dispatch-id", 5000), 0),
    ],
)
def test_filters_filter(played: Played, filters: tuple[object, ...], count: int) -> None:
    result = direct(played, "--json", *filters)
    assert result.code == 0
    assert len(objects(result)) == count


def test_unknown_status_is_refused(played: Played) -> None:
    for json_too in ((), ("--json",)):
        result = direct(played, "--status", "Sending", *json_too)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("dispatchkit: no dispatch has the status 'Sending', and it is not a known status.")
    assert direct(played, "--status", "paused").code == 0
    item = {"dispatchId": 1, "status": "Sending"}
    played.sandbox.order(Fault.http(200, json.dumps({"total": 1, "items": [item]}).encode()))
    assert direct(played, "--status", "Sending").code == 0


def test_long_list_is_shown_whole(played: Played) -> None:
    played.sandbox.direct.scheduled = 0
    start(played, *range(1, 2001))
    result = direct(played, "--status", "sending")
    lines = result.out.splitlines()
    assert (result.code, len(lines), lines[0].split()[0]) == (0, 2001, "dispatch")
    assert [int(line.split()[0]) for line in lines[1:]] == [*range(1, 2001)]
    assert len(objects(direct(played, "--status", "sending", "--json"))) == 2000


def test_table_fits_terminal(played: Played) -> None:
    name = "очень " * 40
    item = {"dispatchId": 10000000125, "status": "sending", "dispatchName": name}
    played.sandbox.order(Fault.http(200, json.dumps({"total": 1, "items": [item]}).encode()))
    command = Terminal("direct", "list", "--base-url", played.url)
    assert command.end() == 0
    lines = plain(command.screen).splitlines()
    assert max(map(len, lines)) <= 100
    assert "10000000125" in lines[1]
    assert sum(line.count("очень") for line in lines) >= 30


def test_control_characters_are_escaped(played: Played) -> None:
    bad = "[red]\x1b[2J\u202e\r\nx\ud800"
    item = {"dispatchId": 1, "status": bad, "dispatchName": bad, "created": "0001-01-01T00:00:00+14:00", "new": bad}
    body = json.dumps({"total": 3, "items": [item]}).encode()
    played.sandbox.order(Fault.http(200, body), times=2)
    result = direct(played)
    assert result.code == 1
    assert not {"\x1b", "\u202e", "\r", "\ud800"} & set(result.out + result.err)
    assert "[red]\\x1b" in result.out
    assert result.err == "The list is not complete: the provider counts 3, and listed 1. Try again.\n"
    [told] = objects(direct(played, "--json"))
    assert (told["extra_keys"], told["status"]) == (["new"], bad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--created-from", "yesterday"), "--created-from must be a time such as 2026-01-31T09:00:00, not 'yesterday'"),
        (("--status", ""), "status must not be empty"),
        (("--dispatch-id", 0), "dispatch_id must be a positive integer"),
    ],
)
def test_invalid_read_exits_with_2(played: Played, arguments: tuple[object, ...], message: str) -> None:
    result = direct(played, *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert played.sandbox.requests == 0


def test_failed_read_exits_with_1(played: Played) -> None:
    played.sandbox.order(Fault.lost_answer(), times=100)
    result = direct(played, "--timeout", 0.5)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("dispatchkit: the provider could not be read: ")
    assert "nothing was changed" in result.err


def test_statuses_of_mailings_are_shown(played: Played) -> None:
    result = run("altcraft", "status", "49-51")
    assert (result.code, result.err) == (0, "")
    rows = [line.split() for line in result.out.splitlines()]
    assert rows[0] == ["mailing", "active", "completed", "status"]
    assert rows[1:] == [["49", "yes", "no", "Active"], ["50", "yes", "no", "Active"], ["51", "no", "no", "Inactive"]]
    told = objects(run("altcraft", "status", 50, "--json", "--wire", "xml"))
    assert [(entry["target"], entry["result"]["is_active"]) for entry in told] == [(50, True)]


def test_unreadable_mailing_exits_with_1(played: Played) -> None:
    result = run("altcraft", "status", 100, 101)
    assert result.code == 1
    assert result.err == "101: rejected: Incorrect request: mailing not found (code 400, HTTP 200)\n"
    assert result.out.splitlines()[1].split()[0] == "100"


def test_refused_token_ends_reading(played: Played) -> None:
    body = json.dumps({"data": None, "error": 401, "error_text": "Token required"}).encode()
    played.sandbox.order(Fault.http(200, body), times=1000)
    result = run("altcraft", "status", "1-1000")
    assert result.code == 1
    assert result.err.endswith("The token was refused.\n")


@pytest.mark.parametrize("wire", ["json", "xml"])
def test_mailing_log_is_shown(played: Played, wire: str) -> None:
    assert run("altcraft", "launch", 1, "--yes").code == 0
    result = run("altcraft", "log", 1, "--wire", wire)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[1].endswith("INFO   start  Begin campaign")
    assert [entry["state"] for entry in objects(run("altcraft", "log", 1, "--json", "--since", "2020-01-01"))] == [
        "start"
    ]
    assert run("altcraft", "log", 1, "--json", "--since", "2120-01-01").out == ""
    assert run("altcraft", "log", 1, "--since", "x").code == 2
    assert run("altcraft", "log", 1000).code == 1

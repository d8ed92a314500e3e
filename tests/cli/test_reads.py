"""The commands that only read."""

from __future__ import annotations

import json
from pathlib import Path
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


def status(played: Played, *arguments: object, stdin: str = "") -> Result:
    return run("direct", "status", *arguments, "--base-url", played.url, stdin=stdin)


def test_statuses_of_dispatches_are_shown(played: Played) -> None:
    start(played, 7)
    result = status(played, 5, 7)
    assert (result.code, result.err) == (0, "")
    header, first, second = result.out.splitlines()
    names = ["dispatch", "status", "name", "total", "delivered", "undelivered", "sending", "sent", "unsent"]
    assert header.split() == names
    assert first.split() == ["5", "initiated", "рассылка", "5", "1235", "0", "0", "0", "0", "1235"]
    assert second.split()[:2] == ["7", "scheduled"]
    assert [act.action for act in played.sandbox.acts] == ["start"]


def test_status_fits_80_columns(played: Played) -> None:
    counts = {"total": 1235000, "delivered": 1000, "undelivered": 100, "unsent": 30, "sent": 45, "sending": 60}
    item = {"dispatchId": 10000000125, "status": "sending", "dispatchName": "очень " * 40, "messages": counts}
    played.sandbox.order(Fault.http(200, json.dumps({"total": 1, "items": [item]}).encode()))
    command = Terminal("direct", "status", 10000000125, "--base-url", played.url, columns=80)
    assert command.end() == 0
    lines = plain(command.screen).splitlines()
    assert max(map(len, lines)) <= 80
    for text in ("10000000125", "sending", "очень", "1235000", "1000", "100", "60"):
        assert text in lines[1]


def test_status_names_unknown_ids(played: Played) -> None:
    for json_too in ((), ("--json",)):
        result = status(played, 1999, 5000, *json_too)
        assert result.code == 1
        assert result.err == "5000: rejected: no dispatch of this id is listed (HTTP 200)\n"
    told = {each["target"]: each for each in objects(result)}
    assert (told[5000]["state"], told[5000]["result"]) == ("rejected", None)
    assert (told[1999]["result"]["status"], told[1999]["result"]["messages"]["unsent"]) == ("initiated", 1235)


def test_status_takes_whole_file(played: Played, tmp_path: Path) -> None:
    failures = tmp_path / "failures.csv"
    failures.write_text("id,outcome\n3,done\n4,unknown\n5-6,not_started\n")
    result = status(played, "--from", failures)
    assert (result.code, result.err) == (0, "")
    assert [line.split()[0] for line in result.out.splitlines()[1:]] == ["3", "4", "5", "6"]
    launched = run("direct", "start", "5-7", "--yes", "--json", "--base-url", played.url).out
    assert status(played, "--from", "-", stdin=launched).out.count("scheduled") == 3
    damaged = tmp_path / "damaged.csv"
    damaged.write_text("id\n1,00000E+11\n")
    assert status(played, "--from", damaged, "--column", "id").code == 2
    foreign = json.dumps({"target": 5, "state": "done", "command": {"type": "LaunchBroadcast", "mailing_id": 5}})
    result = status(played, "--from", "-", stdin=foreign)
    assert (result.code, result.out) == (2, "")
    assert "of Altcraft, not dispatches of Direct" in result.err


@pytest.mark.parametrize("arguments", [(), (0,), ("--column", "id"), (5, "--from", "f")])
def test_status_refuses_bad_ids(played: Played, arguments: tuple[object, ...]) -> None:
    result = status(played, *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert played.sandbox.requests == 0


def test_refused_account_ends_reading(played: Played) -> None:
    body = json.dumps({"error": {"code": 4030, "msg": "Access Denied"}}).encode()
    played.sandbox.order(Fault.http(403, body), times=1000)
    result = status(played, "1-1000")
    assert (result.code, result.err.splitlines()[-1]) == (
        1,
        "The provider's first answer refused the token or the account.",
    )


def test_mistyped_status_is_suggested(played: Played) -> None:
    result = run("direct", "sttus", 5, "--base-url", played.url)
    assert result.code == 2
    assert "Did you mean 'status'?" in result.err


def test_file_of_mailings_is_read(played: Played) -> None:
    result = run("altcraft", "status", "--from", "-", stdin="49\n51\n")
    assert (result.code, [line.split()[0] for line in result.out.splitlines()]) == (0, ["mailing", "49", "51"])


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

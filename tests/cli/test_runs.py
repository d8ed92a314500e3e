from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import Report
from dispatchkit.cli.output import reporter as show
from dispatchkit.sandbox import Act, Fault
from tests.cli.conftest import Played, Result, run, run_child


def counts(text: str) -> dict[str, int]:
    rows = re.findall(r"^(done|rejected|not sent|unknown|not started) +([\d,]+)\s*$", text, re.MULTILINE)
    return {name: int(count.replace(",", "")) for name, count in rows}


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.out.splitlines()]


def done(played: Played) -> list[tuple[str, int]]:
    return [(act.action, act.target) for act in played.sandbox.acts]


@pytest.mark.second_stage
def test_thousand_starts_in_own_sandbox() -> None:
    result = run_child("direct", "start", "1-1000", "--sandbox", kind=subprocess.Popen)
    assert result.code == 0, result
    assert counts(result.out) == {"done": 1000, "rejected": 0, "not sent": 0, "unknown": 0}
    assert re.search(r"1,000 of 1,000 dispatches in [\d.]+ s, [\d,]+ a second", result.out)
    assert result.err == ""


@pytest.mark.parametrize("wire", ["json", "xml"])
@pytest.mark.parametrize("command", [["activate", "--run-now"], ["activate"], ["launch"], ["deactivate"]])
def test_altcraft_commands_in_own_sandbox(command: list[str], wire: str) -> None:
    result = run("altcraft", *command, "1-20", "--sandbox", "--wire", wire, "--json")
    assert result.code == 0, result
    assert {entry["state"] for entry in objects(result)} == {"done"}


def test_own_sandbox_has_started_dispatches() -> None:
    assert run("direct", "stop", "1-20", "--sandbox").code == 0


def test_direct_starts_and_stops(played: Played) -> None:
    assert run("direct", "start", 5, "--yes", "--base-url", played.url).code == 0
    assert run("direct", "stop", 5, "--yes", "--base-url", played.url).code == 0
    assert done(played) == [("start", 5), ("stop", 5)]


def test_altcraft_url_from_environment(played: Played) -> None:
    assert run("altcraft", "activate", 60, "--yes", "--no-run-now").code == 0
    assert run("altcraft", "activate", 61, "--yes", "--run-now", "--audience", "list:1", "--limit", 300).code == 0
    assert run("altcraft", "launch", 1, "--yes", "--audience", "segment:5", "--content", '{"a": 1}').code == 0
    assert run("altcraft", "deactivate", 1, "--yes", "--abort-if-running").code == 0
    assert done(played) == [("activate", 60), ("launch", 61), ("launch", 1), ("deactivate", 1)]


def test_worst_outcome_sets_exit_status(played: Played) -> None:
    result = run("direct", "start", "1999-2002", "--yes", "--base-url", played.url)
    assert result.code == 1
    assert counts(result.out) == {"done": 2, "rejected": 2, "not sent": 0, "unknown": 0}
    assert "2001: rejected: Dispatch 2001 not found (code 4040, HTTP 404)\n" in result.err
    assert re.search(r"2 NotFoundError: Nothing was done\.", result.out)

    played.sandbox.order(Fault.lost_answer(), path_contains="/1/stop")
    result = run("direct", "stop", 1, 2001, "--yes", "--base-url", played.url, "--timeout", 0.5)
    assert result.code == 3, result
    assert counts(result.out)["unknown"] == 1


def test_not_sent_exits_with_1(played: Played) -> None:
    result = run(
        "direct", "start", 1, "--yes", "--base-url", played.url, "--timeout", 1, "--proxy", "http://127.0.0.1:1"
    )
    assert result.code == 1
    assert "1: not sent: the proxy could not be reached" in result.err
    assert played.sandbox.requests == 0


@pytest.mark.parametrize(
    ("report", "not_started", "interrupted", "status"),
    [
        (Report(done=3), 0, False, 0),
        (Report(done=3), 1, False, 1),
        (Report(done=3, rejected=1), 0, False, 1),
        (Report(done=3, not_sent=1), 0, False, 1),
        (Report(rejected=1, not_sent=1, unknown=1), 0, False, 3),
        (Report(unknown=1), 5, True, 130),
        (Report(), 5, True, 130),
    ],
)
def test_exit_statuses(report: Report, not_started: int, interrupted: bool, status: int) -> None:
    assert show.exit_status(report, not_started, interrupted=interrupted) == status


def test_json_writes_one_object_each(played: Played) -> None:
    result = run("direct", "start", "2000-2001", "--yes", "--json", "--base-url", played.url)
    first, second = sorted(objects(result), key=lambda entry: int(str(entry["index"])))
    attempt = first.pop("attempts")
    assert first == {
        "index": 0,
        "target": 2000,
        "command": {"type": "StartDispatch", "dispatch_id": 2000},
        "state": "done",
        "result": {"dispatch_id": 2000, "settled": False},
        "error": None,
        "request_id": None,
    }
    assert isinstance(attempt, list)
    assert set(attempt[0]) == {"number", "started", "duration", "result", "sent"}
    error = second["error"]
    assert isinstance(error, dict)
    assert {**error, "hint": ""} == {
        "type": "NotFoundError",
        "summary": "Dispatch 2001 not found (code 4040, HTTP 404)",
        "message": "Dispatch 2001 not found",
        "hint": "",
        "status": 404,
        "code": 4040,
        "retry_after": None,
        "retry_at": None,
        "is_final": None,
    }
    assert counts(result.err) == {"done": 1, "rejected": 1, "not sent": 0, "unknown": 0}


def test_json_has_sent_request_id(played: Played) -> None:
    [launch] = objects(run("altcraft", "launch", 1, "--yes", "--json"))
    [act] = played.sandbox.acts
    assert isinstance(act, Act)
    assert launch["request_id"] == act.request_id is not None


def test_unknown_outcome_has_no_code(played: Played) -> None:
    played.sandbox.order(Fault.lost_answer())
    played.sandbox.order(Fault.lost_answer(), times=100, path_contains="dispatch?")
    played.sandbox.direct.read_lag = 60
    [stop] = objects(run("direct", "stop", 1, "--yes", "--json", "--base-url", played.url, "--timeout", 0.5))
    error = stop["error"]
    assert isinstance(error, dict)
    assert (stop["state"], error["status"], error["code"]) == ("unknown", None, None)


def test_repeated_id_is_launched_once(played: Played) -> None:
    result = run("direct", "start", "1-5", "3", "3-6", "--yes", "--base-url", played.url)
    assert "Left out 4 repeated ids.\n" in result.err
    assert played.sandbox.launches == dict.fromkeys(range(1, 7), 1)


def test_invalid_last_id_prevents_launches(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("1\n2\n3x\n")
    result = run("direct", "start", "--from", file, "--yes", "--base-url", played.url)
    assert (result.code, result.out) == (2, "")
    assert f"{file}, line 3: '3x' is not an id" in result.err
    assert played.sandbox.requests == 0


def test_ids_come_from_many_sources(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_text("name;id\na;1\nb;2\n")
    everywhere = ("--yes", "--base-url", played.url)
    assert run("direct", "start", "--from", file, "--column", "id", *everywhere).code == 0
    assert run("direct", "start", "--from", "-", *everywhere, stdin="3\n4\n").code == 0
    assert run("direct", "start", "--from", "-", "--column", "x", *everywhere, stdin="x\n5\n").code == 0
    assert played.sandbox.launches == dict.fromkeys(range(1, 6), 1)


def test_token_from_file_or_stdin(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPATCHKIT_DIRECT_TOKEN")
    file = tmp_path / "token"
    file.write_text(f"{played.sandbox.direct_token}\n")
    assert run("direct", "start", 1, "--yes", "--base-url", played.url, "--token-file", file).code == 0
    token = f"{played.sandbox.direct_token}\r\n"
    assert run("direct", "start", 2, "--yes", "--base-url", played.url, "--token-file", "-", stdin=token).code == 0


def test_refused_token_ends_run(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "wrong-token")
    result = run("direct", "start", "1-2000", "--yes", "--concurrency", 4, "--base-url", played.url)
    assert result.code == 1
    assert result.err.count("The token was refused: nothing new is started.\n") == 1
    found = counts(result.out)
    assert found["rejected"] + found["not started"] == 2000
    assert found["rejected"] < 50
    assert played.sandbox.requests == found["rejected"]
    assert "wrong-token" not in result.out + result.err


def test_failures_of_kind_are_limited(played: Played) -> None:
    played.sandbox.order(Fault.html(500, acts=False), path_contains="/3030/")
    stop = ("direct", "stop", "3001-3030", "--yes", "--base-url", played.url, "--concurrency", 1, "--timeout", 0.5)
    result = run(*stop)
    assert result.code == 3
    assert result.err.count(": rejected: ") == 20
    assert result.err.count("More that are rejected are only counted here; --json lists each one.\n") == 1
    assert "\n3030: unknown: " in result.err
    assert counts(result.out)["rejected"] == 29
    assert "are only counted here.\n" in run(*stop, "--json").err


def test_provider_text_is_escaped(played: Played) -> None:
    message = "\x1b[2J\x9b31m[red]you\u202e win[/red]\r\nline"
    body = json.dumps({"error": {"code": 4040, "msg": message}}).encode()
    played.sandbox.order(Fault.http(404, body))
    result = run("direct", "start", 1, "--yes", "--no-ledger", "--base-url", played.url)
    assert not {"\x1b", "\x9b", "\u202e", "\r"} & set(result.out + result.err)
    assert "[red]you" in result.err
    assert "line" in result.err.splitlines()[0]


def test_it_runs_without_uvloop(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatchkit.cli.loop._new_uvloop", None)
    assert run("direct", "start", 1, "--yes", "--base-url", played.url).code == 0


def test_range_is_read_while_sending(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "wrong")
    result = run("direct", "start", "1-1000000000000", "--yes", "--no-ledger", "--base-url", played.url)
    assert result.code == 1
    assert counts(result.out)["not started"] > 999_999_999_000

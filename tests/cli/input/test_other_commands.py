"""``--from`` with what another command has printed: its states speak of that command, not of this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, run

FORMS = pytest.mark.parametrize("form", ["--csv", "--json"])


def direct(played: Played, command: str, *arguments: object) -> tuple[object, ...]:
    return ("direct", command, "--yes", "--base-url", played.url, *arguments)


def altcraft(command: str, *arguments: object) -> tuple[object, ...]:
    return ("altcraft", command, "--yes", *arguments)


def export(file: Path, ledger: Path, form: str) -> Path:
    file.write_text(run("ledger", "export", ledger, form).out)
    return file


@FORMS
def test_stop_takes_what_start_did(played: Played, tmp_path: Path, form: str) -> None:
    ledger = tmp_path / "w.db"
    played.sandbox.order(Fault.lost_answer(), path_contains="/3/start")
    played.sandbox.order(Fault.lost_answer(), times=100, path_contains="dispatch?")
    played.sandbox.direct.read_lag = 60
    options = ("--ledger", ledger, "--max-launches", 4, "--concurrency", 1, "--timeout", 0.5)
    assert run(*direct(played, "start", "1-3", 2001, "5-9", *options)).code == 3
    file = export(tmp_path / "w", ledger, form)
    stopped = run(*direct(played, "stop", "--from", file, "--json"))
    assert {json.loads(line)["target"] for line in stopped.out.splitlines()} == {1, 2, 3}
    assert (
        "The file is of 'start': 'stop' takes the 3 ids that it started or may have started. 1 of them is unknown.\n"
        in stopped.err
    )
    assert "Left out 6 ids that 'start' did not start.\n" in stopped.err


def test_stop_takes_json_outcomes(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "outcomes.jsonl"
    file.write_text(run(*direct(played, "start", "1-2", 2001, "--json")).out)
    stopped = run(*direct(played, "stop", "--from", file, "--json"))
    assert {json.loads(line)["target"] for line in stopped.out.splitlines()} == {1, 2}
    assert "Left out 1 id that 'start' did not start.\n" in stopped.err


def test_stop_resumes_its_own_file(played: Played, tmp_path: Path) -> None:
    assert run(*direct(played, "start", "1-4")).code == 0
    ledger = tmp_path / "s.db"
    run(*direct(played, "stop", "1-4", "--ledger", ledger, "--max-launches", 3))
    again = run(*direct(played, "stop", "--from", export(tmp_path / "s", ledger, "--csv")))
    assert again.code == 0
    assert "Left out 3 ids that are done.\n" in again.err


@FORMS
def test_launch_takes_all_of_activate(played: Played, tmp_path: Path, form: str) -> None:
    ledger = tmp_path / "a.db"
    run(*altcraft("activate", "1-4", "--ledger", ledger, "--max-launches", 3))
    launched = run(*altcraft("launch", "--from", export(tmp_path / "a", ledger, form), "--json"))
    assert {json.loads(line)["target"] for line in launched.out.splitlines()} == {1, 2, 3, 4}
    assert "The file is of 'activate', not of 'launch': all 4 ids are taken, whatever their state.\n" in launched.err
    assert "Left out" not in launched.err


def test_start_takes_all_of_stop(played: Played, tmp_path: Path) -> None:
    run(*direct(played, "start", "1-3"))
    file = tmp_path / "stopped.jsonl"
    file.write_text(run(*direct(played, "stop", "1-3", "--json")).out)
    result = run(*direct(played, "start", "--from", file))
    assert "The file is of 'stop', not of 'start': all 3 ids are taken, whatever their state.\n" in result.err


def test_deactivate_takes_what_launched(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "launched.jsonl"
    file.write_text(run(*altcraft("activate", "1-2", 101, "--run-now", "--json")).out)
    result = run(*altcraft("deactivate", "--from", file, "--json"))
    assert {json.loads(line)["target"] for line in result.out.splitlines()} == {1, 2}


@FORMS
def test_other_provider_is_refused(played: Played, tmp_path: Path, form: str) -> None:
    ledger = tmp_path / "a.db"
    run(*altcraft("activate", "1-3", "--ledger", ledger))
    requests = played.sandbox.requests
    file = export(tmp_path / "a", ledger, form)
    result = run(*direct(played, "start", "--from", file))
    number = 2 if form == "--csv" else 1
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"dispatchkit: {file}, line {number}: 'ActivateMailing' is about mailings of Altcraft, not dispatches of "
        "Direct: nothing was started\n"
    )
    assert played.sandbox.requests == requests


def test_unknown_command_is_refused(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("id,state,command_type\n1,done,SendSms\n")
    result = run(*direct(played, "start", "--from", file))
    assert result.code == 2
    assert "line 2: 'SendSms' is no command of Direct: nothing was started" in result.err


def test_listing_goes_back_in(played: Played, tmp_path: Path) -> None:
    run(*direct(played, "start", "1-3"))
    file = tmp_path / "list.jsonl"
    file.write_text(run("direct", "list", "--dispatch-id", 2, "--base-url", played.url, "--json").out)
    assert file.read_text()
    result = run(*direct(played, "stop", "--from", file, "--json"))
    assert {json.loads(line)["target"] for line in result.out.splitlines()} == {2}


def test_mailing_list_is_not_taken(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "list.jsonl"
    file.write_text('{"mailing_id": 1, "status": "active"}\n')
    result = run(*direct(played, "stop", "--from", file))
    assert (result.code, played.sandbox.requests) == (2, 0)

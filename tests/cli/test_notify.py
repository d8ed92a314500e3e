"""``--notify``: a command that runs at the end of a run."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Played, Result, run, start_child, wait_until
from tests.workers.conftest import Field

SCRIPT = """
import json, os, sys
with open(sys.argv[1], "a") as file:
    file.write(json.dumps([sys.argv[2:], dict(os.environ), json.load(sys.stdin)]) + "\\n")
"""


class Told:
    """A command that keeps what it is told."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "told.json"
        script = folder / "notify.py"
        script.write_text(SCRIPT)
        self.command = shlex.join([sys.executable, str(script), str(self._file), "$HOME; false"])

    def all(self) -> list[list[Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.exists() else []


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def start(played: Played, *more: object) -> Result:
    return run("direct", "start", "1-3", "--yes", "--base-url", played.url, *more)


def test_facts_are_given(played: Played, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMS_TOKEN", "secret")
    assert start(played, "--ledger", tmp_path / "l.db", "--run", "a", "--notify", told.command).code == 0
    [[arguments, environment, report]] = told.all()
    assert arguments == ["$HOME; false"]  # no shell
    assert report == {
        "run": "a", "state": "done", "reason": "finished", "exit_status": 0, "done": 3, "rejected": 0, "not_sent": 0,
        "unknown": 0, "not_started": 0,
    }  # fmt: skip
    given = {name: value for name, value in environment.items() if name.startswith("DISPATCHKIT_")}
    assert given.items() >= {f"DISPATCHKIT_{name.upper()}": str(value) for name, value in report.items()}.items()
    assert not [name for name in environment if "TOKEN" in name]
    assert played.sandbox.direct_token not in json.dumps(environment)


def test_guard_is_named(played: Played, told: Told) -> None:
    assert start(played, "--no-ledger", "--max-launches", 1, "--notify", told.command).code == 1
    [[_, _, report]] = told.all()
    assert (report["reason"], report["exit_status"], report["done"], report["not_started"]) == ("max_launches", 1, 1, 2)


def test_resume_runs_it(played: Played, told: Told, tmp_path: Path) -> None:
    assert start(played, "--ledger", tmp_path / "l.db", "--max-launches", 1).code == 1
    assert run("resume", tmp_path / "l.db", "--yes", "--notify", told.command).code == 0
    assert told.all()[0][2]["done"] == 3


@pytest.mark.parametrize("command", ["", "no-such-program-here", "'open quote", "/etc/passwd"])
def test_missing_program_is_refused(played: Played, command: str) -> None:
    ended = start(played, "--notify", command)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "--notify" in ended.err
    assert played.sandbox.requests == 0


def test_failure_changes_no_status(played: Played) -> None:
    ended = start(played, "--no-ledger", "--notify", f"{sys.executable} -c 'import sys; sys.exit(\"no mail\")'")
    assert ended.code == 0
    assert "--notify: the command ended with status 1: no mail.\n" in ended.err


def test_slow_command_is_killed(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatchkit.cli.output.notify.TIMEOUT", 0.2)
    # Its child keeps standard error open.
    ended = start(played, "--no-ledger", "--notify", "sh -c 'sleep 60 & sleep 60'")
    assert ended.code == 0
    assert "had not ended after 0 s, so it was killed." in ended.err


def test_interrupt_is_told(played: Played, told: Told) -> None:
    with start_child(
        "direct", "start", "1-2000", "--yes", "--base-url", played.url, "--no-ledger", "--rate", 20, "--notify",
        told.command,
    ) as child:  # fmt: skip
        played.wait_for_requests(3)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=20)
    assert child.returncode == 130
    [[_, _, report]] = told.all()
    assert (report["state"], report["reason"], report["exit_status"]) == ("stopped", "interrupted", 130)


REFUSALS: list[tuple[tuple[object, ...], int]] = [
    (("--expected", 4), 2),
    (("--token-file", "/nowhere"), 2),
    ((5000, "--check"), 2),
    (("--not-after", "2026-01-01T00:00"), 2),
]


@pytest.mark.parametrize(("more", "status"), REFUSALS, ids=["expected", "token", "check", "hours"])
def test_refusal_is_told(played: Played, told: Told, tmp_path: Path, more: tuple[object, ...], status: int) -> None:
    refused = start(played, "--ledger", tmp_path / "l.db", "--run", "a", "--notify", told.command, *more)
    assert refused.code == status, refused
    [[_, environment, report]] = told.all()
    assert report == {
        "run": "a", "state": "refused", "reason": "refused", "exit_status": status, "done": 0, "rejected": 0,
        "not_sent": 0, "unknown": 0, "not_started": None,
    }  # fmt: skip
    assert environment["DISPATCHKIT_NOT_STARTED"] == ""
    assert not played.sandbox.launches


def test_repeat_is_told(played: Played, told: Told, tmp_path: Path) -> None:
    assert start(played, "--ledger", tmp_path / "l.db").code == 0
    assert start(played, "--ledger", tmp_path / "l.db", "--notify", told.command).code == 5
    [[_, _, report]] = told.all()
    assert (report["state"], report["exit_status"]) == ("refused", 5)


def test_question_without_terminal_is_told(played: Played, told: Told) -> None:
    ended = run("direct", "start", "1-3", "--base-url", played.url, "--no-ledger", "--notify", told.command)
    assert ended.code == 2
    assert told.all()[0][2]["reason"] == "refused"


def test_refused_resume_is_told(played: Played, told: Told, tmp_path: Path) -> None:
    ledger = tmp_path / "l.db"
    assert start(played, "--ledger", ledger, "--run", "a").code == 0
    assert run("resume", ledger, "--run", "b", "--yes", "--notify", told.command).code == 2
    assert run("resume", ledger, "--run", "a", "--yes", "--notify", told.command).code == 0
    reports = [report for _, _, report in told.all()]
    assert [(each["run"], each["state"]) for each in reports] == [("b", "refused"), ("a", "done")]


def test_dry_run_tells_nothing(played: Played, told: Told) -> None:
    assert start(played, "--dry-run", "--notify", told.command).code == 0
    assert not told.all()


def test_refused_stop_is_told(played: Played, told: Told) -> None:
    stop = ("direct", "stop", "--status", "sending", "--yes", "--base-url", played.url, "--notify", told.command)
    assert run(*stop, "--expected", 3).code == 2
    assert [report["reason"] for _, _, report in told.all()] == ["refused"]


def test_worker_runs_it(field: Field, told: Told) -> None:
    worker = field.worker("--notify", told.command)
    field.plan(3)
    wait_until(lambda: len(told.all()) == 1)
    worker.terminate()
    assert worker.wait(20) == 0
    over, ended = (report for _, _, report in told.all())
    assert (over["run"], over["reason"], over["done"]) == ("r", "finished", 3)
    assert (ended["run"], ended["reason"], ended["done"]) == (None, "interrupted", 3)

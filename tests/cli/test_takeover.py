"""What a person decides before a run goes on: a silent holder, a copied ledger, another account; and ``stop-run``."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, Terminal, run, run_child, start_child, wait_until
from tests.cli.test_ledger import come_to_a_halt, ledger, line, once, resume, to_resume
from tests.cli.test_runs import counts
from tests.cli.test_terminal import plain

__all__ = ["ledger"]

STOPPED = {
    f"dispatchkit.{module}:CLAIM_AGE": 1.0
    for module in ("core.claim", "core.fanout.claim_gate", "ledger.ledger", "ledger.sqlite.store")
}


def suspend(child: subprocess.Popen[str], ledger: Path, *, silent_for: float = 0.0) -> None:
    """Suspend the process outside of its transactions, and let its last heartbeat be so long ago."""
    with contextlib.closing(sqlite3.connect(ledger, timeout=0.5)) as db:
        while True:
            child.send_signal(signal.SIGSTOP)
            with contextlib.suppress(sqlite3.OperationalError), db:
                db.execute("UPDATE chunk SET seen = seen - ?, seen_boot = seen_boot - ?", (silent_for, silent_for))
                break
            child.send_signal(signal.SIGCONT)  # it is in a transaction
            time.sleep(0.05)


@contextlib.contextmanager
def silent_holder(played: Played, ledger: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the run of 60 targets, with three in flight, and has been suspended for 95 s."""
    played.sandbox.latency = 0.02
    with start_child(*line(played, ledger, "1-60", "--concurrency", 3)) as child:
        played.wait_for_requests(20)
        come_to_a_halt(played)
        suspend(child, ledger, silent_for=95)
        played.sandbox.latency = 0
        yield child
        child.wait(20)


@pytest.mark.second_stage
def test_option_ends_silent_holder(played: Played, ledger: Path) -> None:
    again = line(played, ledger, "1-60", "--concurrency", 3)
    with silent_holder(played, ledger) as child:
        before = played.sandbox.requests
        for refused in (resume(ledger), run(*again)):
            assert (refused.code, refused.out) == (2, "")
            assert re.sub(r"silent for [^.]+\.", "silent for 1 min 35 s.", refused.err) == (
                f"dispatchkit: run 'friday' is held by process {child.pid} on {socket.gethostname()}, which has been "
                "silent for 1 min 35 s. It is suspended or hangs. Nothing was sent. Continue it, or end it and take "
                f"the run over: dispatchkit resume {ledger} --run friday --concurrency 3 --end-holder\n"
            )
        assert child.poll() is None
        assert played.sandbox.requests == before
        assert re.search(r"held by .* UTC, silent for (\d+ min)? ?(\d+ s)?\n", run("ledger", "show", ledger).out)
        result = resume(ledger, "--end-holder")
        assert child.wait(20) == -signal.SIGKILL
    assert result.code == 0, result
    assert f"Process {child.pid} on {socket.gethostname()} was ended: this one takes the run over.\n" in result.err
    assert once(played, 60)


@pytest.mark.second_stage
@pytest.mark.parametrize("command", ["resume", "start"])
def test_confirmation_ends_silent_holder(played: Played, ledger: Path, command: str) -> None:
    words = ("resume", ledger, "--yes") if command == "resume" else line(played, ledger, "1-60")
    with silent_holder(played, ledger) as child:
        before = played.sandbox.requests
        question = rf"Process {child.pid} on {socket.gethostname()} has been silent for 1 min \d+ s. "
        question += r"End it and take the run over\? \[y/N\] "
        terminal = Terminal(*words)
        terminal.read_until("[y/N] ")
        assert re.fullmatch(question, plain(terminal.screen))
        terminal.type("\n")
        assert terminal.end() == 4
        assert plain(terminal.screen).endswith("Nothing was sent.\n")
        assert child.poll() is None
        assert played.sandbox.requests == before
        terminal = Terminal(*words)
        terminal.read_until("[y/N] ")
        terminal.type("y\n")
        assert terminal.end() == 0
        assert child.wait(20) == -signal.SIGKILL
    assert once(played, 60)


@pytest.mark.second_stage
def test_awakened_holder_is_not_ended(played: Played, ledger: Path) -> None:
    with silent_holder(played, ledger) as child:
        terminal = Terminal("resume", ledger, "--yes")
        terminal.read_until("[y/N] ")
        child.send_signal(signal.SIGCONT)
        db = sqlite3.connect(ledger)
        wait_until(lambda: time.time() - db.execute("SELECT seen FROM chunk").fetchone()[0] < 30)
        db.close()
        terminal.type("y\n")
        assert terminal.end() == 2
        assert "which works on it: nothing was sent." in plain(terminal.screen)
        assert child.poll() is None
        child.kill()


@pytest.mark.second_stage
def test_stop_run_waits_for_holder(played: Played, ledger: Path) -> None:
    played.sandbox.latency = 0.05
    with start_child(*line(played, ledger, "1-1000", "--concurrency", 4), constants=STOPPED) as child:
        played.wait_for_requests(20)
        suspend(child, ledger)
        began = datetime.now(UTC)
        stopped = run_child("stop-run", ledger, "friday", constants=STOPPED)
        ended = datetime.now(UTC)
        assert stopped.code == 0, stopped
        promise = re.match(
            r"Run 'friday' is stopped: no process launches any more of it after (.*) UTC\.\n", stopped.out
        )
        assert promise is not None, stopped
        moment = datetime.combine(began.date(), datetime.strptime(promise[1], "%H:%M:%S").time(), UTC)
        assert began + timedelta(seconds=1) <= moment
        assert began + timedelta(seconds=1) <= ended
        assert moment <= ended + timedelta(seconds=1)  # it is rounded up
        before = played.sandbox.requests
        child.send_signal(signal.SIGCONT)
        assert child.wait(20) == 1
        assert played.sandbox.requests == before


@pytest.mark.second_stage
def test_ctrl_c_keeps_run_stopped(played: Played, ledger: Path) -> None:
    assert run(*line(played, ledger, "1-5", "--max-launches", 1)).code == 1
    with start_child("stop-run", ledger, "friday") as child:
        assert child.stderr is not None
        told = child.stderr.readline()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=4)  # it waits for 5 s
    moment = re.search(r"Waiting until (\S+) UTC", told)
    assert moment is not None
    assert (child.returncode, out) == (130, "")
    assert err == (
        f"Run 'friday' is stopped all the same. A process that was suspended may still launch until {moment[1]} UTC.\n"
    )
    refused = run(*line(played, ledger, "1-5"))
    assert refused.err == f"dispatchkit: run 'friday' was stopped. {to_resume(ledger).replace('the run', 'it')}"


def copied(played: Played, ledger: Path) -> Path:
    """A copy of the ledger, from before the original launched what was left."""
    assert run(*line(played, ledger, "1-5", "--max-launches", 2)).code == 1
    copy = ledger.with_name("copy.db")
    shutil.copy(ledger, copy)
    assert resume(ledger).code == 0
    return copy


def test_option_accepts_copied_ledger(played: Played, ledger: Path) -> None:
    copy = copied(played, ledger)
    for refused in (resume(copy), run(*line(played, copy, "1-5"))):
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == (
            f"dispatchkit: the ledger {copy} is a copy, or was moved to another disk. Nothing was sent: a copy and its "
            "original would both launch what is left. If the original is out of use: "
            f"dispatchkit resume {copy} --run friday --copied\n"
        )
    assert resume(copy, "--copied").code == 0  # the provider's state tells what the original launched
    assert once(played, 5)
    assert resume(copy).out == "Run 'friday' is over: no target is left.\n"


@pytest.mark.second_stage
def test_confirmation_accepts_copied_ledger(played: Played, ledger: Path) -> None:
    copy = copied(played, ledger)
    for answer, code in (("n", 4), ("y", 0)):
        terminal = Terminal("resume", copy, "--yes")
        terminal.read_until("[y/N] ")
        assert " ".join(plain(terminal.screen).split()) + " " == (
            f"The ledger {copy} is a copy, or was moved to another disk. Is the original out of use, so that this one "
            "may be used? [y/N] "
        )
        terminal.type(f"{answer}\n")
        assert terminal.end() == code
        assert ("Nothing was sent." in terminal.screen) == bool(code)
    assert once(played, 5)


def test_another_token_needs_a_word(played: Played, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "old")
    again = line(played, ledger, "1-3", "--concurrency", 1)
    assert run(*again).code == 1  # 1 is rejected
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", played.sandbox.direct_token)
    before = played.sandbox.requests
    for refused in (run(*again), resume(ledger)):  # the run keeps how its launch began
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == (
            "dispatchkit: run 'friday' was planned for another account, or with another token of this one: nothing was "
            "sent. Use the token (and the --account) of that account. If it is the same account with a new token or "
            f"name: dispatchkit resume {ledger} --run friday --concurrency 1 --account-changed\n"
        )
    assert played.sandbox.requests == before
    assert run(*again, "--account-changed").code == 1
    assert played.sandbox.launches == {2: 1, 3: 1}
    assert resume(ledger).out == "Run 'friday' is over: no target is left.\n"


def test_named_account_changes_token(played: Played, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "old")
    assert run(*line(played, ledger, "1-3", "--concurrency", 1, "--account", "acme")).code == 1
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", played.sandbox.direct_token)
    refused = resume(ledger, "--account", "other")
    assert refused.code == 2
    assert refused.err.startswith("dispatchkit: run 'friday' was planned for the account 'acme': nothing was sent. ")
    assert resume(ledger, "--account", "acme").code == 1
    assert played.sandbox.launches == {2: 1, 3: 1}


@pytest.mark.second_stage
@pytest.mark.parametrize("command", ["launch", "resume"])
def test_never_repeat_keeps_unknown(played: Played, ledger: Path, command: str) -> None:
    words: tuple[object, ...]
    words = ("altcraft", "launch", "1-3", "--yes", "--base-url", played.url, "--ledger", ledger, "--run", "friday")
    words = (*words, "--deduplicates")
    if command == "resume":
        assert run(*words, "--max-launches", 1).code == 1
        words = ("resume", ledger, "--yes")
    played.sandbox.order(Fault.lost_answer(), path_contains="broadcasts/start")
    played.sandbox.order(Fault.lost_answer(), times=1000, path_contains="log_v2")
    result = run(*words, "--never-repeat", "--timeout", 2)
    assert result.code == 3, result
    assert counts(result.out)["unknown"] == 1
    assert resume(ledger, "--timeout", 10).code == 0  # repeated under the same request id
    assert once(played, 3)


@pytest.mark.second_stage
def test_unknown_launch_names_the_option(played: Played, ledger: Path) -> None:
    words = ("altcraft", "launch", "1-3", "--yes", "--base-url", played.url, "--ledger", ledger, "--run", "friday")
    played.sandbox.order(Fault.lost_answer(), path_contains="broadcasts/start")
    played.sandbox.order(Fault.lost_answer(), times=1000, path_contains="log_v2")
    result = run(*words, "--timeout", 2)
    assert result.code == 3, result
    told = " ".join(result.out.split())
    assert "Ask the platform's administrator whether deduplication by Request-ID is on" in told
    assert "--deduplicates repeats an unclear launch under its id" in told
    assert resume(ledger, "--timeout", 2).code == 3, "nor is it repeated by a resume"
    assert once(played, 3)


def test_paused_run_explains(played: Played, ledger: Path) -> None:
    constants = {"dispatchkit.core.claim:CLAIM_AGE": 0.0}  # every claim has expired when it is granted
    with start_child(*line(played, ledger, "1-50", "--concurrency", 1), constants=constants) as child:
        assert child.stderr is not None
        told = child.stderr.readline()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert told == "The run pauses for 5 s: the database answers in 0 s; the limit is 0 s.\n"
    assert err.startswith("Interrupted: ")
    assert child.returncode == 130, out
    assert played.sandbox.requests == 0


@pytest.mark.second_stage
def test_a_warning_is_told_once() -> None:
    script = (
        "import logging, sys\n"
        "from dispatchkit.cli.run.drive import show_warnings\n"
        "if sys.argv[1:]: logging.basicConfig()\n"
        "logger = logging.getLogger('dispatchkit.ledger')\n"
        "with show_warnings(lambda text: print(text, file=sys.stderr)):\n"
        "    try: 1 / 0\n"
        "    except ZeroDivisionError: logger.warning('waiting for %s', 'a lease', exc_info=True)\n"
        "    logger.info('nothing to tell')\n"
    )
    for configured in ([], ["configured"]):
        command = [sys.executable, "-c", script, *configured]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
        assert ended.stderr == "Waiting for a lease.\n"

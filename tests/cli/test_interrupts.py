from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, Terminal, start_child
from tests.cli.test_runs import counts

pytestmark = pytest.mark.second_stage  # real processes, sockets and databases

LATER = pytest.mark.second_stage


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(each, marks=LATER) for each in (signal.SIGTERM, signal.SIGHUP))]
)
def test_signal_awaits_calls_in_flight(played: Played, number: signal.Signals) -> None:
    played.sandbox.latency = 0.3
    with start_child(
        "direct", "start", "1-1000", "--yes", "--no-ledger", "--concurrency", 8, "--base-url", played.url
    ) as child:
        played.wait_for_requests(15)  # 1, 2, 4, 8
        child.send_signal(number)
        out, err = child.communicate(timeout=20)
    assert child.returncode == 130, (out, err)
    assert "Interrupted: nothing new is started, and 8 calls in flight can end." in err
    found = counts(out)
    assert found == {"done": 15, "rejected": 0, "not sent": 0, "unknown": 0, "not started": 985}
    assert played.sandbox.launches == dict.fromkeys(range(1, 16), 1)


def test_ignored_hangup_continues_run(played: Played) -> None:
    played.sandbox.latency = 0.1
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does, and a child inherits it
    try:
        command = ("direct", "start", "1-20", "--yes", "--no-ledger", "--concurrency", 4, "--base-url", played.url)
        with start_child(*command, kind=subprocess.Popen) as child:
            played.wait_for_requests(4)
            child.send_signal(signal.SIGHUP)
            out, err = child.communicate(timeout=20)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (child.returncode, err) == (0, "")
    assert counts(out)["done"] == 20


def test_closed_terminal_loses_no_failure(played: Played, tmp_path: Path) -> None:
    played.sandbox.latency = 0.3
    failures = tmp_path / "failed.csv"
    line = (
        "direct",
        "start",
        "1-1000",
        "--yes",
        "--no-ledger",
        "--concurrency",
        8,
        "--base-url",
        played.url,
        "--failures",
        failures,
    )
    command = Terminal(*line)
    played.wait_for_requests(15)
    assert command.hang_up() == 130
    assert failures.read_text().splitlines()[1] == "16,not_started,,,"
    assert len(failures.read_text().splitlines()) == 986
    assert played.sandbox.launches == dict.fromkeys(range(1, 16), 1)


def test_second_ctrl_c_reports_unknown(played: Played) -> None:
    played.sandbox.order(Fault.slow(0.0), times=7)  # so that eight are in flight then
    played.sandbox.order(Fault.silent(), times=8)
    command = (
        "direct",
        "start",
        "1-1000",
        "--yes",
        "--json",
        "--no-ledger",
        "--concurrency",
        8,
        "--base-url",
        played.url,
    )
    with start_child(*command) as child:
        played.wait_for_requests(15)
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        assert "Interrupted" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert child.returncode == 130, (out, err)
    assert counts(err) == {"done": 7, "rejected": 0, "not sent": 0, "unknown": 8, "not started": 985}
    outcomes = [json.loads(line) for line in out.splitlines()]
    assert sorted(outcome["target"] for outcome in outcomes) == list(range(1, 16))
    assert {outcome["error"]["type"] for outcome in outcomes if outcome["error"]} == {"OutcomeUnknownError"}


def test_broken_pipe_ends_run_cleanly(played: Played) -> None:
    played.sandbox.latency = 0.05
    command = (
        "direct",
        "start",
        "1-1000",
        "--yes",
        "--json",
        "--no-ledger",
        "--concurrency",
        4,
        "--base-url",
        played.url,
    )
    with start_child(*command) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        err = child.stderr.read()
        assert child.wait(20) == 1, err
    assert err.startswith("The outcomes can no longer be written, so nothing new is started.\n")
    assert "Traceback" not in err
    found = counts(err)
    assert found["not started"] > 900
    assert found["done"] == sum(played.sandbox.launches.values())

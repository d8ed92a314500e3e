from __future__ import annotations

import json
import signal

import pytest

from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, start_child
from tests.cli.test_runs import counts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_starts_nothing_new_and_awaits_what_is_in_flight(played: Played, number: signal.Signals) -> None:
    played.sandbox.latency = 0.3
    with start_child("direct", "start", "1-1000", "--yes", "--concurrency", 8, "--base-url", played.url) as child:
        played.wait_for_requests(8)
        child.send_signal(number)
        out, err = child.communicate(timeout=20)
    assert child.returncode == 130, (out, err)
    assert "Interrupted: nothing new is started, 8 in flight." in err
    found = counts(out)
    assert found == {"done": 8, "rejected": 0, "not sent": 0, "unknown": 0, "not started": 992}
    assert played.sandbox.launches == dict.fromkeys(range(1, 9), 1)


def test_a_second_ctrl_c_gives_up_what_is_in_flight_and_reports_it_as_unknown(played: Played) -> None:
    played.sandbox.order(Fault.silent(), times=8)
    command = ("direct", "start", "1-1000", "--yes", "--json", "--concurrency", 8, "--base-url", played.url)
    with start_child(*command) as child:
        played.wait_for_requests(8)
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        assert "Interrupted" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert child.returncode == 130, (out, err)
    assert counts(err) == {"done": 0, "rejected": 0, "not sent": 0, "unknown": 8, "not started": 992}
    outcomes = [json.loads(line) for line in out.splitlines()]
    assert sorted(outcome["id"] for outcome in outcomes) == list(range(1, 9))
    assert {outcome["error"]["type"] for outcome in outcomes} == {"OutcomeUnknownError"}


def test_a_reader_that_leaves_ends_the_run_in_good_order(played: Played) -> None:
    played.sandbox.latency = 0.05
    command = ("direct", "start", "1-1000", "--yes", "--json", "--concurrency", 4, "--base-url", played.url)
    with start_child(*command) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        err = child.stderr.read()
        assert child.wait(20) == 1, err
    assert err.startswith("The outcomes can no longer be written: nothing new is started.\n")
    assert "Traceback" not in err
    found = counts(err)
    assert found["not started"] > 900
    assert found["done"] == sum(played.sandbox.launches.values())

"""What bounds a run on the command line."""

from __future__ import annotations

import signal
import time

import pytest

from tests.cli.conftest import Played, run, start_child
from tests.cli.test_runs import counts


def test_a_list_of_another_length_than_expected_starts_nothing() -> None:
    result = run("direct", "start", "1-10", "--sandbox", "--expected", 11)
    assert result.code == 2
    assert result.err == "dispatchkit: there are 10 ids, but --expected 11: nothing was started\n"
    assert run("direct", "start", "1-10", "--sandbox", "--expected", 10).code == 0


def test_no_more_is_begun_than_was_allowed() -> None:
    result = run("direct", "start", "1-100", "--sandbox", "--max-launches", 7)
    assert result.code == 1
    assert counts(result.out)["done"] == 7
    assert counts(result.out)["not started"] == 93
    assert "Stopped after 7 launches (--max-launches 7); 93 were not started.\n" in result.err


def test_a_run_that_goes_wrong_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "key")
    nobody = ("--base-url", "http://127.0.0.1:1", "--timeout", 0.2, "--concurrency", 1)
    result = run("direct", "stop", "1-201", "--yes", *nobody, "--stop-after-failures", 3)
    assert result.code == 1
    assert counts(result.out)["not sent"] == 3
    assert counts(result.out)["not started"] == 198
    assert "Stopped after 3 failures (--stop-after-failures 3); 0 more were in flight.\n" in result.err


def test_a_rate_is_kept() -> None:
    began = time.monotonic()
    assert run("direct", "start", "1-21", "--sandbox", "--rate", 100).code == 0
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("command", [("direct", "start"), ("altcraft", "launch")])
def test_the_concurrency_may_be_found_out(command: tuple[str, str]) -> None:
    result = run(*command, "1-500", "--sandbox", "--concurrency", "auto")
    assert result.code == 0
    assert counts(result.out)["done"] == 500


def test_a_found_concurrency_begins_low(played: Played) -> None:
    played.sandbox.latency = 0.5
    command = ("direct", "start", "1-1000", "--yes", "--base-url", played.url, "--concurrency", "auto")
    with start_child(*command) as child:
        played.wait_for_requests(1)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert counts(out)["done"] == 1, (out, err)
    assert counts(out)["not started"] == 999

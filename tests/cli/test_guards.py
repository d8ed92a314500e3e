"""What bounds a run on the command line."""

from __future__ import annotations

import re
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dispatchkit.cli.commands.direct import DirectOptions
from dispatchkit.cli.durations import duration, give_up_seconds
from dispatchkit.cli.run import known_run, perform
from dispatchkit.cli.run.drive import interrupted_note
from dispatchkit.cli.settings import guards
from dispatchkit.cli.text import counted
from dispatchkit.sandbox.direct import WRONG_KIND_TOKEN
from tests.cli.conftest import Played, run, start_child
from tests.cli.test_runs import counts


def test_unexpected_count_starts_nothing() -> None:
    result = run("direct", "start", "1-10", "--sandbox", "--expected", 11)
    assert result.code == 2
    assert result.err == "dispatchkit: there are 10 ids, but --expected is 11: nothing was started\n"
    assert run("direct", "start", "1-10", "--sandbox", "--expected", 10).code == 0


def test_max_launches_limits_starts() -> None:
    result = run("direct", "start", "1-100", "--sandbox", "--max-launches", 7)
    assert result.code == 1
    assert counts(result.out)["done"] == 7
    assert counts(result.out)["not started"] == 93
    assert "Stopped after 7 launches (--max-launches 7); 93 targets were not started.\n" in result.err


def test_failing_run_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "key")
    nobody = ("--base-url", "http://127.0.0.1:1", "--timeout", 0.5, "--concurrency", 1)
    result = run("direct", "stop", "1-201", "--yes", *nobody, "--stop-after-failures", 3)
    assert result.code == 1
    assert counts(result.out)["not sent"] == 3
    assert counts(result.out)["not started"] == 198
    assert "Stopped after 3 failures (--stop-after-failures 3); 0 more calls were in flight.\n" in result.err


def test_a_rate_is_kept() -> None:
    began = time.monotonic()
    assert run("direct", "start", "1-21", "--sandbox", "--rate", 100).code == 0
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("command", [("direct", "start"), ("altcraft", "launch")])
def test_auto_concurrency_is_accepted(command: tuple[str, str]) -> None:
    result = run(*command, "1-500", "--sandbox", "--concurrency", "auto")
    assert result.code == 0
    assert counts(result.out)["done"] == 500


@pytest.mark.second_stage
def test_a_found_concurrency_begins_low(played: Played) -> None:
    played.sandbox.latency = 0.5
    command = ("direct", "start", "1-1000", "--yes", "--base-url", played.url, "--concurrency", "auto")
    with start_child(*command) as child:
        played.wait_for_requests(1)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert counts(out)["done"] == 1, (out, err)
    assert counts(out)["not started"] == 999


NOBODY = ("--base-url", "http://127.0.0.1:1", "--yes", "--give-up-after", "0.5s")
GAVE_UP = re.compile(
    r"^Gave up: the provider has not answered since [-\d]+ [:\d]+ UTC \(--give-up-after 0\.5s\)\.$", re.MULTILINE
)


def test_silent_provider_ends_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "key")
    ledger = tmp_path / "launch.db"
    result = run("direct", "start", "1-1000", *NOBODY, "--ledger", ledger, "--run", "friday")
    assert result.code == 1
    assert GAVE_UP.search(result.err)
    found = counts(result.out)
    assert found["done"] == found["rejected"] == found["unknown"] == 0
    assert found["not started"] > 0
    line = f"dispatchkit resume {ledger} --run friday --give-up-after 0.5s"
    assert result.out.endswith(f"1,000 dispatches are left. To resume the run: {line}\n")
    again = run(*shlex.split(line)[1:], "--yes")
    assert again.code == 1
    assert GAVE_UP.search(again.err)


def test_give_up_explains_continuation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "key")
    result = run("direct", "start", "1-1000", *NOBODY, "--no-ledger")
    assert result.code == 1
    assert GAVE_UP.search(result.err)
    assert "1,000 dispatches are left, and no file lists which. A run in a ledger can be resumed;" in result.out
    left = tmp_path / "left.csv"
    result = run("direct", "start", "1-1000", *NOBODY, "--no-ledger", "--failures", left)
    assert result.code == 1
    again = result.out.splitlines()[-1].partition("To try again those that may be: ")[2]
    more = ["--from", str(left), "--failures", f"{tmp_path}/left-2.csv"]
    assert sorted(shlex.split(again)) == sorted(
        ["dispatchkit", "direct", "start", "--no-ledger", *NOBODY[:2], *NOBODY[3:], *more]
    )
    assert "no file lists" not in result.out


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("1.5h", 5400), ("never", None), (None, 3600)]
)
def test_give_up_after_takes_duration(text: str | None, seconds: float | None) -> None:
    assert guards(DirectOptions(give_up_after=text))["give_up_after"] == seconds
    if seconds is not None:
        assert give_up_seconds(duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "90", "1d", "0s", "-1m", "1h30m", " 1h", "1e3s", "inf", "٣s", "9" * 400 + "h"])
def test_invalid_duration_is_refused(text: str) -> None:
    result = run("direct", "start", "1-10", "--sandbox", f"--give-up-after={text}")
    assert result.code == 2
    assert result.err.startswith("dispatchkit: --give-up-after must be a time such as 90s, 15m or 1h, or never, not ")


def test_refused_token_costs_one_request(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "d3Jvbmc6d3Jvbmc=")
    result = run("direct", "start", "1-1000", "--yes", "--base-url", played.url)
    assert result.code == 1
    assert played.sandbox.requests == 1
    assert counts(result.out)["rejected"] == 1
    assert "The token was refused: nothing new is started.\n" in result.err


def test_unsuitable_token_costs_one_request(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", WRONG_KIND_TOKEN)
    result = run("direct", "start", "1-1000", "--yes", "--base-url", played.url)
    assert result.code == 1
    assert played.sandbox.requests == 1
    assert "The provider's first answer refused the token or the account: nothing new is started.\n" in result.err


def test_failures_in_flight_are_counted(played: Played) -> None:
    played.sandbox.latency = 0.05
    command = ("direct", "stop", "1-1000", "--yes", "--base-url", played.url, "--concurrency", 4)
    result = run(*command, "--stop-after-failures", 3)
    found = counts(result.out)
    in_flight = found["rejected"] - 3
    assert f"Stopped after 3 failures (--stop-after-failures 3); {counted(in_flight, 'more call')} w" in result.err


def test_max_launches_ends_nothing_early() -> None:
    result = run("direct", "start", "1-7", "--sandbox", "--max-launches", 7)
    assert result.code == 0
    assert result.err == ""


def test_sandbox_takes_no_host(played: Played) -> None:
    result = run("direct", "start", "1", "--sandbox", "--base-url", played.url)
    assert (result.code, played.sandbox.requests) == (2, 0)
    assert "give either --sandbox or --base-url, not both" in result.err


def test_environment_host_allows_sandbox(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_URL", played.url)
    assert run("direct", "start", "1", "--sandbox").code == 0


@pytest.mark.parametrize("why", ["max", "token"])
def test_what_is_left_is_said(played: Played, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    line = ["direct", "start", "1-5", "--yes", "--no-ledger", "--base-url", played.url]
    if why == "token":
        monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "bm86bm8=")
    else:
        line += ["--max-launches", "2"]
    result = run(*line)
    left = 3 if why == "max" else 4
    assert f"{left} dispatches are left, and no file lists which. A run in a ledger" in result.out


def test_resume_line_drops_max_launches(played: Played, tmp_path: Path) -> None:
    file, ledger = tmp_path / "f.csv", tmp_path / "l.db"
    line = ("direct", "start", "1-5", "--yes", "--base-url", played.url, "--max-launches", 2)
    again = run(*line, "--no-ledger", "--failures", file).out.rpartition("To try again those that may be: ")[2]
    assert again.startswith("dispatchkit direct start ")
    assert "--max-launches" not in again
    both = run(*line, "--failures", tmp_path / "g.csv", "--ledger", ledger, "--run", "a").out
    assert "To try again" not in both
    assert "To resume the run: dispatchkit resume" in both
    refused = (*line[:2], 2001, *line[3:], "--failures", tmp_path / "h.csv", "--ledger", ledger, "--run", "b")
    again = run(*refused).out.rpartition("To try again those that may be: ")[2]
    assert f"--from {tmp_path / 'h.csv'}" in again
    assert "--run" not in again


def test_other_launch_is_described(played: Played, tmp_path: Path) -> None:
    options = ("--yes", "--ledger", tmp_path / "l.db", "--run", "a")
    assert run("altcraft", "activate", 1, *options).code == 0
    result = run("altcraft", "activate", 2, *options)
    assert result.code == 2
    assert "is another launch, of 1 mailing: 'activate' from 1 on" in result.err
    assert "That run is over" in result.err
    assert "dispatchkit resume" not in result.err
    assert "ActivateMailing" not in result.err


def test_question_says_what_is_left(played: Played, tmp_path: Path) -> None:
    line = ("direct", "start", "1-9", "--base-url", played.url, "--ledger", tmp_path / "l.db", "--run", "a")
    assert run(*line, "--yes", "--max-launches", 4).code == 1
    assert "start the rest of run 'a': 5 of 9 dispatches are left, of 1-9" in run(*line).err
    assert run(*line, "--yes").code == 0
    requests = played.sandbox.requests
    over = run(*line)
    assert (over.code, played.sandbox.requests) == (0, requests)
    assert "Run 'a' is over: no target is left." in over.err


def test_interrupt_without_calls() -> None:
    assert interrupted_note(0) == "Interrupted: nothing new is started, and no call is in flight."
    assert interrupted_note(1) == (
        "Interrupted: nothing new is started, and 1 call in flight can end. Ctrl-C again cancels it."
    )


def test_numbers_are_shown_as_typed(played: Played, tmp_path: Path) -> None:
    line = ("direct", "start", "1-5", "--yes", "--base-url", played.url, "--rate", 50, "--timeout", 33)
    result = run(*line, "--no-ledger", "--max-launches", 2, "--failures", tmp_path / "f.csv")
    assert "--rate 50 " in result.out
    assert "--timeout 33 " in result.out


def test_plan_is_compared_once(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = ("direct", "start", "1-9", "--yes", "--base-url", played.url, "--ledger", tmp_path / "l.db", "--run", "a")
    assert run(*launch, "--max-launches", 4).code == 1
    compared: list[int] = []
    real = perform.check_same_plan  # type: ignore[attr-defined]

    async def check_same_plan(ledger_run: Any, command_of: Any, targets: Any) -> bool:
        compared.append(len(targets))
        return await real(ledger_run, command_of, targets)

    monkeypatch.setattr(known_run, "check_same_plan", check_same_plan)
    monkeypatch.setattr(perform, "check_same_plan", check_same_plan)
    assert run(*launch).code == 0
    assert compared == [9]
    assert played.sandbox.launches == dict.fromkeys(range(1, 10), 1)

"""What another run of the ledger launched is left out, unless ``--again`` is said."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest

from dispatchkit import Run, StartDispatch
from dispatchkit.cli.input.ids import Targets
from dispatchkit.cli.run.earlier import Earlier
from dispatchkit.core.clock import SYSTEM
from dispatchkit.ledger.plan import plan
from dispatchkit.ledger.run_snapshot import TakenOver
from dispatchkit.ledger.store import Store
from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, Result, run
from tests.workers.conftest import Field


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    where = tmp_path / "launch.db"
    monkeypatch.setenv("DISPATCHKIT_LEDGER", str(where))
    monkeypatch.setattr("dispatchkit.cli.input.ledger_ref.SYSTEM", Ticking())
    monkeypatch.setattr("dispatchkit.cli.input.ledger_ref.secrets.token_hex", lambda _: "0a1b")
    return where


class Ticking:
    """Each made name has another second."""

    def __init__(self) -> None:
        self._seconds = 0

    def now(self) -> object:
        self._seconds += 1
        return datetime(2026, 1, 31, 9, 0, self._seconds, tzinfo=UTC)


def start(played: Played, *arguments: object) -> Result:
    return run("direct", "start", "--yes", "--base-url", played.url, *arguments)


def test_same_line_launches_once(played: Played) -> None:
    assert start(played, "1-4").code == 0
    again = start(played, "1-4")
    assert (again.code, again.out) == (5, "")
    assert re.fullmatch(
        r"All 4 dispatches were launched before, or may have been: 4 done in run '20260131-090001-start-0a1b', the "
        r"latest at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(1-4\)\. Nothing was sent\. To launch all the same: (.*)\n",
        again.err,
    ), again
    assert played.sandbox.launches == dict.fromkeys(range(1, 5), 1)
    line = again.err.rstrip().partition("all the same: ")[2]
    assert line.endswith("--again")
    assert run(*shlex.split(line)[1:], "--yes").code == 0
    assert played.sandbox.launches == dict.fromkeys(range(1, 5), 2)


def test_nothing_earlier_keeps_all() -> None:
    targets = Targets([(1, 2), (7, 9)])
    assert Earlier().without(targets) is targets


async def _nothing_earlier(*_: object, **__: object) -> Earlier:
    return Earlier()


@pytest.mark.parametrize(("second", "status"), [("1-4", 5), ("1-5", 2)], ids=["all", "some"])
def test_simultaneous_launch_is_refused(
    played: Played, monkeypatch: pytest.MonkeyPatch, second: str, status: int
) -> None:
    assert start(played, "1-4").code == 0
    # The other process had planned nothing yet when this one looked.
    monkeypatch.setattr("dispatchkit.cli.run.known_run.find_earlier", _nothing_earlier)
    result = start(played, second)
    assert (result.code, result.out) == (status, "")
    assert "4 of these ids were launched, or may have been: 4 in run '20260131-090001-start-0a1b'" in result.err
    assert played.sandbox.launches == dict.fromkeys(range(1, 5), 1)


def test_rest_of_list_is_launched(played: Played) -> None:
    assert start(played, "1-4").code == 0
    result = start(played, "2", "3-9")
    assert result.code == 0
    assert "Start 5 dispatches: 5-9\n" in result.out
    assert "left out  3 launched before, 3 done in run '20260131-090001-start-0a1b', the latest at " in result.out
    assert " UTC (2-4)\n" in result.out
    assert played.sandbox.launches == dict.fromkeys(range(1, 10), 1)


def test_again_says_what_was_launched(played: Played) -> None:
    assert start(played, "1-4").code == 0
    result = start(played, "3-5", "--again")
    assert result.code == 0
    assert "again    2 launched before, 2 done in run '20260131-090001-start-0a1b'" in result.out
    assert played.sandbox.launches == {1: 1, 2: 1, 3: 2, 4: 2, 5: 1}


def test_named_run_leaves_out_repeats(played: Played) -> None:
    assert start(played, "1-4", "--run", "a").code == 0
    assert start(played, "1-6", "--run", "b", "--max-launches", 1).code == 1
    assert start(played, "1-6", "--run", "b").code == 0  # the plan is that without repeats
    assert start(played, "1-6", "--run", "c").code == 5
    assert played.sandbox.launches == dict.fromkeys(range(1, 7), 1)


async def plan_two(store: Store, run: Run, commands: Iterable[StartDispatch], is_stopped: Callable[[], bool]) -> bool:
    await plan(store, run, islice(commands, 2), is_stopped)
    return False


def test_truncated_plan_leaves_out_repeats(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(played, 6).code == 0
    with monkeypatch.context() as patch:
        patch.setattr("dispatchkit.ledger.journal.plan", plan_two)
        cut = start(played, "1-5", 6)
    line = cut.out.partition("To complete it: dispatchkit ")[2]  # two commands are the beginning of both lists
    completed = run(*shlex.split(line), "--yes")
    assert completed.code == 0
    assert "left out  1 launched before" in completed.out
    assert played.sandbox.launches == dict.fromkeys(range(1, 7), 1)


def test_truncated_plan_keeps_again(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(played, 6).code == 0
    with monkeypatch.context() as patch:
        patch.setattr("dispatchkit.ledger.journal.plan", plan_two)
        cut = start(played, "1-5", 6, "--again")
    assert run(*shlex.split(cut.out.partition("To complete it: dispatchkit ")[2]), "--yes").code == 0
    assert played.sandbox.launches == {**dict.fromkeys(range(1, 6), 1), 6: 2}


def test_unclear_launch_is_left_out(played: Played) -> None:
    played.sandbox.order(Fault.silent(), times=100, path_contains="/2/")
    played.sandbox.order(Fault.silent(), times=100, path_contains="dispatchId=2")
    assert start(played, "1-2", "--timeout", 0.5).code == 3
    again = start(played, "1-2")
    assert again.code == 5
    assert "1 done, 1 unclear in run '20260131-090001-start-0a1b'" in again.err
    line = again.err.partition("To see what is left of that run: ")[2].partition(". To launch")[0]
    assert run(*shlex.split(line)[1:]).code == 0


def test_mailing_may_repeat_after_window(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ("altcraft", "launch", 1, "--yes")
    assert run(*line).code == 0
    assert run(*line).code == 5
    assert run(*line, "--limit", 5).code == 0  # another launch
    assert run(*line, "--repeat-window", "always").code == 5
    later = SYSTEM.now() + timedelta(minutes=61)
    monkeypatch.setattr(type(SYSTEM), "now", lambda _: later)
    boot = SYSTEM.boottime() + 3660
    monkeypatch.setattr(type(SYSTEM), "boottime", lambda _: boot)
    assert run(*line, "--repeat-window", "2h").code == 5
    assert run(*line).code == 0


def test_other_account_is_no_repeat(played: Played) -> None:
    assert start(played, "1-4", "--account", "retail").code == 0
    assert start(played, "1-4", "--account", "travel").code == 0
    assert start(played, "1-4", "--account", "retail").code == 5


def test_stop_is_never_left_out(played: Played) -> None:
    assert start(played, "1-4").code == 0
    for _ in range(2):
        result = run("direct", "stop", "1-4", "--yes", "--base-url", played.url)
        assert "launched before" not in result.out + result.err


def test_new_run_launches_the_rest(played: Played) -> None:
    assert start(played, "1-4", "--max-launches", 2, "--concurrency", 1).code == 1
    assert start(played, "1-4").code == 0
    assert played.sandbox.launches == dict.fromkeys(range(1, 5), 1)


def test_resume_leaves_out_unclear_repeats(played: Played) -> None:
    played.sandbox.order(Fault.silent(), times=2, path_contains="/1/")
    played.sandbox.order(Fault.silent(), times=100, path_contains="dispatchId=1")
    first = start(played, "1-3", "--concurrency", 1, "--timeout", 0.5, "--stop-after-failures", 1)
    assert first.code == 3
    assert start(played, "1-2", "--again", "--timeout", 0.5).code == 3
    resumed = run("resume", "--run", "20260131-090001-start-0a1b", "--yes")
    assert resumed.code == 0
    assert "2 that other runs launched, or launch now: 2 in run '20260131-090002-start-0a1b', the " in resumed.out
    assert "UTC (1, 2). To show run " in resumed.out
    assert "The outcome of 1 target that is left out is unclear in this run, too: look at " in resumed.out
    assert (resumed.out + resumed.err).count("left out  ") == (resumed.out + resumed.err).count("2 in run") == 1
    show = resumed.out.partition("To show run '20260131-090002-start-0a1b': ")[2].splitlines()[0]
    assert run(*shlex.split(show)[1:]).code == 0
    assert played.sandbox.launches[3] == 1


def test_resume_settles_its_own_targets(played: Played) -> None:
    played.sandbox.order(Fault.silent(), path_contains="/1/")
    first = start(played, "1-3", "--concurrency", 1, "--timeout", 0.5, "--stop-after-failures", 1)
    assert first.code == 3
    assert start(played, "3").code == 0
    resumed = run("resume", "--run", "20260131-090001-start-0a1b", "--yes")
    assert resumed.code == 0
    assert "2 of 2 dispatches" in resumed.out
    assert re.search(r"^Resume run '\S+': 2 of 3 dispatches are left: 1, 2$", resumed.out, re.MULTILINE)
    assert re.search(
        r"\n  left out  1 that other runs launched, or launch now: 1 in run .* UTC \(3\)\. To show", resumed.out
    )
    assert played.sandbox.launches == {1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize("line", ["resume", "again"])
def test_resume_launches_nothing_twice(played: Played, line: str) -> None:
    first = ("1-4", "--run", "a", "--concurrency", 1)
    assert start(played, *first, "--max-launches", 2).code == 1
    assert start(played, "1-4").code == 0
    before = run("ledger", "show", "a").out
    assert "state         over\n" in before
    assert "left out      2 that other runs launched, or launch now\n" in before
    assert "to resume" not in before
    for _ in range(2):
        resumed = run("resume", "--run", "a", "--yes") if line == "resume" else start(played, *first)
        assert (resumed.code, resumed.out) == (5, "")
        assert resumed.err.startswith(
            "Nothing is left to resume in run 'a'. 2 targets are left out: another run launched them, or launches them "
            "now: 2 in run '20260131-090001-start-0a1b', the latest at "
        )
        assert re.search(r" UTC \(3, 4\)\. To show run .*: dispatchkit ledger show", resumed.err)
    assert played.sandbox.launches == dict.fromkeys(range(1, 5), 1)


@pytest.mark.parametrize("line", ["resume", "again"])
def test_repeats_are_told_once(played: Played, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    first = ("1-4", "--run", "a", "--concurrency", 1)
    assert start(played, *first, "--max-launches", 2).code == 1
    assert start(played, "3").code == 0
    monkeypatch.setattr("dispatchkit.cli.input.question.is_asked", lambda: True)
    again = ("resume", "--run", "a") if line == "resume" else ("direct", "start", "--base-url", played.url, *first)
    resumed = run(*again, stdin="y\n")
    assert resumed.code == 0
    assert re.search(r"left out +1 that other runs launched, or launch now: 1 in run ", resumed.err)
    assert (resumed.out + resumed.err).count("left out") == 1


def test_later_repeats_are_told(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ("1-4", "--run", "a", "--concurrency", 1)
    assert start(played, *first, "--max-launches", 2).code == 1
    # The other run takes the target over after the question.
    monkeypatch.setattr("dispatchkit.cli.run.resume.find_taken_over", _nothing_taken_over)
    assert start(played, "3").code == 0
    resumed = run("resume", "--run", "a", "--yes")
    assert re.search(r"1 target is left out: another .* launches it now: 1 in run .* UTC \(3\)\. To show", resumed.out)


async def _nothing_taken_over(*_: object, **__: object) -> TakenOver:
    return TakenOver()


def test_views_leave_out_repeats(played: Played, tmp_path: Path) -> None:
    assert start(played, "1-4", "--run", "a", "--concurrency", 1, "--max-launches", 2).code == 1
    assert start(played, "3").code == 0
    report = tmp_path / "report.html"
    _newest, oldest = run("ledger", "list").out.splitlines()[1:]
    assert oldest.split()[:2] == ["a", "unfinished"]
    assert run("ledger", "report", "a", "-o", report).code == 0
    text = report.read_text()
    assert "<dd>1 that other runs launched, or launch now</dd>" in text
    assert "A resume launches 1 target:" in text
    assert "A resume of the run launches 1 of these, too." in run("ledger", "failures", "a", "--csv").err
    assert start(played, "4").code == 0
    assert " unfinished " in run("ledger", "list").out  # to look up each target takes too long for a list
    assert run("ledger", "report", "a", "-o", report, "--force").code == 0
    text = report.read_text()
    assert "<dd>over</dd>" in text
    assert "is not over" not in text
    assert "Nothing is left to do." in text
    assert run("ledger", "failures", "a", "--csv").err == ""


def test_rest_leaves_out_repeats(played: Played) -> None:
    first = ("1-4", "--run", "a", "--concurrency", 1)
    assert start(played, *first, "--max-launches", 2).code == 1
    assert start(played, "3").code == 0
    rest = start(played, *first)
    assert rest.code == 0
    assert "Start the rest of run 'a': 1 of 4 dispatches is left, of 1-4\n" in rest.out
    assert re.search(
        r"left out  1 that other runs launched, or launch now: 1 in run .* UTC \(3\)\. To show run", rest.out
    )
    assert played.sandbox.launches == dict.fromkeys(range(1, 5), 1)


@pytest.mark.parametrize("word", ["0h", "1", "soon"])
def test_window_is_a_time(played: Played, word: str) -> None:
    result = start(played, 1, "--repeat-window", word)
    assert (result.code, played.sandbox.requests) == (2, 0)
    assert "--repeat-window must be a time such as 90s, 15m or 1h, or always" in result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--repeat-window", "never"), "To launch repeats: --again"),
        (("--repeat-window", "1h", "--again"), "give either --again or --repeat-window, not both"),
    ],
)
def test_there_is_one_way(played: Played, options: tuple[str, ...], message: str) -> None:
    result = start(played, 1, *options)
    assert (result.code, played.sandbox.requests) == (2, 0)
    assert message in result.err


def test_shared_ledger_leaves_out_repeats(field: Field) -> None:
    line = ("direct", "start", "--yes", "--base-url", field.sandbox.url)
    assert run(*line, "1-4").code == 0
    assert "left out  2 launched before, 2 done in run " in run(*line, "3-9").out
    again = run(*line, "1-9")
    assert again.code == 5
    assert "5 done in run" in again.err
    plan = ("plan", "--run", "planned", "direct", "start", "--yes", "--base-url", field.sandbox.url)
    refused = run(*plan, "8-12")
    assert refused.code == 2
    all_the_same = refused.err.rpartition("as another run: ")[2]
    assert run(*shlex.split(all_the_same)[1:], "--yes").code == 0
    assert field.sandbox.launches == dict.fromkeys(range(1, 10), 1)

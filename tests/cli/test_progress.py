"""How a run is followed: the bar of a terminal, the lines of a log."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from rich.console import Console

from dispatchkit import DirectClient, Pace, Report
from dispatchkit.cli.output import progress
from dispatchkit.cli.output.bar import Bar
from dispatchkit.cli.output.outages import Outage
from dispatchkit.cli.output.progress import Lines, ProgressSnapshot
from dispatchkit.cli.output.reporter import Reporter
from dispatchkit.cli.run.drive import drive
from dispatchkit.core.pacing.pace import PaceStatistics
from dispatchkit.direct.commands import StartDispatch
from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, Terminal, run, run_child, start_child
from tests.cli.test_runs import counts
from tests.cli.test_terminal import plain

CALM = PaceStatistics(
    started=0, in_flight=0, concurrency_limit=64, waiting=0, paused_for=0.0, throttled=0, pauses=0, breaker="closed"
)
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class _Midnight:
    """A wall clock that stands still."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SYSTEM", _Midnight())


def snapshot(report: Report | None = None, in_flight: int = 0, **pace: Any) -> ProgressSnapshot:
    return ProgressSnapshot(report or Report(), in_flight, attrs.evolve(CALM, **pace))


@pytest.fixture
def hand() -> Hand:
    return Hand()


def bar(hand: Hand, screen: io.StringIO, **console: Any) -> Bar:
    wide = Console(force_terminal=True, file=screen, width=100, **console)
    return Bar(total=10_000, verb="start", console=wide, monotonic=hand)


def drawn(screen: io.StringIO, show: Callable[[], None]) -> str:
    """What one showing draws."""
    before = len(screen.getvalue())
    show()
    return plain(screen.getvalue()[before:])


def test_bar_shows_progress_and_outcomes(hand: Hand) -> None:
    screen = io.StringIO()
    shown = bar(hand, screen)
    shown.start()
    for second in range(11):
        hand.time = 100 + second
        shown.show(snapshot(Report(done=second * 100)))
    last = drawn(
        screen, lambda: shown.show(snapshot(Report(done=1000, rejected=3, not_sent=1, unknown=2), in_flight=64))
    )
    assert re.search(r"Start [━╸╺]+ 1,006/10,000 101/s 0:00:10 so far 0:01:\d\d left", last), last
    assert "1,000 done  3 rejected  1 not sent  2 unknown  64 in flight" in last
    for styled in ("32m1,000 done", "31m3 rejected", "33m1 not sent", "1;35m2 unknown"):
        assert f"\x1b[{styled}" in screen.getvalue()
    shown.stop()
    assert screen.getvalue().endswith("\x1b[2K")  # nothing of it stays


def test_rate_covers_half_a_minute(hand: Hand) -> None:
    screen = io.StringIO()
    shown = bar(hand, screen)
    shown.start()
    for second in range(100):
        hand.time = 100 + second
        shown.show(snapshot(Report(done=min(second, 50) * 20 + max(second - 50, 0) * 2)))
    assert "2.0/s" in drawn(screen, lambda: shown.show(snapshot(Report(done=1098))))


def test_bar_ignores_earlier_outcomes(hand: Hand) -> None:
    screen = io.StringIO()
    shown = bar(hand, screen)
    shown.start()
    assert "planning … 120,000" in drawn(screen, lambda: shown.show(attrs.evolve(snapshot(), planned=120_000)))
    for second in range(11):
        hand.time = 200 + second
        shown.show(attrs.evolve(snapshot(Report(done=5000 + second * 100, previously_finished=5000)), total=8000))
    last = drawn(
        screen, lambda: shown.show(attrs.evolve(snapshot(Report(done=6000, previously_finished=5000)), total=8000))
    )
    assert re.search(r"6,000/8,000 100/s 0:00:10 so far 0:00:20 left", last), last


def test_bar_explains_idle_run(hand: Hand) -> None:
    screen = io.StringIO()
    shown = bar(hand, screen)
    shown.start()
    paused = drawn(screen, lambda: shown.show(snapshot(paused_for=11.2)))
    assert "paused until 00:00:12 UTC (12 s): the provider asked for it" in paused
    opened = drawn(screen, lambda: shown.show(snapshot(paused_for=5.0, breaker="open")))
    assert "breaker open: the provider does not answer, next try in 5 s" in opened
    tried = drawn(screen, lambda: shown.show(snapshot(breaker="half-open")))
    assert "breaker half-open: one call tries whether the provider answers" in tried
    assert not re.search("paused|breaker", drawn(screen, lambda: shown.show(snapshot())))


@pytest.mark.parametrize(
    ("report", "color", "share"),
    [(Report(done=50), "32", ""), (Report(done=99, rejected=1), "33", "1.0% not done"),
     (Report(done=8, not_sent=1, unknown=1), "31", "20.0% not done")],
)  # fmt: skip
def test_bar_color_shows_failures(hand: Hand, report: Report, color: str, share: str) -> None:
    screen = io.StringIO()
    shown = Bar(total=report.total, verb="start", monotonic=hand, console=Console(
        force_terminal=True, file=screen, width=100, color_system="standard"
    ))  # fmt: skip
    shown.start()
    before = len(screen.getvalue())
    shown.show(snapshot(report))
    assert set(re.findall(r"\x1b\[(\d+)m━", screen.getvalue()[before:])) == {color}
    assert share in plain(screen.getvalue()[before:])


@pytest.mark.parametrize("columns", [80, 120])
def test_settling_and_outage_are_shown(hand: Hand, columns: int) -> None:
    screen = io.StringIO()
    console = Console(force_terminal=True, file=screen, width=columns)
    shown = Bar(total=10_000, verb="start", console=console, monotonic=hand)
    shown.start()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    seen = attrs.evolve(
        snapshot(Report(done=900, rejected=30, not_sent=4, unknown=2), in_flight=64, paused_for=5.0, breaker="open"),
        settling=12,
        believed_from=now + timedelta(seconds=70),
        outage=Outage(now - timedelta(seconds=200), 200),
    )
    last = drawn(screen, lambda: shown.show(seen))
    assert "settling 12, state believed from 00:01:10 UTC" in last
    assert "no answer since 23:56:40 UTC; 3 min 20 s lost" in last
    assert "breaker open: the provider does not answer, next try in 5 s" in last
    assert "3.8% not done" in last
    past = drawn(screen, lambda: shown.show(attrs.evolve(seen, believed_from=now)))
    assert "settling 12\n" in past


def test_no_color_is_kept(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = io.StringIO()
    shown = bar(hand, screen)
    shown.start()
    shown.show(snapshot(Report(done=1, rejected=1)))
    assert not re.search(r"\x1b\[(\d+;)*[39]\dm", screen.getvalue())
    assert "1 rejected" in screen.getvalue()


def test_lost_terminal_keeps_run(hand: Hand) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    shown = bar(hand, Gone())
    shown.start()
    shown.show(snapshot(Report(done=1)))
    shown.note("still here")
    shown.stop()


def test_log_line_every_ten_seconds(hand: Hand, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(total=10_000, monotonic=hand)
    for quarter in range(81):
        hand.time = 100 + quarter / 4
        lines.show(snapshot(Report(done=quarter * 25), in_flight=64))
    lines.show(snapshot(Report(done=2000, unknown=1)))
    assert capsys.readouterr().err == (
        "1,000 of 10,000 (10%): 1,000 done; 64 in flight; 100 a second; 1 min 30 s left\n"
        "2,000 of 10,000 (20%): 2,000 done; 64 in flight; 100 a second; 1 min 20 s left\n"
    )


def test_log_reports_pause_boundaries(hand: Hand, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(total=10, monotonic=hand)
    for seen in (
        snapshot(paused_for=0.4),  # too short to be told
        snapshot(),
        snapshot(paused_for=12.0),
        snapshot(paused_for=0.4),
        snapshot(),
        snapshot(paused_for=5.0, breaker="open"),
        snapshot(breaker="half-open"),
        snapshot(paused_for=5.0, breaker="open"),
        snapshot(),
    ):
        lines.show(seen)
    assert capsys.readouterr().err.splitlines() == [
        "Paused until 00:00:12 UTC (12 s): the provider asked for it.",
        "The pause is over.",
        "Breaker open: the provider does not answer, next try in 5 s.",
        "The breaker is closed: the provider answers again.",
    ]


def test_line_reports_pause(hand: Hand, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(total=10, monotonic=hand)
    hand.time += 10
    lines.show(snapshot(Report(done=3), in_flight=7, paused_for=0.5))
    assert capsys.readouterr().err == (
        "3 of 10 (30%): 3 done; 7 in flight; paused until 00:00:01 UTC (1 s): the provider asked for it\n"
    )


def test_quiet_log_has_notes_only(hand: Hand, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(total=10, monotonic=hand, quiet=True)
    hand.time += 100
    lines.show(snapshot(paused_for=5.0))
    lines.note("7: rejected")
    assert capsys.readouterr().err == "7: rejected\n"


@pytest.mark.second_stage
async def test_run_reports_provider_pause(
    played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dispatchkit.cli.run.drive.SNAPSHOT_INTERVAL", 0.01)
    monkeypatch.setattr(progress, "_SHORT_PAUSE", 0.1)
    played.sandbox.order(Fault.throttled(retry_after=0.4))
    show = Reporter(total=20, verb="start", noun=("dispatch", "dispatches"))
    async with DirectClient(played.sandbox.direct_token, base_url=played.url, pace=Pace()) as client:
        guards = {"concurrency": 4, "max_launches": None, "stop_after_failures": None, "give_up_after": None}
        commands = (StartDispatch(number) for number in range(1, 21))
        report, interrupted = await drive(client, commands, show, guards)  # type: ignore[arg-type]
    assert (report.done, interrupted) == (20, False)
    assert capsys.readouterr().err.splitlines() == [
        "Paused until 00:00:01 UTC (1 s): the provider asked for it.",
        "The pause is over.",
    ]
    assert len(asyncio.all_tasks()) == 1  # no task goes on looking


@pytest.mark.second_stage
def test_no_control_characters_without_terminal(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as many a CI sets it
    played.sandbox.latency = 0.1
    result = run_child(
        "direct", "start", "1996-2003", "--yes", "--no-ledger", "--concurrency", 2, "--base-url", played.url
    )
    assert result.code == 1
    assert len(result.err.splitlines()) == 3
    assert not CONTROL.search(result.err)


def test_progress_uses_standard_error(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    result = run(
        "direct", "start", "2000-2001", "--yes", "--no-ledger", "--json", "--base-url", played.url, "--concurrency", 1
    )
    assert "2 of 2 (100%): 1 done, 1 rejected; 0 in flight" in result.err
    assert all(line.startswith('{"index": ') for line in result.out.splitlines())
    command = (
        "direct",
        "start",
        "1998-2001",
        "--yes",
        "--no-ledger",
        "--quiet",
        "--base-url",
        played.url,
        "--max-launches",
        2,
    )
    assert run(*command).err == "Stopped after 2 launches (--max-launches 2); 2 targets were not started.\n"


def test_progress_counts_to_max_launches(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    result = run("direct", "start", "1-10", "--yes", "--base-url", played.url, "--max-launches", 5)
    assert "5 of 5 (100%): 5 done" in result.err


@pytest.mark.second_stage
def test_terminal_shows_pauses_and_counts(played: Played) -> None:
    played.sandbox.latency = 0.1
    played.sandbox.order(Fault.throttled(retry_after=0.6))
    command = Terminal("direct", "start", "1998-2003", "--yes", "--concurrency", 3, "--base-url", played.url)
    command.read_until("the provider asked for it")
    assert command.end() == 1
    assert re.search(
        r"\d in flight\n  paused until [0-9:]{8} UTC \(1 s\): the provider asked for it", plain(command.screen)
    )
    assert "3 done  3 rejected  0 in flight" in plain(command.screen)


@pytest.mark.parametrize("how", ["--quiet", "dumb"])
def test_bar_can_be_disabled(played: Played, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "dumb":
        monkeypatch.setenv("TTY_INTERACTIVE", "0")  # Rich's own switch for one that cannot move its cursor
    options = ("--quiet",) if how == "--quiet" else ()
    command = Terminal("direct", "start", "1-20", "--yes", *options, "--base-url", played.url)
    assert command.end() == 0
    assert "━" not in command.screen
    assert "in flight" not in command.screen
    assert "\x1b[?25l" not in command.screen  # nor is the cursor hidden


@pytest.mark.second_stage
def test_ctrl_c_restores_cursor(played: Played) -> None:
    played.sandbox.latency = 0.3
    command = Terminal("direct", "start", "1-1000", "--yes", "--concurrency", 8, "--base-url", played.url)
    played.wait_for_requests(8)
    command.interrupt()
    assert command.end() == 130
    assert command.screen.rindex("\x1b[?25h") > command.screen.rindex("\x1b[?25l")
    assert command.screen.rindex("\x1b[?25h") < command.screen.rindex("outcome")


def test_closed_log_keeps_run(played: Played) -> None:
    with start_child("direct", "start", "1991-2010", "--yes", "--base-url", played.url) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stderr.close()
        out = child.stdout.read()
        assert child.wait(20) == 1
    assert counts(out) == {"done": 10, "rejected": 10, "not sent": 0, "unknown": 0}

"""Progress of a run on standard error: a bar on a terminal, periodic lines in a log.

Both are shown a `ProgressSnapshot` a few times a second, and cost the outcomes themselves nothing. Rate and time left
are those of Rich, over the last half a minute.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import attrs
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from dispatchkit.cli.durations import in_words
from dispatchkit.cli.text import escape_control, ignore_broken_pipe, state_word, write
from dispatchkit.cli.translate import _
from dispatchkit.core.clock import SYSTEM
from dispatchkit.errors import State

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Task

    from dispatchkit import Report
    from dispatchkit.cli.output.outages import Outage
    from dispatchkit.core.pacing.pace import PaceStatistics

__all__ = ["SNAPSHOT_INTERVAL", "STYLES", "Bar", "Lines", "ProgressSnapshot"]

SNAPSHOT_INTERVAL = 0.2
"""Seconds between two looks at a run."""

_LINE_EVERY = 10.0
"""Seconds between two lines of progress in a log."""

_SHORT_PAUSE = 1.0
"""Seconds. A shorter pause is not worth two lines in a log."""

_ALL_WELL, _SOME_FAIL, _MANY_FAIL = "green", "yellow", "red"
_MANY = 0.1
"""Share of targets that are not done from which on the bar is red."""

STYLES = {State.DONE: "green", State.REJECTED: "red", State.NOT_SENT: "yellow", State.UNKNOWN: "bold magenta"}


@attrs.frozen
class ProgressSnapshot:
    """A run at one moment."""

    report: Report
    in_flight: int
    pace: PaceStatistics
    total: int | None = None
    """The total of commands where only the ledger knows it. An earlier process may have performed many."""
    planned: int | None = None
    """How many commands are planned so far, as long as more may follow."""
    settling: int = 0
    """The number of calls with an unclear attempt."""
    believed_from: datetime | None = None
    """See `Snapshot.believed_from`."""
    outage: Outage | None = None
    """The time without an answer that goes on now."""

    @property
    def hindrances(self) -> Iterator[str]:
        """What keeps the run from going on at full speed: each is a line under the bar."""
        if self.settling:
            yield _("settling {count:,}{believed}").format(count=self.settling, believed=_believed(self.believed_from))
        if self.outage is not None:
            yield str(self.outage)
        if self.hindrance:
            yield self.hindrance

    @property
    def hindrance(self) -> str:
        """The reason why nothing is started at the moment, if there is one."""
        seconds = math.ceil(self.pace.paused_for)
        if self.pace.breaker == "open":
            return _("breaker open: the provider does not answer, next try in {time}").format(time=in_words(seconds))
        if self.pace.breaker == "half-open":
            return _("breaker half-open: one call tries whether the provider answers")
        if not seconds:
            return ""
        until = SYSTEM.now() + timedelta(seconds=seconds)
        text = _("paused until {until:%H:%M:%S} UTC ({time}): the provider asked for it")
        return text.format(until=until, time=in_words(seconds))

    def counts(self) -> Iterator[tuple[State, int]]:
        """The outcomes that there are, and done in any case."""
        for state in State:
            count: int = getattr(self.report, state.value)
            if count or state is State.DONE:
                yield state, count


def _believed(since: datetime | None) -> str:
    if since is None or since <= SYSTEM.now():
        return ""
    return _(", state believed from {time:%H:%M:%S} UTC").format(time=since)


class _Display(Progress):
    """A bar, and what is told under it."""

    below = Text()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield self.below


class _Elapsed(TimeElapsedColumn):
    """The time since the start, with its name."""

    def render(self, task: Task) -> Text:
        return super().render(task).append(_(" so far"))


class _Left(TimeRemainingColumn):
    """The time to the end, with its name."""

    def render(self, task: Task) -> Text:
        return super().render(task).append(_(" left"))


class Bar:
    """A bar with counts, on a terminal. It is gone when the run is over.

    Args:
        total: How many commands there will be.
        verb: What they do.
        console: The terminal.
        monotonic: The clock.
    """

    def __init__(self, *, total: int, verb: str, console: Console, monotonic: Callable[[], float]) -> None:
        self._console = console
        self._column = BarColumn(bar_width=None, complete_style=_ALL_WELL, finished_style=_ALL_WELL)
        self._display = _Display(
            TextColumn(_(verb).capitalize(), markup=False),
            self._column,
            TextColumn("{task.completed:,}/{task.total:,}", markup=False),
            TextColumn("{task.fields[rate]}", markup=False),
            _Elapsed(),
            _Left(),
            console=console,
            transient=True,
            expand=True,
            # The bar is drawn for each new snapshot. A refresh thread would take time from the run.
            auto_refresh=False,
            # Standard output may be a file: the bar must not draw it onto the terminal.
            redirect_stdout=False,
            redirect_stderr=False,
            get_time=monotonic,
        )
        self._begun = False
        self._task = self._display.add_task("", total=total, rate="")

    def start(self) -> None:
        """Show it."""
        with ignore_broken_pipe(sys.stderr):  # here and below: the terminal may be gone, and the run goes on
            self._display.start()

    def stop(self) -> None:
        """Take it away."""
        with ignore_broken_pipe(sys.stderr):
            self._display.stop()

    def show(self, snapshot: ProgressSnapshot) -> None:
        """Draw it again."""
        if snapshot.total is not None and not self._begun:
            self._begun = True
            with ignore_broken_pipe(sys.stderr):
                # Outcomes of earlier processes do not count for the pace.
                self._display.reset(self._task, total=snapshot.total, completed=snapshot.report.previously_finished)
        if snapshot.planned is not None:
            self._display.below = Text(_planned(snapshot.planned))
            with ignore_broken_pipe(sys.stderr):
                self._display.refresh()
            return
        below = Text("  ", no_wrap=True, overflow="ellipsis")
        for state, count in snapshot.counts():
            below.append(f"{count:,} {state_word(state.value)}  ", style=STYLES[state])
        below.append(_("{count:,} in flight").format(count=snapshot.in_flight))
        below.append(_share(snapshot.report))
        for hindrance in snapshot.hindrances:
            below.append(f"\n  {hindrance}", style="bold yellow")
        # Not by colour alone: the counts name what the colour shows.
        self._column.complete_style = self._column.finished_style = _style(snapshot.report)
        self._display.below = below
        self._display.update(self._task, completed=snapshot.report.total)
        self._display.update(self._task, rate=_rate(self._display.tasks[0].speed, _("{rate}/s")))
        with ignore_broken_pipe(sys.stderr):
            self._display.refresh()

    def extend(self, total: int) -> None:
        """Take note of more commands."""
        self._display.update(self._task, total=total)

    def note(self, text: str) -> None:
        """Say something above it."""
        with ignore_broken_pipe(sys.stderr):
            self._console.print(Text(escape_control(text)), highlight=False)


class Lines:
    """Plain lines on standard error: one now and then, one where a pause begins or ends, no control characters.

    Args:
        total: How many commands there will be.
        monotonic: The clock.
        quiet: Only what is noted.
    """

    def __init__(self, *, total: int, monotonic: Callable[[], float], quiet: bool = False) -> None:
        self._begun = False
        self._total = total
        self._monotonic = monotonic
        self._quiet = quiet
        self._shown_at = monotonic()
        self._hindered = ""
        # It is never drawn: it only knows the rate and the time left.
        self._progress = Progress(get_time=monotonic)
        self._task = self._progress.add_task("", total=total)

    def start(self) -> None:
        """Nothing to do: lines come when they are due."""

    def stop(self) -> None:
        """Nothing to do."""

    def show(self, snapshot: ProgressSnapshot) -> None:
        """Write a line, if one is due."""
        if self._quiet:
            return
        if snapshot.total is not None and not self._begun:
            self._begun = True
            self._total = snapshot.total
            self._progress.reset(self._task, total=snapshot.total, completed=snapshot.report.previously_finished)
        self._progress.update(self._task, completed=snapshot.report.total)
        self._tell_of_pauses(snapshot)
        if self._monotonic() - self._shown_at >= _LINE_EVERY:
            self._shown_at = self._monotonic()
            self.note(self._line(snapshot) if snapshot.planned is None else _planned(snapshot.planned))

    def extend(self, total: int) -> None:
        """Take note of more commands."""
        self._total = total
        self._progress.update(self._task, total=total)

    def note(self, text: str) -> None:
        """Write a line."""
        write(sys.stderr, f"{escape_control(text)}\n")

    def _tell_of_pauses(self, snapshot: ProgressSnapshot) -> None:
        least = 0.0 if self._hindered else _SHORT_PAUSE
        hindered = "pause" if snapshot.pace.paused_for > least else ""
        if snapshot.pace.breaker != "closed":
            hindered = "breaker"
        if hindered == self._hindered:
            return
        if hindered:
            self.note(f"{snapshot.hindrance[0].upper()}{snapshot.hindrance[1:]}.")
        else:
            self.note(
                _("The pause is over.")
                if self._hindered == "pause"
                else _("The breaker is closed: the provider answers again.")
            )
        self._hindered = hindered

    def _line(self, snapshot: ProgressSnapshot) -> str:
        task = self._progress.tasks[0]
        counts = ", ".join(f"{count:,} {state_word(state.value)}" for state, count in snapshot.counts())
        parts = [
            _("{done:,} of {total:,} ({percentage:.0f}%): {counts}").format(
                done=snapshot.report.total, total=self._total, percentage=task.percentage, counts=counts
            ),
            _("{count:,} in flight").format(count=snapshot.in_flight),
            _rate(task.speed, _("{rate} a second")),
            "" if task.time_remaining is None else _("{time} left").format(time=in_words(task.time_remaining)),
            *snapshot.hindrances,
        ]
        return "; ".join(filter(None, parts))


def _planned(count: int) -> str:
    return _("planning … {count:,}").format(count=count)


def _failed(report: Report) -> float:
    """The share of outcomes that are not done."""
    return 1 - report.done / report.total if report.total else 0.0


def _style(report: Report) -> str:
    failed = _failed(report)
    return _MANY_FAIL if failed >= _MANY else _SOME_FAIL if failed else _ALL_WELL


def _share(report: Report) -> str:
    failed = _failed(report)
    return "  " + _("{share:.1%} not done").format(share=failed) if failed else ""


def _rate(speed: float | None, form: str) -> str:
    if speed is None:
        return ""
    return form.format(rate=f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}")

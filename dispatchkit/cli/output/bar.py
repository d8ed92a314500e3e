"""The bar of a run on a terminal. It is drawn with Rich, whose rate and time left are over the last half a minute."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from dispatchkit.cli.output.progress import STYLES, ProgressSnapshot, planned, rate
from dispatchkit.cli.text import escape_control, ignore_broken_pipe, state_word
from dispatchkit.cli.translate import _

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Task

    from dispatchkit import Report

__all__ = ["Bar"]

_ALL_WELL, _SOME_FAIL, _MANY_FAIL = "green", "yellow", "red"
_MANY = 0.1
"""Share of targets that are not done from which on the bar is red."""


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
            self._display.below = Text(planned(snapshot.planned))
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
        self._display.update(self._task, rate=rate(self._display.tasks[0].speed, _("{rate}/s")))
        with ignore_broken_pipe(sys.stderr):
            self._display.refresh()

    def extend(self, total: int) -> None:
        """Take note of more commands."""
        self._display.update(self._task, total=total)

    def note(self, text: str) -> None:
        """Say something above it."""
        with ignore_broken_pipe(sys.stderr):
            self._console.print(Text(escape_control(text)), highlight=False)


def _failed(report: Report) -> float:
    """The share of outcomes that are not done."""
    return 1 - report.done / report.total if report.total else 0.0


def _style(report: Report) -> str:
    failed = _failed(report)
    return _MANY_FAIL if failed >= _MANY else _SOME_FAIL if failed else _ALL_WELL


def _share(report: Report) -> str:
    failed = _failed(report)
    return "  " + _("{share:.1%} not done").format(share=failed) if failed else ""

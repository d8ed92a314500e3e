"""What a run shows: a bar or lines while it goes on, failures as they come, JSON, and the summary."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from dispatchkit.cli.text import as_json, clean, one_line, put
from dispatchkit.errors import DispatchkitError, State
from dispatchkit.fanout import Report

if TYPE_CHECKING:
    from types import TracebackType

    from dispatchkit.fanout import Outcome

__all__ = ["Show", "exit_status"]

_DETAILED = 20
"""How many failures are told one by one."""

_LINE_EVERY = 5.0
"""Seconds between two lines of progress where there is no terminal."""

_BAR_EVERY = 0.1

_STYLES = {State.DONE: "green", State.REJECTED: "red", State.NOT_SENT: "yellow", State.UNKNOWN: "bold magenta"}


def exit_status(report: Report, not_started: int, *, interrupted: bool) -> int:
    """The exit status of a run: the most serious thing that happened."""
    if interrupted:
        return 130
    if report.unknown:
        return 3
    return 1 if report.rejected or report.not_sent or not_started else 0


class Show:
    """Shows a run: outcomes as they come, then the summary.

    Args:
        total: How many commands there are.
        verb: What they do.
        noun: To what: the word for one, and for many.
        json: One JSON object an outcome on standard output, and everything else on standard error.
    """

    def __init__(self, *, total: int, verb: str, noun: tuple[str, str], json: bool) -> None:
        self._total = total
        self._json = json
        self._noun = noun[total != 1]
        self._began = time.monotonic()
        self._shown_at = self._began
        self._report = Report()
        self._failures = 0
        self._hints = Counter[type[DispatchkitError]]()
        self._bar: Progress | None = None
        console = Console(stderr=True)
        # Objects on the same terminal would run through the bar.
        if console.is_terminal and not (json and sys.stdout.isatty()):
            self._bar = Progress(
                TextColumn(f"{verb.capitalize()}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[failed]}", markup=False),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                # Standard output may be a file: the bar must not draw it onto the terminal.
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._bar.add_task("", total=total, failed="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def outcome(self, outcome: Outcome[object]) -> bool:
        """Show an outcome. Returns whether it could be written where it was asked for."""
        self._report = self._report.count(outcome.state)
        written = put(sys.stdout, f"{as_json(outcome)}\n") if self._json else True
        if outcome.error is not None:
            self._failure(outcome, outcome.error)
        self._progress()
        return written

    def note(self, text: str) -> None:
        """Say something in between, on standard error."""
        if self._bar is None:
            put(sys.stderr, f"{clean(text)}\n")
        else:
            self._bar.console.print(Text(clean(text)), highlight=False)

    def summary(self, *, interrupted: bool) -> int:
        """Show what came of it all, and return the exit status."""
        took = time.monotonic() - self._began
        report, not_started = self._report, self._total - self._report.total
        stream = sys.stderr if self._json else sys.stdout
        console = Console(file=stream)
        with console.capture() as captured:
            console.print(_table(report, not_started), highlight=False)
            rate = f", {report.total / took:,.0f} a second" if took > 0 else ""
            console.print(
                Text(f"{report.total:,} of {self._total:,} {self._noun} in {took:,.2f} s{rate}."), highlight=False
            )
            for kind, count in self._hints.most_common():
                console.print(Text(f"{count:,} {kind.__name__}: {kind.hint}"), highlight=False)
        put(stream, captured.get())
        return exit_status(report, not_started, interrupted=interrupted)

    def _failure(self, outcome: Outcome[object], error: DispatchkitError) -> None:
        self._failures += 1
        self._hints[type(error)] += 1
        if self._failures <= _DETAILED:
            self.note(one_line(outcome))
        elif self._failures == _DETAILED + 1:
            self.note("Further failures are only counted" + (" here." if self._json else ": --json tells every one."))

    def _progress(self) -> None:
        now = time.monotonic()
        report = self._report
        if self._bar is not None:
            if now - self._shown_at >= _BAR_EVERY or report.total == self._total:
                self._shown_at = now
                failed = f"{self._failures:,} failed" if self._failures else ""
                self._bar.update(self._task, completed=report.total, failed=failed)
        elif now - self._shown_at >= _LINE_EVERY:
            self._shown_at = now
            rate = report.total / (now - self._began)
            self.note(f"{report.total:,} of {self._total:,}, {self._failures:,} failed, {rate:,.0f} a second")


def _table(report: Report, not_started: int) -> Table:
    table = Table("outcome", box=None, pad_edge=False)
    table.add_column("count", justify="right")
    for state, style in _STYLES.items():
        count: int = getattr(report, state.value)
        table.add_row(state.value.replace("_", " "), f"{count:,}", style=style if count else "dim")
    if not_started:
        table.add_row("not started", f"{not_started:,}")
    return table

"""A watch on standard output: a table on a terminal, a line a change elsewhere, or JSON Lines."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import nullcontext
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from dispatchkit.cli.fitted import fitted
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.option_names import as_options
from dispatchkit.cli.output.tables import PlainTable
from dispatchkit.cli.text import counted, escape_control, utc, write
from dispatchkit.cli.translate import N_, _
from dispatchkit.core.fanout.polling import TargetProgress, WatchEnd
from dispatchkit.errors import DispatchkitError
from dispatchkit.values import as_json

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from dispatchkit.cli.invocation import Invocation

__all__ = ["WATCH_ENDED", "WatchForm", "describe_state", "show_once", "show_watch", "unread_note"]

P = TypeVar("P", bound=TargetProgress)

WATCH_ENDED = 6
"""The exit status of a watch that ended before all was final: the deadline passed, or a target stalled."""

_INTERRUPTED = 130
"""The exit status after Ctrl-C."""
_MAX_ROWS = 20
_NAMED = 10
"""Targets that a message names."""
_FRAME = 3
"""Lines of a terminal that a table leaves free."""
_SUMMARY_INTERVAL = 1.0
"""Seconds between two summaries of many targets."""
_EARLY = frozenset({WatchEnd.STALLED, WatchEnd.TIMED_OUT})


def unread_note(progress: TargetProgress) -> str | None:
    """Why a target could not be read, unless its state says it."""
    if progress.unread is None or progress.end is WatchEnd.UNKNOWN_TARGET:
        return None
    return as_options(progress.unread)


@attrs.frozen(kw_only=True)
class WatchForm(Generic[P]):
    """How the progress of a target is shown."""

    noun: tuple[str, str]
    names: Sequence[str]
    """The columns, without those of the target and of its state, in English: catalogues have them."""
    cells: Callable[[P], Sequence[object]]
    """The cells of these columns."""
    state: Callable[[P], str | None]
    """The target's state in a word or two; None if it was never read."""
    note: Callable[[P], str | None] = unread_note
    """What else there is to say."""
    optional: Sequence[str] = ()
    flexible: Sequence[str] = ()

    def table(self, rows: Iterable[P], *, width: int | None = None) -> str:
        """The rows as a table."""
        rows = [*rows]
        has_notes = any(self.note(row) for row in rows)
        names = [self.noun[0], N_("state"), *self.names, *((N_("note"),) if has_notes else ())]
        flexible = [*(("note",) if has_notes else ()), *self.flexible, "state"]
        table = PlainTable(names, optional=self.optional, flexible=flexible, width=width)
        cells = [
            [row.target, describe_state(row, self.state(row)), *self.cells(row), *((self.note(row),) * has_notes)]
            for row in rows
        ]
        return table.lines([table.header, *cells])

    def line(self, row: P) -> str:
        """A change in one line."""
        cells = zip(self.names, self.cells(row), strict=True)
        counts = [f"{_(name)} {value}" for name, value in cells if type(value) is int and value]
        note = self.note(row)
        texts = [describe_state(row, self.state(row)), *counts, *(() if note is None else (note,))]
        return escape_control(f"{utc(row.at)} UTC  {row.target}: {', '.join(texts)}")


def describe_state(progress: TargetProgress, state: str | None) -> str:
    """The state of a target and, if its watch ended for another reason, that."""
    if progress.end is None or progress.end is WatchEnd.FINAL:
        return state or _("not read")
    end = _(progress.end.text)
    return end if state is None else f"{state}, {end}"


class _Screen(Generic[P]):
    """Shows changes as they come, and counts the ends."""

    def __init__(self, form: WatchForm[P], total: int, *, json: bool) -> None:
        self._form = form
        self._json = json
        self._total = total
        self._rows: dict[int, P] = {}
        self._states: dict[int, str] = {}
        self._shown_at = time.monotonic()
        self._is_read = False
        """Whether a summary of all targets was shown."""
        console = Console(file=sys.stdout)
        is_terminal = not json and console.is_interactive and sys.stdout.isatty()
        fits = total <= min(_MAX_ROWS, get_terminal_size().lines - _FRAME)
        self.live: Live | None = None
        if is_terminal and fits:
            self.live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._sums_up = is_terminal and not fits
        self.ends: Counter[WatchEnd] = Counter()
        self.unwell = 0
        self._named: list[str] = []

    def add(self, progress: P) -> bool:
        """Show a change. Returns whether the output still has a reader."""
        self._states[progress.target] = describe_state(progress, self._form.state(progress))
        if progress.end is not None:
            self.ends[progress.end] += 1
            if not progress.is_well:
                self.unwell += 1
                if len(self._named) < _NAMED:
                    self._named.append(f"{progress.target} ({self._states[progress.target]})")
        if self._json:
            return write(sys.stdout, f"{as_json(progress)}\n")
        if self.live is not None:
            self._rows[progress.target] = progress
            rows = (self._rows[target] for target in sorted(self._rows))
            table = self._form.table(rows, width=get_terminal_size().columns)
            self.live.update(Text(table.rstrip("\n"), no_wrap=True), refresh=True)
            return True
        if not self._sums_up:
            return write(sys.stdout, f"{self._form.line(progress)}\n")
        is_first = not self._is_read and len(self._states) == self._total
        if not is_first and time.monotonic() - self._shown_at < _SUMMARY_INTERVAL:
            return True
        self._shown_at, self._is_read = time.monotonic(), self._is_read or is_first
        return write(sys.stdout, f"{utc(progress.at)} UTC  {self.summary}\n")

    @property
    def unnamed(self) -> str:
        """The first targets that did not end well, if no line and no table showed them."""
        if not (self._sums_up and self._named):
            return ""
        more = (
            _(", and {count:,} more").format(count=self.unwell - len(self._named))
            if self.unwell > len(self._named)
            else ""
        )
        return escape_control(_("Not well: {names}{more}.").format(names=", ".join(self._named), more=more)) + "\n"

    @property
    def summary(self) -> str:
        """How many targets there are, and how many of each state."""
        states = Counter(self._states.values())
        if unread := self._total - len(self._states):
            states[_("not read")] += unread
        return escape_control(
            f"{counted(self._total, *self._form.noun)}: "
            f"{'; '.join(f'{count:,} {state}' for state, count in states.most_common())}."
        )


def show_watch(
    opened: AbstractAsyncContextManager[object],
    start: Callable[[], AsyncIterator[P]],
    form: WatchForm[P],
    *,
    total: int,
    json: bool,
    invocation: Invocation,
) -> None:
    """Watch until all targets have an end, and say how they ended.

    Args:
        opened: The client, which is open for the time of the watch.
        start: Starts the watch.
        form: How changes are shown.
        total: How many targets there are.
        json: Whether to write JSON Lines.
        invocation: The command line, which watches on.

    Raises:
        typer.Exit: Status 6: a target stalled, or the deadline passed. Status 1: a target did not end well, or could
            not be read. Status 130: Ctrl-C.
    """
    screen = _Screen(form, total, json=json)

    async def watching() -> None:
        async with opened:
            async for progress in start():
                if not screen.add(progress):
                    return

    def sum_up(*, goes_on: bool) -> None:
        again = _(" To watch on: {line}").format(line=invocation.again()) if goes_on else ""
        write(sys.stderr, fitted(sys.stderr, f"{screen.unnamed}{screen.summary}{again}\n"))

    try:
        with screen.live or nullcontext():
            _read(watching())
    except typer.Exit as interrupted:
        if interrupted.exit_code == _INTERRUPTED:
            sum_up(goes_on=True)
        raise
    ended_early = any(screen.ends[end] for end in _EARLY)
    sum_up(goes_on=ended_early)
    if ended_early:
        raise typer.Exit(WATCH_ENDED)
    if screen.unwell:
        raise typer.Exit(1)


def show_once(
    opened: AbstractAsyncContextManager[object],
    start: Callable[[], AsyncIterator[P]],
    form: WatchForm[P],
    *,
    total: int,
    json: bool,
) -> list[P]:
    """Show the first round of a watch, in the order of the ids. Returns it.

    Raises:
        typer.Exit: With status 1, if the provider could not be read; 130 after Ctrl-C.
    """
    found: dict[int, P] = {}

    async def looking() -> None:
        async with opened:
            async for progress in start():
                found[progress.target] = progress
                if len(found) == total:
                    return

    _read(looking())
    rows = [found[target] for target in sorted(found)]
    write(sys.stdout, "".join(f"{as_json(row)}\n" for row in rows) if json else form.table(rows))
    return rows


def _read(watching: Coroutine[object, object, None]) -> None:
    try:
        run_loop(watching)
    except KeyboardInterrupt:  # it only looked
        raise typer.Exit(_INTERRUPTED) from None
    except DispatchkitError as error:
        why, hint = as_options(escape_control(error.summary)), as_options(error.hint)
        text = _("the provider could not be read: {why}").format(why=why)
        write(sys.stderr, f"dispatchkit: {text}\n{hint}\n")
        raise typer.Exit(1) from None

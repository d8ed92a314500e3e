"""Progress of a run on standard error: periodic lines in a log. `Bar` is for a terminal.

Both are shown a `ProgressSnapshot` a few times a second, and cost the outcomes themselves nothing. This module does not
import Rich, since a run without a terminal does not need it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import attrs

from dispatchkit.cli.durations import in_words
from dispatchkit.cli.output.speed import Speed
from dispatchkit.cli.text import escape_control, state_word, write
from dispatchkit.cli.translate import _
from dispatchkit.core.clock import SYSTEM
from dispatchkit.errors import State

if TYPE_CHECKING:
    from dispatchkit import Report
    from dispatchkit.cli.output.outages import Outage
    from dispatchkit.core.pacing.pace import PaceStatistics

__all__ = ["SNAPSHOT_INTERVAL", "STYLES", "Lines", "ProgressSnapshot", "planned", "rate"]

SNAPSHOT_INTERVAL = 0.2
"""Seconds between two looks at a run."""

_LINE_EVERY = 10.0
"""Seconds between two lines of progress in a log."""

_SHORT_PAUSE = 1.0
"""Seconds. A shorter pause is not worth two lines in a log."""

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
        self._speed = Speed(monotonic)

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
            self._speed.reset(completed=snapshot.report.previously_finished)
        self._speed.update(snapshot.report.total)
        self._tell_of_pauses(snapshot)
        if self._monotonic() - self._shown_at >= _LINE_EVERY:
            self._shown_at = self._monotonic()
            self.note(self._line(snapshot) if snapshot.planned is None else planned(snapshot.planned))

    def extend(self, total: int) -> None:
        """Take note of more commands."""
        if total != self._total:
            self._total = total
            self._speed.reset(completed=self._speed.completed)

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
        done, speed = snapshot.report.total, self._speed.value
        left = self._speed.seconds_for(self._total - done)
        counts = ", ".join(f"{count:,} {state_word(state.value)}" for state, count in snapshot.counts())
        parts = [
            _("{done:,} of {total:,} ({percentage:.0f}%): {counts}").format(
                done=done, total=self._total, percentage=_percentage(done, self._total), counts=counts
            ),
            _("{count:,} in flight").format(count=snapshot.in_flight),
            rate(speed, _("{rate} a second")),
            "" if left is None else _("{time} left").format(time=in_words(left)),
            *snapshot.hindrances,
        ]
        return "; ".join(filter(None, parts))


def _percentage(done: int, total: int) -> float:
    return min(100.0, done / total * 100) if total else 0.0


def planned(count: int) -> str:
    """The line of a run that is being planned."""
    return _("planning … {count:,}").format(count=count)


def rate(speed: float | None, form: str) -> str:
    """A rate in the words of ``form``; empty without one."""
    if speed is None:
        return ""
    return form.format(rate=f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}")

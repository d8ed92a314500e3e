"""Watch a run of a ledger, whichever process performs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime

import attrs

from dispatchkit.core.clock import Clock
from dispatchkit.core.fanout.outcome import Report
from dispatchkit.core.fanout.snapshot import RateMeter, Snapshot, time_left
from dispatchkit.ledger.run import Counts, Run

__all__ = ["RunStatus", "run_is_over", "watch_run"]

_SHARE = 0.2
"""The most of its time that a watcher reads: to count half a million targets costs the database something."""


@attrs.frozen
class RunStatus:
    """What one look at the tables tells of a run."""

    run: Run
    counts: Counts
    is_held: bool
    """Whether a process holds a part of the run."""
    paused_until: datetime | None = None
    """Until when the account is paused; None without a pause."""
    knows_pauses: bool = False
    """Whether the ledger has the pauses of its accounts."""


def run_is_over(run: Run, counts: Counts, *, is_held: bool) -> bool:
    """Whether nothing more happens in a run unless it is resumed."""
    if is_held:
        return False
    return run.stopped or (run.plan_complete and not counts.planned and not counts.sending)


async def watch_run(look: Callable[[], Awaitable[RunStatus]], every: float, clock: Clock) -> AsyncIterator[Snapshot]:
    """A snapshot now, one after each ``every`` seconds, and the last one once the run is over.

    Args:
        look: Reads the tables.
        every: Seconds between two snapshots. They are longer if a look takes more than a fifth of them.
        clock: The clock.
    """
    meter = RateMeter()
    while True:
        began = clock.monotonic()
        status = await look()
        snapshot = _snapshot(status, meter, clock)
        elapsed = clock.monotonic() - began
        yield snapshot
        if snapshot.is_over:
            return
        await clock.sleep(max(every, elapsed / _SHARE))


def _snapshot(status: RunStatus, meter: RateMeter, clock: Clock) -> Snapshot:
    counts = status.counts
    left = counts.planned + counts.sending if status.run.plan_complete else None
    report = Report(counts.done, counts.rejected, counts.not_sent, counts.unknown, left)
    rate = meter.rate(clock.monotonic(), report.total)
    is_over = run_is_over(status.run, counts, is_held=status.is_held)
    paused_for: float | None = None
    if status.knows_pauses:
        until = status.paused_until
        paused_for = 0.0 if until is None else max(0.0, (until - clock.now()).total_seconds())
    return Snapshot(
        report,
        rate=rate,
        in_flight=counts.sending if status.is_held else 0,
        paused_for=paused_for,
        time_left=0.0 if is_over else time_left(left, rate, paused_for) if status.is_held else None,
        is_over=is_over,
    )

"""`Snapshot`: a run at one moment, as `FanOut.watch` and `Ledger.watch` yield it."""

from __future__ import annotations

from collections import deque
from datetime import datetime

import attrs

from dispatchkit.core.fanout.outcome import Report
from dispatchkit.values import Value

__all__ = ["RateMeter", "Snapshot", "time_left"]

WINDOW = 30.0
"""Seconds over which the rate is measured."""


@attrs.frozen
class Snapshot(Value):
    """A run at one moment.

    >>> snapshot = Snapshot(Report(done=300, not_started=700), rate=100.0, in_flight=64, settling=0, time_left=7.0)
    >>> snapshot.to_dict(flat=True)["report_done"]
    300
    """

    report: Report
    """The outcomes so far, counted."""
    rate: float | None
    """Outcomes a second, over the last 30 s at most; None at the first sample."""
    in_flight: int
    """Calls that are under way, waits and retries included."""
    settling: int | None = None
    """Calls of these with an unclear attempt, which is settled now. None where another process performs the run."""
    paused_for: float | None = 0.0
    """Seconds until the account's pause ends; 0 without a pause. None where only the process of the run knows it."""
    time_left: float | None = None
    """Estimated seconds to the end: the pause, and what is left at this rate. None if it cannot be estimated."""
    believed_from: datetime | None = None
    """UTC: the earliest time from which on a state that denies one of these attempts is believed.

    It is `RetryPolicy.state_lag` after the latest moment at which the attempt can act. None if nothing is settled, or
    if another process performs the run."""
    is_over: bool = False
    """Whether the run is over: nothing is under way, and nothing starts any more."""


class RateMeter:
    """Measures the rate of a growing count, for one watcher."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def rate(self, now: float, count: int) -> float | None:
        """The rate a second over `WINDOW`; None at the first sample.

        Args:
            now: A monotonic clock in seconds.
            count: The count now.
        """
        samples = self._samples
        samples.append((now, count))
        while len(samples) > 2 and samples[1][0] <= now - WINDOW:
            samples.popleft()
        elapsed = now - samples[0][0]
        return max(0, count - samples[0][1]) / elapsed if elapsed > 0 else None


def time_left(left: int | None, rate: float | None, paused_for: float | None) -> float | None:
    """The estimated seconds to the end of a run that is not over.

    Args:
        left: The commands without an outcome; None if their number is not known.
        rate: Outcomes a second; None if it is not known.
        paused_for: Seconds until the account's pause ends, if it is known.
    """
    if left is None or not (rate or left == 0):
        return None
    return (paused_for or 0.0) + (left / rate if rate else 0.0)

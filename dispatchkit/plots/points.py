"""A series on a regular grid of time, with a bounded number of points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from dispatchkit.ledger.series import BUCKET_SECONDS, LATENCY_BOUNDS, Bucket

__all__ = ["MAX_POINTS", "regular"]

MAX_POINTS = 300
"""Maximum points of a chart."""
_STEPS = (10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds of a bucket, from fine to coarse; beyond them, whole days."""


def regular(buckets: Sequence[Bucket], *, until: datetime | None = None, max_points: int = MAX_POINTS) -> list[Bucket]:
    """The same outcomes in buckets of equal length without gaps, wide enough for so many of them.

    Args:
        buckets: In any order, such as those of `Ledger.series`.
        until: The end, for a run that still goes on; None ends with the last bucket. An earlier one changes nothing.
        max_points: The number of buckets.

    Example:
        >>> start = datetime(2026, 1, 31, 9, tzinfo=UTC)
        >>> later = Bucket(start + timedelta(seconds=50), done=2)
        >>> [bucket.done for bucket in regular([Bucket(start, done=1), later], max_points=3)]
        [1, 0, 2]
    """
    if not buckets:
        return []
    first = min(bucket.start.timestamp() for bucket in buckets)
    end = max(bucket.start.timestamp() + bucket.seconds for bucket in buckets)
    if until is not None:
        end = max(end, until.timestamp())
    step = _step(first, end, max(2, max_points), max(BUCKET_SECONDS, *(bucket.seconds for bucket in buckets)))
    origin = first // step * step
    sums = [([0] * 4, [0] * (len(LATENCY_BOUNDS) + 1)) for _ in range(max(1, math.ceil((end - origin) / step)))]
    for bucket in buckets:
        states, latency = sums[int((bucket.start.timestamp() - origin) // step)]
        for place, count in enumerate((bucket.done, bucket.rejected, bucket.not_sent, bucket.unknown)):
            states[place] += count
        for place, count in enumerate(bucket.latency):
            latency[place] += count
    begin = datetime.fromtimestamp(origin, UTC)
    return [
        Bucket(begin + timedelta(seconds=place * step), step, done, rejected, not_sent, unknown, tuple(latency))
        for place, ((done, rejected, not_sent, unknown), latency) in enumerate(sums)
    ]


def _step(first: float, end: float, points: int, least: float) -> float:
    """The shortest step that covers the time with so many points. A grid begins at a multiple of its step."""
    for step in _STEPS:
        if step >= least and math.ceil((end - first // step * step) / step) <= points:
            return step
    day = _STEPS[-1]
    return max(1, math.ceil((end - first) / (points - 1) / day)) * day

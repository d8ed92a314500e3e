"""The outcomes of a run over time, in buckets of ten seconds, with a histogram of their latencies.

The transaction that writes outcomes adds them to the series. It writes one row for each bucket, state and slot of the
histogram in the batch. So a read costs as much as the run was long, however many targets it has. Each holder writes
only the rows of its own chunk, so workers do not wait for each other.

The latency of an outcome is the time from the claim of its target (``sending.since``) to the outcome. The process that
records the outcome takes it on its own wall clock. The claim is the first one of the hold. So retries, pauses and the
settling of a call count. If a resume settles the request of an earlier process, its latency begins with that request.
An unsent outcome has no latency.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter

import attrs

from dispatchkit.values import Value

__all__ = ["BUCKET_SECONDS", "LATENCY_BOUNDS", "NO_SLOT", "Bucket", "buckets_of", "percentile", "slot_of"]

BUCKET_SECONDS = 10.0
"""Seconds of a bucket. A bucket starts at a multiple of them, so that its start is a prefix of its outcomes' times."""
LATENCY_BOUNDS: tuple[float, ...] = (
    *(0.005, 0.01, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5),
    *(10.0, 15.0, 20.0, 30.0, 60.0),
    *(120.0, 300.0, 600.0, 3600.0),
)
"""Upper bounds of the slots of a latency histogram, in seconds, inclusive. One slot more is for longer latencies."""
NO_SLOT = -1
"""Slot of an outcome without a claim: its latency is not known."""


@attrs.frozen
class Bucket(Value):
    """The outcomes that were recorded in one stretch of a run's time.

    Each outcome counts once, at its own time. A resume may replace an unknown or unsent outcome of a target. Then both
    count, so the sums of all buckets may exceed the `Counts` of the run.

    Example:
        >>> async with Sandbox() as sandbox, Ledger("launch.db") as ledger:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         report = await direct.start_many([7, 8], ledger=ledger, run="black-friday").finish()
        ...     sum(bucket.done for bucket in await ledger.series("black-friday"))
        2
    """

    start: datetime
    """UTC."""
    seconds: float = BUCKET_SECONDS
    done: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0
    latency: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS) + 1)
    """The numbers of done, rejected and unknown outcomes by latency. The slots are those of `LATENCY_BOUNDS`."""


def slot_of(since: datetime | None, at: datetime) -> int:
    """The slot of a latency.

    >>> from datetime import UTC, timedelta
    >>> start = datetime(2026, 1, 31, tzinfo=UTC)
    >>> [slot_of(start, start + timedelta(seconds=seconds)) for seconds in (0.005, 86400)], slot_of(None, start)
    ([0, 27], -1)
    """
    return NO_SLOT if since is None else bisect_left(LATENCY_BOUNDS, (at - since).total_seconds())


def buckets_of(rows: Iterable[tuple[datetime, str, int, int]]) -> list[Bucket]:
    """The buckets of a series, from its rows in their order: start, state, slot and number."""
    buckets: list[Bucket] = []
    for start, group in groupby(rows, itemgetter(0)):
        states = {"done": 0, "rejected": 0, "not_sent": 0, "unknown": 0}
        latency = [0] * (len(LATENCY_BOUNDS) + 1)
        for _, state, slot, count in group:
            states[state] += count
            if slot != NO_SLOT and state != "not_sent":
                latency[slot] += count
        buckets.append(Bucket(start, BUCKET_SECONDS, **states, latency=tuple(latency)))
    return buckets


def percentile(latency: Sequence[int], share: float) -> float | None:
    """A percentile of a latency histogram in seconds, interpolated within its slot.

    >>> percentile([10, 10], 0.75)
    0.0075

    Args:
        latency: The numbers by slot, see `Bucket.latency`.
        share: From 0 to 1, such as 0.95.

    Returns:
        Seconds; None if the histogram is empty. A latency beyond the last bound counts as that bound.
    """
    wanted = share * sum(latency)
    if not wanted:
        return None
    low = 0.0
    for high, count in zip(LATENCY_BOUNDS, latency, strict=False):
        if count >= wanted:
            return round(low + (high - low) * wanted / count, 6)
        wanted -= count
        low = high
    return low

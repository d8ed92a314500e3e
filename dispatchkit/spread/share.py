"""How the workers of one account divide its pace, so that together they never pass it.

Every worker holds a lease on a part of the account's rate and concurrency, and renews it while it works. It takes no
more than its fair share, and no more than what the leases of the others leave. So a worker that comes when all is taken
gets nothing at first; the others shrink to their fair share when they renew, and then there is room. Who is not heard
of for a while has no lease any more, and knows it: it starts nothing until it has one again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

__all__ = ["EXPIRES", "RENEW", "Lease", "Share", "share"]

EXPIRES = 5.0
"""Seconds for which a lease holds."""
RENEW = 1.0
"""Seconds after which it is renewed."""


@attrs.frozen
class Share:
    """A part of an account's pace. None: as much as one likes."""

    rate: float | None = None
    """Launches a second."""
    concurrency: int | None = None
    """Attempts in flight."""

    @property
    def nothing(self) -> bool:
        """Whether nothing may be started with it."""
        return self.rate == 0 or self.concurrency == 0


@attrs.frozen
class Lease:
    """What a worker holds, and what it was told that all together may use."""

    worker: str
    held: Share
    wanted: Share


def share(worker: str, wanted: Share, others: Sequence[Lease]) -> Share:
    """What a worker may hold.

    Args:
        worker: Its name; of a concurrency that cannot be divided evenly, the first by name get one more.
        wanted: What all together may use, as this worker was told. The strictest of them holds.
        others: The leases of the others that have not expired.
    """
    wants = [wanted, *(other.wanted for other in others)]
    rank = sum(other.worker < worker for other in others)
    number = len(wants)
    rate = _least([each.rate for each in wants])
    if rate is not None:
        taken = math.fsum(_bound(other.held.rate) for other in others)
        # What is left after a division may be a hair more than what is left.
        left = rate - taken - 1e-9 * rate
        rate = max(0.0, min(rate / number, left)) if others else rate
    concurrency = _least([each.concurrency for each in wants])
    if concurrency is not None:
        fair = int(concurrency) // number + (rank < int(concurrency) % number)
        free = concurrency - sum(_bound(other.held.concurrency) for other in others)
        concurrency = int(max(0, min(fair, free)))
    return Share(rate, None if concurrency is None else int(concurrency))


def _least(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _bound(value: float | None) -> float:
    """One that was told of no bound may use any amount, until it renews and learns of it."""
    return math.inf if value is None else value

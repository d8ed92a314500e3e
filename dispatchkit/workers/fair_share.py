"""How the workers of one account divide its pace, so that together they never pass it.

Every worker holds a lease on a part of the account's rate and concurrency, and renews it while it works. It takes no
more than its fair share, and no more than what the leases of the others leave. So a worker that comes when all is taken
gets nothing at first; the others shrink to their fair share when they renew, and then there is room. Who is not heard
of for a while has no lease any more, and knows it: it starts nothing until it has one again.
"""

from __future__ import annotations

import attrs

__all__ = ["ANSWER_LIMIT", "EXPIRES", "RENEW", "Share"]

ANSWER_LIMIT = 5.0
"""Seconds in which the database must answer a renewal. A later answer renews nothing."""
EXPIRES = 12.0
"""Seconds for which a lease holds: two answers at the limit fit into it."""
RENEW = 1.0
"""Seconds after which a lease is renewed. A worker stops using it as long before its end."""


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

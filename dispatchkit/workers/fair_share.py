"""How the workers of one account divide its pace, so that their sum never exceeds it.

Each worker leases a part of the account's rate and concurrency, and renews the lease while it works. It takes at most
its fair share, and at most what the other leases leave. So a new worker may get nothing at first. The others shrink to
their fair shares when they renew. A worker whose lease has expired starts nothing until it has one again.
"""

from __future__ import annotations

import attrs

__all__ = ["ANSWER_LIMIT", "EXPIRES", "RENEW", "Share"]

ANSWER_LIMIT = 5.0
"""Seconds in which the database must answer a renewal. A later answer renews nothing."""
EXPIRES = 12.0
"""Seconds of a lease: enough for two renewals at `ANSWER_LIMIT`."""
RENEW = 1.0
"""Seconds between renewals. A worker stops using its lease this long before the end."""


@attrs.frozen
class Share:
    """A part of an account's pace. None means no limit."""

    rate: float | None = None
    """Launches a second."""
    concurrency: int | None = None
    """Attempts in flight."""

    @property
    def nothing(self) -> bool:
        """Whether the share allows no start."""
        return self.rate == 0 or self.concurrency == 0

"""Estimate the offset of a provider's clock from the ``Date`` of a response.

``Date`` has a resolution of one second. The server wrote it between request and response, so the offset lies between
two bounds. A cached response was written ``Age`` seconds earlier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

import attrs

from dispatchkit.core.call.http_date import ages, response_date

__all__ = ["MAX_OFFSET", "ClockOffset", "clock_offset"]

MAX_OFFSET = timedelta(seconds=5)
"""Maximum clock offset at which log entries are still compared."""
_MAX_WIDTH = timedelta(seconds=2)
"""Maximum distance of the bounds. A response that took longer than a second is read again."""
_SECOND = timedelta(seconds=1)


@attrs.frozen
class ClockOffset:
    """How far a provider's clock is ahead of ours: at least ``least``, at most ``most``."""

    least: timedelta
    most: timedelta

    @property
    def middle(self) -> timedelta:
        """The centre of the bounds."""
        return (self.least + self.most) / 2

    @property
    def is_small(self) -> bool:
        """Whether the offset is about `MAX_OFFSET` at most."""
        return abs(self.middle) <= MAX_OFFSET

    @property
    def is_narrow(self) -> bool:
        """Whether the bounds are close enough to compare clocks."""
        return self.most - self.least <= _MAX_WIDTH


def clock_offset(headers: Mapping[str, str], sent: datetime, received: datetime) -> ClockOffset | None:
    """Compute the offset from a response's headers; None if they do not tell.

    Args:
        headers: The response's headers.
        sent: Start of the request, on the local clock.
        received: Arrival of the response, on the local clock.
    """
    date, declared = response_date(headers), set(ages(headers)) or {0.0}
    age = declared.pop()
    if date is None or declared or age == math.inf:
        return None
    written_by = received - timedelta(seconds=age)
    # Age counts in whole seconds, too.
    written_from = sent - timedelta(seconds=age + 1 if age else 0)
    return ClockOffset(date - written_by, date + _SECOND - written_from)

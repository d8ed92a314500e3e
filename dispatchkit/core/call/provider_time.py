"""How far the clock of a provider is ahead of this machine's, from the ``Date`` of a response.

``Date`` counts in seconds and was written at some moment between request and response, so the offset is known between
two bounds. What a cache has held for ``Age`` seconds was written that much earlier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

import attrs

from dispatchkit.core.call.http_date import ages, response_date

__all__ = ["MAX_OFFSET", "ClockOffset", "clock_offset"]

MAX_OFFSET = timedelta(seconds=5)
"""The largest difference of two clocks by which entries of a log are still compared."""
_MAX_WIDTH = timedelta(seconds=2)
"""Bounds further apart tell too little of the offset: a response that took longer than a second is read again."""
_SECOND = timedelta(seconds=1)


@attrs.frozen
class ClockOffset:
    """How far a provider's clock is ahead of ours: at least ``least``, at most ``most``."""

    least: timedelta
    most: timedelta

    @property
    def middle(self) -> timedelta:
        """The likeliest value."""
        return (self.least + self.most) / 2

    @property
    def is_small(self) -> bool:
        """Whether it is known to be about `MAX_OFFSET` at most."""
        return abs(self.middle) <= MAX_OFFSET

    @property
    def is_narrow(self) -> bool:
        """Whether its bounds are close enough to each other to say anything."""
        return self.most - self.least <= _MAX_WIDTH


def clock_offset(headers: Mapping[str, str], sent: datetime, received: datetime) -> ClockOffset | None:
    """What the headers of a response tell of the offset; None where they tell nothing.

    Args:
        headers: Those of the response.
        sent: When its request began, by our clock.
        received: When it had come, by our clock.
    """
    date, declared = response_date(headers), set(ages(headers)) or {0.0}
    age = declared.pop()
    if date is None or declared or age == math.inf:
        return None
    written_by = received - timedelta(seconds=age)
    # Age counts in whole seconds, too.
    written_from = sent - timedelta(seconds=age + 1 if age else 0)
    return ClockOffset(date - written_by, date + _SECOND - written_from)

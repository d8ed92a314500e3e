"""Estimate the age of a response: a cache may answer a state read with an old response.

``Age`` is the cache's own claim. ``Date`` is when the origin made the response, on the origin's clock. A response to a
request that acts never comes from a cache, so its ``Date`` tells the origin's current time. Without one, this machine's
clock stands in for it. The newest ``Date`` seen is a lower bound in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import attrs

from dispatchkit.core.call.http_date import ages, response_date

__all__ = ["Freshness"]


@attrs.frozen
class _Sample:
    """A reading of the origin's clock, with this machine's clocks at the same moment."""

    origin: datetime
    wall: datetime
    monotonic: float

    def at(self, wall: datetime, monotonic: float) -> datetime:
        """Extrapolate to another moment, by the local clock that advanced more."""
        passed = max((wall - self.wall).total_seconds(), monotonic - self.monotonic)
        return self.origin + timedelta(seconds=passed)


class Freshness:
    """Observations of one origin's clock."""

    __slots__ = ("_newest", "acted")

    def __init__(self) -> None:
        self.acted: tuple[Mapping[str, str], datetime, float, float] | None = None
        """The latest response to a request that acts: headers, start (wall clock, ``monotonic``), and duration."""
        self._newest: _Sample | None = None

    def age(self, headers: Mapping[str, str], *, asked: datetime, monotonic: float) -> float:
        """Seconds by which a response is older than its request; 0 without a header, infinite if unknown.

        Args:
            headers: The response's headers.
            asked: Start of the request.
            monotonic: The same moment on the monotonic clock.
        """
        # An unreadable Age is infinite: the response may be of any age.
        age = max(ages(headers), default=0.0)
        made = _date(headers)
        if made is None:
            return age
        acted = self._acted()
        known = [sample.at(asked, monotonic) for sample in (acted, self._newest) if sample is not None]
        if acted is None:
            known.append(asked)
        age = max(age, (max(known) - made).total_seconds())
        if self._newest is None or made > self._newest.origin:
            self._newest = _Sample(made, asked, monotonic)
        return age

    def _acted(self) -> _Sample | None:
        if self.acted is None:
            return None
        headers, began, started, elapsed = self.acted
        made = _date(headers)
        return None if made is None else _Sample(made, began + timedelta(seconds=elapsed), started + elapsed)


def _date(headers: Mapping[str, str]) -> datetime | None:
    return response_date(headers)

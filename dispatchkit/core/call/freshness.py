"""How old a response is: a cache may answer a question about state with what was true some time ago.

Two header fields tell. ``Age`` is what a cache says itself. ``Date`` is when the origin made the response, on its own
clock. What that clock reads now follows from the latest response that no cache gives, one to a request that acts. If
that has no ``Date``, our own clock stands in for it. The newest ``Date`` of all is a lower bound in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import attrs

from dispatchkit.core.call.http_date import ages, response_date

__all__ = ["Freshness"]


@attrs.frozen
class _Sample:
    """What the origin's clock read at a moment of ours."""

    origin: datetime
    wall: datetime
    monotonic: float

    def at(self, wall: datetime, monotonic: float) -> datetime:
        """What it reads at another moment. Neither clock of ours is believed to have stood still."""
        passed = max((wall - self.wall).total_seconds(), monotonic - self.monotonic)
        return self.origin + timedelta(seconds=passed)


class Freshness:
    """What is known of the clock of one origin."""

    __slots__ = ("_newest", "acted")

    def __init__(self) -> None:
        self.acted: tuple[Mapping[str, str], datetime, float, float] | None = None
        """The latest response to a request that acts: its headers, when the request began by the wall clock and by the
        monotonic clock, and the seconds until the response."""
        self._newest: _Sample | None = None

    def age(self, headers: Mapping[str, str], *, asked: datetime, monotonic: float) -> float:
        """Seconds from the making of a response to the moment of asking; 0 if nothing tells, infinite if unknown.

        Args:
            headers: Those of the response.
            asked: When the request began.
            monotonic: The same on the monotonic clock.
        """
        # What a cache cannot say may be any age.
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

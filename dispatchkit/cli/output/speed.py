"""How fast a run is: its rate over the last half a minute, as the bar of Rich has it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

__all__ = ["Speed"]

_PERIOD = 30.0
"""Seconds that the rate is taken over."""
_MOST = 1000
"""The most samples that are kept."""


class Speed:
    """The rate of a count that grows.

    Args:
        monotonic: The clock.

    Example:
        >>> moments = iter([0.0, 2.0])
        >>> speed = Speed(lambda: next(moments))
        >>> speed.update(10), speed.update(30)
        (None, None)
        >>> speed.value, speed.seconds_for(25)
        (10.0, 3)
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.completed = 0
        """The count as it was last told."""
        self._samples = deque[tuple[float, int]](maxlen=_MOST)
        """When the count grew, and by how much."""

    def reset(self, *, completed: int) -> None:
        """Forget the rate, and go on from this count."""
        self._samples.clear()
        self.completed = completed

    def update(self, completed: int) -> None:
        """Take note of the count."""
        now, more, self.completed = self._monotonic(), completed - self.completed, completed
        while self._samples and self._samples[0][0] < now - _PERIOD:
            self._samples.popleft()
        if more > 0:
            self._samples.append((now, more))

    @property
    def value(self) -> float | None:
        """The rate, each second; None as long as there is none."""
        if not self._samples or not (seconds := self._samples[-1][0] - self._samples[0][0]):
            return None
        # The first sample grew before the time that is measured.
        return (sum(more for _, more in self._samples) - self._samples[0][1]) / seconds

    def seconds_for(self, count: int) -> int | None:
        """The seconds that this many more take, rounded up; None without a rate."""
        if count <= 0:
            return 0
        speed = self.value
        return None if speed is None else math.ceil(count / speed)

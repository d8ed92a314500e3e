"""How long an attempt may take: one timer for all attempts in flight.

``asyncio.timeout`` sets a timer for each, which with thousands of attempts a second costs a tenth of all their time, to
end almost always unused. Here one timer is set for the attempt that ends first. When it rings, whoever is over time is
cancelled, and it is set anew for the rest.
"""

from __future__ import annotations

import asyncio
import math

__all__ = ["Limit", "Limits"]

_EARLY = 0.001
"""Seconds by which a loop may ring too early."""


class Limit:
    """Until when one attempt may take."""

    __slots__ = ("at", "before", "passed", "task")

    def __init__(self, task: asyncio.Task[object], at: float) -> None:
        self.task = task
        self.at = at
        self.before = task.cancelling()
        """How many cancellations of the task are under way that are not ours."""
        self.passed = False


class Limits:
    """The limits of all attempts of one event loop that are in flight."""

    __slots__ = ("_due", "_live", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._live: set[Limit] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    def begin(self, seconds: float) -> Limit:
        """Have the current task cancelled in so many seconds, unless it says `end` before."""
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - only a coroutine that runs can ask
        limit = Limit(task, self._loop.time() + seconds)
        if limit.at < self._due:
            self._set(limit.at)
        self._live.add(limit)
        return limit

    def end(self, limit: Limit) -> bool:
        """The attempt is over: whether by us. Then the cancellation was ours alone, and is taken back.

        A cancellation by somebody else is never taken back. A limit that has ended already is not over.
        """
        self._live.discard(limit)
        passed, limit.passed = limit.passed, False
        return passed and limit.task.uncancel() <= limit.before

    def close(self) -> None:
        """End all attempts in flight, and set no timer any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._pass(list(self._live))

    def _set(self, at: float) -> None:
        timer = self._loop.call_at(at, self._ring)
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = timer, at

    def _ring(self) -> None:
        now = self._loop.time() + _EARLY
        self._timer, self._due = None, math.inf
        self._pass([limit for limit in self._live if limit.at <= now])
        if self._live:
            self._set(min(limit.at for limit in self._live))

    def _pass(self, limits: list[Limit]) -> None:
        for limit in limits:
            self._live.discard(limit)
            limit.passed = True
            limit.task.cancel()

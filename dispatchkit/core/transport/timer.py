"""How long an attempt may take: one timer for all attempts in flight.

``asyncio.timeout`` sets a timer for each, which with thousands of attempts a second costs a tenth of all their time, to
end almost always unused. Here one timer is set for the attempt that ends first. When it rings, whoever is over time is
cancelled, and it is set anew for the rest.
"""

from __future__ import annotations

import asyncio
import math

__all__ = ["AttemptTimer", "AttemptTimers"]

_EARLY = 0.001
"""Seconds by which a loop may ring too early."""


class AttemptTimer:
    """Until when one attempt may take."""

    __slots__ = ("at", "cancelling_before", "expired", "task")

    def __init__(self, task: asyncio.Task[object], at: float) -> None:
        self.task = task
        self.at = at
        self.cancelling_before = task.cancelling()
        """How many cancellations of the task are under way that are not ours."""
        self.expired = False


class AttemptTimers:
    """The limits of all attempts of one event loop that are in flight."""

    __slots__ = ("_due", "_live", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._live: set[AttemptTimer] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    def start(self, seconds: float) -> AttemptTimer:
        """Have the current task cancelled in so many seconds, unless it says `stop` before."""
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - only a coroutine that runs can ask
        timer = AttemptTimer(task, self._loop.time() + seconds)
        if timer.at < self._due:
            self._set(timer.at)
        self._live.add(timer)
        return timer

    def stop(self, timer: AttemptTimer) -> bool:
        """The attempt is over: whether by us. Then the cancellation was ours alone, and is taken back.

        A cancellation by somebody else is never taken back. A limit that has ended already is not over.
        """
        self._live.discard(timer)
        passed, timer.expired = timer.expired, False
        return passed and timer.task.uncancel() <= timer.cancelling_before

    def close(self) -> None:
        """End all attempts in flight, and set no timer any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._expire(list(self._live))

    def _set(self, at: float) -> None:
        timer = self._loop.call_at(at, self._fire)
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = timer, at

    def _fire(self) -> None:
        now = self._loop.time() + _EARLY
        self._timer, self._due = None, math.inf
        self._expire([timer for timer in self._live if timer.at <= now])
        if self._live:
            self._set(min(timer.at for timer in self._live))

    def _expire(self, timers: list[AttemptTimer]) -> None:
        for timer in timers:
            self._live.discard(timer)
            timer.expired = True
            timer.task.cancel()

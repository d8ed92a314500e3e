"""Attempt timeouts: one timer for all attempts in flight.

``asyncio.timeout`` sets a timer for each attempt. At thousands of attempts a second, that costs 10 % of the CPU time,
and almost no timer ever fires. Here, one timer is set for the earliest timeout. When it fires, the expired attempts are
cancelled, and the timer is set for the next one.
"""

from __future__ import annotations

import asyncio
import math

__all__ = ["AttemptTimer", "AttemptTimers"]

_EARLY = 0.001
"""Seconds by which an event loop may fire a timer too early."""


class AttemptTimer:
    """The timeout of one attempt. `AttemptTimers.start` sets its fields."""

    __slots__ = ("at", "cancelling_before", "expired", "task")

    task: asyncio.Task[object]
    at: float
    cancelling_before: int
    """Number of pending cancellations of the task when the timeout was set."""
    expired: bool


class AttemptTimers:
    """The timeouts of all attempts in flight on one event loop."""

    __slots__ = ("_due", "_live", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._live: set[AttemptTimer] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    def start(self, timer: AttemptTimer, seconds: float) -> None:
        """Cancel the current task in so many seconds, unless `stop` is called before."""
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - called from a running coroutine
        timer.task, timer.cancelling_before = task, task.cancelling()
        timer.expired = False
        timer.at = at = self._loop.time() + seconds
        if at < self._due:
            self._set(at)
        self._live.add(timer)

    def stop(self, timer: AttemptTimer) -> bool:
        """End a timeout. Returns True if it had expired and caused the only cancellation, which is then undone.

        A cancellation by other code is never undone. A second call returns False.
        """
        self._live.discard(timer)
        passed, timer.expired = timer.expired, False
        return passed and timer.task.uncancel() <= timer.cancelling_before

    def close(self) -> None:
        """Cancel all attempts in flight, and the timer."""
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

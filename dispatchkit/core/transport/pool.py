"""The idle connections to one origin.

The connection that was used last is taken first: the server had the least time to close it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from weakref import ref

from dispatchkit.core.transport.lane import Lane

__all__ = ["Pool"]

_IDLE_TIMEOUT = 15.0
"""Seconds for which an idle connection is kept, as in aiohttp's own pool."""


class Pool:
    """A free list of lanes, from the longest idle to the one used last."""

    __slots__ = ("__weakref__", "_idle", "_is_closed", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._idle: deque[Lane] = deque()
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None

    def take(self) -> Lane | None:
        """Take a lane that has not expired; None if there is none. See `Lane.is_silent`."""
        oldest = self._loop.time() - _IDLE_TIMEOUT
        while self._idle:
            lane = self._idle.pop()
            if lane.idle_since >= oldest:
                return lane
            lane.end()
        return None

    def give(self, lane: Lane) -> None:
        """Take a lane back after an exchange. It is closed unless another request can use it."""
        if self._is_closed or not lane.is_open():
            lane.end()
            return
        lane.idle_since = self._loop.time()
        self._idle.append(lane)
        if self._timer is None:
            self._set_timer()

    def expire(self) -> None:
        """Close the lanes that have been idle for too long, or that the server has closed."""
        kept: deque[Lane] = deque()
        oldest = self._loop.time() - _IDLE_TIMEOUT
        for lane in self._idle:
            if lane.is_open() and lane.idle_since >= oldest:
                kept.append(lane)
            else:
                lane.end()
        self._idle, self._timer = kept, None
        if kept:
            self._set_timer()

    def _set_timer(self) -> None:
        # A strong reference would keep the connections of a client that was dropped without a close.
        self._timer = self._loop.call_later(_IDLE_TIMEOUT, _expire, ref[Pool](self))

    def close(self) -> None:
        """Give the idle connections back to aiohttp's connector, which closes them with the session."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._release()

    def _release(self) -> None:
        while self._idle:
            self._idle.pop().give_back()

    def __del__(self) -> None:
        # The connector's finaliser closes the connections of a client that was dropped without a close.
        if not self._loop.is_closed():
            self._release()


def _expire(pool: ref[Pool]) -> None:
    alive = pool()
    if alive is not None:
        alive.expire()

"""The timer of a pacer: it runs in the event loop of one waiter, on behalf of all."""

from __future__ import annotations

import asyncio
import contextlib
import math

from dispatchkit.core.clock import Clock
from dispatchkit.core.pacing.waiters import Waiter
from dispatchkit.core.wakeup import Callback, Timer, call_later

__all__ = ["PaceTimer"]


class PaceTimer:
    """Calls ``tick`` at the latest at the moment that `set` names.

    One timer of the event loop is enough: an earlier one stays, and its tick sets the next one. `set` and `clear` need
    the lock of the pacer. ``tick`` is called without it, and begins with `stop`. Each takes ``here``, the event loop
    that the thread runs now: see `wake`.

    Args:
        clock: The clock.
        tick: Called with the event loop, and with the exception of a clock that raised, else with None.
    """

    __slots__ = ("_at", "_clock", "_tick", "_timer", "loop", "waiter")

    def __init__(self, clock: Clock, tick: Callback) -> None:
        self._clock = clock
        self._tick = tick
        self.waiter: Waiter | None = None
        """The waiter in whose event loop the timer runs."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop of that waiter."""
        self._timer: Timer | None = None
        self._at = math.inf
        """The moment of the next tick."""

    def set(self, waiter: Waiter, at: float, now: float, *, here: asyncio.AbstractEventLoop | None) -> None:
        """Tick in the event loop of the waiter, at this moment or earlier."""
        self.waiter, loop = waiter, waiter.loop
        if self.loop is loop and self._at <= at:
            return
        if self._timer is not None:
            self.stop(here=here)
        self.loop, self._at = loop, at
        if at == math.inf:
            return
        if here is loop:
            self._timer = call_later(loop, self._clock, at - now, self._tick)
            return
        self._at = -math.inf  # that tick sets the timer, in its own thread
        with contextlib.suppress(RuntimeError):  # the loop was closed just now
            loop.call_soon_threadsafe(self._tick, loop, None)

    def clear(self, *, here: asyncio.AbstractEventLoop | None) -> None:
        """Stop ticking: nothing waits."""
        if self.waiter is not None:
            self.stop(here=here)
            self.waiter = self.loop = None

    def stop(self, *, here: asyncio.AbstractEventLoop | None) -> None:
        """Expect another `set`."""
        timer, self._timer, self._at = self._timer, None, math.inf
        if timer is None or self.loop is None:
            return
        if here is self.loop:
            timer.cancel()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(timer.cancel)

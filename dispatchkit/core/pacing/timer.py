"""The timer of a pacer: it runs in the event loop of one waiter, on behalf of all."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

from dispatchkit.core.clock import Clock
from dispatchkit.core.pacing.waiters import Waiter
from dispatchkit.core.wakeup import Timer, call_later, current_loop

__all__ = ["PaceTimer"]


class PaceTimer:
    """Calls ``tick`` at the latest at the moment that `set` names.

    One timer of the event loop is enough: an earlier one stays, and its tick sets the next one. `set` and `clear` need
    the lock of the pacer. ``tick`` is called without it, and begins with `fired`.

    Args:
        clock: The clock.
        tick: Called with the exception of a clock that raised, else with None.
    """

    __slots__ = ("_at", "_clock", "_loop", "_tick", "_timer", "_waiter")

    def __init__(self, clock: Clock, tick: Callable[[BaseException | None], None]) -> None:
        self._clock = clock
        self._tick = tick
        self._waiter: Waiter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the waiter, in which the timer runs."""
        self._timer: Timer | None = None
        self._at = math.inf
        """The moment of the next tick."""

    @property
    def waiter(self) -> Waiter | None:
        """The waiter in whose event loop the timer runs."""
        return self._waiter

    def runs_in(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the timer is set in this event loop."""
        return self._loop is loop

    def set(self, waiter: Waiter, at: float, now: float) -> None:
        """Tick in the event loop of the waiter, at this moment or earlier."""
        self._waiter = waiter
        if self._loop is waiter.loop and self._at <= at:
            return
        self._cancel()
        self._loop, self._at = waiter.loop, at
        if at == math.inf:
            return
        if current_loop() is waiter.loop:
            self._timer = call_later(self._clock, max(at - now, math.ulp(at)), self._tick)
            return
        self._at = -math.inf  # that tick sets the timer, in its own thread
        with contextlib.suppress(RuntimeError):  # the loop was closed just now
            waiter.loop.call_soon_threadsafe(self._tick, None)

    def clear(self) -> None:
        """Stop ticking: nothing waits."""
        if self._waiter is not None:
            self._cancel()
            self._waiter = self._loop = None
            self._at = math.inf

    def fired(self) -> None:
        """Expect another `set`."""
        self._cancel()
        self._at = math.inf

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is None or self._loop is None:
            return
        if current_loop() is self._loop:
            timer.cancel()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(timer.cancel)

"""Sleeps that another task or thread can interrupt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

from dispatchkit.core.clock import SYSTEM, Clock, timer_seconds

__all__ = ["Callback", "Sleepers", "Timer", "call_later", "current_loop", "rest", "wake"]


_SHORTEST = 1e-6
"""Seconds that another clock sleeps at least. Less may be lost when it is added to the time, and so not pass."""


def _complete(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def current_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of this thread that runs now; None if none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def wake(
    future: asyncio.Future[None], loop: asyncio.AbstractEventLoop, *, here: asyncio.AbstractEventLoop | None
) -> None:
    """Complete a future, from any thread.

    Args:
        future: The future.
        loop: Its event loop.
        here: `current_loop`, which takes a system call: a caller that wakes several looks once.
    """
    if loop is here:
        if not future.done():
            future.set_result(None)
        return
    with contextlib.suppress(RuntimeError):  # its loop is closed
        loop.call_soon_threadsafe(_complete, future)


class Timer(Protocol):
    """A callback that is due later."""

    def cancel(self) -> object:
        """Do not call it. The event loop's own thread may do this."""
        ...


Callback: TypeAlias = Callable[[asyncio.AbstractEventLoop, BaseException | None], None]
"""Called in an event loop with that loop, and with the exception of a clock, if any."""


def call_later(loop: asyncio.AbstractEventLoop, clock: Clock, seconds: float, callback: Callback) -> Timer:
    """Call back in the running event loop after so many seconds.

    The machine's own clock needs no task, which would cost as much CPU time as the wakeup itself.
    """
    if clock is SYSTEM:
        return loop.call_later(timer_seconds(seconds), callback, loop, None)
    timer = asyncio.ensure_future(clock.sleep(max(seconds, _SHORTEST)))
    timer.add_done_callback(partial(_call_back, callback, loop))
    return timer


def _call_back(callback: Callback, loop: asyncio.AbstractEventLoop, timer: asyncio.Future[None]) -> None:
    if not timer.cancelled():
        callback(loop, timer.exception())


async def rest(clock: Clock, future: asyncio.Future[None], seconds: float) -> None:
    """Wait until ``future`` is done, for at most so many seconds."""
    timer = asyncio.ensure_future(clock.sleep(seconds))
    timer.add_done_callback(lambda _: _complete(future))
    try:
        await future
    finally:
        timer.cancel()
    if timer.done() and not timer.cancelled():
        timer.result()  # raise the clock's exception, or the caller would wait again without end


class Sleepers:
    """Sleeps in any loops and threads that `wake` ends together."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._futures: dict[asyncio.Future[None], None] = {}

    async def sleep(self, seconds: float) -> None:
        """Sleep for so many seconds, or until `wake`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures[future] = None
        try:
            await rest(self._clock, future, seconds)
        finally:
            del self._futures[future]

    def wake(self) -> None:
        """End all current sleeps."""
        here = current_loop()
        for future in list(self._futures):
            wake(future, future.get_loop(), here=here)

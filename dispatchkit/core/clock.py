"""Time and randomness as a parameter, so that tests need no waits and are deterministic."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from dispatchkit.core.validators import shown

__all__ = ["SYSTEM", "Clock", "a_clock", "timer_seconds"]


class Clock(Protocol):
    """The source of time and randomness for retries, settling and pacing."""

    def monotonic(self) -> float:
        """Monotonic time in seconds, from an arbitrary zero."""
        ...

    def boottime(self) -> float:
        """Monotonic time in seconds that also counts while the machine sleeps."""
        ...

    def now(self) -> datetime:
        """The wall clock, UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        ...

    def random(self) -> float:
        """A random number in ``[0, 1)``."""
        ...


_METHODS = ("monotonic", "boottime", "now", "sleep", "random")


def a_clock(value: Clock) -> Clock:
    """Check the setting ``clock``.

    Raises:
        TypeError: It lacks a method of `Clock`.
    """
    if missing := [name for name in _METHODS if not callable(getattr(value, name, None))]:
        raise TypeError(f"clock must be a Clock with {', '.join(_METHODS)}, not {shown(value)} without {missing[0]}")
    return value


def timer_seconds(seconds: float) -> float:
    """The seconds of a timer that is not early: whole milliseconds, at least one.

    libuv, under uvloop, rounds to milliseconds. A timer of less than half of one fires at once. So a loop that sleeps
    until a moment would spin.
    """
    return math.ceil(seconds * 1000) / 1000 if seconds > 0.001 else 0.001  # a call of `max` costs more


_boottime: Callable[[], float] = time.monotonic  # on Windows, it counts while the machine sleeps
if hasattr(time, "CLOCK_BOOTTIME"):
    _boottime = partial(time.clock_gettime, time.CLOCK_BOOTTIME)


class _System:
    """The machine's own clock."""

    __slots__ = ()

    # Not methods around them: each launch looks several times.
    monotonic = staticmethod(time.monotonic)
    boottime = staticmethod(_boottime)
    now = staticmethod(partial(datetime.now, UTC))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(timer_seconds(seconds))

    def random(self) -> float:
        return random.random()  # noqa: S311 - jitter needs no secrecy

    def __repr__(self) -> str:
        return "SYSTEM"


SYSTEM: Clock = _System()
"""The machine's own clock and random numbers."""

"""Time and chance, passed in: so that a test waits for nothing and draws the same numbers every time."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import Protocol

from dispatchkit.core.validators import shown

__all__ = ["SYSTEM", "Clock", "a_clock"]


class Clock(Protocol):
    """What the retry, settling and pacing machinery knows of time and chance."""

    def monotonic(self) -> float:
        """Seconds, from any zero, that never go back."""
        ...

    def boottime(self) -> float:
        """Seconds, from any zero, that never go back, and that count while the machine sleeps."""
        ...

    def now(self) -> datetime:
        """The time of day, UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def random(self) -> float:
        """From 0 up to, not including, 1."""
        ...


_METHODS = ("monotonic", "boottime", "now", "sleep", "random")


def a_clock(value: Clock) -> Clock:
    """A setting that is a clock.

    Raises:
        TypeError: It lacks a method of one.
    """
    if missing := [name for name in _METHODS if not callable(getattr(value, name, None))]:
        raise TypeError(f"clock must be a Clock with {', '.join(_METHODS)}, not {shown(value)} without {missing[0]}")
    return value


def _boottime() -> float:
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()  # on Windows it counts while the machine sleeps


class _System:
    """The machine's own clock."""

    __slots__ = ()

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return _boottime()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def random(self) -> float:
        return random.random()  # noqa: S311 - jitter needs no secrecy

    def now(self) -> datetime:
        return datetime.now(UTC)

    def __repr__(self) -> str:
        return "SYSTEM"


SYSTEM: Clock = _System()
"""The machine's own clock and random numbers."""

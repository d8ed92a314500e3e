"""`FakeClock`: time for many tasks at once. It passes only when none of them has anything else to do."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Sized
from datetime import UTC, datetime, timedelta

__all__ = ["START", "FakeClock", "stillness"]

START = datetime(2026, 1, 1, tzinfo=UTC)
"""The beginning of time on a `FakeClock`."""

_IDLE_TURNS = 12
"""Turns of the loop without an event, after which no task can be under way."""


async def stillness(events: Callable[[], int] = lambda: 0) -> None:
    """Wait until no other task has work, or all that have it wait in this way, too."""
    ready: Sized | None = getattr(asyncio.get_running_loop(), "_ready", None)  # uvloop does not show it
    still, seen = 0, events()
    while still < _IDLE_TURNS:
        await asyncio.sleep(0)
        if ready is not None and not ready:
            return
        still = still + 1 if seen == events() else 0
        seen = events()


class FakeClock:
    """A clock for ``DirectClient(..., clock=FakeClock())``. Waits take no time, and decisions are those of real time.

    When all tasks wait, the clock jumps to the end of the earliest `sleep`. So a retry after a minute is made at once.
    The clock does not see sockets: it may also jump while another call waits for its answer. Timeouts of attempts are
    real: a test of a silent provider needs a short ``attempt_timeout``.

    Give the sandbox the same time, since answers carry dates: ``Sandbox(clock=clock.timestamp)``. Do not give the clock
    to a `Ledger`, whose heartbeats would never let time rest. The same holds for a client with a ledger. There, use
    ``RetryPolicy.for_tests()``.

    Args:
        jumps: False lets time pass by `advance` only.

    Example:
        >>> from dispatchkit.testing import FakeClock
        >>> clock = FakeClock()
        >>> async with Sandbox(clock=clock.timestamp) as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, clock=clock) as direct:
        ...         sandbox.order(Fault.dropped())  # believed only a minute later
        ...         (await direct.start(7)).settled, sandbox.launches[7], clock.time > 60
        (False, 1, True)
    """

    def __init__(self, *, jumps: bool = True) -> None:
        self.time = 0.0
        """Seconds that have passed."""
        self.ahead = 0.0
        """Seconds by which the wall clock was set ahead."""
        self._jumps = jumps
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._events = 0
        self._driver: asyncio.Task[None] | None = None

    def monotonic(self) -> float:
        """Seconds that have passed."""
        return self.time

    def boottime(self) -> float:
        """Seconds that have passed."""
        return self.time

    def now(self) -> datetime:
        """The wall clock, UTC. It begins at midnight of 1 January 2026."""
        return START + timedelta(seconds=self.time + self.ahead)

    def timestamp(self) -> float:
        """The wall clock in seconds since the epoch, for ``Sandbox(clock=clock.timestamp)``."""
        return self.now().timestamp()

    def random(self) -> float:
        """Always 0.5, so that each wait is the same in every run."""
        return 0.5

    def set_wall(self, ahead: float) -> None:
        """Set the wall clock so many seconds ahead of the others."""
        self.ahead = ahead

    async def sleep(self, seconds: float) -> None:
        """Wait until so many seconds have passed on this clock."""
        self._events += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + seconds, next(self._numbers), future))
        if self._jumps and (self._driver is None or self._driver.done()):
            self._driver = asyncio.create_task(self._drive())
        await future
        self._events += 1

    async def _drive(self) -> None:
        while self._sleepers:
            await stillness(lambda: self._events)
            self._jump()

    def _jump(self) -> None:
        while self._sleepers:
            moment, _, future = heapq.heappop(self._sleepers)
            if not future.done():  # it was cancelled: no task waits for that moment
                self.time = max(self.time, moment)
                future.set_result(None)
                return

    def advance(self, seconds: float) -> None:
        """Let time pass at once, and wake those whose time has come."""
        end = self.time + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            self._jump()
        self.time = end

    def __repr__(self) -> str:
        return f"<FakeClock at {self.now():%Y-%m-%d %H:%M:%S} UTC, {self.time:g} s after its start>"

"""Virtual time for many tasks at once: it passes only when none of them has anything else to do."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Sized
from datetime import UTC, datetime, timedelta

from dispatchkit.core.command import Request, Response
from dispatchkit.core.transport.transport import TransportFailure

START = datetime(2026, 1, 1, tzinfo=UTC)

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


class Virtual:
    """A clock for many sleepers. When all is still, it jumps to the earliest of them.

    It sees neither sockets nor threads.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._events = 0
        self._driver: asyncio.Task[None] | None = None

    ahead = 0.0

    def set_wall(self, ahead: float) -> None:
        """Set the wall clock so far ahead of the others."""
        self.ahead = ahead

    def monotonic(self) -> float:
        return self.time

    def boottime(self) -> float:
        return self.time

    def now(self) -> datetime:
        return START + timedelta(seconds=self.time + self.ahead)

    def random(self) -> float:
        return 0.5

    async def sleep(self, seconds: float) -> None:
        self._events += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + seconds, next(self._numbers), future))
        if self._driver is None or self._driver.done():
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
        """Let time pass at once and wake those whose time has come: for a test that keeps the time itself."""
        end = self.time + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            self._jump()
        self.time = end


class Manual(Virtual):
    """Time that passes only by `advance`. Its wall clock can be set."""

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + seconds, next(self._numbers), future))
        await future


class FakeTransport:
    """Stands in for the transport: each start takes so long as ``takes`` says, and is answered what ``says`` says."""

    def __init__(
        self,
        clock: Virtual,
        *,
        takes: Callable[[FakeTransport], float] = lambda _: 0.1,
        says: Callable[[FakeTransport, int], Response | TransportFailure | None] = lambda _, __: None,
    ) -> None:
        self.clock = clock
        self.takes = takes
        self.says = says
        self.seen: list[tuple[float, int]] = []
        """When each request came, and for which id."""
        self.in_flight = 0
        self.most = 0

    async def send(self, request: Request, tracker: object, **_: object) -> Response | TransportFailure:
        number = int(request.target.split("/")[-2])
        tracker.sent = True  # type: ignore[attr-defined]
        self.seen.append((self.clock.time, number))
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await self.clock.sleep(self.takes(self))
            return self.says(self, number) or Response(200, {}, b'{"dispatchId": %d}' % number)
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        pass


def throttled(retry_after: float | None = None) -> Response:
    return Response(429, {} if retry_after is None else {"Retry-After": str(retry_after)}, b"")

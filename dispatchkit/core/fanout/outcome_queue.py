"""The bounded queue between the workers and the one consumer of their outcomes, in the order of completion."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from dispatchkit.core.fanout.outcome import Outcome

__all__ = ["OutcomeQueue"]

R = TypeVar("R")


class OutcomeQueue(Generic[R]):
    """A bounded queue of outcomes.

    Args:
        maxsize: Capacity; producers block when it is reached.
    """

    __slots__ = ("_blocked", "_maxsize", "_notified", "_ready", "is_full")

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self.is_full = False
        """Whether a producer should await `wait_not_full`."""
        self._ready: deque[Outcome[R]] = deque()
        self._notified: asyncio.Future[None] | None = None
        self._blocked: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    def put(self, outcome: Outcome[R]) -> None:
        """Add an outcome."""
        self._ready.append(outcome)
        self.is_full = len(self._ready) >= self._maxsize
        self.notify()

    def notify(self) -> None:
        """Wake the consumer: there is an outcome, or there will be no more."""
        if self._notified is not None:
            self._notified.set_result(None)
            self._notified = None

    async def wait(self) -> None:
        """Wait for the next notification."""
        self._notified = self._notified or asyncio.get_running_loop().create_future()
        await asyncio.shield(self._notified)

    async def wait_not_full(self) -> None:
        """Wait until the consumer has taken some."""
        blocked = asyncio.get_running_loop().create_future()
        self._blocked.append(blocked)
        await blocked

    def get_nowait(self) -> Outcome[R] | None:
        """Take an outcome if there is one and no producer is blocked."""
        if not self._ready or self._blocked:
            return None
        self.is_full = len(self._ready) > self._maxsize
        return self._ready.popleft()

    def get_many(self, most: int) -> list[Outcome[R]]:
        """Take up to ``most`` outcomes. Once the queue is not full, unblock all producers."""
        taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        self.is_full = len(self._ready) >= self._maxsize
        # There may be more producers than room: one that is woken while the queue is full only blocks again.
        while self._blocked and not self.is_full:
            blocked = self._blocked.popleft()
            if not blocked.done():
                blocked.set_result(None)
        return taken

"""Outcomes between the workers that bring them and the one consumer who takes them, in the order of completion.

A slow consumer holds the workers back: when as many outcomes wait as there is room for, whoever brings more waits too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from dispatchkit.core.fanout.outcome import Outcome

__all__ = ["OutcomeQueue"]

R = TypeVar("R")


class OutcomeQueue(Generic[R]):
    """Outcomes that are there to be taken.

    Args:
        maxsize: How many may wait before who brings them has to.
    """

    __slots__ = ("_blocked", "_maxsize", "_notified", "_ready")

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._ready: deque[Outcome[R]] = deque()
        self._notified: asyncio.Future[None] | None = None
        self._blocked: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def is_full(self) -> bool:
        """Whether who brings outcomes should wait for `wait_not_full`."""
        return len(self._ready) >= self._maxsize

    def put(self, outcome: Outcome[R]) -> None:
        """Bring one."""
        self._ready.append(outcome)
        self.notify()

    def notify(self) -> None:
        """Wake the consumer: there is one, or there will be no more."""
        if self._notified is not None:
            self._notified.set_result(None)
            self._notified = None

    async def wait(self) -> None:
        """Wait for the next notification."""
        self._notified = self._notified or asyncio.get_running_loop().create_future()
        await asyncio.shield(self._notified)

    async def wait_not_full(self) -> None:
        """Wait until some were taken."""
        blocked = asyncio.get_running_loop().create_future()
        self._blocked.append(blocked)
        await blocked

    def get_nowait(self) -> Outcome[R] | None:
        """Take one at once, if there is one and nobody waits for its space."""
        return self._ready.popleft() if self._ready and not self._blocked else None

    def get_many(self, most: int) -> list[Outcome[R]]:
        """Take all that are there, up to so many, and let as many workers go on."""
        taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        room = len(taken)
        while room and self._blocked:
            blocked = self._blocked.popleft()
            if not blocked.done():
                blocked.set_result(None)
                room -= 1
        return taken

"""Outcomes between the workers that bring them and the one consumer who takes them, in the order of completion.

A slow consumer holds the workers back: when as many outcomes wait as there is room for, whoever brings more waits too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from dispatchkit.core.fanout.outcome import Outcome

__all__ = ["Outlet"]

R = TypeVar("R")


class Outlet(Generic[R]):
    """Outcomes that are there to be taken.

    Args:
        room: How many may wait before who brings them has to.
    """

    __slots__ = ("_arrival", "_blocked", "_ready", "_room")

    def __init__(self, room: int) -> None:
        self._room = room
        self._ready: deque[Outcome[R]] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self._blocked: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def is_full(self) -> bool:
        """Whether who brings outcomes should wait for `space`."""
        return len(self._ready) >= self._room

    def put(self, outcome: Outcome[R]) -> None:
        """Bring one."""
        self._ready.append(outcome)
        self.announce()

    def announce(self) -> None:
        """Wake the consumer: there is one, or there will be no more."""
        if self._arrival is not None:
            self._arrival.set_result(None)
            self._arrival = None

    async def arrival(self) -> None:
        """Wait for the next announcement."""
        self._arrival = self._arrival or asyncio.get_running_loop().create_future()
        await asyncio.shield(self._arrival)

    async def space(self) -> None:
        """Wait until some were taken."""
        blocked = asyncio.get_running_loop().create_future()
        self._blocked.append(blocked)
        await blocked

    def take_one(self) -> Outcome[R] | None:
        """Take one at once, if there is one and nobody waits for its space."""
        return self._ready.popleft() if self._ready and not self._blocked else None

    def take(self, most: int) -> list[Outcome[R]]:
        """Take all that are there, up to so many, and let as many workers go on."""
        taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        room = len(taken)
        while room and self._blocked:
            blocked = self._blocked.popleft()
            if not blocked.done():
                blocked.set_result(None)
                room -= 1
        return taken

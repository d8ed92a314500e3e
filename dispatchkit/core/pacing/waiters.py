"""The attempts that wait for a permit, in FIFO order, and their deadlines."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import OrderedDict

from dispatchkit.core.wakeup import current_loop, wake

__all__ = ["Waiter", "WaiterQueue"]


class Waiter:
    """An attempt that waits for a permit, in the event loop that made it. Each wait uses a new future."""

    __slots__ = ("error", "expired", "future", "loop", "permit", "previous", "slot", "until")

    slot: float
    """The planned start of the permit."""
    previous: float
    """The planned start of the permit before it."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.permit = 0
        self.expired = False
        self.error: BaseException | None = None
        """The clock's exception."""


class WaiterQueue:
    """A queue of waiters. Every method needs the lock of the pacer."""

    __slots__ = ("_numbers", "deadlines", "in_order")

    def __init__(self) -> None:
        self.in_order: OrderedDict[Waiter, None] = OrderedDict()
        """The waiters. The pacer looks at each attempt whether there are any; a method would take longer."""
        self.deadlines: list[tuple[float, int, Waiter]] = []
        """A heap of the deadlines, with some of waiters that have left."""
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self.in_order)

    def append(self, waiter: Waiter) -> None:
        """Add a waiter at the end."""
        self.in_order[waiter] = None
        if waiter.until < math.inf:
            if len(self.deadlines) > 2 * len(self.in_order) + 64:
                # Drop deadlines of waiters that were already admitted.
                self.deadlines = [entry for entry in self.deadlines if entry[2] in self.in_order]
                heapq.heapify(self.deadlines)
            heapq.heappush(self.deadlines, (waiter.until, next(self._numbers), waiter))

    def put_back(self, waiter: Waiter) -> None:
        """Add a waiter at the head."""
        self.append(waiter)
        self.in_order.move_to_end(waiter, last=False)

    def popleft(self) -> Waiter | None:
        """Remove and return the waiter at the head; None without one. Drops waiters whose event loop was closed."""
        while self.in_order:
            waiter = self.in_order.popitem(last=False)[0]
            if not waiter.loop.is_closed():
                return waiter
        return None

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter, if it is in the queue."""
        self.in_order.pop(waiter, None)

    def last(self) -> Waiter | None:
        """The waiter at the end; None without one. Drops waiters whose event loop was closed."""
        while (waiter := next(reversed(self.in_order), None)) is not None and waiter.loop.is_closed():
            del self.in_order[waiter]
        return waiter

    def expire(self, before: float, *, here: asyncio.AbstractEventLoop | None) -> None:
        """Remove and wake all waiters whose deadline is before this moment. For ``here``, see `wake`."""
        while self.deadlines and self.deadlines[0][0] < before:
            _, _, waiter = heapq.heappop(self.deadlines)
            if waiter in self.in_order:
                del self.in_order[waiter]
                waiter.expired = True
                wake(waiter.future, waiter.loop, here=here)

    def first_deadline(self) -> float:
        """The earliest deadline; infinite without one."""
        while self.deadlines and self.deadlines[0][2] not in self.in_order:
            heapq.heappop(self.deadlines)
        return self.deadlines[0][0] if self.deadlines else math.inf

    def fail(self, error: BaseException) -> None:
        """Remove all waiters. The wait of each raises this error."""
        here = current_loop()
        while (waiter := self.popleft()) is not None:
            waiter.error = error
            wake(waiter.future, waiter.loop, here=here)

"""The retry budget: what a client may ask of a provider that does not answer.

It bounds the load on a dead provider. It decides no outcome: a call waits for a token until its deadline.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import OrderedDict

import attrs

from dispatchkit.core.clock import Clock
from dispatchkit.core.transport.fork import register_fork_reset
from dispatchkit.values import Value

__all__ = ["BudgetStatistics", "RetryBudget"]

_EPSILON = 1e-9
"""A token that lacks less than this is whole: sums of floats are not exact."""


@attrs.frozen
class BudgetStatistics(Value):
    """What a `RetryBudget` has seen."""

    tokens: float
    """What is left now."""
    spent: int
    """Repeats and state reads that were paid for."""
    refused: int
    """Repeats and state reads for which no token came before the deadline, or before the client was closed."""
    waiting: int
    """Calls that wait for a token now."""


class RetryBudget:
    """A token bucket that all calls of a client share. Each repeat and each state read costs one token.

    - Each call brings `TOKEN_RATIO` of a token, up to `MAX_TOKENS`. Time brings `REFILL` tokens a second, up to
      `INITIAL_TOKENS`.
    - A request that the provider answers gives its token back. While calls wait, it brings another one, so the requests
      double with each round trip once the provider answers again.

    A dead provider therefore gets 8 % more requests than there are calls, plus `INITIAL_TOKENS`, plus one a second. A
    provider that answers can be asked as often as it takes.

    Calls wait in order (FIFO). One timer serves all of them.
    """

    INITIAL_TOKENS = 10.0
    """Tokens at the beginning, and the most that time brings."""
    TOKEN_RATIO = 0.08
    """Tokens that each call brings."""
    MAX_TOKENS = 100.0
    """Tokens that can be saved."""
    REFILL = 1.0
    """Tokens a second."""

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_clock",
        "_closed",
        "_deadlines",
        "_numbers",
        "_refilled",
        "_refused",
        "_spent",
        "_timer",
        "_tokens",
        "_waiters",
    )

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens = self.INITIAL_TOKENS
        self._refilled = clock.monotonic()
        self._spent = 0
        self._refused = 0
        self._closed = False
        self.reset_after_fork()
        register_fork_reset(self)

    def reset_after_fork(self) -> object:
        """Leave the calls that wait to the process that this one was forked from."""
        theirs = (getattr(self, "_timer", None), getattr(self, "_waiters", None))
        self._waiters: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        self._deadlines: list[tuple[float, int, asyncio.Future[bool]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.Future[None] | None = None
        self._alarm = 0.0
        return theirs

    def deposit(self) -> None:
        """A call was made. Calls that wait get what it brings at the next token of the refill."""
        if self._tokens < self.MAX_TOKENS:
            self._tokens += self.TOKEN_RATIO

    async def withdraw(self, *, until: float) -> bool:
        """Take a token for a repeat or a state read; wait for it behind the calls that wait already.

        Args:
            until: On the clock's ``monotonic``: when to give up.

        Returns:
            Whether there is a token. False too once the client is closed.
        """
        now = self._refill()
        if self._closed:
            return False
        if not self._waiters and self._take():
            return True
        if now > until:
            self._refused += 1
            return False
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        if len(self._deadlines) > 2 * len(self._waiters) + 64:
            # Of the calls that got their token long before, nothing stays.
            self._deadlines = [each for each in self._deadlines if each[2] in self._waiters]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (until, next(self._numbers), waiter))
        self._set_timer(now)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._waiters.pop(waiter, None)
                self._serve()
            elif waiter.result():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Return a token that was not used: no request was made."""
        self._spent -= 1
        self._tokens = min(self.MAX_TOKENS, self._tokens + 1)
        self._serve()

    def refund(self) -> None:
        """The provider answered a request that was paid for."""
        self._tokens = min(self.MAX_TOKENS, self._tokens + (2 if self._waiters else 1))
        if self._waiters:
            self._serve()

    def close(self) -> None:
        """The client is closed: no call waits any more, and none gets a token."""
        self._closed = True
        for waiter in list(self._waiters):
            self._refuse(waiter)
        self._serve()

    def statistics(self) -> BudgetStatistics:
        """A snapshot."""
        self._refill()
        return BudgetStatistics(self._tokens, self._spent, self._refused, len(self._waiters))

    def _refill(self) -> float:
        """Add what time has brought. Returns the time."""
        now = self._clock.monotonic()
        elapsed, self._refilled = now - self._refilled, now
        if self._tokens < self.INITIAL_TOKENS:
            self._tokens = min(self.INITIAL_TOKENS, self._tokens + elapsed * self.REFILL)
        return now

    def _take(self) -> bool:
        if self._tokens < 1 - _EPSILON:
            return False
        self._tokens -= 1
        self._spent += 1
        return True

    def _serve(self) -> None:
        """Give the tokens that there are to the calls that wait, end the waits that are over, and set the timer."""
        now = self._refill()
        while self._waiters and self._tokens >= 1 - _EPSILON:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():  # else its call is just being cancelled
                self._take()
                waiter.set_result(True)
        while self._deadlines and (self._deadlines[0][0] < now or self._deadlines[0][2] not in self._waiters):
            self._refuse(heapq.heappop(self._deadlines)[2])
        self._set_timer(now)

    def _refuse(self, waiter: asyncio.Future[bool]) -> None:
        if waiter in self._waiters:
            del self._waiters[waiter]
            if not waiter.done():
                self._refused += 1
                waiter.set_result(False)

    def _set_timer(self, now: float) -> None:
        """Ring when the next token comes, or just after the next deadline."""
        if not self._waiters:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        token = max(0.0, 1 - self._tokens) / self.REFILL
        wait = min(token, max(0.0, self._deadlines[0][0] - now) + _EPSILON)
        if self._timer is not None:
            if self._alarm <= now + wait:
                return  # it rings before, and is then set anew
            self._timer.cancel()
        self._alarm = now + wait
        self._timer = asyncio.ensure_future(self._clock.sleep(wait))
        self._timer.add_done_callback(self._ring)

    def _ring(self, timer: asyncio.Future[None]) -> None:
        if timer is self._timer:
            self._timer = None
            if not timer.cancelled():  # else the loop ends
                self._serve()

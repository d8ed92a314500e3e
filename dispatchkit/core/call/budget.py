"""The retry budget: a token bucket that bounds a client's load on a dead provider.

It decides no outcome: a call waits for a token until its deadline.
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
"""Tolerance for rounding errors: a token may lack this much."""


@attrs.frozen
class BudgetStatistics(Value):
    """The state of a `RetryBudget` at one moment."""

    tokens: float
    """Tokens available now."""
    spent: int
    """Tokens spent on retries and state reads."""
    refused: int
    """Retries and state reads that got no token before their deadline."""
    waiting: int
    """Calls that wait for a token now."""


class RetryBudget:
    """A token bucket that all calls of a client share. Each retry and each state read costs one token.

    - Each call deposits `TOKEN_RATIO` of a token, up to `MAX_TOKENS`. Time refills `REFILL` tokens a second, up to
      `INITIAL_TOKENS`.
    - An answered request returns its token. While calls wait, it also adds one. So requests double with each round
      trip once the provider answers again.

    A dead provider gets at most 8 % more requests than calls, plus `INITIAL_TOKENS`, plus one a second. A provider that
    answers is not limited.

    Calls wait in order (FIFO). One timer serves all of them.
    """

    INITIAL_TOKENS = 10.0
    """Tokens at the start, and the limit of the refill by time."""
    TOKEN_RATIO = 0.08
    """Tokens that each call deposits."""
    MAX_TOKENS = 100.0
    """Capacity of the bucket."""
    REFILL = 1.0
    """Tokens that time adds a second."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_deadlines",
        "_numbers",
        "_refilled",
        "_refused",
        "_spent",
        "_timer",
        "_tokens",
        "_waiters",
        "_wake_at",
    )

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens = self.INITIAL_TOKENS
        self._refilled = clock.monotonic()
        self._spent = 0
        self._refused = 0
        self.reset_after_fork()
        register_fork_reset(self)

    def reset_after_fork(self) -> object:
        """Drop the waiters and the timer in a forked child: they belong to the parent."""
        inherited = (getattr(self, "_timer", None), getattr(self, "_waiters", None))
        self._waiters: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        self._deadlines: list[tuple[float, int, asyncio.Future[bool]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.Future[None] | None = None
        self._wake_at = 0.0
        return inherited

    def deposit(self) -> None:
        """Add a new call's share of a token. Waiters are served at the next refill."""
        if self._tokens < self.MAX_TOKENS:
            self._tokens += self.TOKEN_RATIO

    async def withdraw(self, *, until: float) -> bool:
        """Take a token for a retry or a state read. Waiters are served in FIFO order.

        Args:
            until: The latest moment to wait for a token, on the clock's ``monotonic``.

        Returns:
            True if a token was taken. False after ``until``.
        """
        now = self._refill()
        if not self._waiters and self._take():
            return True
        if now > until:
            self._refused += 1
            return False
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        if len(self._deadlines) > 2 * len(self._waiters) + 64:
            # Drop deadlines of waiters that were already served.
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self._waiters]
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
        """Return an unused token: no request was made."""
        self._spent -= 1
        self._tokens = min(self.MAX_TOKENS, self._tokens + 1)
        self._serve()

    def refund(self) -> None:
        """Return the token of a request that the provider answered, and add one if calls wait."""
        self._tokens = min(self.MAX_TOKENS, self._tokens + (2 if self._waiters else 1))
        if self._waiters:
            self._serve()

    def statistics(self) -> BudgetStatistics:
        """A snapshot."""
        self._refill()
        return BudgetStatistics(self._tokens, self._spent, self._refused, len(self._waiters))

    def _refill(self) -> float:
        """Add the tokens for the elapsed time. Returns the current time."""
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
        """Hand out the available tokens, expire late waiters, and set the timer."""
        now = self._refill()
        while self._waiters and self._tokens >= 1 - _EPSILON:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():  # done: its call is being cancelled
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
        """Schedule `_serve` for the next token or just after the next deadline, whichever is first."""
        if not self._waiters:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        token = max(0.0, 1 - self._tokens) / self.REFILL
        wait = min(token, max(0.0, self._deadlines[0][0] - now) + _EPSILON)
        if self._timer is not None:
            if self._wake_at <= now + wait:
                return  # the earlier timer sets the next one
            self._timer.cancel()
        self._wake_at = now + wait
        self._timer = asyncio.ensure_future(self._clock.sleep(wait))
        self._timer.add_done_callback(self._on_timer)

    def _on_timer(self, timer: asyncio.Future[None]) -> None:
        if timer is self._timer:
            self._timer = None
            if not timer.cancelled():  # cancelled: the loop is shutting down
                self._serve()

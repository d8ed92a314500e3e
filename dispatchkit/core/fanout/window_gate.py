"""The gate of a run with a window.

The wall clock decides, since the machine may sleep meanwhile. `WindowGate` compares it before each attempt, and
`WindowClaim` directly before its first byte. A repeat is a start, too. A request that has begun ends as it would
without a window, and state reads go on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from dispatchkit.core.call.gate import Gate, Permit
from dispatchkit.core.claim import ClaimAge, ClaimResult
from dispatchkit.core.clock import Clock
from dispatchkit.core.fanout.window import Window, in_words
from dispatchkit.core.log import log
from dispatchkit.core.stop import StopSignal

__all__ = ["WindowClaim", "WindowGate", "watch_end"]

logger = logging.getLogger("dispatchkit.guards")

_MAX_SLEEP = 5.0
"""Seconds between two looks at the wall clock, which may be set."""


class WindowClaim(ClaimAge):
    """The permission of a window to begin one request, together with a ledger's claim.

    Args:
        clock: The source of time.
        window: The window.
        claim: The ledger's claim; None without a ledger.
    """

    __slots__ = ("_begun", "_claim", "_window")

    def __init__(self, clock: Clock, window: Window, claim: ClaimAge | None) -> None:
        self._clock = clock
        self._window = window
        self._claim = claim
        self._begun = False
        self.boottime = clock.boottime
        self.expires_at = math.inf if claim is None else claim.expires_at

    def is_expired(self, *, margin: float = 0.0) -> bool:
        """See `ClaimAge.is_expired`. The window counts until the first part of the request is written."""
        claim = self._claim
        self.expires_at = math.inf if claim is None else claim.expires_at
        if not self._begun:
            left = self._window.ends_in(self._clock.now())
            if left <= 0:
                return True
            self._begun = True
            self.expires_at = min(self.expires_at, self.boottime() + left)
        return claim is not None and claim.is_expired(margin=margin)

    def seconds(self) -> float:
        """See `ClaimAge.seconds`."""
        return 0.0 if self._claim is None else self._claim.seconds()

    def was_stepped(self) -> bool:
        """See `ClaimAge.was_stepped`."""
        return self._claim is not None and self._claim.was_stepped()


class WindowGate:
    """A gate that is open only inside of a window. See `Gate`, whose methods these are.

    Args:
        gate: The gate that decides within the window.
        window: The window.
        clock: The source of time.
        stop: The stop signal of the run.
        closed: The stop signal of the client.
        cancel: Gives an unused permit back.
        end: Called once the window is over.
    """

    __slots__ = ("_cancel", "_clock", "_closed", "_end", "_gate", "_stop", "_window")

    def __init__(
        self,
        gate: Gate,
        window: Window,
        clock: Clock,
        *,
        stop: StopSignal,
        closed: StopSignal,
        cancel: Callable[[Permit], None],
        end: Callable[[], None],
    ) -> None:
        self._gate = gate
        self._window = window
        self._clock = clock
        self._stop = stop
        self._closed = closed
        self._cancel = cancel
        self._end = end

    @property
    def claim(self) -> ClaimAge | None:
        """See `Gate.claim`."""
        claim = self._gate.claim
        return claim if self._window.not_after is None else WindowClaim(self._clock, self._window, claim)

    @property
    def refusal(self) -> ClaimResult | None:
        """See `Gate.refusal`."""
        return self._gate.refusal

    def try_acquire(self) -> Permit:
        """See `Gate.try_acquire`."""
        now = self._clock.now()
        return self._gate.try_acquire() if self._window.opens_in(now) <= 0 < self._window.ends_in(now) else 0

    async def acquire(self, until: float) -> Permit:
        """See `Gate.acquire`. It waits until the window opens."""
        clock = self._clock
        while (left := self._window.opens_in(clock.now())) > 0:
            if self._stop.is_set or self._closed.is_set or clock.monotonic() > until:
                return 0
            with self._stop.interruptible(self._closed):
                await clock.sleep(min(left, _MAX_SLEEP))
        if self._is_over():
            return 0
        permit = await self._gate.acquire(until)
        if permit and self._is_over():
            self._cancel(permit)
            return 0
        return permit

    def _is_over(self) -> bool:
        if self._window.ends_in(self._clock.now()) > 0:
            return False
        self._end()
        return True

    async def renew(self) -> ClaimAge | None:
        """See `Gate.renew`: the request has begun."""
        return await self._gate.renew()

    def expired(self) -> None:
        """See `Gate.expired`."""
        if not self._is_over():
            self._gate.expired()

    def used(self) -> None:
        """See `Gate.used`."""
        self._gate.used()

    def obstacle(self) -> str:
        """See `Gate.obstacle`."""
        if self._window.not_after is not None and self._window.ends_in(self._clock.now()) <= 0:
            return f"its window ended at {in_words(self._window.not_after)}"
        return self._gate.obstacle()

    def close(self, *, has_outcome: bool) -> None:
        """See `Gate.close`."""
        self._gate.close(has_outcome=has_outcome)


async def watch_end(window: Window, clock: Clock) -> None:
    """Wait until the window is over. The wall clock may be set, so it is looked at again and again."""
    if window.not_before is not None and window.opens_in(clock.now()) > 0:
        log(logger, logging.INFO, "window: nothing starts until %s", in_words(window.not_before))
    while (left := window.ends_in(clock.now())) > 0:
        await clock.sleep(min(left, _MAX_SLEEP))

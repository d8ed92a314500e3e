"""What bounds a call while it waits: its deadline, a stop, the account's pace, and the ledger's claims."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, TypeVar

from dispatchkit.core.call.context import ClientContext
from dispatchkit.core.claim import ClaimAge, ClaimResult
from dispatchkit.core.command import Command
from dispatchkit.core.log import log, logger
from dispatchkit.errors import Attempt, DispatchkitError, State

__all__ = ["BoundedCall"]

R = TypeVar("R")
W = TypeVar("W")


class BoundedCall(Generic[W, R]):
    """The part of a `Call` that decides when a request may start."""

    __slots__ = (
        "_is_refused",
        "_permit",
        "_timeout",
        "attempts",
        "claim",
        "command",
        "context",
        "deadline",
        "expirations",
        "request_claim",
        "request_id",
        "stop",
    )

    def __init__(
        self, command: Command[W, R], context: ClientContext[W], request_id: str | None, *, timeout: float
    ) -> None:
        self.command = command
        self.context = context
        self.request_id = request_id
        self._timeout = timeout
        self.deadline = 0.0
        """On the clock's ``monotonic``."""
        self.attempts: tuple[Attempt, ...] = ()
        self.stop = context.stop
        """Tells to start no further attempt. A fan-out's call has the one of its run."""
        self.request_claim: Callable[[], Awaitable[ClaimResult]] | None = None
        """Claims the next attempt in the ledger, for every attempt that has no permit yet."""
        self.claim: ClaimAge | None = None
        """The ledger's claim for the next request."""
        self.expirations = 0
        """Consecutive claims that expired before their request had left."""
        self._is_refused = False
        """Whether the ledger does not grant the call another attempt."""
        self._permit = 0
        """The pacer's permit of the attempt in flight; 0 if there is none."""

    @property
    def is_over(self) -> bool:
        """Whether no further attempt may start."""
        return self.stop.is_set or self.context.stop.is_set

    @property
    def latest_start(self) -> float:
        """The latest start of a request, on the clock's ``monotonic``.

        It is before the deadline: a request that the deadline cuts short has an unclear outcome.
        """
        return self.deadline - min(1.0, self._timeout / 10)

    def _in_time(self) -> bool:
        """Whether a request may start now."""
        return self.context.clock.monotonic() <= self.latest_start

    async def _permitted(self) -> int:
        """Wait for the permit of the next attempt; 0 if none comes in time or the call is over."""
        pacer = self.context.pacer
        while True:
            permit = (pacer.try_acquire() if self._in_time() else 0) or await self._admit()
            if not permit or self.request_claim is None:
                return permit
            self._permit = permit
            try:
                claim_result = await self.request_claim()
            except BaseException:
                self._permit = 0
                pacer.cancel(permit)
                raise
            # The claim may have taken long: check the pause and the deadline again.
            if (
                claim_result is ClaimResult.GRANTED
                and not self.is_over
                and pacer.is_current(permit)
                and self._in_time()
            ):
                return permit
            self._permit = 0
            pacer.cancel(permit)
            if self.is_over or claim_result in {ClaimResult.STOPPED, ClaimResult.TAKEN}:
                self._is_refused = True
                return 0

    async def _renew_claim(self) -> ClaimAge | None:
        """Claim again for a request that has partly left; None if the ledger does not grant it."""
        if self.request_claim is None or self.is_over or await self.request_claim() is not ClaimResult.GRANTED:
            return None
        return self.claim

    async def _admit(self) -> int:
        with self.stop.interruptible(), self.context.stop.interruptible():
            return await self.context.pacer.acquire(until=self.latest_start)
        return 0

    def _obstacle(self) -> str:
        """Why no attempt may start."""
        if self.is_over or self._is_refused:
            return "it was told to stop"
        if self.expirations:
            return "its claims expired before the request could leave, until no time was left before the deadline"
        if not self.context.pacer.paused_for():
            return "the pace of the account left no time for it before the deadline"
        return self._pause()

    def _pause(self) -> str:
        """A description of a pause that lasts beyond the deadline."""
        pacer = self.context.pacer
        until = self.context.clock.now() + timedelta(seconds=pacer.paused_for())
        why = "the account is paused" if pacer.throttled_for() else "nothing starts, since most attempts got no answer,"
        return f"{why} until {until:%Y-%m-%d %H:%M:%S} UTC, beyond the deadline{self._latest_failure()}"

    def _latest_failure(self) -> str:
        """The result of the latest attempt, as a suffix for an error's summary."""
        latest = next((attempt.result for attempt in reversed(self.attempts) if attempt.result != "cancelled"), "")
        return latest and f"; its latest attempt: {latest}"

    def _log(self, level: int, text: str, *, error: DispatchkitError | None = None, delay: float | None = None) -> None:
        log(
            logger,
            level,
            "%r: %s",
            self.command,
            text,
            extra=lambda: {
                "command": repr(self.command),
                "request_id": self.request_id,
                "attempt": len(self.attempts),
                "outcome": None if error is None else error.state.value,
                "delay": delay,
            },
        )

    def _log_end(self, text: str, error: DispatchkitError) -> None:
        self._log(logging.WARNING if error.state is State.UNKNOWN else logging.INFO, text, error=error)

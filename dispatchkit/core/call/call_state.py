"""The state of a call: its attempts, its doubt, and the bounds of its waits (deadline, stop, closed client)."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import attrs

from dispatchkit.core.call.context import ClientContext
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.clock import Clock
from dispatchkit.core.command import Command
from dispatchkit.core.log import log, logger
from dispatchkit.errors import Attempt, DispatchkitError, OutcomeUnknownError

__all__ = ["CallState", "Doubt", "then", "unclear_too"]

R = TypeVar("R")
W = TypeVar("W")


@attrs.define
class Doubt:
    """The unclear attempts of a call."""

    error: OutcomeUnknownError
    """The call's outcome until settling finds another."""
    since: datetime
    """Start of the first unclear attempt."""
    began: float
    """The same moment on the clock's ``monotonic``, which is never set."""
    acting_until: float
    """The latest moment at which the latest unclear attempt can reach the provider, on the clock's ``monotonic``."""
    slept: float
    """Seconds by which ``boottime`` was ahead of ``monotonic`` when the doubt began."""
    acted_by: float | None = None
    """The latest moment at which it can have acted, on the clock's ``monotonic``; None means ``acting_until``."""

    def age(self, clock: Clock) -> float:
        """Seconds since the first unclear attempt began, including sleep of the machine."""
        return max(0.0, clock.boottime() - self.slept - self.began)


def then(error: OutcomeUnknownError, what: str, *, is_final: bool = False) -> OutcomeUnknownError:
    """The outcome with a later event appended. A final outcome stays final."""
    return type(error)(f"{error.summary}; {what}", is_final=error.is_final or is_final)


def unclear_too(error: OutcomeUnknownError) -> OutcomeUnknownError:
    """The outcome of a launch whose retry is unclear too: another retry might launch again."""
    return then(error, "its retry is unclear too, and no replay was ever seen", is_final=True)


class CallState(Generic[W, R]):
    """The state that a `Call` and its `Settling` share."""

    __slots__ = (
        "_timeout",
        "answered_at",
        "answers_another",
        "attempts",
        "command",
        "context",
        "deadline",
        "doubt",
        "has_rival",
        "log_key",
        "one_id",
        "policy",
        "request_id",
        "stopped",
        "waiting",
    )

    def __init__(
        self,
        command: Command[W, R],
        context: ClientContext[W],
        request_id: str | None,
        *,
        timeout: float,
        policy: RetryPolicy,
    ) -> None:
        self.command = command
        self.context = context
        self.request_id = request_id
        self.one_id = True
        """Whether all attempts used one request id; an earlier process's id may be unknown."""
        self.log_key = command.log_key
        self.policy = policy
        self._timeout = timeout
        self.deadline = 0.0
        """On the clock's ``monotonic``."""
        self.attempts: tuple[Attempt, ...] = ()
        self.doubt: Doubt | None = None
        """The unclear attempts so far, including those of an earlier process."""
        self.answers_another = False
        """Whether the provider marked the latest answer as a replay of another request's."""
        self.answered_at = -math.inf
        """The latest answer that was no server failure, on the clock's ``monotonic``."""
        self.stopped = False
        """Set to True to start no further attempt."""
        self.waiting = False
        """Whether the call waits for a permit, a claim or a retry, with no request in flight."""
        self.has_rival: Callable[[float], Awaitable[bool]] | None = None
        """Asks the ledger for another launch of the same log within so many seconds, in any run and process."""

    @property
    def is_over(self) -> bool:
        """Whether no further attempt may start."""
        return self.stopped or self.context.closed

    @property
    def latest_start(self) -> float:
        """The latest start of a request, on the clock's ``monotonic``.

        It is before the deadline: a request that the deadline cuts short has an unclear outcome.
        """
        return self.deadline - min(1.0, self._timeout / 10)

    def in_time(self, delay: float) -> bool:
        """Whether a request after so many seconds would start in time."""
        return self.context.clock.monotonic() + delay <= self.latest_start

    def may_start(self, delay: float) -> bool:
        """Whether a request may start after so many seconds."""
        return not self.is_over and self.in_time(delay)

    async def spend(self) -> bool:
        """Wait for a token of the retry budget. False if none comes in time or the client is closed."""
        self.waiting = True
        paid = await self.context.budget.withdraw(until=self.latest_start)
        self.waiting = False
        return paid

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds, or until the client is closed or a pause is lifted."""
        clock, pacer = self.context.clock, self.context.pacer
        until, lifts = clock.monotonic() + seconds, pacer.lifts
        self.waiting = True
        while (left := until - clock.monotonic()) > 0 and not self.is_over and pacer.lifts == lifts:
            await pacer.sleep(left)
        self.waiting = False

    def monotonic_of(self, moment: datetime) -> float:
        """Convert a moment of the wall clock to the clock's ``monotonic``."""
        clock = self.context.clock
        return clock.monotonic() - (clock.now() - moment).total_seconds()

    def paused_beyond(self) -> str:
        """A sentence for a pause that lasts beyond the deadline."""
        pacer = self.context.pacer
        until = self.context.clock.now() + timedelta(seconds=pacer.paused_for())
        why = "the account is paused" if pacer.throttled_for() else "nothing starts, since most attempts got no answer,"
        return f"{why} until {until:%Y-%m-%d %H:%M:%S} UTC, beyond the deadline{self.latest_failure()}"

    def latest_failure(self) -> str:
        """The result of the latest attempt, as a suffix for an error's summary."""
        latest = next((attempt.result for attempt in reversed(self.attempts) if attempt.result != "cancelled"), "")
        return latest and f"; its latest attempt: {latest}"

    def log(self, level: int, text: str, *, error: DispatchkitError | None = None, delay: float | None = None) -> None:
        """Log a record about the call."""
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

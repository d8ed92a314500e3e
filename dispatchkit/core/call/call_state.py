"""What is known of a call on its way, and what bounds its waits: its deadline, a stop, the end of its client."""

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
    """What is unclear about a call."""

    error: OutcomeUnknownError
    """The outcome, as long as nothing settles it."""
    since: datetime
    """When the first unclear attempt began."""
    began: float
    """The same on the clock's ``monotonic``, which nothing sets."""
    acting_until: float
    """On the clock's ``monotonic``: from when on the latest unclear attempt reaches the provider no more."""
    slept: float
    """How far the clock's ``boottime`` was ahead of ``monotonic`` when the doubt was first noted."""
    acted_by: float | None = None
    """On the clock's ``monotonic``: when it has acted at the latest, if it has; None means ``acting_until``."""

    def age(self, clock: Clock) -> float:
        """Seconds since the first unclear attempt began, also those for which the machine slept."""
        return max(0.0, clock.boottime() - self.slept - self.began)


def then(error: OutcomeUnknownError, what: str, *, is_final: bool = False) -> OutcomeUnknownError:
    """The outcome with what came after it. Once it is final, it stays so."""
    return type(error)(f"{error.summary}; {what}", is_final=error.is_final or is_final)


def unclear_too(error: OutcomeUnknownError) -> OutcomeUnknownError:
    """The outcome of a launch of which a repeat is unclear too: one more repeat might be one more launch."""
    return then(error, "so was its repeat, and no replay was ever seen", is_final=True)


class CallState(Generic[W, R]):
    """What the attempts of a call and the settling of it share."""

    __slots__ = (
        "_timeout",
        "answered_at",
        "answers_another",
        "attempts",
        "command",
        "deadline",
        "doubt",
        "has_rival",
        "log_key",
        "means",
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
        self.means = context
        self.request_id = request_id
        self.one_id = True
        """Whether all attempts are under one id: that of another process's attempt may not be known."""
        self.log_key = command.log_key
        self.policy = policy
        self._timeout = timeout
        self.deadline = 0.0
        """On the clock's ``monotonic``."""
        self.attempts: tuple[Attempt, ...] = ()
        self.doubt: Doubt | None = None
        """What the attempts so far, also those of another process, leave unclear."""
        self.answers_another = False
        """Whether the latest answer was, by the provider's own word, that of another request."""
        self.answered_at = -math.inf
        """On the clock's ``monotonic``: when the provider last answered an attempt, other than with a failure of its
        own."""
        self.stopped = False
        """Set it, and no further attempt starts."""
        self.waiting = False
        """Whether nothing of the call is in flight: it waits for leave to start an attempt, or to repeat one."""
        self.has_rival: Callable[[float], Awaitable[bool]] | None = None
        """Asked where a ledger remembers the run: whether another launch of the same log left within so many seconds,
        in any run and any process."""

    @property
    def is_over(self) -> bool:
        """Whether nothing starts any more."""
        return self.stopped or self.means.closed

    @property
    def latest_start(self) -> float:
        """On the clock's ``monotonic``: no request starts later.

        An attempt that the deadline cuts short turns a clear outcome into an unclear one.
        """
        return self.deadline - min(1.0, self._timeout / 10)

    def in_time(self, delay: float) -> bool:
        """Whether there is time for a request after so many seconds."""
        return self.means.clock.monotonic() + delay <= self.latest_start

    def may_start(self, delay: float) -> bool:
        """Whether a request may start after so many seconds."""
        return not self.is_over and self.in_time(delay)

    async def spend(self) -> bool:
        """Wait for a token of the retry budget. False: none came in time, or the client was closed."""
        self.waiting = True
        paid = await self.means.budget.withdraw(until=self.latest_start)
        self.waiting = False
        return paid

    async def sleep(self, seconds: float) -> None:
        """Wait; the end of the client, and of a pause that is lifted, ends it."""
        clock, pacer = self.means.clock, self.means.pacer
        until, lifts = clock.monotonic() + seconds, pacer.lifts
        self.waiting = True
        while (left := until - clock.monotonic()) > 0 and not self.is_over and pacer.lifts == lifts:
            await pacer.sleep(left)
        self.waiting = False

    def monotonic_of(self, moment: datetime) -> float:
        """A moment of the wall clock on the clock's ``monotonic``."""
        clock = self.means.clock
        return clock.monotonic() - (clock.now() - moment).total_seconds()

    def paused_beyond(self) -> str:
        """Say that the account is paused for longer than the call has."""
        pacer = self.means.pacer
        until = self.means.clock.now() + timedelta(seconds=pacer.paused_for())
        why = "the account is paused" if pacer.throttled_for() else "nothing starts, since most attempts got no answer,"
        return f"{why} until {until:%Y-%m-%d %H:%M:%S} UTC, beyond the deadline{self.latest_failure()}"

    def latest_failure(self) -> str:
        """What the latest attempt came to, to be told after what ended the call."""
        latest = next((each.result for each in reversed(self.attempts) if each.result != "cancelled"), "")
        return latest and f"; its latest attempt: {latest}"

    def log(self, level: int, text: str, *, error: DispatchkitError | None = None, delay: float | None = None) -> None:
        """Log a line about the call."""
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

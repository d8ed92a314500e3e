"""The values of a call's decisions: its rules and state, the events that change it, and the actions that follow.

All of them are frozen. Times come in with the events. See `decide`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, Literal, Never, TypeVar

import attrs

from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.clock import Clock
from dispatchkit.core.command import Evidence, LogProbe, Settlement
from dispatchkit.core.command import Probe as StateProbe
from dispatchkit.errors import DispatchkitError, OutcomeUnknownError, ThrottledError

__all__ = [
    "NOT_READ",
    "Action",
    "AttemptEvent",
    "CallState",
    "Doubt",
    "Event",
    "Expired",
    "Failed",
    "Finish",
    "Late",
    "Log",
    "Logged",
    "NoToken",
    "Now",
    "Observed",
    "Probe",
    "Rules",
    "Send",
    "Start",
    "Succeeded",
    "TakenOver",
    "Unfinished",
    "Wait",
    "Waited",
]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
W = TypeVar("W")


def _error_value(error: BaseException | None) -> object:
    """What makes two errors equal: exceptions are compared by identity, but the states of a call are values."""
    told = ("summary", "is_final", "retry_after")
    return error and (type(error), error.args, *(getattr(error, name, None) for name in told))


@attrs.frozen
class Start:
    """The start of a request."""

    wall: datetime
    """On the wall clock."""
    monotonic: float
    """On the clock's ``monotonic``, which is never set."""
    slept: float = 0.0
    """Seconds by which ``boottime`` was ahead of ``monotonic`` at its end."""

    def age(self, boottime: float) -> float:
        """Seconds since the start, including sleep of the machine after its end. The wall clock may have been set."""
        return boottime - self.slept - self.monotonic


@attrs.frozen(kw_only=True)
class Rules(Generic[W, R]):
    """What stays the same during one call."""

    policy: RetryPolicy
    latest_start: float
    """The latest start of a request, on the clock's ``monotonic``."""
    started: float = 0.0
    """The start of the call, on the same clock."""
    probe: Callable[[datetime], StateProbe[W, R] | LogProbe[W, R] | None]
    """How to settle an unclear outcome, by the start of the first unclear attempt. See `Command.probe`."""
    deduplicated: Callable[[timedelta], bool]
    """Whether the user vouches for deduplication at this age of the request id. See `Command.deduplicated`."""
    is_read_only: bool = False
    in_log: bool = False
    """Whether only a log shows the command. See `Command.log_key`."""
    has_one_id: bool = True
    """Whether all attempts used one request id; an earlier process's id may be unknown."""
    repeats: int = 0
    """Retries of the unclear launch that an earlier process may have made."""


@attrs.frozen
class Doubt:
    """The requests of a call that have left, perhaps in part, and were not answered."""

    error: OutcomeUnknownError = attrs.field(eq=_error_value)
    """The call's outcome until settling finds another."""
    began: Start
    """Start of the first unclear attempt."""
    acting_until: float
    """The latest moment at which the latest unclear attempt can reach the provider, on the clock's ``monotonic``."""
    acted_by: float | None = None
    """The latest moment at which it can have acted, on the clock's ``monotonic``; None means ``acting_until``."""
    is_denied: bool = False
    """Whether the provider's state proves that none of the attempts acted, or ever will."""
    is_partial: bool = False
    """Whether each claim expired after a part of its request had left. No server had a whole request."""

    def age(self, clock: Clock) -> float:
        """Seconds since the first unclear attempt began, including sleep of the machine."""
        return max(0.0, self.began.age(clock.boottime()))


NOT_READ: Settlement[Never] = Settlement(Evidence.INCONCLUSIVE, "its state was not read")


@attrs.frozen(kw_only=True)
class CallState(Generic[W, R]):
    """What is known of a call that has not succeeded at once, and what it does now."""

    rules: Rules[W, R]
    phase: Literal["attempt", "settle", "settled", "retry"] = "attempt"
    """What the call does: attempt, read the provider's state, record the settlement, or wait for a retry."""
    tries: int = 1
    """Attempts so far as `RetryPolicy.attempts` counts them, including the one in flight."""
    first_started: Start | None = None
    """Start of this call's first attempt; None before its end."""
    doubt: Doubt | None = None
    """The unclear requests so far, including those of an earlier process."""
    throttled: ThrottledError | None = attrs.field(default=None, eq=_error_value)
    """The latest HTTP 429."""
    error: DispatchkitError | None = attrs.field(default=None, eq=_error_value)
    """The outcome, if no further attempt is made."""
    latest: DispatchkitError | None = attrs.field(default=None, eq=_error_value)
    """The error of the latest attempt; None before its end."""
    delay: float = 0.0
    """Seconds until the next attempt."""
    waited: float = 0.0
    """Sum of the delays so far."""
    probes: int = 0
    """State reads since the latest unclear attempt or refusal."""
    reads_once: bool = False
    """Whether one state read is enough, since the call may be retried whatever it shows."""
    settlement: Settlement[R] = attrs.field(default=NOT_READ)
    """The latest state read."""
    refusal: DispatchkitError | None = attrs.field(default=None, eq=_error_value)
    """The refusal of a retry, perhaps because the earlier attempt succeeded."""

    @property
    def unclear(self) -> Doubt | None:
        """The doubt, unless no server had a whole request: then none can have acted."""
        return None if self.doubt is None or self.doubt.is_partial else self.doubt


# Events


@attrs.frozen(kw_only=True)
class Now:
    """The surroundings of a call at the moment of an event."""

    monotonic: float
    wall: datetime
    slept: float = 0.0
    """Seconds by which ``boottime`` is ahead of ``monotonic``."""
    random: float = 0.5
    """A random number in ``[0, 1)``."""
    stopped: bool = False
    """Whether no further request may start."""
    paused: float = 0.0
    """Seconds for which the account is paused."""
    pause: str = ""
    """A description of the pause."""
    honours_ids: bool = False
    """Whether the provider has recognised a retry by its request id. See `Replays.honoured`."""
    strips_ids: bool = False
    """Whether a proxy strips request ids. See `Replays.foreign`."""
    other_launch_ended: float = -math.inf
    """The latest end of another launch with the same log, on the clock's ``monotonic``."""


@attrs.frozen
class TakenOver:
    """The call begins with an unclear attempt of an earlier process."""

    now: Now


@attrs.frozen
class Unfinished:
    """An attempt ended without a result."""

    now: Now


@attrs.frozen
class Failed(Unfinished):
    """An attempt ended with an error."""

    error: DispatchkitError = attrs.field(eq=_error_value)
    start: Start
    answers_another: bool = False
    """Whether the provider marked the answer as a replay of another request's."""


@attrs.frozen
class Late(Unfinished):
    """An attempt got no permit before the deadline, or the call was stopped."""

    why: str


@attrs.frozen
class Expired(Unfinished):
    """The claim of a request expired before all of it had left."""

    partly_sent: Start | None = None
    """The start of the request, if a part of it may have left."""


@attrs.frozen
class Succeeded(Generic[R_co]):
    """An attempt ended with a result."""

    now: Now
    result: R_co


@attrs.frozen
class Observed(Generic[R_co]):
    """A state read ended."""

    now: Now
    settlement: Settlement[R_co]
    asked: float
    """Start of the state read, on the clock's ``monotonic``."""
    age: float = 0.0
    """Seconds by which the response is older than its request."""


@attrs.frozen
class Waited:
    """A wait ended, perhaps early."""

    now: Now
    has_token: bool = False
    """Whether the call holds a token of the retry budget."""


@attrs.frozen
class NoToken:
    """The retry budget had no token before the deadline."""

    now: Now


@attrs.frozen
class Logged:
    """A record was logged."""

    now: Now


AttemptEvent = Failed | Late | Expired
"""How an attempt ends without a result."""
Event = TakenOver | Succeeded[R] | AttemptEvent | Observed[R] | Waited | NoToken | Logged


# Actions


@attrs.frozen
class Send:
    """Make an attempt. It ends with `Succeeded`, `Failed`, `Late` or `Expired`."""


@attrs.frozen
class Probe(Generic[W, R]):
    """Read the provider's state once. It ends with `Observed`."""

    probe: StateProbe[W, R] | LogProbe[W, R] = attrs.field(eq=lambda probe: probe.command)  # it settles with a closure
    doubt: Doubt
    believed_from: float
    """When a state without the effect counts, on the clock's ``monotonic``."""


@attrs.frozen
class Wait:
    """Wait for so many seconds, then perhaps for a token of the retry budget. It ends with `Waited` or `NoToken`."""

    seconds: float = 0.0
    for_token: bool = False
    """Whether the next request needs a token. One that no request uses is given back."""


@attrs.frozen
class Log:
    """Log a record. It ends with `Logged`."""

    text: str
    error: DispatchkitError | None = attrs.field(eq=_error_value)
    delay: float | None = None


@attrs.frozen
class Finish(Generic[R_co]):
    """The call is over: it has a result or an error."""

    result: R_co | None = None
    error: DispatchkitError | None = attrs.field(default=None, eq=_error_value)
    cause: Exception | None = attrs.field(default=None, eq=_error_value)
    """An exception of the policy's wait strategy, which ended the retries."""


Action = Send | Probe[W, R] | Wait | Log | Finish[R]

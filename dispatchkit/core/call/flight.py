"""A flight: one command on its way, with its attempts. It holds what each attempt needs, and decides nothing.

A flight that succeeds at once needs no more than this. After a failed attempt, a `Call` decides how it goes on.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Generic, TypeVar

import attrs

from dispatchkit.core.call.call_state import CallState, Now
from dispatchkit.core.call.context import ClientContext
from dispatchkit.core.call.gate import Gate, Permit
from dispatchkit.core.call.request import request_of
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.call.run_log import RunLog
from dispatchkit.core.call.state_read import StateRead
from dispatchkit.core.command import Command, Evidence, Request, Response
from dispatchkit.core.durations import moment_after
from dispatchkit.core.log import log, logger
from dispatchkit.core.stop import StopSignal
from dispatchkit.core.transport.transport import SendTracker, TransportFailure
from dispatchkit.errors import Attempt, DispatchkitError, State

__all__ = ["Flight", "TakeOver"]

R = TypeVar("R")
W = TypeVar("W")

_NO_HEADERS: Mapping[str, str] = {}


@attrs.frozen
class TakeOver:
    """The unclear attempt of an earlier process, which is settled before anything is sent. See `Client._call`."""

    unclear_since: datetime
    acting_until: float | None = None
    repeats: int = 0
    acted_by: float | None = None


class Flight(Generic[W, R]):
    """One command on its way.

    Args:
        command: What to do.
        context: What the calls of the client share.
        timeout: Seconds for the whole call.
        policy: When and how the call is repeated.
        request_id: The id of an earlier process's attempt; None makes a new one where the provider takes any.
    """

    __slots__ = (
        "_attempted",
        "answered_at",
        "began",
        "call",
        "command",
        "context",
        "deadline",
        "earlier",
        "gate",
        "generation",
        "has_rival",
        "id_is_known",
        "index",
        "is_unjudged",
        "log_key",
        "permit",
        "policy",
        "refusal",
        "request",
        "request_id",
        "run_log",
        "started",
        "state",
        "stop",
        "timeout",
        "trace_headers",
        "tracker",
    )

    began: datetime
    """Start of the latest attempt on the wall clock."""
    started: float
    """The same moment on the clock's ``monotonic``."""

    def __init__(
        self,
        command: Command[W, R],
        context: ClientContext[W],
        timeout: float,
        policy: RetryPolicy,
        request_id: str | None = None,
    ) -> None:
        self.command = command
        self.context = context
        self.timeout = timeout
        self.policy = policy
        self.earlier: TakeOver | None = None
        """An earlier process's unclear attempt."""
        self.call: object = None
        """The `Call` that decides how it goes on, once an attempt has failed."""
        self.id_is_known = request_id is not None
        """Whether another process may have sent the id: then even the first answer may be a replay."""
        self.request_id = (request_id or str(uuid.uuid4())) if command.has_request_id else None
        # Built once: every attempt sends the same bytes under the same headers. `attempt_with_token` may change them.
        self.trace_headers: Mapping[str, str] = _NO_HEADERS
        """What traces the call at the provider: the same on all its attempts."""
        self.request = request_of(command, context.wire, self.request_id)
        self.generation = context.secret.generation
        """The token of the request: see `Secret.generation`."""
        self.refusal: DispatchkitError | None = None
        """The refusal of the token, once another one was asked for."""
        self.log_key = command.log_key
        self.stop: StopSignal = context.stop
        """Tells to start no further attempt. A fan-out's call has the one of its run."""
        self.gate: Gate = context.gate
        """Says when an attempt may start. A fan-out's call has one of its run."""
        self.has_rival: Callable[[float], Awaitable[bool]] | None = None
        """Asks the ledger for another launch of the same log within so many seconds, in any run and process."""
        self.index: int | None = None
        """The command's place in its fan-out; None outside of one."""
        self.run_log: RunLog | None = None
        """The log of its fan-out; None outside of one."""
        self.deadline = 0.0
        """On the clock's ``monotonic``."""
        self._attempted: tuple[tuple[datetime, float, str, bool], ...] = ()
        self.answered_at = -math.inf
        """The latest answer that was no server failure, on the clock's ``monotonic``."""
        self.permit: Permit = 0
        """The pacer's permit of the attempt in flight; 0 if there is none."""
        self.tracker: SendTracker | None = None
        """The tracker of the attempt in flight; None if there is none."""
        self.is_unjudged = False
        """Whether the latest attempt may have left, and no decision has taken it into account."""
        self.state: CallState[W, R] | None = None
        """What `decide` knows of the call; None before an attempt has failed."""

    def build_request(self, request_id: str | None) -> Request:
        """The request under another id or token.

        Raises:
            Exception: Any exception of the command or of a token callable.
        """
        request = request_of(self.command, self.context.wire, request_id)
        if not self.trace_headers:
            return request
        return attrs.evolve(request, headers={**request.headers, **self.trace_headers})

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts that have ended. They are made for each look: a call that succeeds at once needs none."""
        return tuple(Attempt(number, *ended) for number, ended in enumerate(self._attempted, 1))

    @property
    def in_doubt(self) -> bool:
        """Whether an earlier attempt may have acted."""
        return self.state is not None and self.state.unclear is not None

    @property
    def is_over(self) -> bool:
        """Whether no further attempt may start."""
        return self.stop.is_set or self.context.stop.is_set

    @property
    def latest_start(self) -> float:
        """The latest start of a request, on the clock's ``monotonic``.

        It is before the deadline: a request that the deadline cuts short has an unclear outcome.
        """
        return self.deadline - min(1.0, self.timeout / 10)

    @property
    def first_sent(self) -> datetime | None:
        """Start of the first request of which a byte may have left; None if there is none."""
        starts = [started for started, *_ in self._attempted[:1]]
        if self.state is not None and self.state.doubt is not None:
            starts.append(self.state.doubt.began.wall)
        return min(starts, default=None)

    def record(self, what: str, duration: float, *, sent: bool) -> None:
        """Move the attempt in flight to `attempts`, in an order that never hides it from the known outcome."""
        self._attempted += ((self.began, duration, what, sent),)
        self.is_unjudged = sent
        self.tracker = None

    def now(self) -> Now:
        """The surroundings of the call at this moment."""
        context, clock, pacer = self.context, self.context.clock, self.context.pacer
        now, paused = clock.monotonic(), pacer.paused_for()
        return Now(
            monotonic=now,
            wall=clock.now(),
            slept=clock.boottime() - now,
            random=clock.random(),
            stopped=self.is_over,
            paused=paused,
            pause=self._pause() if paused else "",
            honours_ids=context.replays.honoured,
            strips_ids=context.replays.foreign,
            other_launch_ended=-math.inf
            if self.log_key is None
            else context.launches.other_end(self.log_key, self.request_id),
        )

    def obstacle(self) -> str:
        """Why no attempt may start."""
        if self.is_over:
            return "it was told to stop"
        if obstacle := self.gate.obstacle():
            return obstacle
        if not self.context.pacer.paused_for():
            return "the pace of the account left no time for it before the deadline"
        return self._pause()

    def _pause(self) -> str:
        """A description of a pause that lasts beyond the deadline."""
        pacer = self.context.pacer
        until = moment_after(self.context.clock.now(), pacer.paused_for())
        why = "the account is paused" if pacer.throttled_for() else "nothing starts, since most attempts got no answer,"
        return f"{why} until {until:%Y-%m-%d %H:%M:%S} UTC, beyond the deadline{self.latest_failure()}"

    def latest_failure(self) -> str:
        """The result of the latest attempt, as a suffix for an error's summary."""
        latest = next((attempt.result for attempt in reversed(self.attempts) if attempt.result != "cancelled"), "")
        return latest and f"; its latest attempt: {latest}"

    def note_attempt(self, reply: Response | TransportFailure, error: DispatchkitError | None) -> None:
        """Tell of an attempt that has ended, and of what it proves. Only an observed call does anything."""

    def note_wait(self, seconds: float) -> None:
        """Tell of a wait that begins. Only an observed call does anything."""

    def note_state_read(self, reading: StateRead[W, R], evidence: Evidence) -> None:
        """Tell of a state read that has ended. Only an observed call does anything."""

    def log(
        self, level: int, text: str, *, kind: str, error: DispatchkitError | None = None, delay: float | None = None
    ) -> None:
        """Log a record about the call.

        Args:
            level: A level of `logging`. A fan-out lowers INFO to DEBUG once it has logged enough of a kind.
            text: What happened.
            kind: What the record is about, for `RunLog`.
            error: The error that it is about.
            delay: Seconds until the next attempt.
        """
        run_log = self.run_log
        if level == logging.INFO and run_log is not None:
            level = run_log.level(kind)
        run = None if run_log is None else run_log.name
        log(
            logger,
            level,
            "%r%s: %s",
            self.command,
            "" if run is None else f" (run {run!r})",
            text,
            extra=lambda: {
                "command": repr(self.command),
                "run": run,
                "index": self.index,
                "request_id": self.request_id,
                "attempt": len(self._attempted),
                "outcome": None if error is None else error.state.value,
                "delay": delay,
            },
        )

    def log_end(self, text: str, error: DispatchkitError) -> None:
        """Log the end of the call."""
        kind = f"{error.state.value} ({type(error).__name__})"
        self.log(logging.WARNING if error.state is State.UNKNOWN else logging.INFO, text, kind=kind, error=error)

"""A call: one command from its first attempt to its outcome.

`Call.run` makes an attempt and classifies its reply. A result ends the call at once. Otherwise `decide` chooses
the next action, and the call performs it. An action is an attempt, a read of the provider's state, a wait, or a log
record.

One deadline bounds the whole call. An unexpected exception (a codec's bug, a failing clock) ends the call with its
`Call.known_outcome`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Generic, TypeVar, cast

import attrs

from dispatchkit.core.call.bounds import BoundedCall
from dispatchkit.core.call.call_state import (
    AttemptEvent,
    CallState,
    Doubt,
    Event,
    Expired,
    Failed,
    Finish,
    Late,
    Log,
    Logged,
    NoToken,
    Now,
    Observed,
    Probe,
    Rules,
    Send,
    Start,
    Succeeded,
    TakenOver,
    Unfinished,
    Wait,
    Waited,
)
from dispatchkit.core.call.classify import classify, pause_after, paused_by, unknown
from dispatchkit.core.call.context import ClientContext
from dispatchkit.core.call.decide import decide, partly, unclear_too
from dispatchkit.core.call.frames import hint_of, request_of, without_frames
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.call.state_read import StateRead
from dispatchkit.core.command import Command, Response
from dispatchkit.core.transport.transport import ForeignLoopError, SendTracker, TransportFailure
from dispatchkit.errors import (
    Attempt,
    DispatchkitError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    State,
)

__all__ = ["Call"]

R = TypeVar("R")
W = TypeVar("W")


class Call(BoundedCall[W, R], Generic[W, R]):
    """One command in progress: its attempts so far and their outcome.

    `Client.call` makes it. After a cancellation, `attempts` and `known_outcome` still tell what happened.
    """

    __slots__ = (
        "_flight",
        "_has_token",
        "_id_is_known",
        "_repeats",
        "_state",
        "_unjudged",
        "answered_at",
        "final",
        "has_rival",
        "log_key",
        "one_id",
        "policy",
        "request",
    )

    def __init__(
        self,
        command: Command[W, R],
        context: ClientContext[W],
        *,
        timeout: float,
        policy: RetryPolicy,
        request_id: str | None = None,
        unclear_since: datetime | None = None,
        acting_until: float | None = None,
        repeats: int = 0,
        acted_by: float | None = None,
    ) -> None:
        known_id, request_id = request_id, (request_id or str(uuid.uuid4())) if command.has_request_id else None
        super().__init__(command, context, request_id, timeout=timeout)
        self.policy = policy
        self.log_key = command.log_key
        self._id_is_known = known_id is not None
        """Whether another process may have sent the id: then even the first answer may be a replay."""
        self.one_id = unclear_since is None or known_id is not None
        """Whether all attempts used one request id; an earlier process's id may be unknown."""
        # Built once: every attempt sends the same bytes under the same headers.
        self.request = request_of(command, context.wire, request_id)
        self.answered_at = -math.inf
        """The latest answer that was no server failure, on the clock's ``monotonic``."""
        self.has_rival: Callable[[float], Awaitable[bool]] | None = None
        """Asks the ledger for another launch of the same log within so many seconds, in any run and process."""
        self._has_token = False
        """Whether the call holds a token of the retry budget that no answer has returned."""
        self._flight: tuple[datetime, float, SendTracker] | None = None
        """The attempt in flight: its start on the wall clock and on ``monotonic``, and its tracker."""
        self._unjudged = False
        """Whether the latest attempt may have left, and `decide` has not heard of it."""
        self.final: Finish[R] | None = None
        """The final result, unless the first attempt succeeded."""
        self._repeats = repeats
        """Retries of the unclear launch that an earlier process may have made."""
        self._state: CallState[W, R] | None = None
        """What `decide` knows of the call; None until an attempt fails."""
        if unclear_since is not None:
            clock = context.clock
            now = clock.monotonic()
            self._state = CallState(
                rules=self._rules(),
                doubt=Doubt(
                    OutcomeUnknownError("the process that sent it ended before an answer came"),
                    Start(unclear_since, now - (clock.now() - unclear_since).total_seconds()),
                    now if acting_until is None else acting_until,
                    clock.boottime() - now,
                    acted_by,
                ),
            )

    def _rules(self) -> Rules[W, R]:
        return Rules(
            policy=self.policy,
            latest_start=self.latest_start,
            started=self.deadline - self._timeout,
            probe=self.command.probe,
            deduplicated=partial(self.command.deduplicated, self.context.wire),
            is_read_only=self.command.is_read_only,
            in_log=self.log_key is not None,
            has_one_id=self.one_id,
            repeats=self._repeats,
        )

    async def run(self, *, permit: int = 0) -> R:
        """Perform the command. See `Client.perform`.

        Args:
            permit: The pacer's permit for the first attempt (`Pacer.acquire`); 0 if none was acquired yet.
        """
        if self.context.closed and not permit:  # with a permit, the client was closed after the admission
            raise RuntimeError("the client of this call is closed: make a new one")
        self._permit = permit
        if self.log_key is not None:
            self.context.launches.begin(self, self.log_key)
        acted = True
        try:
            self.deadline = self.context.clock.monotonic() + self._timeout
            self.context.budget.deposit()
            event: Event[R]
            if self._state is None:
                attempted = await self._attempt(permit)
                if not isinstance(attempted, Unfinished):
                    return attempted
                event = cast("AttemptEvent", attempted)
                self._state = CallState(rules=self._rules())
            else:
                # Settle the earlier process's attempt before sending. Only now the deadline is known.
                self._state = attrs.evolve(self._state, rules=self._rules())
                event = TakenOver(self._now())
            self.final = final = await self._follow(self._state, event)
            if final.error is None:
                self.answered_at = self.context.clock.monotonic()
                self._log(logging.INFO, "done after all")
                return final.result  # type: ignore[return-value]  # pyright: ignore[reportReturnType] - R itself may be None
            acted = final.error.state is State.UNKNOWN
            self._log_end(final.error.summary, final.error)
            failed: Exception = self._own(final.error)
            if final.cause is not None:
                failed.__cause__ = without_frames(final.cause)
                failed.add_note("it was not retried, since the wait strategy of the RetryPolicy failed")
        except Exception as error:  # noqa: BLE001 - the call has an outcome whatever raised
            failed = self._failed(error)
        except BaseException as interrupt:
            self._note(interrupt)
            raise
        finally:
            if self.log_key is not None:
                self._end_launch(self.log_key, acted=acted)
        raise failed

    def known_outcome(self, why: str = "it was cancelled") -> DispatchkitError:
        """The outcome of a call that was interrupted.

        Unknown if any attempt is unclear; else rejected if the latest sent attempt was throttled; else not sent.
        """
        if self.final is not None and self.final.error is not None:
            return self._own(self.final.error)
        state = self._state
        unclear = None if state is None or state.doubt is None else state.doubt.error
        left = self._unjudged or (self._flight is not None and self._flight[2].sent)
        if unclear is None and left:
            unclear = unknown(self.command, f"{why} after the request had left")
        elif unclear is not None and left and self.log_key is not None and not self.context.replays.honoured:
            unclear = unclear_too(unclear)  # a retry may have left, and no replay was ever seen
        error = unclear or (None if state is None else state.throttled)
        if error is not None:
            return self._own(error)
        summary = f"{why} before the request left{self._latest_failure()}"
        is_partly_sent = state is not None and state.partly_sent is not None
        return self._own(partly(summary) if is_partly_sent else NotSentError(summary))

    def _failed(self, exception: Exception) -> Exception:
        """The error of a call that an unexpected exception ends. Its cause is the exception."""
        what = type(exception).__name__
        self._end_flight(f"failed ({what})")
        error = self.known_outcome(f"{what} was raised")
        if isinstance(exception, ForeignLoopError) and error.state is State.NOT_SENT:
            return exception  # the caller's mistake: nothing was sent
        error.__cause__ = without_frames(exception)
        self._log_end(error.summary, error)
        return error

    def _note(self, interrupt: BaseException) -> None:
        """Add the known outcome of the call as a note to the exception that interrupts it."""
        what = "cancelled" if isinstance(interrupt, asyncio.CancelledError) else type(interrupt).__name__
        self._end_flight(what)
        if self.final is not None and self.final.error is None:
            interrupt.add_note("the call was done")
            return
        error = self.known_outcome("it was cancelled" if what == "cancelled" else f"{what} was raised")
        interrupt.add_note(str(error))
        if self.final is not None:  # a log handler raised it, after the end was logged
            return
        try:
            self._log_end(f"{what}: {error.summary}", error)
        except BaseException as another:
            another.add_note(str(error))
            raise

    def _own(self, error: DispatchkitError) -> DispatchkitError:
        """Add the command, its attempts and a hint to an error."""
        if error.state is State.UNKNOWN:
            error.hint = hint_of(self.command, self.context.wire) or type(error).hint
            if isinstance(error, OutcomeUnknownError) and error.is_final:
                error.hint += f" {error.final_hint}"
        return error.with_context(self.command, self.attempts, self.request_id)

    def _end_launch(self, log_key: int, *, acted: bool) -> None:
        with contextlib.suppress(Exception):  # the clock itself may fail
            now = self.context.clock.monotonic()
            self.context.launches.end(self, log_key, self.request_id, now, acted=acted)

    def _end_flight(self, what: str) -> None:
        """Record the attempt that an exception ended, and return its permit."""
        if self._flight is not None:
            _, started, tracker = self._flight
            duration = 0.0
            with contextlib.suppress(Exception):  # the clock itself may fail
                duration = self.context.clock.monotonic() - started
            self._record(what, duration, sent=tracker.sent)
        permit, self._permit = self._permit, 0
        if permit:
            with contextlib.suppress(Exception):
                self.context.pacer.release(permit, answered=None, elapsed=0.0)

    @property
    def is_settling(self) -> bool:
        """Whether an attempt is unclear, so that the call settles it."""
        return self._state is not None and self._state.doubt is not None

    @property
    def first_sent(self) -> datetime | None:
        """Start of the first request of which a byte may have left; None if there is none."""
        if self._state is not None and self._state.partly_sent is not None:
            return self._state.partly_sent.wall
        return self.attempts[0].started if self.attempts else None

    # Performing what `decide` says

    async def _follow(self, state: CallState[W, R], event: Event[R]) -> Finish[R]:
        """Perform actions until the call is over."""
        while True:
            state, action = decide(state, event)
            self._state, self._unjudged = state, False
            self.waiting = False
            if self._has_token and isinstance(action, Wait | Finish):
                self._has_token = False
                self.context.budget.give_back()  # no request used it
            match action:
                case Finish():
                    return action
                case Log(text=text, error=error, delay=delay):
                    self._log(logging.INFO, text, error=error, delay=delay)
                    event = Logged(self._now())
                case Wait():
                    event = await self._wait(action)
                case Send():
                    event = await self._send()
                case Probe():
                    event = await self._read_state(action)

    def _now(self) -> Now:
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

    async def _wait(self, action: Wait) -> Waited | NoToken:
        """Wait, or until the client is closed or a pause is lifted."""
        clock, pacer = self.context.clock, self.context.pacer
        until, lifts = clock.monotonic() + action.seconds, pacer.lifts
        self.waiting = True
        while (left := until - clock.monotonic()) > 0 and not self.is_over and pacer.lifts == lifts:
            await pacer.sleep(left)
        if action.for_token and not self.is_over:
            self._has_token = await self.context.budget.withdraw(until=self.latest_start)
            if not self._has_token and not self.is_over:
                return NoToken(self._now())
        return Waited(self._now(), has_token=self._has_token)

    async def _send(self) -> Event[R]:
        """Make an attempt. An answered one returns its token."""
        attempted = await self._attempt()
        if self._has_token and not isinstance(attempted, Expired | Late):
            self._has_token = False
            if not isinstance(attempted, Failed) or isinstance(attempted.error, RejectedError):
                self.context.budget.refund()
        if isinstance(attempted, Unfinished):
            return cast("AttemptEvent", attempted)
        return Succeeded(self._now(), attempted)

    async def _read_state(self, action: Probe[W, R]) -> Observed[R]:
        asked = self.context.clock.monotonic()
        reading: StateRead[W, R] = StateRead(
            command=self.command,
            context=self.context,
            policy=self.policy,
            deadline=self.deadline,
            launch=self,
            log_key=self.log_key,
            request_id=self.request_id,
            has_rival=self.has_rival,
        )
        settlement = await reading.perform(action)
        self.answered_at = max(self.answered_at, reading.answered_at)
        if self._has_token and reading.was_sent:
            self._has_token = False
            if reading.answered_at > -math.inf:
                self.context.budget.refund()
        return Observed(self._now(), settlement, asked, reading.age)

    # One attempt

    async def _attempt(self, permit: int = 0) -> R | AttemptEvent:
        context, clock = self.context, self.context.clock
        # A wait may end too late, for example after the machine slept: `_permitted` checks the deadline again.
        permit = permit or await self._permitted()
        if not permit:
            return Late(self._now(), self._obstacle())
        self._permit = permit
        began, started, tracker = clock.now(), clock.monotonic(), SendTracker(self.claim, self._renew_claim)
        self._flight = began, started, tracker
        reply = await context.transport.send(
            self.request, tracker, timeout=min(context.attempt_timeout, self.deadline - started)
        )
        if not (isinstance(reply, TransportFailure) and reply.claim_expired):
            return self._classify(reply, permit, clock.monotonic() - started)
        self.expirations += 1
        self._flight = None
        self._permit = 0
        context.pacer.cancel(permit)
        return Expired(self._now(), Start(began, started) if reply.sent else None)

    def _classify(self, reply: Response | TransportFailure, permit: int, elapsed: float) -> R | Failed:
        context = self.context
        self.expirations = 0
        flight = self._flight
        assert flight is not None  # noqa: S101 - only an attempt in flight is classified
        sent, what = (reply.sent, reply.what) if isinstance(reply, TransportFailure) else (True, f"HTTP {reply.status}")
        self._record(what, elapsed, sent=sent)
        if isinstance(reply, Response) and not self.command.is_read_only:
            context.freshness.acted = reply.headers, flight[0], flight[1], elapsed
        attempt_outcome = classify(self.command, reply, context.wire, context.clock)
        self._permit = 0
        if not isinstance(attempt_outcome, DispatchkitError):
            self.answered_at = flight[1] + elapsed
            context.pacer.release(permit, answered=True, elapsed=elapsed)
            return attempt_outcome if self.request_id is None else self._check(attempt_outcome, flight)
        answered = isinstance(attempt_outcome, RejectedError)
        if answered:
            self.answered_at = flight[1] + elapsed
        context.pacer.release(
            permit,
            answered=answered,
            elapsed=elapsed,
            pause=pause_after(attempt_outcome, reply, policy=self.policy, now=context.clock.now),
            grows=isinstance(attempt_outcome, RejectedError) and attempt_outcome.concerns_target,
            by=paused_by(reply),
        )
        return Failed(self._now(), attempt_outcome, Start(flight[0], flight[1]))

    def _check(self, result: R, flight: tuple[datetime, float, SendTracker]) -> R | Failed:
        """Check whether a result may be the replayed answer to another request."""
        replays, is_replay = self.context.replays, self.command.is_replay(result)
        in_doubt = self._state is not None and self._state.doubt is not None
        # Refused and unsent attempts did nothing, so no success can be a replay of their answers.
        answers_another = is_replay and not in_doubt and not self._id_is_known
        replays.foreign = replays.foreign or answers_another
        if is_replay and replays.foreign:
            which = "this is" if answers_another else "it may be"
            text = f"{which} the answer to another request: a proxy on the way strips request ids"
            # Final for a launch: a later process knows the id and would trust the replay.
            error = OutcomeUnknownError(text, is_final=self.log_key is not None)
            return Failed(self._now(), error, Start(flight[0], flight[1]), answers_another=answers_another)
        if self.log_key is None:
            return result
        if is_replay:
            replays.honoured = True
        elif in_doubt:
            text = "the provider accepted the retry of an unclear launch and did not mark it as a replay"
            self._log(logging.WARNING, f"{text}: it may have launched twice")
            return self.command.as_repeated(result)
        return result

    def _record(self, what: str, duration: float, *, sent: bool) -> None:
        """Move the attempt in flight to `attempts`, in an order that never hides it from `known_outcome`."""
        if self._flight is not None:
            self.attempts += (Attempt(len(self.attempts) + 1, self._flight[0], duration, what, sent),)
            self._unjudged = sent
            self._flight = None

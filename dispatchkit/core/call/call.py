"""A call after its first attempt: the decisions that lead one command to its outcome.

A `Call` is made when an attempt has failed. `decide` chooses the next action, and the call performs it. An action is an
attempt, a read of the provider's state, a wait, or a log record.

One deadline bounds the whole call. An unexpected exception (a codec's bug, a failing clock) ends the call with its
`Call.known_outcome`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from functools import partial
from typing import Generic, TypeVar, cast

import attrs

from dispatchkit.core.call.attempt import attempt
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
from dispatchkit.core.call.classify import unknown
from dispatchkit.core.call.decide import decide, then, unclear_too
from dispatchkit.core.call.flight import Flight
from dispatchkit.core.call.frames import hint_of, without_frames
from dispatchkit.core.call.state_read import StateRead
from dispatchkit.core.call.token import attempt_with_token
from dispatchkit.core.transport.transport import ForeignLoopError, MockError
from dispatchkit.errors import (
    DispatchkitError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    State,
)

__all__ = ["Call"]

R = TypeVar("R")
W = TypeVar("W")


class Call(Generic[W, R]):
    """The decisions of one command that has not succeeded at once.

    Args:
        flight: The command on its way. Its first attempt has failed, or an earlier process's attempt is unclear.
    """

    __slots__ = ("_flight", "_has_token", "final")

    def __init__(self, flight: Flight[W, R]) -> None:
        self._flight = flight
        self._has_token = False
        """Whether the call holds a token of the retry budget that no answer has returned."""
        self.final: Finish[R] | None = None
        """The final result."""
        if (earlier := flight.earlier) is not None:
            clock = flight.context.clock
            now = clock.monotonic()
            flight.state = CallState(
                rules=self._rules(),
                doubt=Doubt(
                    OutcomeUnknownError("the process that sent it ended before an answer came"),
                    Start(
                        earlier.unclear_since,
                        now - (clock.now() - earlier.unclear_since).total_seconds(),
                        clock.boottime() - now,
                    ),
                    now if earlier.acting_until is None else earlier.acting_until,
                    earlier.acted_by,
                ),
            )

    @property
    def believed_from(self) -> float | None:
        """From when on a state is believed that denies the unclear attempts, on the clock's ``monotonic``.

        None without doubt.
        """
        state = self._flight.state
        doubt = None if state is None else state.unclear
        return None if doubt is None else doubt.acting_until + self._flight.policy.state_lag

    def _rules(self) -> Rules[W, R]:
        flight, command = self._flight, self._flight.command
        return Rules(
            policy=flight.policy,
            latest_start=flight.latest_start,
            started=flight.deadline - flight.timeout,
            probe=command.probe,
            deduplicated=partial(command.deduplicated, flight.context.wire),
            is_read_only=command.is_read_only,
            in_log=flight.log_key is not None,
            has_one_id=flight.earlier is None or flight.id_is_known,
            repeats=0 if flight.earlier is None else flight.earlier.repeats,
        )

    async def resume(self, event: AttemptEvent | None) -> Finish[R]:
        """Go on after the first attempt.

        Args:
            event: How the first attempt ended. None settles an earlier process's attempt before anything is sent.
        """
        flight = self._flight
        if event is None:
            assert flight.state is not None  # noqa: S101 - of the take-over
            state = attrs.evolve(flight.state, rules=self._rules())  # only now the deadline is known
            self.final = final = await self._follow(state, TakenOver(flight.now()))
        else:
            self.final = final = await self._follow(CallState(rules=self._rules()), event)
        if final.error is None:
            flight.answered_at = flight.context.clock.monotonic()
            flight.log(logging.INFO, "done after all", kind="done after all")
        return final

    def error_of(self, final: Finish[R]) -> DispatchkitError:
        """The error that ends the call."""
        assert final.error is not None  # noqa: S101 - the caller has checked it
        self._flight.log_end(final.error.summary, final.error)
        error = self._own(final.error)
        if final.cause is not None:
            latest = None if self._flight.state is None else self._flight.state.latest
            # The strategy may raise the error that it was shown. Any other exception may have no hash.
            if final.cause is not latest and final.cause is not final.error:
                error.__cause__ = without_frames(final.cause)
            error.add_note("it was not retried, since the wait strategy of the RetryPolicy failed")
        return error

    def known_outcome(self, why: str = "it was cancelled") -> DispatchkitError:
        """See `PendingCall.known_outcome`."""
        if self.final is not None and self.final.error is not None:
            return self._own(self.final.error)
        flight, state = self._flight, self._flight.state
        doubt = None if state is None else state.doubt
        unclear = None if doubt is None or doubt.is_partial else doubt.error
        left = flight.is_unjudged or (flight.tracker is not None and flight.tracker.sent)
        if unclear is None and left:
            unclear = unknown(flight.command, f"{why} after the request had left")
        elif unclear is not None and left and flight.log_key is not None and not flight.context.replays.honoured:
            unclear = unclear_too(unclear)  # a retry may have left, and no replay was ever seen
        error = unclear or flight.refusal or (None if state is None else state.throttled)
        if error is not None:
            return self._own(error)
        summary = f"{why} before the request left{flight.latest_failure()}"
        return self._own(NotSentError(summary) if doubt is None else then(doubt.error, f"then {summary}"))

    def failed(self, exception: Exception) -> Exception:
        """The error of a call that an unexpected exception ends. Its cause is the exception."""
        what = type(exception).__name__
        self._end_flight(f"failed ({what})")
        error = self.known_outcome(f"{what} was raised")
        if isinstance(exception, ForeignLoopError) and error.state is State.NOT_SENT:
            return exception  # the caller's mistake: nothing was sent
        if isinstance(exception, MockError):
            return without_frames(exception.error)  # the test's mistake: a mock sends nothing
        error.__cause__ = without_frames(exception)
        self._flight.log_end(error.summary, error)
        return error

    def note(self, interrupt: BaseException) -> None:
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
            self._flight.log_end(f"{what}: {error.summary}", error)
        except BaseException as another:
            another.add_note(str(error))
            raise

    def _own(self, error: DispatchkitError) -> DispatchkitError:
        """A copy of an error with the command, its attempts and a hint."""
        flight = self._flight
        own = error.with_context(flight.command, flight.attempts, flight.request_id)
        if own.state is State.UNKNOWN:
            own.hint = hint_of(flight.command, flight.context.wire) or type(own).hint
            if isinstance(own, OutcomeUnknownError) and own.is_final:
                own.hint += f" {own.final_hint}"
        return own

    def _end_flight(self, what: str) -> None:
        """Record the attempt that an exception ended, and return its permit."""
        flight = self._flight
        if flight.tracker is not None:
            duration = 0.0
            with contextlib.suppress(Exception):  # the clock itself may fail
                duration = flight.context.clock.monotonic() - flight.started
            flight.record(what, duration, sent=flight.tracker.sent)
        permit, flight.permit = flight.permit, 0
        if permit:
            with contextlib.suppress(Exception):
                flight.context.pacer.release(permit, answered=None, elapsed=0.0)

    # Performing what `decide` says

    async def _follow(self, state: CallState[W, R], event: Event[R]) -> Finish[R]:
        """Perform actions until the call is over."""
        flight = self._flight
        while True:
            state, action = decide(state, event)
            flight.state, flight.is_unjudged = state, False
            if self._has_token and isinstance(action, Wait | Finish):
                self._has_token = False
                flight.context.budget.give_back()  # no request used it
            match action:
                case Finish():
                    return action
                case Log(text=text, error=error, delay=delay):
                    flight.log(logging.INFO, text, kind="retries and state reads", error=error, delay=delay)
                    event = Logged(flight.now())
                case Wait():
                    event = await self._wait(action)
                case Send():
                    event = await self._send()
                case Probe():
                    event = await self._read_state(action)

    async def _wait(self, action: Wait) -> Waited | NoToken:
        """Wait until the time has passed, a pause is lifted, or the call is told to stop."""
        flight, context = self._flight, self._flight.context
        clock, pacer = context.clock, context.pacer
        until, lifts = clock.monotonic() + action.seconds, pacer.lifts
        if action.seconds > 0:
            flight.note_wait(action.seconds)
        with flight.stop.interruptible(context.stop):
            while (left := until - clock.monotonic()) > 0 and not flight.is_over and pacer.lifts == lifts:
                await pacer.sleep(left)
            if action.for_token and not flight.is_over:
                self._has_token = await context.budget.withdraw(until=flight.latest_start)
                if not self._has_token:
                    return NoToken(flight.now())
        return Waited(flight.now(), has_token=self._has_token)

    async def _send(self) -> Event[R]:
        """Make an attempt. An answered one returns its token."""
        flight = self._flight
        attempted = await (attempt_with_token if flight.context.secret.is_renewable else attempt)(flight)
        if self._has_token and not isinstance(attempted, Expired | Late):
            self._has_token = False
            if not isinstance(attempted, Failed) or isinstance(attempted.error, RejectedError):
                flight.context.budget.refund()
        if isinstance(attempted, Unfinished):
            return cast("AttemptEvent", attempted)
        return Succeeded(flight.now(), attempted)

    async def _read_state(self, action: Probe[W, R]) -> Observed[R]:
        flight = self._flight
        asked = flight.context.clock.monotonic()
        reading: StateRead[W, R] = StateRead(
            command=flight.command,
            context=flight.context,
            policy=flight.policy,
            deadline=flight.deadline,
            launch=flight,
            log_key=flight.log_key,
            request_id=flight.request_id,
            has_rival=flight.has_rival,
        )
        settlement = await reading.perform(action)
        flight.note_state_read(reading, settlement.evidence)
        flight.answered_at = max(flight.answered_at, reading.answered_at)
        if self._has_token and reading.request is not None:
            self._has_token = False
            if reading.answered_at > -math.inf:
                flight.context.budget.refund()
        return Observed(flight.now(), settlement, asked, reading.age)

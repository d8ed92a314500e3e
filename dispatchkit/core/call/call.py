"""A call: one command from its first attempt to its outcome.

`Call.run` makes an attempt and classifies its reply. A result ends the call at once. Otherwise:

- *Not sent*, *throttled*: the attempt did nothing, so it may be retried after a wait.
- *Rejected*: final, unless an earlier attempt of the same call is unclear. The earlier attempt may have succeeded (a
  second stop of a stopped dispatch is refused), so the provider's state decides.
- *Unknown*: `Settling` reads the provider's state (`Command.probe`). Evidence that the command was applied makes the
  call done. Evidence against it counts only after `RetryPolicy.state_lag`, and then allows a retry. The age of the
  response counts against the lag. If the user vouches for deduplication by request id, a retry with the same id needs
  no evidence. Otherwise the outcome stays unknown.

Some launches show only in a log (`Command.log_key`). A log entry settles such a launch only if no other launch can have
made it. A missing entry never allows a retry. If the user vouches for deduplication, the log is not read.

An unclear read needs no settling: it is retried, and a refusal of the retry is final.

One deadline bounds all of it. An unexpected exception (a codec's bug, a failing clock) ends the call with its
`Call.known_outcome`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Generic, TypeVar

from dispatchkit.core.call.call_state import CallState, Doubt, then, unclear_too
from dispatchkit.core.call.classify import classify, pause_after, paused_by, unknown
from dispatchkit.core.call.context import ClientContext
from dispatchkit.core.call.frames import hint_of, request_of, without_frames
from dispatchkit.core.call.retry import AttemptResult, RetryPolicy, RetryReason, retrying
from dispatchkit.core.call.settle import Settling
from dispatchkit.core.claim import ClaimAge, ClaimResult
from dispatchkit.core.command import Command, Response
from dispatchkit.core.transport.transport import ForeignLoopError, SendTracker, TransportFailure
from dispatchkit.errors import (
    Attempt,
    DispatchkitError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    State,
    ThrottledError,
)

__all__ = ["Call"]

R = TypeVar("R")
W = TypeVar("W")


class Call(CallState[W, R], Generic[W, R]):
    """One command in progress: its attempts so far and their outcome.

    `Client.call` makes it. After a cancellation, `attempts` and `known_outcome` still tell what happened.
    """

    __slots__ = (
        "_crowded_out",
        "_flight",
        "_id_is_known",
        "_partly_sent",
        "_permit",
        "_repeats",
        "_throttled",
        "_unjudged",
        "claim",
        "expirations",
        "final",
        "request",
        "request_claim",
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
        super().__init__(command, context, request_id, timeout=timeout, policy=policy)
        self.one_id = unclear_since is None or known_id is not None
        self._id_is_known = known_id is not None
        """Whether another process may have sent the id: then even the first answer may be a replay."""
        # Built once: every attempt sends the same bytes under the same headers.
        self.request = request_of(command, context.wire, request_id)
        self.request_claim: Callable[[], Awaitable[ClaimResult]] | None = None
        """Claims the next attempt in the ledger, for every attempt that has no permit yet."""
        self.claim: ClaimAge | None = None
        """The ledger's claim for the next request."""
        self.expirations = 0
        """Consecutive claims that expired before their request had left."""
        self._partly_sent: datetime | None = None
        """Start of the first request whose claim expired after a part had left. No server had the whole request."""
        self._crowded_out = False
        self._permit = 0
        """The pacer's permit of the attempt in flight; 0 if there is none."""
        self._flight: tuple[datetime, float, SendTracker] | None = None
        """The attempt in flight: its start on the wall clock and on ``monotonic``, and its tracker."""
        self._unjudged = False
        """Whether the latest attempt may have left, and was not throttled."""
        self.final: AttemptResult[R] | None = None
        """The final result, unless the first attempt succeeded."""
        self._throttled: ThrottledError | None = None
        self._repeats = repeats
        """Retries of the unclear launch that an earlier process may have made."""
        if unclear_since is not None:
            ended = OutcomeUnknownError("the process that sent it ended before an answer came")
            until = context.clock.monotonic() if acting_until is None else acting_until
            slept = context.clock.boottime() - context.clock.monotonic()
            self.doubt = Doubt(ended, unclear_since, self.monotonic_of(unclear_since), until, slept, acted_by)

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
            if self.doubt is None:
                attempt_outcome = await self._attempt(permit)
                if not isinstance(attempt_outcome, DispatchkitError):
                    return attempt_outcome
                self.final = final = await self._recover(await self._resolve(attempt_outcome))
            else:
                # Settle the earlier process's attempt before sending.
                self.final = final = await self._recover(
                    await Settling(self, self.doubt).step(is_repeat=self.log_key is not None and self._repeats > 0)
                )
            if final.error is None:
                self.answered_at = self.context.clock.monotonic()
                self.log(logging.INFO, "done after all")
                return final.result  # type: ignore[return-value]  # pyright: ignore[reportReturnType] - R itself may be None
            acted = final.error.state is State.UNKNOWN
            self._log_end(final.error.summary, final.error)
            failed: Exception = self._own(final.error)
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
        unclear = None if self.doubt is None else self.doubt.error
        if unclear is None and (self._unjudged or (self._flight is not None and self._flight[2].sent)):
            unclear = unknown(self.command, f"{why} after the request had left")
        elif unclear is not None and self.log_key is not None and self._is_unclear_too():
            unclear = unclear_too(unclear)
        error = unclear or self._throttled or self._unsent(f"{why} before the request left{self.latest_failure()}")
        return self._own(error)

    def _is_unclear_too(self) -> bool:
        """Whether a retry of the unclear attempt may have left, and no replay was ever seen."""
        left = self._unjudged or (self._flight is not None and self._flight[2].sent)
        return left and not self.context.replays.honoured

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
    def first_sent(self) -> datetime | None:
        """Start of the first request of which a byte may have left; None if there is none."""
        return self._partly_sent or (self.attempts[0].started if self.attempts else None)

    def _unsent(self, summary: str) -> DispatchkitError:
        """The error of a call that sent no whole request."""
        if self._partly_sent is not None:
            return OutcomeUnknownError(f"a part of the request had left when its claim expired; then {summary}")
        return NotSentError(summary)

    async def _attempt(self, permit: int = 0) -> R | DispatchkitError:
        context, clock = self.context, self.context.clock
        while True:
            # A wait may end too late, for example after the machine slept: `_permitted` checks the deadline again.
            permit = permit or await self._permitted()
            if not permit:
                self._crowded_out = True
                return self._unsent(self._crowded())
            self._permit = permit
            began, started, tracker = clock.now(), clock.monotonic(), SendTracker(self.claim, self._renew_claim)
            self._flight = began, started, tracker
            reply = await context.transport.send(
                self.request, tracker, timeout=min(context.attempt_timeout, self.deadline - started)
            )
            if not (isinstance(reply, TransportFailure) and reply.claim_expired):
                return self._classify(reply, permit, clock.monotonic() - started)
            # An expired claim is neither an attempt nor an outcome: request it again.
            self.expirations += 1
            if reply.sent:
                self._partly_sent = self._partly_sent or began
            self._flight = None
            self._permit = 0
            context.pacer.cancel(permit)
            permit = 0

    def _classify(self, reply: Response | TransportFailure, permit: int, elapsed: float) -> R | DispatchkitError:
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
            return attempt_outcome if self.request_id is None else self._check(attempt_outcome)
        answered = isinstance(attempt_outcome, RejectedError)
        if answered:
            self.answered_at = flight[1] + elapsed
        if isinstance(attempt_outcome, ThrottledError):
            self._throttled, self._unjudged = attempt_outcome, False
        context.pacer.release(
            permit,
            answered=answered,
            elapsed=elapsed,
            pause=pause_after(attempt_outcome, reply, policy=self.policy, now=context.clock.now),
            grows=isinstance(attempt_outcome, RejectedError) and attempt_outcome.concerns_target,
            by=paused_by(reply),
        )
        return attempt_outcome

    def _check(self, result: R) -> R | DispatchkitError:
        """Check whether a result may be the replayed answer to another request."""
        replays, is_replay = self.context.replays, self.command.is_replay(result)
        is_launch = self.log_key is not None  # final: a later process knows the id and would trust the replay
        # Refused and unsent attempts did nothing, so no success can be a replay of their answers.
        self.answers_another = is_replay and self.doubt is None and not self._id_is_known
        if self.answers_another:
            replays.foreign = True
            return OutcomeUnknownError(
                "this is the answer to another request: a proxy on the way strips request ids", is_final=is_launch
            )
        if is_replay and replays.foreign:
            return OutcomeUnknownError(
                "it may be the answer to another request: a proxy on the way strips request ids", is_final=is_launch
            )
        if self.log_key is None:
            return result
        if is_replay:
            replays.honoured = True
        elif self.doubt is not None:
            text = "the provider accepted the retry of an unclear launch and did not mark it as a replay"
            self.log(logging.WARNING, f"{text}: it may have launched twice")
            return self.command.as_repeated(result)
        return result

    async def _permitted(self) -> int:
        """Wait for the permit of the next attempt; 0 if none comes in time or the call is over."""
        pacer = self.context.pacer
        while True:
            permit = (pacer.try_acquire() if self.in_time(0.0) else 0) or await self._admit()
            if not permit or self.request_claim is None:
                return permit
            self.waiting = True
            self._permit = permit
            try:
                claim_result = await self.request_claim()
            except BaseException:
                self._permit = 0
                pacer.cancel(permit)
                raise
            self.waiting = False
            self.stopped = self.stopped or claim_result not in {ClaimResult.GRANTED, ClaimResult.DEFERRED}
            # The claim may have taken long: check the pause and the deadline again.
            if (
                claim_result is ClaimResult.GRANTED
                and not self.is_over
                and pacer.is_current(permit)
                and self.in_time(0.0)
            ):
                return permit
            self._permit = 0
            pacer.cancel(permit)
            if self.is_over:
                return 0

    async def _renew_claim(self) -> ClaimAge | None:
        """Claim again for a request that has partly left; None if the ledger does not grant it."""
        if self.request_claim is None or self.is_over or await self.request_claim() is not ClaimResult.GRANTED:
            return None
        return self.claim

    async def _admit(self) -> int:
        self.waiting = True
        permit = await self.context.pacer.acquire(until=self.latest_start)
        self.waiting = False
        return permit

    def _crowded(self) -> str:
        if self.is_over:
            return "it was told to stop"
        if self.expirations:
            return "its claims expired before the request could leave, until no time was left before the deadline"
        if not self.context.pacer.paused_for():
            return "the pace of the account left no time for it before the deadline"
        return self.paused_beyond()

    def _record(self, what: str, duration: float, *, sent: bool) -> None:
        """Move the attempt in flight to `attempts`, in an order that never hides it from `known_outcome`."""
        if self._flight is not None:
            self.attempts += (Attempt(len(self.attempts) + 1, self._flight[0], duration, what, sent),)
            self._unjudged = sent
            self._flight = None

    async def _recover(self, first: AttemptResult[R]) -> AttemptResult[R]:
        if first.retry == "unknown" and not self.attempts and "unknown" in self.policy.retry_on and self.may_start(0.0):
            # The unclear attempt was an earlier process's, so this call's first attempt is no retry.
            attempt_outcome = await self._attempt()
            first = (
                await self._resolve(attempt_outcome)
                if isinstance(attempt_outcome, DispatchkitError)
                else AttemptResult(result=attempt_outcome)
            )
        if first.retry is None:
            return first
        return await retrying(
            first,
            self._again,
            policy=self.policy,
            clock=self.context.clock,
            sleep=self.sleep,
            spend=self.spend,
            may_start=self.may_start,
            before_sleep=self._before_wait,
        )

    async def _again(self) -> AttemptResult[R]:
        self.waiting = False
        if self.doubt is not None and self.log_key is not None and self.context.replays.foreign:
            # Another call has found meanwhile that request ids are stripped: a retry may launch twice.
            self.context.budget.give_back()
            return AttemptResult(error=self.doubt.error)
        attempt_outcome = await self._attempt()
        if not isinstance(attempt_outcome, DispatchkitError):
            self.context.budget.refund()
            return AttemptResult(result=attempt_outcome)
        if isinstance(attempt_outcome, RejectedError):
            self.context.budget.refund()
        elif self._crowded_out:
            self.context.budget.give_back()
        return await self._resolve(attempt_outcome)

    async def _resolve(self, error: DispatchkitError) -> AttemptResult[R]:
        """Settle a failed attempt if it is unclear, and decide whether to retry."""
        if isinstance(error, OutcomeUnknownError):
            is_repeat = self.doubt is not None
            self.doubt = doubt = self._doubt_by(error)
            if self.command.is_read_only:
                return AttemptResult(error=error, retry="unknown")
            return await Settling(self, doubt).step(is_repeat=is_repeat)
        if isinstance(error, NotSentError):
            retry: RetryReason | None = None if self._crowded_out else "not_sent"
            return AttemptResult(error=self._with_doubt(self._throttled or error), retry=retry)
        if isinstance(error, ThrottledError):
            self._throttled = error  # from now on, the call is no longer "not sent"
            return AttemptResult(error=self._with_doubt(error), retry="throttled", retry_after=error.retry_after or 0.0)
        if self.doubt is None or self.command.is_read_only:
            return AttemptResult(error=error)
        return await Settling(self, self.doubt).after_refusal(error)

    def _doubt_by(self, error: OutcomeUnknownError) -> Doubt:
        """The doubt after an unclear attempt that has just ended, merged with an earlier doubt."""
        now, doubt = self.context.clock.monotonic(), self.doubt
        self._unjudged = False  # the doubt covers it
        if doubt is not None:
            return Doubt(error, doubt.since, doubt.began, now, doubt.slept)
        slept = self.context.clock.boottime() - now
        if self._partly_sent is not None:
            return Doubt(error, self._partly_sent, self.monotonic_of(self._partly_sent), now, slept)
        attempt = self.attempts[-1]
        return Doubt(error, attempt.started, now - attempt.duration, now, slept)

    def _with_doubt(self, error: DispatchkitError) -> DispatchkitError:
        """The outcome after an attempt that did nothing: unknown if an earlier attempt is unclear."""
        if self.doubt is None or (self.command.is_read_only and isinstance(error, RejectedError)):
            return error
        return then(self.doubt.error, f"then {error.summary}")

    def _before_wait(self, number: int, attempt_result: AttemptResult[R], delay: float) -> None:
        self.waiting = True
        self.log(
            logging.INFO,
            f"attempt {number + 1} in {delay:.2f} s ({attempt_result.retry})",
            error=attempt_result.error,
            delay=delay,
        )

    def _log_end(self, text: str, error: DispatchkitError) -> None:
        self.log(logging.WARNING if error.state is State.UNKNOWN else logging.INFO, text, error=error)

"""A call: one command on its way to its outcome.

An attempt is made and judged. If it brought a result, that is all: nothing below `Call.run` is entered. Otherwise:

- *Not sent*, *throttled*: it did nothing, so it may be repeated, at its own pace.
- *Rejected*: final, unless an earlier attempt of the same call is unclear. Then the refusal may only mean that the
  earlier attempt had its effect (a second stop of a stopped dispatch), so state decides.
- *Unknown*: the provider's state is read (`Command.probe`). If it shows that it happened, the call is done. A state
  that denies it is believed only after `RetryPolicy.lag`, from which the age of a response is subtracted, and then
  allows a repeat. Where the user vouches that the provider deduplicates by request id, a repeat of the same bytes under
  the same id is allowed at once, whatever the state says. Otherwise the outcome stays unknown.

A launch that shows only in a log (`Command.log_key`) is settled by it only if the entry cannot be another launch's, and
never repeated on its word. Where the user vouches for deduplication, the log is not asked at all.

A read has nothing to settle: an unclear one is simply repeated, and a refusal of the repeat is what it is.

All of it within one deadline. An exception that is no verdict (a bug in a codec, a clock that raises) ends the call
with what is known of it: see `Call.abandoned`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import attrs

from dispatchkit.core.claim_age import ClaimAge
from dispatchkit.core.command import Answer, Command, LogProbe, Probe, Request, Settlement, TimeWindow, Verdict
from dispatchkit.core.journal import Leave
from dispatchkit.core.judge import judge, unknown
from dispatchkit.core.log import log, logger
from dispatchkit.core.means import Means
from dispatchkit.core.provider_time import MAX_OFFSET, clock_offset
from dispatchkit.core.retry import Reason, RetryPolicy, Step, retry_after, retrying
from dispatchkit.core.transport import Failure, ForeignLoopError, Witness
from dispatchkit.errors import (
    Attempt,
    DispatchkitError,
    LedgerError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    State,
    ThrottledError,
)

__all__ = ["Call"]

R = TypeVar("R")
W = TypeVar("W")

PROBE_TIMEOUT = 15.0
"""Seconds for one reading of state: it changes nothing, so it is cheap to give up and ask again."""

_LEAST_PAUSE = 0.25

NEVER = datetime.min.replace(tzinfo=UTC)


class Call(Generic[W, R]):
    """One command on its way: what was tried so far, and what came of it.

    Made by `Client.call`. It outlives its own cancellation, so whoever holds it can still read `attempts` and ask
    `abandoned` what to make of them.
    """

    __slots__ = (
        "_answers_another",
        "_crowded_out",
        "_deadline",
        "_flight",
        "_id_is_known",
        "_means",
        "_one_id",
        "_partly_sent",
        "_policy",
        "_throttled",
        "_ticket",
        "_timeout",
        "_unclear",
        "_unclear_at",
        "_unclear_began",
        "_unclear_since",
        "_unjudged",
        "answered_at",
        "attempts",
        "claim",
        "command",
        "expirations",
        "final",
        "halted",
        "has_rival",
        "leave",
        "log_key",
        "request",
        "request_id",
        "waiting",
    )

    def __init__(
        self,
        command: Command[W, R],
        means: Means[W],
        *,
        timeout: float,
        policy: RetryPolicy,
        request_id: str | None = None,
        since: datetime | None = None,
        acting_until: float | None = None,
    ) -> None:
        self.command = command
        self.request_id = (request_id or str(uuid.uuid4())) if command.identified else None
        self._one_id = since is None or request_id is not None
        """Whether all attempts are under one id: that of somebody else's may not be known."""
        self._id_is_known = request_id is not None
        """Whether the id may have been sent before this call: then even its first answer may be a replay."""
        self._answers_another = False
        """Whether the latest answer was, by the provider's own word, that of another request."""
        self.log_key = command.log_key
        # Built once: every attempt sends the same bytes under the same headers.
        self.request = _request(command, means.wire, self.request_id)
        self.attempts: tuple[Attempt, ...] = ()
        self.answered_at = -math.inf
        """On the clock's ``monotonic``: when the provider last answered an attempt, other than with a failure of its
        own."""
        self.halted = False
        """Set it, and no further attempt starts."""
        self.waiting = False
        """Whether nothing of the call is in flight: it waits for leave to start an attempt, or to repeat one."""
        self.leave: Callable[[], Awaitable[Leave]] | None = None
        """Asked before every attempt that comes without a ticket, where somebody must allow it."""
        self.has_rival: Callable[[float], Awaitable[bool]] | None = None
        """Asked where a ledger remembers the run: whether another launch of the same log left within so many seconds,
        in any run and any process."""
        self.claim: ClaimAge | None = None
        """What permits the next request, where a ledger remembers the run."""
        self.expirations = 0
        """How many claims in a row expired before their request had left."""
        self._means = means
        self._timeout = timeout
        self._policy = policy
        self._partly_sent: datetime | None = None
        """When a request began of which a part had left when its claim expired. The provider never had the whole."""
        self._crowded_out = False
        self._deadline = 0.0
        self._ticket = 0
        """What the pacer gave and has not got back yet."""
        self._flight: tuple[datetime, float, Witness] | None = None
        """The attempt that is under way: when it began, by both clocks, and whether any byte of it may have left."""
        self._unjudged = False
        """Whether the latest attempt may have left, and was not throttled."""
        self.final: Step[R] | None = None
        """What the call came to, if its first attempt did not bring a result."""
        self._unclear = None if since is None else OutcomeUnknownError("whoever sent it ended before an answer came")
        self._unclear_at = means.clock.monotonic() if acting_until is None else acting_until
        """On the clock's ``monotonic``: from when on the latest unclear attempt reaches the provider no more."""
        self._unclear_since = since or NEVER
        self._unclear_began = 0.0 if since is None else self._monotonic_of(since)
        """`_unclear_since` on the clock's ``monotonic``, which nothing sets."""
        self._throttled: ThrottledError | None = None

    async def run(self, *, ticket: int = 0) -> R:
        """Perform the command. See `Client.perform`.

        Args:
            ticket: What the account's pacer gave for the first attempt (`Pacer.admit`), if it was asked already.
        """
        if self._means.closed and not ticket:  # with one, it ends like any call whose client is closed meanwhile
            raise RuntimeError("the client of this call is closed: make a new one")
        self._ticket = ticket
        if self.log_key is not None:
            self._means.launches.begin(self, self.log_key)
        acted = True
        try:
            self._deadline = self._means.clock.monotonic() + self._timeout
            self._means.budget.earn()
            if self._unclear is None:
                verdict = await self._attempt(ticket)
                if not isinstance(verdict, DispatchkitError):
                    return verdict
                self.final = final = await self._recover(await self._resolve(verdict))
            else:
                # What another process left unclear is settled before anything is sent.
                self.final = final = await self._recover(await self._settle(self._unclear))
            if final.error is None:
                self.answered_at = self._means.clock.monotonic()
                self._log(logging.INFO, "done after all")
                return final.result  # type: ignore[return-value]  # pyright: ignore[reportReturnType] - R itself may be None
            acted = final.error.outcome is State.UNKNOWN
            self._log_end(final.error.summary, final.error)
            failed: Exception = self._own(final.error)
        except Exception as mistake:  # noqa: BLE001 - the caller's code or ours: the call has an outcome all the same
            failed = self._failed(mistake)
        except BaseException as interrupt:
            self._note(interrupt)
            raise
        finally:
            if self.log_key is not None:
                self._end_launch(self.log_key, acted=acted)
        raise failed

    def abandoned(self, why: str = "it was cancelled") -> DispatchkitError:
        """What is known of a call that came to no end.

        Unknown if any attempt is unclear; else rejected if the latest attempt that left was throttled; else not sent.
        """
        if self.final is not None and self.final.error is not None:
            return self._own(self.final.error)
        unclear = self._unclear
        if unclear is None and (self._unjudged or (self._flight is not None and self._flight[2].sent)):
            unclear = unknown(self.command, f"{why} after the request had left")
        error = unclear or self._throttled or self._unsent(f"{why} before the request left")
        return self._own(error)

    def _failed(self, mistake: Exception) -> Exception:
        """The error of a call that ends by an exception which is no verdict. Its cause is the exception."""
        what = type(mistake).__name__
        self._end_flight(f"failed ({what})")
        error = self.abandoned(f"{what} was raised")
        if isinstance(mistake, ForeignLoopError) and error.outcome is State.NOT_SENT:
            return mistake  # the caller's, found before anything was sent
        error.__cause__ = _without_frames(mistake)
        self._log_end(error.summary, error)
        return error

    def _note(self, interrupt: BaseException) -> None:
        """Note on a cancellation, or on what else ends the task, what is known of the call."""
        what = "cancelled" if isinstance(interrupt, asyncio.CancelledError) else type(interrupt).__name__
        self._end_flight(what)
        if self.final is not None and self.final.error is None:
            interrupt.add_note("the call was done")
            return
        error = self.abandoned("it was cancelled" if what == "cancelled" else f"{what} was raised")
        interrupt.add_note(str(error))
        if self.final is not None:  # a handler of the log has raised it
            return
        try:
            self._log_end(f"{what}: {error.summary}", error)
        except BaseException as another:
            another.add_note(str(error))
            raise

    def _own(self, error: DispatchkitError) -> DispatchkitError:
        """Tell an error whose it is, and what can be done about it."""
        if error.outcome is State.UNKNOWN:
            error.hint = self.command.unknown_hint(self._means.wire) or error.hint
        return error.of(self.command, self.attempts, self.request_id)

    def _end_launch(self, log_key: int, *, acted: bool) -> None:
        with contextlib.suppress(Exception):  # it may be the clock that fails
            now = self._means.clock.monotonic()
            self._means.launches.end(self, log_key, self.request_id, now, acted=acted)

    def _end_flight(self, what: str) -> None:
        """Record the attempt that an exception has ended, and give back its ticket."""
        if self._flight is not None:
            _, started, witness = self._flight
            duration = 0.0
            with contextlib.suppress(Exception):  # it may be the clock that fails
                duration = self._means.clock.monotonic() - started
            self._record(what, duration, sent=witness.sent)
        ticket, self._ticket = self._ticket, 0
        if ticket:
            with contextlib.suppress(Exception):
                self._means.pacer.release(ticket, answered=None, took=0.0)

    @property
    def first_sent(self) -> datetime | None:
        """When the first request of this call began of which any byte may have left; None if none has left yet."""
        return self._partly_sent or (self.attempts[0].started if self.attempts else None)

    def _unsent(self, summary: str) -> DispatchkitError:
        """The error of a call of which no whole request has left."""
        if self._partly_sent is not None:
            return OutcomeUnknownError(f"a part of the request had left when its claim expired; then {summary}")
        return NotSentError(summary)

    async def _attempt(self, ticket: int = 0) -> R | DispatchkitError:
        means, clock = self._means, self._means.clock
        while True:
            # A wait may end long after it should have, as on a machine that slept.
            ticket = ticket or await self._permitted()
            if not ticket:
                self._crowded_out = True
                return self._unsent(self._crowded())
            self._ticket = ticket
            began, started, witness = clock.now(), clock.monotonic(), Witness(self.claim)
            self._flight = began, started, witness
            reply = await means.transport.send(
                self.request, witness, timeout=min(means.attempt_timeout, self._deadline - started)
            )
            if not (isinstance(reply, Failure) and reply.claim_expired):
                return self._judge(reply, ticket, clock.monotonic() - started)
            # No outcome, and no attempt: the claim is requested again.
            self.expirations += 1
            if reply.sent:
                self._partly_sent = self._partly_sent or began
            self._flight = None
            self._ticket = 0
            means.pacer.withdraw(ticket)
            ticket = 0

    def _judge(self, reply: Answer | Failure, ticket: int, took: float) -> R | DispatchkitError:
        means = self._means
        self.expirations = 0
        flight = self._flight
        assert flight is not None  # noqa: S101 - only an attempt that is under way is judged
        sent, what = (reply.sent, reply.what) if isinstance(reply, Failure) else (True, f"HTTP {reply.status}")
        self._record(what, took, sent=sent)
        if isinstance(reply, Answer) and not self.command.reads:
            means.freshness.acted = reply.headers, flight[0], flight[1], took
        verdict = judge(self.command, reply, means.wire, means.clock)
        self._ticket = 0
        if not isinstance(verdict, DispatchkitError):
            self.answered_at = flight[1] + took
            means.pacer.release(ticket, answered=True, took=took)
            return verdict if self.request_id is None else self._check(verdict)
        answered = isinstance(verdict, RejectedError)
        if answered:
            self.answered_at = flight[1] + took
        if isinstance(verdict, ThrottledError):
            self._throttled, self._unjudged = verdict, False
        means.pacer.release(
            ticket,
            answered=answered,
            took=took,
            pause=self._pause_after(verdict, reply),
            grows=isinstance(verdict, RejectedError) and verdict.concerns_target,
            by=_by(reply),
        )
        return verdict

    def _check(self, result: R) -> R | DispatchkitError:
        """What a result is worth where the provider deduplicates by request id: a replay may be another request's."""
        replays, is_replay = self._means.replays, self.command.is_replay(result)
        # What was refused or not sent before did nothing, so a success cannot repeat the answer to it.
        self._answers_another = is_replay and self._unclear is None and not self._id_is_known
        if self._answers_another:
            replays.foreign = True
            return OutcomeUnknownError("this is the answer to another request: something on the way strips request ids")
        if is_replay and replays.foreign:
            return OutcomeUnknownError(
                "it may be the answer to another request: something on the way strips request ids"
            )
        if self.log_key is None:
            return result
        if is_replay:
            replays.honoured = True
        elif self._unclear is not None:
            text = "the repeat of an unclear launch was accepted, and nothing says that it was recognised as a repeat"
            self._log(logging.WARNING, f"{text}: it may have launched twice")
            return self.command.as_repeated(result)
        return result

    async def _permitted(self) -> int:
        """The ticket of an attempt that may start now; 0 if there is none in time, or if it must not start any more."""
        pacer = self._means.pacer
        while True:
            ticket = (pacer.enter() if self._in_time(0.0) else 0) or await self._admit()
            if not ticket or self.leave is None:
                return ticket
            self.waiting = True
            self._ticket = ticket
            try:
                leave = await self.leave()
            except BaseException:
                self._ticket = 0
                pacer.withdraw(ticket)
                raise
            self.waiting = False
            self.halted = self.halted or leave not in {Leave.GRANTED, Leave.LATER}
            # It may have taken long: the database was away, or a pause has begun.
            if leave is Leave.GRANTED and not self._over and pacer.holds(ticket) and self._in_time(0.0):
                return ticket
            self._ticket = 0
            pacer.withdraw(ticket)
            if self._over:
                return 0

    def _pause_after(self, verdict: DispatchkitError, reply: Answer | Failure) -> float | None:
        """Seconds for which the account is to pause after an answer; None where the provider does not ask for it."""
        if isinstance(verdict, ThrottledError):
            return self._policy.throttled_scale if verdict.retry_after is None else verdict.retry_after
        if isinstance(verdict, OutcomeUnknownError) and isinstance(reply, Answer):
            # A server that failed cannot vouch for what it did, but it can say when to come back.
            return retry_after(reply.headers, self._means.clock.now()) or None
        return None

    async def _admit(self) -> int:
        self.waiting = True
        ticket = await self._means.pacer.admit(until=self._deadline - self._margin)
        self.waiting = False
        return ticket

    def _crowded(self) -> str:
        if self._over:
            return "it was told to stop"
        if self.expirations:
            return "its claims expired before the request could leave, until no time was left before the deadline"
        if not self._means.pacer.paused_for():
            return "the pace of the account left no time for it before the deadline"
        return self._paused_beyond()

    def _paused_beyond(self) -> str:
        until = self._means.clock.now() + timedelta(seconds=self._means.pacer.paused_for())
        return f"the account is paused until {until:%Y-%m-%d %H:%M:%S} UTC, beyond the deadline"

    def _record(self, what: str, duration: float, *, sent: bool) -> None:
        """Add the attempt that was under way to those that were made. At no moment does `abandoned` lose it."""
        if self._flight is not None:
            self.attempts += (Attempt(len(self.attempts) + 1, self._flight[0], duration, what, sent),)
            self._unjudged = sent
            self._flight = None

    async def _recover(self, first: Step[R]) -> Step[R]:
        if first.again == "unknown" and not self.attempts and "unknown" in self._policy.on and self._may_start(0.0):
            # Another process left it unclear, and it may be sent: that is this call's first attempt, and no repeat.
            verdict = await self._attempt()
            first = await self._resolve(verdict) if isinstance(verdict, DispatchkitError) else Step(result=verdict)
        if first.again is None:
            return first
        return await retrying(
            first,
            self._again,
            policy=self._policy,
            clock=self._means.clock,
            sleep=self._sleep,
            spend=self._spend,
            may_start=self._may_start,
            before_sleep=self._before_wait,
        )

    def _may_start(self, delay: float) -> bool:
        return not self._over and self._in_time(delay)

    @property
    def _over(self) -> bool:
        return self.halted or self._means.closed

    def _in_time(self, delay: float) -> bool:
        """Whether there is time for a request after so many seconds.

        An attempt that the deadline cuts short turns a clear outcome into an unclear one.
        """
        return self._means.clock.monotonic() + delay <= self._deadline - self._margin

    @property
    def _margin(self) -> float:
        return min(1.0, self._timeout / 10)

    async def _again(self) -> Step[R]:
        self.waiting = False
        verdict = await self._attempt()
        if not isinstance(verdict, DispatchkitError):
            self._means.budget.refund()
            return Step(result=verdict)
        if isinstance(verdict, RejectedError):
            self._means.budget.refund()
        elif self._crowded_out:
            self._means.budget.give_back()
        return await self._resolve(verdict)

    async def _resolve(self, error: DispatchkitError) -> Step[R]:
        """Turn a failed attempt into a step: settle it if it is unclear, and say whether it may be repeated."""
        if isinstance(error, OutcomeUnknownError):
            is_repeat = self._unclear is not None
            if not is_repeat:
                self._unclear_since = self._partly_sent or self.attempts[-1].started
                self._unclear_began = (
                    self._monotonic_of(self._partly_sent)
                    if self._partly_sent
                    else self._means.clock.monotonic() - self.attempts[-1].duration
                )
            self._unclear = error
            self._unclear_at = self._means.clock.monotonic()
            if self.command.reads:
                return Step(error=error, again="unknown")
            return await self._settle(error, is_repeat=is_repeat)
        if isinstance(error, NotSentError):
            again: Reason | None = None if self._crowded_out else "not_sent"
            return Step(error=self._with_doubt(self._throttled or error), again=again)
        if isinstance(error, ThrottledError):
            self._throttled = error  # from now on, bytes of the call have left
            return Step(error=self._with_doubt(error), again="throttled", after=error.retry_after or 0.0)
        if self._unclear is None or self.command.reads:
            return Step(error=error)
        if self.log_key is not None:
            # Only a launch that the provider deduplicates is repeated. Whether it replays a refusal, it does not say.
            return Step(error=OutcomeUnknownError(f"{self._unclear.summary}; then {error.summary}"))
        # The refusal answers a repeat: it may only say that the attempt before it had its effect. A state that denies
        # that has been overtaken by it, so it has to hold anew for as long as it may lag.
        self._unclear_at = self._means.clock.monotonic()
        settlement = await self._watch()
        if settlement.verdict is Verdict.HAPPENED:
            return Step(result=settlement.result)
        if settlement.verdict in {Verdict.UNSEEN, Verdict.UNDECIDED, Verdict.HIDDEN}:
            return Step(error=OutcomeUnknownError(f"{self._unclear.summary}; then {error.summary}; {settlement.seen}"))
        return Step(error=error)

    def _with_doubt(self, error: DispatchkitError) -> DispatchkitError:
        """This attempt did nothing; but if an earlier one is unclear, so is the call."""
        if self._unclear is None or (self.command.reads and isinstance(error, RejectedError)):
            return error
        return unknown(self.command, f"{self._unclear.summary}; then {error.summary}")

    async def _settle(self, error: OutcomeUnknownError, *, is_repeat: bool = False) -> Step[R]:
        if self.log_key is not None and self._answers_another:
            return Step(error=error)  # it was swallowed: a start in the log is another launch's
        # One repeat shows whether repeats are recognised.
        deduplicated = self._is_deduplicated() and (not is_repeat or self._means.replays.honoured)
        if self.log_key is not None and self._is_deduplicated():
            if not deduplicated:
                self._unclear = OutcomeUnknownError(f"{error.summary}; so was its repeat, and no replay was ever seen")
            return Step(error=self._unclear or error, again="unknown" if deduplicated else None)
        settlement = await self._watch(once=deduplicated)
        self._log(logging.INFO, f"settling: {settlement.verdict.value}, {settlement.seen}", error=error)
        if settlement.verdict is Verdict.HAPPENED:
            return Step(result=settlement.result)
        self._unclear = OutcomeUnknownError(f"{error.summary}; {settlement.seen}")
        repeatable = deduplicated or settlement.verdict in {Verdict.DENIED, Verdict.FINAL}
        repeatable = repeatable and self._policy.repeat_unclear
        return Step(error=self._unclear, again="unknown" if repeatable else None)

    def _is_deduplicated(self) -> bool:
        """Whether an unclear call is repeated under its id, by the user's word, which nothing has refuted."""
        if not self._one_id or self._means.replays.foreign or not self._repeats_unclear:
            return False
        return self.command.deduplicated(self._means.wire, self._means.clock.now() - self._first_sent())

    @property
    def _repeats_unclear(self) -> bool:
        policy = self._policy
        return policy.repeat_unclear and "unknown" in policy.on and policy.attempts > 1

    def _first_sent(self) -> datetime:
        """When the first request of the call began, whoever sent it."""
        first = self._unclear_since
        return min(first, self.attempts[0].started) if self.attempts else first

    async def _watch(self, *, once: bool = False) -> Settlement[R]:
        """Read the provider's state until it says something that can be believed, or the deadline is near."""
        clock = self._means.clock
        # From the first attempt that is unclear: what happened before it was not ours.
        probe = self.command.probe(self._unclear_since)
        if probe is None:
            return Settlement(Verdict.HIDDEN, "no state of the provider shows it")
        believed_from = self._unclear_at + self._policy.lag
        looks = 0
        settlement: Settlement[R] = Settlement(Verdict.UNDECIDED, "its state was not read")
        while True:
            if self._another_ended():
                return Settlement(Verdict.HIDDEN, _NOT_ALONE)
            # Where another process left it unclear, the first question is the first request of this call, no repeat.
            paid = bool(self.attempts or looks)
            if obstacle := await self._may_ask(paid=paid):
                return Settlement(Verdict.UNDECIDED, f"{settlement.seen}, and {obstacle}")
            asked = clock.monotonic()
            settlement, age = await self._look(probe, paid=paid)
            looks += 1
            if settlement.verdict is Verdict.HAPPENED and self.log_key is not None:
                settlement = await self._unless_another(settlement, may_change=asked < believed_from)
            denied = settlement.verdict in {Verdict.DENIED, Verdict.UNSEEN}
            believed = asked - age >= believed_from
            if once or not (denied or settlement.verdict is Verdict.UNDECIDED) or (denied and believed):
                return settlement
            pause = self._pause(looks)
            if not believed:
                # A response of the same age is believed that much later.
                pause = min(pause, max(_LEAST_PAUSE if age else 0.0, believed_from + age - clock.monotonic()))
            if not self._in_time(pause):
                return Settlement(Verdict.UNDECIDED, f"{settlement.seen}, and the deadline left no time to ask again")
            await self._sleep(pause)

    @property
    def _alone_from(self) -> float:
        """On the clock's ``monotonic``: which launches, begun from then on, may have made what the log shows.

        One that was answered, or given up, before may have acted later, for as long as state may lag.
        """
        return self._unclear_began - max(self._policy.lag, MAX_OFFSET.total_seconds())

    def _another_ended(self) -> bool:
        key, launches = self.log_key, self._means.launches
        return key is not None and launches.another_ended(key, self.request_id, self._alone_from)

    async def _unless_another(self, settlement: Settlement[R], *, may_change: bool) -> Settlement[R]:
        """What a start in the log proves: nothing, if another launch may have made it."""
        if self.has_rival is not None:
            try:
                asking = self.has_rival(self._means.clock.monotonic() - self._alone_from)
                if await asyncio.wait_for(asking, PROBE_TIMEOUT):
                    return Settlement(Verdict.HIDDEN, _NOT_ALONE)
            except (LedgerError, TimeoutError):
                return Settlement(Verdict.UNDECIDED, "the ledger did not say whether another launch made it")
        if self._another_ended():
            return Settlement(Verdict.HIDDEN, _NOT_ALONE)
        if self.log_key is not None and self._means.launches.others_in_flight(self, self.log_key):
            return Settlement(Verdict.UNDECIDED if may_change else Verdict.HIDDEN, _NOT_ALONE)
        return settlement

    def _monotonic_of(self, moment: datetime) -> float:
        clock = self._means.clock
        return clock.monotonic() - (clock.now() - moment).total_seconds()

    async def _may_ask(self, *, paid: bool) -> str:
        """Wait until state may be read. Returns what is in the way of it, if it may not."""
        means = self._means
        while True:
            # A question is a request too: while the account is paused, none is asked.
            while not self._over and (paused := means.pacer.paused_for()):
                if not self._in_time(paused):
                    return self._paused_beyond()
                await self._sleep(paused)
            if not self._over and paid and not await self._spend() and not self._over:
                return "the retry budget of the client had no token for a question before the deadline"
            if self._over:
                return "it was told to stop"
            if not means.pacer.paused_for():
                return ""
            if paid:
                means.budget.give_back()  # a pause has begun meanwhile

    async def _spend(self) -> bool:
        """Wait for a token of the retry budget. False: none came in time, or the client was closed."""
        self.waiting = True
        paid = await self._means.budget.spend(until=self._deadline - self._margin)
        self.waiting = False
        return paid

    async def _sleep(self, seconds: float) -> None:
        """Wait; the end of the client, and of a pause that is lifted, ends it."""
        clock, pacer = self._means.clock, self._means.pacer
        until, lifts = clock.monotonic() + seconds, pacer.lifts
        self.waiting = True
        while (left := until - clock.monotonic()) > 0 and not self._over and pacer.lifts == lifts:
            await pacer.sleep(left)
        self.waiting = False

    def _pause(self, looks: int) -> float:
        growing = max(self._policy.scale, _LEAST_PAUSE) * 2.0 ** min(looks - 1, 60)
        return min(self._policy.cap, growing) * (0.5 + self._means.clock.random() / 2)

    async def _look(self, probe: Probe[W, R] | LogProbe[W, R], *, paid: bool) -> tuple[Settlement[R], float]:
        """Read the provider's state once. Also says how old the response is.

        What the provider asks to wait before the next time, the account pauses.
        """
        means, clock = self._means, self._means.clock
        limit = min(PROBE_TIMEOUT, means.attempt_timeout, self._deadline - clock.monotonic())
        if limit <= 0:
            return Settlement(Verdict.UNDECIDED, "the deadline left no time to read its state"), 0.0
        try:
            request = _request(probe.command, means.wire, str(uuid.uuid4()) if probe.command.identified else None)
        except Exception as error:  # noqa: BLE001 - a callable that gives the token may raise anything
            # The launch has left. Whatever goes wrong from here on must not hide that.
            return Settlement(Verdict.HIDDEN, f"its state could not be asked for ({type(error).__name__})"), 0.0
        asked, started = clock.now(), clock.monotonic()
        reply = await means.transport.send(request, Witness(), timeout=limit)
        seen = judge(probe.command, reply, means.wire, clock)
        if isinstance(reply, Answer) and reply.status < 500:
            if paid:
                means.budget.refund()
            else:
                self.answered_at = clock.monotonic()  # to ask is all that this call has tried
        if not isinstance(seen, DispatchkitError):
            headers: Mapping[str, str] = reply.headers if isinstance(reply, Answer) else {}
            age = max(0.0, means.freshness.age(headers, asked=asked, monotonic=started))
            if isinstance(probe, Probe):
                return self._as_of(asked, age, probe.settle(seen)), age
            window = self._window(headers, asked)
            return (window if isinstance(window, Settlement) else probe.settle(seen, window)), age
        text = f"its state could not be read: {seen.summary}"
        if (after := self._pause_after(seen, reply)) is not None:
            means.pacer.throttle(after, refused=isinstance(seen, ThrottledError), by=_by(reply))
            return Settlement(Verdict.UNDECIDED, text), 0.0
        if isinstance(seen, RejectedError):
            return Settlement(Verdict.HIDDEN, text), 0.0
        return Settlement(Verdict.UNDECIDED, text), 0.0

    def _as_of(self, asked: datetime, age: float, settlement: Settlement[R]) -> Settlement[R]:
        """What a response of this age proves: what it shows may have been so before the first unclear attempt."""
        if not age:
            return settlement
        how_old = f"{age:.0f} s old" if age < math.inf else "of unknown age"
        settlement = attrs.evolve(settlement, seen=f"{settlement.seen} in an answer that is {how_old}")
        shows = settlement.verdict in {Verdict.HAPPENED, Verdict.FINAL} and not settlement.lasts
        if shows and age > (asked - self._unclear_since).total_seconds():
            return Settlement(Verdict.UNDECIDED, settlement.seen)
        return settlement

    def _window(self, headers: Mapping[str, str], asked: datetime) -> TimeWindow | Settlement[R]:
        """When, by the provider's clock, the unclear attempt can have acted; a settlement where that is not known."""
        clock = self._means.clock
        now = clock.now()
        offset = clock_offset(headers, asked, now)
        if offset is None:
            return Settlement(Verdict.HIDDEN, "the answer with its log does not say what time it is there")
        if not offset.is_narrow:
            return Settlement(Verdict.UNDECIDED, "the answer with its log took too long to compare the clocks")
        if not offset.is_small:
            ahead = offset.middle.total_seconds()
            return Settlement(Verdict.HIDDEN, f"its log cannot be read: its clock is {ahead:+.0f} s off this machine's")
        # Not the time of day at which it began: the clock may have been set since.
        began = now - timedelta(seconds=clock.monotonic() - self._unclear_began)
        return TimeWindow(began + offset.least, now + offset.most)

    def _before_wait(self, number: int, step: Step[R], delay: float) -> None:
        self.waiting = True
        self._log(logging.INFO, f"attempt {number + 1} in {delay:.2f} s ({step.again})", error=step.error, delay=delay)

    def _log_end(self, text: str, error: DispatchkitError) -> None:
        self._log(logging.WARNING if error.outcome is State.UNKNOWN else logging.INFO, text, error=error)

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
                "outcome": None if error is None else error.outcome.value,
                "delay": delay,
            },
        )


_FRAMES = 8
"""How many of the innermost frames a note names."""


def _without_frames(mistake: Exception) -> Exception:
    """Drop the frames of an exception, whose locals hold headers and body. A note says where it was raised."""
    places: deque[str] = deque(maxlen=_FRAMES)
    trace = mistake.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
    note = "raised at " + " > ".join(places)
    if note not in getattr(mistake, "__notes__", ()):  # it may be raised for every call
        mistake.add_note(note)
    chain: list[BaseException] = []
    error: BaseException | None = mistake
    while error is not None and error not in chain:
        chain.append(error.with_traceback(None))
        error = error.__cause__ or error.__context__
    return mistake


_NOT_ALONE = "another launch of the same at this time may have made what its log shows"


def _by(reply: Answer | Failure) -> str:
    """How an answer asks for a pause."""
    return "Retry-After" if isinstance(reply, Answer) and "Retry-After" in reply.headers else "HTTP 429"


def _request(command: Command[W, object], wire: W, request_id: str | None) -> Request:
    try:
        return command.request(wire, request_id)
    except Exception as error:  # noqa: BLE001 - a callable that gives the token may raise anything
        # The frames below this one hold the body.
        mistake = error.with_traceback(None)
    raise mistake

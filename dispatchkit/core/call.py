"""A call: one command on its way to its outcome.

An attempt is made and judged. If it brought a result, that is all: nothing below `Call.run` is entered. Otherwise:

- *Not sent*, *throttled*: it did nothing, so it may be repeated, at its own pace.
- *Rejected*: final, unless an earlier attempt of the same call is unclear. Then the refusal may only mean that the
  earlier attempt had its effect (a second stop of a stopped dispatch), so state decides.
- *Unknown*: the provider's state is read (`Command.probe`). If it shows that it happened, the call is done. A state
  that denies it is believed only after `RetryPolicy.lag`, and then allows a repeat. Where the provider deduplicates by
  request id, a repeat of the same bytes under the same id is allowed at once, whatever the state says. Otherwise the
  outcome stays unknown.

A read has nothing to settle: an unclear one is simply repeated, and a refusal of the repeat is what it is.

All of it within one deadline.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from dispatchkit.core.claim_age import ClaimAge
from dispatchkit.core.command import Answer, Command, Probe, Request, Settlement, Verdict
from dispatchkit.core.journal import Leave
from dispatchkit.core.judge import judge, unknown
from dispatchkit.core.means import Means
from dispatchkit.core.retry import Reason, RetryPolicy, Step, retry_after, retrying
from dispatchkit.core.transport import Failure, Witness
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

logger = logging.getLogger("dispatchkit")
logger.addHandler(logging.NullHandler())  # a library prints nothing that nobody asked for

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
        "_crowded_out",
        "_deadline",
        "_means",
        "_one_id",
        "_partly_sent",
        "_policy",
        "_throttled",
        "_timeout",
        "_unclear",
        "_unclear_at",
        "_unclear_since",
        "attempts",
        "claim",
        "command",
        "expirations",
        "halted",
        "leave",
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
        # Built once: every attempt sends the same bytes under the same headers.
        self.request = _request(command, means.wire, self.request_id)
        self.attempts: tuple[Attempt, ...] = ()
        self.halted = False
        """Set it, and no further attempt starts."""
        self.waiting = False
        """Whether nothing of the call is in flight: it waits for leave to start an attempt, or to repeat one."""
        self.leave: Callable[[], Awaitable[Leave]] | None = None
        """Asked before every attempt that comes without a ticket, where somebody must allow it."""
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
        self._unclear = None if since is None else OutcomeUnknownError("whoever sent it ended before an answer came")
        self._unclear_at = means.clock.monotonic() if acting_until is None else acting_until
        """On the clock's ``monotonic``: from when on the latest unclear attempt reaches the provider no more."""
        self._unclear_since = since or NEVER
        self._throttled: ThrottledError | None = None

    async def run(self, *, ticket: int = 0) -> R:
        """Perform the command. See `Client.perform`.

        Args:
            ticket: What the account's pacer gave for the first attempt (`Pacer.admit`), if it was asked already.
        """
        if self._means.closed and not ticket:  # with one, it ends like any call whose client is closed meanwhile
            raise RuntimeError("the client of this call is closed: make a new one")
        self._deadline = self._means.clock.monotonic() + self._timeout
        self._means.budget.earn()
        try:
            if self._unclear is None:
                verdict = await self._attempt(ticket)
                if not isinstance(verdict, DispatchkitError):
                    return verdict
                step = await self._recover(await self._resolve(verdict))
            else:
                # What another process left unclear is settled before anything is sent.
                step = await self._recover(await self._settle(self._unclear))
        except asyncio.CancelledError as cancelled:
            error = self.abandoned()
            cancelled.add_note(str(error))
            level = logging.WARNING if error.outcome is State.UNKNOWN else logging.INFO
            self._log(level, f"cancelled: {error.summary}", error=error)
            raise
        if step.error is None:
            self._log(logging.INFO, "done after all")
            return step.result  # type: ignore[return-value]  # pyright: ignore[reportReturnType] - R itself may be None
        level = logging.WARNING if step.error.outcome is State.UNKNOWN else logging.INFO
        self._log(level, step.error.summary, error=step.error)
        raise step.error.of(self.command, self.attempts, self.request_id)

    def abandoned(self) -> DispatchkitError:
        """What is known of a call that was cancelled: unknown if any attempt is unclear, else that it did nothing."""
        unclear = self._unclear
        if unclear is None and self.attempts and self.attempts[-1].what == _CANCELLED and self.attempts[-1].sent:
            unclear = unknown(self.command, "it was cancelled after the request had left")
        error = unclear or self._throttled or self._unsent("it was cancelled before the request left")
        return error.of(self.command, self.attempts, self.request_id)

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
            began, started, witness = clock.now(), clock.monotonic(), Witness(self.claim)
            try:
                reply = await means.transport.send(
                    self.request, witness, timeout=min(means.attempt_timeout, self._deadline - started)
                )
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError):
                    self._record(began, started, _CANCELLED, sent=witness.sent)
                means.pacer.release(ticket, answered=None, took=0.0)
                raise
            if not (isinstance(reply, Failure) and reply.claim_expired):
                return self._judge(reply, ticket, began, started)
            # No outcome, and no attempt: the claim is requested again.
            self.expirations += 1
            if reply.sent:
                self._partly_sent = self._partly_sent or began
            means.pacer.withdraw(ticket)
            ticket = 0

    def _judge(self, reply: Answer | Failure, ticket: int, began: datetime, started: float) -> R | DispatchkitError:
        means = self._means
        self.expirations = 0
        try:
            sent, what = (reply.sent, reply.what) if isinstance(reply, Failure) else (True, f"HTTP {reply.status}")
            took = self._record(began, started, what, sent=sent)
            verdict = judge(self.command, reply, means.wire, means.clock)
        except BaseException:
            means.pacer.release(ticket, answered=None, took=0.0)
            raise
        if not isinstance(verdict, DispatchkitError):
            means.pacer.release(ticket, answered=True, took=took)
            return verdict
        answered = not isinstance(verdict, NotSentError | OutcomeUnknownError)
        pause = self._pause_after(verdict, reply)
        means.pacer.release(ticket, answered=answered, took=took, pause=pause, by=_by(reply))
        return verdict

    async def _permitted(self) -> int:
        """The ticket of an attempt that may start now; 0 if there is none in time, or if it must not start any more."""
        pacer = self._means.pacer
        while True:
            ticket = (pacer.enter() if self._in_time(0.0) else 0) or await self._admit()
            if not ticket or self.leave is None:
                return ticket
            self.waiting = True
            try:
                leave = await self.leave()
            except BaseException:
                pacer.withdraw(ticket)
                raise
            self.waiting = False
            self.halted = self.halted or leave not in {Leave.GRANTED, Leave.LATER}
            # It may have taken long: the database was away, or a pause has begun.
            if leave is Leave.GRANTED and not self._over and pacer.holds(ticket) and self._in_time(0.0):
                return ticket
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

    def _record(self, began: datetime, started: float, what: str, *, sent: bool) -> float:
        duration = self._means.clock.monotonic() - started
        self.attempts += (Attempt(len(self.attempts) + 1, began, duration, what, sent),)
        return duration

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
            if self._unclear is None:
                self._unclear_since = self._partly_sent or self.attempts[-1].started
            self._unclear = error
            self._unclear_at = self._means.clock.monotonic()
            return Step(error=error, again="unknown") if self.command.reads else await self._settle(error)
        if isinstance(error, NotSentError):
            again: Reason | None = None if self._crowded_out else "not_sent"
            return Step(error=self._with_doubt(self._throttled or error), again=again)
        if isinstance(error, ThrottledError):
            self._throttled = error  # from now on, bytes of the call have left
            return Step(error=self._with_doubt(error), again="throttled", after=error.retry_after or 0.0)
        if self._unclear is None or self.command.reads:
            return Step(error=error)
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

    async def _settle(self, error: OutcomeUnknownError) -> Step[R]:
        age = self._means.clock.now() - self._first_sent()
        deduplicated = self._one_id and self.command.deduplicated(self._means.wire, age)
        settlement = await self._watch(once=deduplicated)
        self._log(logging.INFO, f"settling: {settlement.verdict.value}, {settlement.seen}", error=error)
        if settlement.verdict is Verdict.HAPPENED:
            return Step(result=settlement.result)
        self._unclear = OutcomeUnknownError(f"{error.summary}; {settlement.seen}")
        repeatable = deduplicated or settlement.verdict in {Verdict.DENIED, Verdict.FINAL}
        repeatable = repeatable and self._policy.repeat_unclear
        return Step(error=self._unclear, again="unknown" if repeatable else None)

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
            # Where another process left it unclear, the first question is the first request of this call, no repeat.
            paid = bool(self.attempts or looks)
            if obstacle := await self._may_ask(paid=paid):
                return Settlement(Verdict.UNDECIDED, f"{settlement.seen}, and {obstacle}")
            asked = clock.monotonic()
            settlement = await self._look(probe, paid=paid)
            looks += 1
            denied = settlement.verdict in {Verdict.DENIED, Verdict.UNSEEN}
            if once or not (denied or settlement.verdict is Verdict.UNDECIDED) or (denied and asked >= believed_from):
                return settlement
            pause = self._pause(looks)
            if asked < believed_from:
                pause = min(pause, max(0.0, believed_from - clock.monotonic()))
            if not self._in_time(pause):
                return Settlement(Verdict.UNDECIDED, f"{settlement.seen}, and the deadline left no time to ask again")
            await self._sleep(pause)

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

    async def _look(self, probe: Probe[W, R], *, paid: bool) -> Settlement[R]:
        """Read the provider's state once. What the provider asks to wait before the next time, the account pauses."""
        means, clock = self._means, self._means.clock
        limit = min(PROBE_TIMEOUT, means.attempt_timeout, self._deadline - clock.monotonic())
        if limit <= 0:
            return Settlement(Verdict.UNDECIDED, "the deadline left no time to read its state")
        try:
            request = _request(probe.command, means.wire, str(uuid.uuid4()) if probe.command.identified else None)
        except Exception as error:  # noqa: BLE001 - a callable that gives the token may raise anything
            # The launch has left. Whatever goes wrong from here on must not hide that.
            return Settlement(Verdict.HIDDEN, f"its state could not be asked for ({type(error).__name__})")
        reply = await means.transport.send(request, Witness(), timeout=limit)
        seen = judge(probe.command, reply, means.wire, clock)
        if paid and isinstance(reply, Answer) and reply.status < 500:
            means.budget.refund()
        if not isinstance(seen, DispatchkitError):
            return probe.settle(seen)
        text = f"its state could not be read: {seen.summary}"
        if (after := self._pause_after(seen, reply)) is not None:
            means.pacer.throttle(after, refused=isinstance(seen, ThrottledError), by=_by(reply))
            return Settlement(Verdict.UNDECIDED, text)
        if isinstance(seen, RejectedError):
            return Settlement(Verdict.HIDDEN, text)
        return Settlement(Verdict.UNDECIDED, text)

    def _before_wait(self, number: int, step: Step[R], delay: float) -> None:
        self.waiting = True
        self._log(logging.INFO, f"attempt {number + 1} in {delay:.2f} s ({step.again})", error=step.error, delay=delay)

    def _log(self, level: int, text: str, *, error: DispatchkitError | None = None, delay: float | None = None) -> None:
        if not logger.isEnabledFor(level):
            return
        extra = {
            "command": repr(self.command),
            "request_id": self.request_id,
            "attempt": len(self.attempts),
            "outcome": None if error is None else error.outcome.value,
            "delay": delay,
        }
        logger.log(level, "%r: %s", self.command, text, extra=extra)


_CANCELLED = "cancelled"


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

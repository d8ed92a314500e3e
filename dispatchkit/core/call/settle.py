"""Settle an unclear call: read the provider's state, and decide whether the call is done or may be repeated.

State may lag, and a cache may have kept it, so a denial is believed only after `RetryPolicy.state_lag`, from which the
age of the response is subtracted. A log does not say whose its entries are, so a start there counts only if no other
launch can have made it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import attrs

from dispatchkit.core.call.call_state import CallState, Doubt, then, unclear_too
from dispatchkit.core.call.classify import classify, pause_after, paused_by
from dispatchkit.core.call.frames import request_of
from dispatchkit.core.call.provider_time import MAX_OFFSET, clock_offset
from dispatchkit.core.call.retry import AttemptResult
from dispatchkit.core.command import Evidence, LogProbe, Probe, Response, Settlement, TimeWindow
from dispatchkit.core.transport.transport import SendTracker
from dispatchkit.errors import DispatchkitError, LedgerError, RejectedError, ThrottledError

__all__ = ["Settling"]

R = TypeVar("R")
W = TypeVar("W")

PROBE_TIMEOUT = 15.0
"""Seconds for one reading of state: it changes nothing, so it is cheap to give up and ask again."""

_MIN_PAUSE = 0.25
_LAST_PAUSE = 0.01
"""Seconds: with less time than this before the deadline, the state is not read once more."""
_NOT_ALONE = "another launch of the same at this time may have made what its log shows"


class Settling(Generic[W, R]):
    """Reads the state that shows what became of one call, and decides what follows.

    Args:
        call: What it is about.
        doubt: What is unclear of it.
    """

    __slots__ = ("_call", "_context", "_doubt")

    def __init__(self, call: CallState[W, R], doubt: Doubt) -> None:
        self._call = call
        self._doubt = doubt
        self._context = call.means

    async def step(self, *, is_repeat: bool = False) -> AttemptResult[R]:
        """Settle the call, and say whether it may be repeated.

        Args:
            is_repeat: Whether the latest attempt, which is unclear, repeated one that was unclear too.
        """
        call, doubt, error = self._call, self._doubt, self._doubt.error
        if call.log_key is not None and call.answers_another:
            return AttemptResult(error=error)  # it was swallowed: a start in the log is another launch's
        is_deduplicated = self._is_deduplicated()
        # One repeat shows whether repeats are recognised.
        repeatable = is_deduplicated and (not is_repeat or self._context.replays.honoured)
        if call.log_key is not None and is_deduplicated:
            if not repeatable:
                doubt.error = unclear_too(error)
            return AttemptResult(error=doubt.error, retry="unknown" if repeatable else None)
        settlement = await self._watch(once=repeatable)
        call.log(logging.INFO, f"settling: {settlement.evidence.value}, {settlement.detail}", error=error)
        if settlement.evidence is Evidence.APPLIED:
            return AttemptResult(result=settlement.result)
        # The ledger does not tell a later process of the other launch.
        doubt.error = then(error, settlement.detail, is_final=settlement.detail.startswith(_NOT_ALONE))
        repeatable = repeatable or settlement.evidence in {Evidence.NOT_APPLIED, Evidence.NEVER_APPLIED}
        return AttemptResult(error=doubt.error, retry="unknown" if repeatable and call.policy.repeat_unclear else None)

    async def after_refusal(self, refusal: DispatchkitError) -> AttemptResult[R]:
        """What a refusal of a repeat means: it may only say that the attempt before it had its effect."""
        doubt = self._doubt
        error = then(doubt.error, f"then {refusal.summary}")
        if self._call.log_key is not None:
            # Only a launch that the provider deduplicates is repeated. Whether it replays a refusal, it does not say.
            return AttemptResult(error=error)
        # A state that denies the effect has been overtaken by the refusal, so it has to hold for the whole lag again.
        doubt.acting_until = self._context.clock.monotonic()
        settlement = await self._watch()
        if settlement.evidence is Evidence.APPLIED:
            return AttemptResult(result=settlement.result)
        if settlement.evidence in {Evidence.ABSENT, Evidence.INCONCLUSIVE, Evidence.UNAVAILABLE}:
            return AttemptResult(error=then(error, settlement.detail))
        return AttemptResult(error=refusal)

    def _is_deduplicated(self) -> bool:
        """Whether an unclear call is repeated under its id, by the user's word, which nothing has refuted."""
        call, policy = self._call, self._call.policy
        repeats = policy.repeat_unclear and "unknown" in policy.retry_on and policy.attempts > 1
        if not repeats or not call.one_id or self._context.replays.foreign:
            return False
        # Whichever process sent the first request.
        first = min(self._doubt.since, call.attempts[0].started) if call.attempts else self._doubt.since
        return call.command.deduplicated(self._context.wire, self._context.clock.now() - first)

    async def _watch(self, *, once: bool = False) -> Settlement[R]:
        """Read the provider's state until it says something that can be believed, or the deadline is near.

        Args:
            once: Read it once, whatever it says.
        """
        call, doubt, clock = self._call, self._doubt, self._context.clock
        # From the first attempt that is unclear: what happened before it was not ours.
        probe = call.command.probe(doubt.since)
        if probe is None:
            return Settlement(Evidence.UNAVAILABLE, "no state of the provider shows it")
        believed_from = doubt.acting_until + call.policy.state_lag
        probes = 0
        settlement: Settlement[R] = Settlement(Evidence.INCONCLUSIVE, "its state was not read")
        while True:
            if self._another_ended():
                return Settlement(Evidence.UNAVAILABLE, _NOT_ALONE)
            # Where another process left it unclear, the first question is the first request of this call, no repeat.
            paid = bool(call.attempts or probes)
            if obstacle := await self._may_ask(paid=paid):
                return Settlement(Evidence.INCONCLUSIVE, f"{settlement.detail}, and {obstacle}")
            asked = clock.monotonic()
            settlement, age = await self._look(probe, paid=paid)
            probes += 1
            if settlement.evidence is Evidence.APPLIED and call.log_key is not None:
                settlement = await self._unless_another(settlement, may_change=asked < believed_from)
            denied = settlement.evidence in {Evidence.NOT_APPLIED, Evidence.ABSENT}
            believed = asked - age >= believed_from
            if once or not (denied or settlement.evidence is Evidence.INCONCLUSIVE) or (denied and believed):
                return settlement
            pause = self._pause(probes)
            if not believed:
                # A response of the same age is believed that much later.
                pause = min(pause, max(_MIN_PAUSE if age else 0.0, believed_from + age - clock.monotonic()))
            if not call.in_time(pause):
                pause = call.latest_start - clock.monotonic()  # once more, at the very end
                if pause < _LAST_PAUSE:
                    text = f"{settlement.detail}, and the deadline left no time to ask again"
                    return Settlement(Evidence.INCONCLUSIVE, text)
            await call.sleep(pause)

    @property
    def _alone_from(self) -> float:
        """On the clock's ``monotonic``: which launches, begun from then on, may have made what the log shows.

        One that was answered, or given up, before may have acted later, for as long as state may lag.
        """
        return self._doubt.began - self._tolerance

    @property
    def _tolerance(self) -> float:
        """Seconds for which a launch that was answered or given up may still act, and its log may lag."""
        return max(self._call.policy.state_lag, MAX_OFFSET.total_seconds())

    def _another_ended(self) -> bool:
        key, launches = self._call.log_key, self._context.launches
        return key is not None and launches.another_ended(key, self._call.request_id, self._alone_from)

    async def _unless_another(self, settlement: Settlement[R], *, may_change: bool) -> Settlement[R]:
        """What a start in the log proves: nothing, if another launch may have made it."""
        call = self._call
        if call.has_rival is not None:
            try:
                asking = call.has_rival(self._doubt.age(self._context.clock) + self._tolerance)
                if await asyncio.wait_for(asking, PROBE_TIMEOUT):
                    return Settlement(Evidence.UNAVAILABLE, _NOT_ALONE)
            except (LedgerError, TimeoutError):
                return Settlement(Evidence.INCONCLUSIVE, "the ledger did not say whether another launch made it")
        if self._another_ended():
            return Settlement(Evidence.UNAVAILABLE, _NOT_ALONE)
        if call.log_key is not None and self._context.launches.others_in_flight(call, call.log_key):
            return Settlement(Evidence.INCONCLUSIVE if may_change else Evidence.UNAVAILABLE, _NOT_ALONE)
        return settlement

    async def _may_ask(self, *, paid: bool) -> str:
        """Wait until state may be read. Returns what is in the way of it, if it may not."""
        call, context = self._call, self._context
        while True:
            # A question is a request too: while the account is paused, none is asked.
            while not call.is_over and (paused := context.pacer.paused_for()):
                if not call.in_time(paused):
                    return call.paused_beyond()
                await call.sleep(paused)
            if not call.is_over and paid and not await call.spend() and not call.is_over:
                return "the retry budget of the client had no token for a question before the deadline"
            if call.is_over:
                return "it was told to stop"
            if not context.pacer.paused_for():
                return ""
            if paid:
                context.budget.give_back()  # a pause has begun meanwhile

    def _pause(self, probes: int) -> float:
        policy = self._call.policy
        growing = max(policy.scale, _MIN_PAUSE) * 2.0 ** min(probes - 1, 60)
        return min(policy.cap, growing) * (0.5 + self._context.clock.random() / 2)

    async def _look(self, probe: Probe[W, R] | LogProbe[W, R], *, paid: bool) -> tuple[Settlement[R], float]:
        """Read the provider's state once. Also says how old the response is.

        What the provider asks to wait before the next time, the account pauses.
        """
        context, clock = self._context, self._context.clock
        limit = min(PROBE_TIMEOUT, context.attempt_timeout, self._call.deadline - clock.monotonic())
        if limit <= 0:
            return Settlement(Evidence.INCONCLUSIVE, "the deadline left no time to read its state"), 0.0
        try:
            request = request_of(
                probe.command, context.wire, str(uuid.uuid4()) if probe.command.has_request_id else None
            )
        except Exception as error:  # noqa: BLE001 - a callable that gives the token may raise anything
            # The launch has left. Whatever goes wrong from here on must not hide that.
            return Settlement(Evidence.UNAVAILABLE, f"its state could not be asked for ({type(error).__name__})"), 0.0
        asked, started = clock.now(), clock.monotonic()
        reply = await context.transport.send(request, SendTracker(), timeout=limit)
        seen = classify(probe.command, reply, context.wire, clock)
        if isinstance(reply, Response) and reply.status < 500:
            self._call.answered_at = clock.monotonic()
            if paid:
                context.budget.refund()
        if not isinstance(seen, DispatchkitError):
            headers: Mapping[str, str] = reply.headers if isinstance(reply, Response) else {}
            age = max(0.0, context.freshness.age(headers, asked=asked, monotonic=started))
            if isinstance(probe, Probe):
                return self._as_of(asked, age, probe.settle(seen)), age
            window = self._window(headers, asked)
            return (window if isinstance(window, Settlement) else probe.settle(seen, window)), age
        text = f"its state could not be read: {seen.summary}"
        if (after := pause_after(seen, reply, policy=self._call.policy, now=clock.now)) is not None:
            context.pacer.throttle(after, refused=isinstance(seen, ThrottledError), by=paused_by(reply))
            return Settlement(Evidence.INCONCLUSIVE, text), 0.0
        if isinstance(seen, RejectedError):
            return Settlement(Evidence.UNAVAILABLE, text), 0.0
        return Settlement(Evidence.INCONCLUSIVE, text), 0.0

    def _as_of(self, asked: datetime, age: float, settlement: Settlement[R]) -> Settlement[R]:
        """What a response of this age proves: what it shows may have been so before the first unclear attempt."""
        if not age:
            return settlement
        how_old = f"{age:.0f} s old" if age < math.inf else "of unknown age"
        settlement = attrs.evolve(settlement, detail=f"{settlement.detail} in an answer that is {how_old}")
        shows = settlement.evidence in {Evidence.APPLIED, Evidence.NEVER_APPLIED} and not settlement.lasts
        if shows and age > (asked - self._doubt.since).total_seconds():
            return Settlement(Evidence.INCONCLUSIVE, settlement.detail)
        return settlement

    def _window(self, headers: Mapping[str, str], asked: datetime) -> TimeWindow | Settlement[R]:
        """When, by the provider's clock, the unclear attempt can have acted; a settlement where that is not known."""
        clock = self._context.clock
        now = clock.now()
        offset = clock_offset(headers, asked, now)
        if offset is None:
            return Settlement(Evidence.UNAVAILABLE, "the answer with its log does not say what time it is there")
        if not offset.is_narrow:
            return Settlement(Evidence.INCONCLUSIVE, "the answer with its log took too long to compare the clocks")
        if not offset.is_small:
            ahead = offset.middle.total_seconds()
            return Settlement(
                Evidence.UNAVAILABLE, f"its log cannot be read: its clock is {ahead:+.0f} s off this machine's"
            )
        # Not the time of day at which it began: the clock may have been set since.
        began = now - timedelta(seconds=self._doubt.age(clock))
        # What acts later than its lag allows is another launch.
        acted_by = self._doubt.acting_until if self._doubt.acted_by is None else self._doubt.acted_by
        latest = began + timedelta(seconds=acted_by - self._doubt.began + self._tolerance)
        return TimeWindow(began + offset.least, min(now, latest) + offset.most)

"""Settle an unclear call: read the provider's state, and decide whether the call is done or may be repeated.

State may lag, and a cache may have kept it, so a denial is believed only after `RetryPolicy.lag`, from which the age of
the response is subtracted. A log does not say whose its entries are, so a start there counts only if no other launch
can have made it.
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
from dispatchkit.core.call.classify import judge, pause_after, paused_by
from dispatchkit.core.call.frames import request_of
from dispatchkit.core.call.provider_time import MAX_OFFSET, clock_offset
from dispatchkit.core.call.retry import Step
from dispatchkit.core.command import Answer, LogProbe, Probe, Settlement, TimeWindow, Verdict
from dispatchkit.core.transport.transport import Witness
from dispatchkit.errors import DispatchkitError, LedgerError, RejectedError, ThrottledError

__all__ = ["Settling"]

R = TypeVar("R")
W = TypeVar("W")

PROBE_TIMEOUT = 15.0
"""Seconds for one reading of state: it changes nothing, so it is cheap to give up and ask again."""

_LEAST_PAUSE = 0.25
_LAST_PAUSE = 0.01
"""Seconds: with less time than this before the deadline, the state is not read once more."""
_NOT_ALONE = "another launch of the same at this time may have made what its log shows"


class Settling(Generic[W, R]):
    """Reads the state that shows what became of one call, and decides what follows.

    Args:
        call: What it is about.
        doubt: What is unclear of it.
    """

    __slots__ = ("_call", "_doubt", "_means")

    def __init__(self, call: CallState[W, R], doubt: Doubt) -> None:
        self._call = call
        self._doubt = doubt
        self._means = call.means

    async def step(self, *, is_repeat: bool = False) -> Step[R]:
        """Settle the call, and say whether it may be repeated.

        Args:
            is_repeat: Whether the latest attempt, which is unclear, repeated one that was unclear too.
        """
        call, doubt, error = self._call, self._doubt, self._doubt.error
        if call.log_key is not None and call.answers_another:
            return Step(error=error)  # it was swallowed: a start in the log is another launch's
        is_deduplicated = self._is_deduplicated()
        # One repeat shows whether repeats are recognised.
        repeatable = is_deduplicated and (not is_repeat or self._means.replays.honoured)
        if call.log_key is not None and is_deduplicated:
            if not repeatable:
                doubt.error = unclear_too(error)
            return Step(error=doubt.error, again="unknown" if repeatable else None)
        settlement = await self._watch(once=repeatable)
        call.log(logging.INFO, f"settling: {settlement.verdict.value}, {settlement.seen}", error=error)
        if settlement.verdict is Verdict.HAPPENED:
            return Step(result=settlement.result)
        # The ledger does not tell a later process of the other launch.
        doubt.error = then(error, settlement.seen, is_final=settlement.seen.startswith(_NOT_ALONE))
        repeatable = repeatable or settlement.verdict in {Verdict.DENIED, Verdict.FINAL}
        return Step(error=doubt.error, again="unknown" if repeatable and call.policy.repeat_unclear else None)

    async def after_refusal(self, refusal: DispatchkitError) -> Step[R]:
        """What a refusal of a repeat means: it may only say that the attempt before it had its effect."""
        doubt = self._doubt
        error = then(doubt.error, f"then {refusal.summary}")
        if self._call.log_key is not None:
            # Only a launch that the provider deduplicates is repeated. Whether it replays a refusal, it does not say.
            return Step(error=error)
        # A state that denies the effect has been overtaken by the refusal, so it has to hold for the whole lag again.
        doubt.acting_until = self._means.clock.monotonic()
        settlement = await self._watch()
        if settlement.verdict is Verdict.HAPPENED:
            return Step(result=settlement.result)
        if settlement.verdict in {Verdict.UNSEEN, Verdict.UNDECIDED, Verdict.HIDDEN}:
            return Step(error=then(error, settlement.seen))
        return Step(error=refusal)

    def _is_deduplicated(self) -> bool:
        """Whether an unclear call is repeated under its id, by the user's word, which nothing has refuted."""
        call, policy = self._call, self._call.policy
        repeats = policy.repeat_unclear and "unknown" in policy.on and policy.attempts > 1
        if not repeats or not call.one_id or self._means.replays.foreign:
            return False
        # Whichever process sent the first request.
        first = min(self._doubt.since, call.attempts[0].started) if call.attempts else self._doubt.since
        return call.command.deduplicated(self._means.wire, self._means.clock.now() - first)

    async def _watch(self, *, once: bool = False) -> Settlement[R]:
        """Read the provider's state until it says something that can be believed, or the deadline is near.

        Args:
            once: Read it once, whatever it says.
        """
        call, doubt, clock = self._call, self._doubt, self._means.clock
        # From the first attempt that is unclear: what happened before it was not ours.
        probe = call.command.probe(doubt.since)
        if probe is None:
            return Settlement(Verdict.HIDDEN, "no state of the provider shows it")
        believed_from = doubt.acting_until + call.policy.lag
        looks = 0
        settlement: Settlement[R] = Settlement(Verdict.UNDECIDED, "its state was not read")
        while True:
            if self._another_ended():
                return Settlement(Verdict.HIDDEN, _NOT_ALONE)
            # Where another process left it unclear, the first question is the first request of this call, no repeat.
            paid = bool(call.attempts or looks)
            if obstacle := await self._may_ask(paid=paid):
                return Settlement(Verdict.UNDECIDED, f"{settlement.seen}, and {obstacle}")
            asked = clock.monotonic()
            settlement, age = await self._look(probe, paid=paid)
            looks += 1
            if settlement.verdict is Verdict.HAPPENED and call.log_key is not None:
                settlement = await self._unless_another(settlement, may_change=asked < believed_from)
            denied = settlement.verdict in {Verdict.DENIED, Verdict.UNSEEN}
            believed = asked - age >= believed_from
            if once or not (denied or settlement.verdict is Verdict.UNDECIDED) or (denied and believed):
                return settlement
            pause = self._pause(looks)
            if not believed:
                # A response of the same age is believed that much later.
                pause = min(pause, max(_LEAST_PAUSE if age else 0.0, believed_from + age - clock.monotonic()))
            if not call.in_time(pause):
                pause = call.latest_start - clock.monotonic()  # once more, at the very end
                if pause < _LAST_PAUSE:
                    text = f"{settlement.seen}, and the deadline left no time to ask again"
                    return Settlement(Verdict.UNDECIDED, text)
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
        return max(self._call.policy.lag, MAX_OFFSET.total_seconds())

    def _another_ended(self) -> bool:
        key, launches = self._call.log_key, self._means.launches
        return key is not None and launches.another_ended(key, self._call.request_id, self._alone_from)

    async def _unless_another(self, settlement: Settlement[R], *, may_change: bool) -> Settlement[R]:
        """What a start in the log proves: nothing, if another launch may have made it."""
        call = self._call
        if call.has_rival is not None:
            try:
                asking = call.has_rival(self._doubt.age(self._means.clock) + self._tolerance)
                if await asyncio.wait_for(asking, PROBE_TIMEOUT):
                    return Settlement(Verdict.HIDDEN, _NOT_ALONE)
            except (LedgerError, TimeoutError):
                return Settlement(Verdict.UNDECIDED, "the ledger did not say whether another launch made it")
        if self._another_ended():
            return Settlement(Verdict.HIDDEN, _NOT_ALONE)
        if call.log_key is not None and self._means.launches.others_in_flight(call, call.log_key):
            return Settlement(Verdict.UNDECIDED if may_change else Verdict.HIDDEN, _NOT_ALONE)
        return settlement

    async def _may_ask(self, *, paid: bool) -> str:
        """Wait until state may be read. Returns what is in the way of it, if it may not."""
        call, means = self._call, self._means
        while True:
            # A question is a request too: while the account is paused, none is asked.
            while not call.is_over and (paused := means.pacer.paused_for()):
                if not call.in_time(paused):
                    return call.paused_beyond()
                await call.sleep(paused)
            if not call.is_over and paid and not await call.spend() and not call.is_over:
                return "the retry budget of the client had no token for a question before the deadline"
            if call.is_over:
                return "it was told to stop"
            if not means.pacer.paused_for():
                return ""
            if paid:
                means.budget.give_back()  # a pause has begun meanwhile

    def _pause(self, looks: int) -> float:
        policy = self._call.policy
        growing = max(policy.scale, _LEAST_PAUSE) * 2.0 ** min(looks - 1, 60)
        return min(policy.cap, growing) * (0.5 + self._means.clock.random() / 2)

    async def _look(self, probe: Probe[W, R] | LogProbe[W, R], *, paid: bool) -> tuple[Settlement[R], float]:
        """Read the provider's state once. Also says how old the response is.

        What the provider asks to wait before the next time, the account pauses.
        """
        means, clock = self._means, self._means.clock
        limit = min(PROBE_TIMEOUT, means.attempt_timeout, self._call.deadline - clock.monotonic())
        if limit <= 0:
            return Settlement(Verdict.UNDECIDED, "the deadline left no time to read its state"), 0.0
        try:
            request = request_of(probe.command, means.wire, str(uuid.uuid4()) if probe.command.identified else None)
        except Exception as error:  # noqa: BLE001 - a callable that gives the token may raise anything
            # The launch has left. Whatever goes wrong from here on must not hide that.
            return Settlement(Verdict.HIDDEN, f"its state could not be asked for ({type(error).__name__})"), 0.0
        asked, started = clock.now(), clock.monotonic()
        reply = await means.transport.send(request, Witness(), timeout=limit)
        seen = judge(probe.command, reply, means.wire, clock)
        if isinstance(reply, Answer) and reply.status < 500:
            self._call.answered_at = clock.monotonic()
            if paid:
                means.budget.refund()
        if not isinstance(seen, DispatchkitError):
            headers: Mapping[str, str] = reply.headers if isinstance(reply, Answer) else {}
            age = max(0.0, means.freshness.age(headers, asked=asked, monotonic=started))
            if isinstance(probe, Probe):
                return self._as_of(asked, age, probe.settle(seen)), age
            window = self._window(headers, asked)
            return (window if isinstance(window, Settlement) else probe.settle(seen, window)), age
        text = f"its state could not be read: {seen.summary}"
        if (after := pause_after(seen, reply, policy=self._call.policy, now=clock.now)) is not None:
            means.pacer.throttle(after, refused=isinstance(seen, ThrottledError), by=paused_by(reply))
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
        if shows and age > (asked - self._doubt.since).total_seconds():
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
        began = now - timedelta(seconds=self._doubt.age(clock))
        # What acts later than its lag allows is another launch.
        acted_by = self._doubt.acting_until if self._doubt.acted_by is None else self._doubt.acted_by
        latest = began + timedelta(seconds=acted_by - self._doubt.began + self._tolerance)
        return TimeWindow(began + offset.least, min(now, latest) + offset.most)

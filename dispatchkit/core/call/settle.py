"""Settle an unclear call: read the provider's state, then decide whether the call is done or may be retried.

State may lag, and a cache may serve an old one. So a state without the effect counts only after
`RetryPolicy.state_lag`, plus the age of the response. A log entry does not name its request. So a start in the log
counts only if no other launch can have made it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Generic, Never, TypeVar

import attrs

from dispatchkit.core.call.call_state import CallState, Doubt, then, unclear_too
from dispatchkit.core.call.classify import classify, pause_after, paused_by
from dispatchkit.core.call.echo import mask_echo
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
"""Seconds for one state read. Reads change nothing, so a slow one is dropped and repeated."""

_MIN_PAUSE = 0.25
_LAST_PAUSE = 0.01
"""Minimum seconds before the deadline for one more state read."""
_NOT_ALONE = "another launch of the same at this time may have made what its log shows"


class Settling(Generic[W, R]):
    """Settles one call by reading the provider's state.

    Args:
        call: The call's state.
        doubt: Its unclear attempts.
    """

    __slots__ = ("_call", "_context", "_doubt")

    def __init__(self, call: CallState[W, R], doubt: Doubt) -> None:
        self._call = call
        self._doubt = doubt
        self._context = call.context

    async def step(self, *, is_repeat: bool = False) -> AttemptResult[R]:
        """Settle the call, and decide whether it may be retried.

        Args:
            is_repeat: Whether the latest unclear attempt retried an unclear one.
        """
        call, doubt, error = self._call, self._doubt, self._doubt.error
        if call.log_key is not None and call.answers_another:
            return AttemptResult(error=error)  # the provider did not launch it: a start in the log is another launch's
        is_deduplicated = self._is_deduplicated()
        # The first retry shows whether the provider recognises retries.
        repeatable = is_deduplicated and (not is_repeat or self._context.replays.honoured)
        if call.log_key is not None and is_deduplicated:
            if not repeatable:
                doubt.error = unclear_too(error)
            return AttemptResult(error=doubt.error, retry="unknown" if repeatable else None)
        settlement = await self._watch(once=repeatable)
        call.log(logging.INFO, f"settling: {settlement.evidence.value}, {settlement.detail}", error=error)
        if settlement.evidence is Evidence.APPLIED:
            return AttemptResult(result=settlement.result)
        doubt.error = then(error, settlement.detail, is_final=settlement.is_final)
        repeatable = repeatable or settlement.evidence in {Evidence.NOT_APPLIED, Evidence.NEVER_APPLIED}
        return AttemptResult(error=doubt.error, retry="unknown" if repeatable and call.policy.repeat_unclear else None)

    async def after_refusal(self, refusal: DispatchkitError) -> AttemptResult[R]:
        """Settle a call whose retry was rejected, perhaps because the earlier attempt succeeded."""
        doubt = self._doubt
        error = then(doubt.error, f"then {refusal.summary}")
        if self._call.log_key is not None:
            # Only deduplicated launches are retried, and a replayed refusal has no mark.
            return AttemptResult(error=error)
        # The retry was rejected, perhaps because the earlier attempt succeeded: restart the lag.
        doubt.acting_until = self._context.clock.monotonic()
        settlement = await self._watch()
        if settlement.evidence is Evidence.APPLIED:
            return AttemptResult(result=settlement.result)
        if settlement.evidence in {Evidence.ABSENT, Evidence.INCONCLUSIVE, Evidence.UNAVAILABLE}:
            return AttemptResult(error=then(error, settlement.detail))
        return AttemptResult(error=refusal)

    def _is_deduplicated(self) -> bool:
        """Whether the call may be retried under its id: the user vouches for it, and no replay has refuted it."""
        call, policy = self._call, self._call.policy
        repeats = policy.repeat_unclear and "unknown" in policy.retry_on and policy.attempts > 1
        if not repeats or not call.one_id or self._context.replays.foreign:
            return False
        # An earlier process may have sent the first request.
        first = min(self._doubt.since, call.attempts[0].started) if call.attempts else self._doubt.since
        return call.command.deduplicated(self._context.wire, self._context.clock.now() - first)

    async def _watch(self, *, once: bool = False) -> Settlement[R]:
        """Read the provider's state until it is conclusive, or the deadline is near.

        Args:
            once: Return after the first read.
        """
        call, doubt, clock = self._call, self._doubt, self._context.clock
        # Effects before the first unclear attempt are not this call's.
        probe = call.command.probe(doubt.since)
        if probe is None:
            return Settlement(Evidence.UNAVAILABLE, "the provider has no state that shows it")
        believed_from = doubt.acting_until + call.policy.state_lag
        probes = 0
        settlement: Settlement[R] = Settlement(Evidence.INCONCLUSIVE, "its state was not read")
        while True:
            if self._another_ended():
                return _not_alone(Evidence.UNAVAILABLE)
            # After a takeover, the first state read is this call's first request: it costs no token.
            paid = bool(call.attempts or probes)
            if obstacle := await self._may_ask(paid=paid):
                return _undecided(settlement, obstacle)
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
                # The next response may be as old: wait that much longer.
                pause = min(pause, max(_MIN_PAUSE if age else 0.0, believed_from + age - clock.monotonic()))
            if not call.in_time(pause):
                pause = call.latest_start - clock.monotonic()  # read once more just before the deadline
                if pause < _LAST_PAUSE:
                    return _undecided(settlement, "the deadline left no time to ask again")
            await call.sleep(pause)

    @property
    def _alone_from(self) -> float:
        """The earliest end of a launch that may have made the log's entry, on the clock's ``monotonic``.

        A launch may act after its end, for as long as state may lag.
        """
        return self._doubt.began - self._tolerance

    @property
    def _tolerance(self) -> float:
        """Seconds after its end for which a launch may still act, and its log may lag."""
        return max(self._call.policy.state_lag, MAX_OFFSET.total_seconds())

    def _another_ended(self) -> bool:
        key, launches = self._call.log_key, self._context.launches
        return key is not None and launches.another_ended(key, self._call.request_id, self._alone_from)

    async def _unless_another(self, settlement: Settlement[R], *, may_change: bool) -> Settlement[R]:
        """Discard a start in the log if another launch may have made it."""
        call = self._call
        if call.has_rival is not None:
            try:
                asking = call.has_rival(self._doubt.age(self._context.clock) + self._tolerance)
                if await asyncio.wait_for(asking, PROBE_TIMEOUT):
                    return _not_alone(Evidence.UNAVAILABLE)
            except (LedgerError, TimeoutError):
                return Settlement(Evidence.INCONCLUSIVE, "the ledger did not say whether another launch made it")
        if self._another_ended():
            return _not_alone(Evidence.UNAVAILABLE)
        if call.log_key is not None and self._context.launches.others_in_flight(call, call.log_key):
            return _not_alone(Evidence.INCONCLUSIVE if may_change else Evidence.UNAVAILABLE)
        return settlement

    async def _may_ask(self, *, paid: bool) -> str:
        """Wait until the state may be read. Returns the obstacle if it may not, else an empty string."""
        call, context = self._call, self._context
        while True:
            # State reads respect the account's pause, too.
            while not call.is_over and (paused := context.pacer.paused_for()):
                if not call.in_time(paused):
                    return call.paused_beyond()
                await call.sleep(paused)
            if not call.is_over and paid and not await call.spend() and not call.is_over:
                return "the retry budget of the client had no token for a state read before the deadline"
            if call.is_over:
                return "it was told to stop"
            if not context.pacer.paused_for():
                return ""
            if paid:
                context.budget.give_back()  # a pause began while it waited

    def _pause(self, probes: int) -> float:
        policy = self._call.policy
        growing = max(policy.scale, _MIN_PAUSE) * 2.0 ** min(probes - 1, 60)
        return min(policy.cap, growing) * (0.5 + self._context.clock.random() / 2)

    async def _look(self, probe: Probe[W, R] | LogProbe[W, R], *, paid: bool) -> tuple[Settlement[R], float]:
        """Read the provider's state once. Returns the settlement and the age of the response in seconds.

        A ``Retry-After`` or a 429 pauses the account.
        """
        context, clock = self._context, self._context.clock
        limit = min(PROBE_TIMEOUT, context.attempt_timeout, self._call.deadline - clock.monotonic())
        if limit <= 0:
            return Settlement(Evidence.INCONCLUSIVE, "the deadline left no time to read its state"), 0.0
        try:
            request = request_of(
                probe.command, context.wire, str(uuid.uuid4()) if probe.command.has_request_id else None
            )
        except Exception as error:  # noqa: BLE001 - a token callable may raise anything
            # The launch has left: an error of the state read must not replace its outcome.
            return Settlement(Evidence.UNAVAILABLE, f"its state could not be asked for ({type(error).__name__})"), 0.0
        asked, started = clock.now(), clock.monotonic()
        reply = await context.transport.send(request, SendTracker(), timeout=limit)
        read = classify(probe.command, reply, context.wire, clock)
        if isinstance(reply, Response) and reply.status < 500:
            self._call.answered_at = clock.monotonic()
            if paid:
                context.budget.refund()
        if not isinstance(read, DispatchkitError):
            headers: Mapping[str, str] = reply.headers if isinstance(reply, Response) else {}
            age = max(0.0, context.freshness.age(headers, asked=asked, monotonic=started))
            if isinstance(probe, Probe):
                return self._as_of(asked, age, probe.settle(read)), age
            window = self._window(headers, asked)
            return (window if isinstance(window, Settlement) else probe.settle(read, window)), age
        text = f"its state could not be read: {mask_echo(read.summary, self._call.command)}"
        if (after := pause_after(read, reply, policy=self._call.policy, now=clock.now)) is not None:
            context.pacer.throttle(after, refused=isinstance(read, ThrottledError), by=paused_by(reply))
            return Settlement(Evidence.INCONCLUSIVE, text), 0.0
        if isinstance(read, RejectedError):
            return Settlement(Evidence.UNAVAILABLE, text), 0.0
        return Settlement(Evidence.INCONCLUSIVE, text), 0.0

    def _as_of(self, asked: datetime, age: float, settlement: Settlement[R]) -> Settlement[R]:
        """Discount an old response: what it shows may be from before the first unclear attempt."""
        if not age:
            return settlement
        how_old = f"{age:.0f} s old" if age < math.inf else "of unknown age"
        settlement = attrs.evolve(settlement, detail=f"{settlement.detail} in an answer that is {how_old}")
        is_proof = settlement.evidence in {Evidence.APPLIED, Evidence.NEVER_APPLIED} and not settlement.lasts
        if is_proof and age > (asked - self._doubt.since).total_seconds():
            return Settlement(Evidence.INCONCLUSIVE, settlement.detail)
        return settlement

    def _window(self, headers: Mapping[str, str], asked: datetime) -> TimeWindow | Settlement[R]:
        """The time window, on the provider's clock, in which the unclear attempt can have acted.

        Returns a settlement if the clocks cannot be compared.
        """
        clock = self._context.clock
        now = clock.now()
        offset = clock_offset(headers, asked, now)
        if offset is None:
            return Settlement(Evidence.UNAVAILABLE, "the answer with its log does not tell the provider's time")
        if not offset.is_narrow:
            return Settlement(Evidence.INCONCLUSIVE, "the answer with its log took too long to compare the clocks")
        if not offset.is_small:
            ahead = offset.middle.total_seconds()
            return Settlement(
                Evidence.UNAVAILABLE, f"its log cannot be read: its clock is {ahead:+.0f} s off this machine's"
            )
        # Computed from the age, since the wall clock may have been set since.
        began = now - timedelta(seconds=self._doubt.age(clock))
        # An entry later than the lag allows is another launch's.
        acted_by = self._doubt.acting_until if self._doubt.acted_by is None else self._doubt.acted_by
        latest = began + timedelta(seconds=acted_by - self._doubt.began + self._tolerance)
        return TimeWindow(began + offset.least, min(now, latest) + offset.most)


def _not_alone(evidence: Evidence) -> Settlement[Never]:
    """The settlement where another launch may have made the entry. A later process does not know of that launch."""
    return Settlement(evidence, _NOT_ALONE, is_final=True)


def _undecided(settlement: Settlement[R], obstacle: str) -> Settlement[R]:
    """The latest settlement, if the state cannot be read again."""
    return attrs.evolve(settlement, evidence=Evidence.INCONCLUSIVE, detail=f"{settlement.detail}, and {obstacle}")

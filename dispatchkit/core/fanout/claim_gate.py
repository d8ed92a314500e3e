"""The gate of a fan-out with a ledger: a concurrency slot, a pacer permit and a durable claim.

A call takes its slot first, then its permit, and its claim last. So a claimed call is sent at once, and a killed
process leaves few claims behind. If all slots are busy, claim first, so that the disk write overlaps with waiting for a
slot. The call keeps its slot until it is over. Each attempt has a permit and a claim of its own.

Permits and claims expire. After a disk stall, stale permits would release every waiter at once. While this process is
suspended, another one may take the run over. So a claim expires `CLAIM_AGE` after it was requested. If a call's claims
expire three times in a row, the run pauses and logs why.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, cast

import attrs

from dispatchkit.core.call.gate import Permit
from dispatchkit.core.call.pending import PendingCall
from dispatchkit.core.claim import CLAIM_AGE, ClaimAge, ClaimResult
from dispatchkit.core.clock import Clock
from dispatchkit.core.fanout.journal import Journal, WorkItem
from dispatchkit.core.fanout.outcome import Done, Outcome, failed
from dispatchkit.core.log import log
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.pacing.waiters import Waiter
from dispatchkit.core.stop import StopSignal
from dispatchkit.errors import LedgerError

__all__ = ["Admission", "ClaimGate", "Slots", "known_outcome"]

R = TypeVar("R")
W = TypeVar("W")

logger = logging.getLogger("dispatchkit.ledger")

_RENEW_BEFORE = CLAIM_AGE / 5
"""Seconds before its expiry at which a waiting claim is renewed: opening the connection takes time, too."""
_SAME_MOMENT = 0.02
"""Seconds for which claims share the age of the first: each of them may expire earlier by that time, never later."""
_EXPIRED_IN_A_ROW = 3
"""Expired claims of one call in a row that pause the run."""
_MIN_PAUSE, _MAX_PAUSE = 5.0, 60.0
"""Seconds of such a pause; each doubles, up to the maximum."""
_PROMPT = 0.25
"""Maximum age of a permit in seconds: a disk write takes less, unless it stalls. An older one is postponed."""
_GRANTED, _STOPPED, _TAKEN = ClaimResult.GRANTED, ClaimResult.STOPPED, ClaimResult.TAKEN
# Compared by identity: the hash of an enum's member is a method in Python, and each launch asks several times.


class Slots:
    """The slots of calls in flight. `asyncio.Semaphore` costs twice as much.

    Args:
        count: The number of slots.
    """

    __slots__ = ("_waiting", "free")

    def __init__(self, count: int) -> None:
        self.free = count
        """The number of free slots; 0 while a call waits."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    def try_take(self) -> bool:
        """Take a free slot. Returns False if there is none."""
        if not self.free:
            return False
        self.free -= 1
        return True

    async def take(self) -> None:
        """Wait for a slot, in FIFO order. Use it only while none is free."""
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            if not slot.cancelled():  # the slot came in the same iteration of the loop
                self.release()
            raise

    def release(self) -> None:
        """Hand a slot on to the next call, or leave it free."""
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self.free += 1


class Admission:
    """What the gates of one fan-out share: its slots, and its pause after expired claims.

    Args:
        slots: The most calls in flight.
        pacer: The pacer of the account.
        journal: The journal of the run.
        clock: The source of time.
        stop: The stop signal of the run.
        on_error: Ends the run, since the ledger cannot be written.
        run: The name of the run, for the log.
    """

    def __init__(
        self,
        slots: int,
        *,
        pacer: Pacer,
        journal: Journal,
        clock: Clock,
        stop: StopSignal,
        on_error: Callable[[LedgerError], None],
        run: str | None = None,
    ) -> None:
        self._run = run
        self.slots = Slots(slots)
        self.pacer = pacer
        self.journal = journal
        self.clock = clock
        self.stop = stop
        self.on_error = on_error
        self._age: ClaimAge | None = None
        """The age of the latest claims."""
        self.has_paused = False
        """Whether the run has paused before."""
        self._paused_until = -math.inf
        self._pause = _MIN_PAUSE

    def claim_age(self) -> ClaimAge:
        """The age of a claim that is requested now. Claims of nearly one moment share that of the first."""
        age = self._age
        if age is None or age.boottime() > age.expires_at - CLAIM_AGE + _SAME_MOMENT:
            self._age = age = ClaimAge(self.clock)
        return age

    def count_expiry(self, in_a_row: int, why: str) -> None:
        """Pause the run if a call's claims expire again and again."""
        self._age = None  # a step of the wall clock would make the next claims expire, too
        now = self.clock.monotonic()
        if in_a_row < _EXPIRED_IN_A_ROW or now < self._paused_until:
            return
        self.has_paused = True
        self._paused_until = now + self._pause
        text = "the run pauses for %.0f s: %s; the limit is %.0f s"
        log(
            logger,
            logging.WARNING,
            text,
            self._pause,
            why,
            CLAIM_AGE,
            extra=lambda: {"run": self._run, "index": None},
        )
        self._pause = min(2 * self._pause, _MAX_PAUSE)

    def count_claim_in_time(self) -> None:
        """Forget the pauses so far."""
        self._pause = _MIN_PAUSE

    async def outlast_pause(self) -> None:
        """Wait until the run's own pause is over, or the run is stopped."""
        while (left := self._paused_until - self.clock.monotonic()) > 0 and not self.stop.is_set:
            with self.stop.interruptible():
                await self.clock.sleep(left)


class ClaimGate(Generic[W, R]):
    """The gate of one call. See `Gate`, whose methods these are. Call `close` when the call is over."""

    __slots__ = (
        "_admission",
        "_call",
        "_expirations",
        "_has_slot",
        "_is_claimed",
        "_is_spent",
        "_item",
        "claim",
        "refusal",
    )

    def __init__(self, admission: Admission, item: WorkItem[W, R], call: PendingCall[W, R]) -> None:
        self._admission = admission
        self._item = item
        self._call = call
        self.claim: ClaimAge | None = None
        self.refusal: ClaimResult | None = None
        """Why the ledger grants the call no claim."""
        self._expirations = 0
        """Consecutive claims that expired before their request had left."""
        self._has_slot = False
        self._is_claimed = False
        self._is_spent = False
        """Whether an attempt has used the claim."""

    def try_acquire(self) -> Permit:
        """See `Gate.try_acquire`: a claim takes a wait."""
        return 0

    async def acquire(self, until: float) -> Permit:
        """See `Gate.acquire`. The claim is durable then."""
        # Each launch waits for its claim here, so there are few layers of coroutines.
        admission, call = self._admission, self._call
        pacer, clock = admission.pacer, admission.clock
        self._has_slot = self._has_slot or admission.slots.try_take() or await self._take_slot()
        if not self._has_slot:
            return 0
        permit = acquired = 0
        acquired_at = 0.0
        try:
            while not call.is_over:
                if admission.has_paused:
                    await admission.outlast_pause()
                if not permit:
                    place = pacer.line_up(until)
                    permit = place if isinstance(place, int) else await self._wait_for_permit(place)
                    acquired_at = clock.monotonic()
                if not permit or call.is_over:
                    break
                result = _GRANTED if self._has_claim() else await self._claim()
                if result is _STOPPED or result is _TAKEN:
                    break
                # The claim may have taken long: check the pause and the deadline again.
                if result is not _GRANTED or not pacer.is_current(permit):
                    pacer.cancel(permit)
                    permit = 0
                elif (now := clock.monotonic()) > until:
                    break
                elif now - acquired_at > _PROMPT:
                    # The database was slow: after a stall, all waiters would start at once.
                    with call.stop.interruptible(call.context.stop):
                        await clock.sleep(pacer.postpone())
                    acquired_at = clock.monotonic()
                elif not call.is_over:
                    self._is_spent = True
                    acquired = permit
                    break
        finally:
            if permit and not acquired:
                pacer.cancel(permit)
        return acquired

    async def _wait_for_permit(self, place: Waiter) -> Permit:
        with self._call.stop.interruptible(self._call.context.stop):
            return await self._admission.pacer.wait(place)
        return 0

    def _has_claim(self) -> bool:
        """Whether a claim that was requested first is good for an attempt."""
        return self.claim is not None and not self._is_spent and not self.claim.is_expired(margin=_RENEW_BEFORE)

    async def _take_slot(self) -> bool:
        slots, call = self._admission.slots, self._call
        if self._admission.pacer.can_start():
            result = await self._claim()
            if result is _STOPPED or result is _TAKEN:
                return False
        if call.is_over:
            return False
        if slots.try_take():
            return True
        with call.stop.interruptible(call.context.stop):
            await slots.take()
            return True
        return False

    async def _claim(self) -> ClaimResult:
        """Request a claim; `ClaimResult.DEFERRED` if it was granted after it had expired.

        A stop does not interrupt it: `Source.stop` ends it.
        """
        admission, item = self._admission, self._item
        if item.unclear_since is None and (first_sent := self._call.first_sent) is not None:
            item = attrs.evolve(item, unclear_since=first_sent)
        self.claim, claim = None, admission.claim_age()
        answer: Awaitable[ClaimResult] | None = None
        try:
            answer = admission.journal.claim(item, self._call.request_id)
            result = await answer
        except LedgerError as unwritten:
            admission.on_error(unwritten)
            result = _STOPPED
        except asyncio.CancelledError:
            # The answer may have come in the same iteration of the loop. The journal handles a later one.
            if isinstance(answer, asyncio.Future) and not answer.cancelled() and answer.exception() is None:
                self._is_claimed |= answer.result() is _GRANTED
            raise
        if result is not _GRANTED:
            if result is _STOPPED or result is _TAKEN:
                self.refusal = result
            return result
        self._is_claimed, self._is_spent = True, False
        # The transport checks both clocks before it writes.
        if claim.boottime() >= claim.expires_at:
            self._expirations += 1
            admission.count_expiry(self._expirations, f"the database answers in {claim.seconds():.0f} s")
            return ClaimResult.DEFERRED
        self.claim = claim
        return result

    async def renew(self) -> ClaimAge | None:
        """See `Gate.renew`."""
        if self._admission.has_paused:
            await self._admission.outlast_pause()
        if self._call.is_over or await self._claim() is not _GRANTED:
            return None
        self._is_spent = True
        return self.claim

    def expired(self) -> None:
        """See `Gate.expired`."""
        self._expirations += 1
        if self.claim is not None:
            waited = f"a request waited {self.claim.seconds():.0f} s for its connection or for the event loop"
            why = "the wall clock was set" if self.claim.was_stepped() else waited
            self._admission.count_expiry(self._expirations, why)

    def used(self) -> None:
        """See `Gate.used`."""
        self._expirations = 0

    def obstacle(self) -> str:
        """See `Gate.obstacle`."""
        if self.refusal is not None:
            return "it was told to stop"
        if self._expirations:
            return "its claims expired before the request could leave, until no time was left before the deadline"
        return ""

    def close(self, *, has_outcome: bool) -> None:
        """See `Gate.close`."""
        if self._admission.has_paused and self._call.attempts and not self._expirations:
            self._admission.count_claim_in_time()
        if self._has_slot:
            self._has_slot = False
            self._admission.slots.release()
        if self._is_claimed and not has_outcome:
            self._is_claimed = False
            self._admission.journal.record(self._item, known_outcome(self._item, self._call))


def known_outcome(item: WorkItem[W, R], call: PendingCall[W, R]) -> Outcome[R]:
    """The outcome of a cancelled call, as far as it is known."""
    if call.final is not None and call.final.error is None:
        return Done(item.index, item.command, cast("R", call.final.result), call.attempts, call.request_id)
    return failed(item.index, item.command, call.known_outcome())

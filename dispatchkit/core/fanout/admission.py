"""Admission with a ledger: a concurrency slot, a pacer permit and a durable claim.

A call takes its slot first, then its permit, and its claim last. So a claimed call is sent at once, and a killed
process leaves few claims behind. If all slots are busy, claim first, so that the disk write overlaps with waiting for a
slot.

Permits and claims expire. After a disk stall, stale permits would release every waiter at once. While this process is
suspended, another one may take the run over. So a claim expires `CLAIM_AGE` after it was requested. Each attempt of a
call has a claim of its own. If a call's claims expire three times in a row, the run pauses and logs why.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar, cast

import attrs

from dispatchkit.core.call.call import Call
from dispatchkit.core.claim import CLAIM_AGE, ClaimAge, ClaimResult
from dispatchkit.core.clock import Clock
from dispatchkit.core.fanout.journal import Journal, WorkItem
from dispatchkit.core.fanout.outcome import Done, Outcome, failed
from dispatchkit.core.log import log
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.stop import StopSignal

__all__ = ["Admission", "known_outcome"]

R = TypeVar("R")
W = TypeVar("W")

logger = logging.getLogger("dispatchkit.ledger")

_RENEW_BEFORE = CLAIM_AGE / 5
"""Seconds before its expiry at which a waiting claim is renewed: opening the connection takes time, too."""
_EXPIRED_IN_A_ROW = 3
"""Expired claims of one call in a row that pause the run."""
_MIN_PAUSE, _MAX_PAUSE = 5.0, 60.0
"""Seconds of such a pause; each doubles, up to the maximum."""
_PROMPT = 0.25
"""Maximum age of a permit in seconds: a disk write takes less, unless it stalls. An older one is postponed."""


@attrs.define
class _Held:
    """The slot, the permit and the claim that a call holds so far."""

    slot: bool = False
    permit: int = 0
    permit_at: float = 0.0
    claimed: bool = False


class Admission:
    """Decides when each call of one fan-out may start.

    Args:
        slots: The most calls in flight.
        pacer: The pacer of the account.
        journal: The journal of the run.
        clock: The source of time.
        stop: The stop signal of the run. Once it is set, no further call starts.
    """

    def __init__(
        self,
        slots: int,
        *,
        pacer: Pacer,
        journal: Journal,
        clock: Clock,
        stop: StopSignal,
    ) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._pacer = pacer
        self._journal = journal
        self._clock = clock
        self._stop = stop
        self._paused_until = 0.0
        self._pause = _MIN_PAUSE

    async def admit(self, item: WorkItem[W, R], call: Call[W, R]) -> int | ClaimResult:
        """Wait until a call may start, and its claim is durable.

        Returns:
            The pacer's permit for its first attempt; 0 if the call is settled before anything is sent. The call then
            holds a slot: call `release` when it is over. Otherwise, the reason why it must not start.
        """
        held = _Held()
        admitted: int | ClaimResult = ClaimResult.STOPPED
        try:
            admitted = await self._gather(item, call, held)
        finally:
            if held.slot and isinstance(admitted, ClaimResult):
                self._slots.release()
            if held.permit and admitted != held.permit:
                self._pacer.cancel(held.permit)
            if held.claimed and isinstance(admitted, ClaimResult):
                self._journal.record(item, known_outcome(item, call))  # it has not been started
        return admitted

    def release(self, call: Call[W, R]) -> None:
        """Free the slot of an admitted call that is over."""
        if call.attempts and not call.expirations:
            self._pause = _MIN_PAUSE  # claims are in time again
        self._slots.release()

    async def _gather(self, item: WorkItem[W, R], call: Call[W, R], held: _Held) -> int | ClaimResult:
        if self._slots.locked() and self._pacer.can_start():
            claim_result = await self._claim(item, call, held)
            if claim_result in {ClaimResult.STOPPED, ClaimResult.TAKEN}:
                return claim_result
        if self._stop.is_set:
            return ClaimResult.STOPPED
        with self._stop.interruptible():
            await self._slots.acquire()
            held.slot = True
        while not self._stop.is_set:
            await self._outlast_pause()
            if not held.permit:
                with self._stop.interruptible():
                    held.permit = self._pacer.try_acquire() or await self._pacer.acquire()
                held.permit_at = self._clock.monotonic()
            if self._stop.is_set:
                break
            claim_result = ClaimResult.GRANTED
            if call.claim is None or call.claim.is_expired(margin=_RENEW_BEFORE):
                claim_result = await self._claim(item, call, held)
                if claim_result in {ClaimResult.STOPPED, ClaimResult.TAKEN}:
                    return claim_result
            if claim_result is not ClaimResult.GRANTED or not self._pacer.is_current(held.permit):
                self._pacer.cancel(held.permit)
                held.permit = 0
            elif self._clock.monotonic() - held.permit_at > _PROMPT:
                # The database was slow: after a stall, all waiters would start at once.
                with self._stop.interruptible():
                    await self._clock.sleep(self._pacer.postpone())
                held.permit_at = self._clock.monotonic()
            elif not self._stop.is_set:
                return held.permit if item.unclear_since is None else 0  # after settling, a repeat takes its own
        return ClaimResult.STOPPED

    async def _claim(self, item: WorkItem[W, R], call: Call[W, R], held: _Held | None = None) -> ClaimResult:
        """Request a claim; `ClaimResult.DEFERRED` if it was granted after it had expired."""
        call.claim, claim = None, ClaimAge(self._clock)
        claim_result = await self._journal.claim(item, call.request_id)
        if claim_result is not ClaimResult.GRANTED:
            return claim_result
        if held is not None:
            held.claimed = True
        if claim.is_expired():
            call.expirations += 1
            self._count_expiry(call, f"the database answers in {claim.seconds():.0f} s")
            return ClaimResult.DEFERRED
        call.claim = claim
        return ClaimResult.GRANTED

    async def again(self, item: WorkItem[W, R], call: Call[W, R]) -> ClaimResult:
        """Request a claim for a repeat, or for a request whose claim has expired.

        Raises:
            LedgerError: It cannot be written.
        """
        if call.claim is not None and call.expirations:
            waited = f"a request waited {call.claim.seconds():.0f} s for its connection or for the event loop"
            self._count_expiry(call, "the wall clock was set" if call.claim.was_stepped() else waited)
        await self._outlast_pause()
        if self._stop.is_set:
            return ClaimResult.STOPPED
        unclear_since = item.unclear_since or call.first_sent
        return await self._claim(attrs.evolve(item, unclear_since=unclear_since), call)

    async def has_rival(self, item: WorkItem[W, R], within: float) -> bool:
        """See `Journal.has_rival`."""
        return await self._journal.has_rival(item, within)

    def _count_expiry(self, call: Call[W, R], why: str) -> None:
        now = self._clock.monotonic()
        if call.expirations < _EXPIRED_IN_A_ROW or now < self._paused_until:
            return
        self._paused_until = now + self._pause
        text = "the run pauses for %.0f s: %s; the limit is %.0f s"
        log(logger, logging.WARNING, text, self._pause, why, CLAIM_AGE)
        self._pause = min(2 * self._pause, _MAX_PAUSE)

    async def _outlast_pause(self) -> None:
        while (left := self._paused_until - self._clock.monotonic()) > 0 and not self._stop.is_set:
            with self._stop.interruptible():
                await self._clock.sleep(left)


def known_outcome(item: WorkItem[W, R], call: Call[W, R]) -> Outcome[R]:
    """The outcome of a cancelled call, as far as it is known."""
    if call.final is not None and call.final.error is None:
        return Done(item.index, item.command, cast("R", call.final.result), call.attempts, call.request_id)
    return failed(item.index, item.command, call.known_outcome())

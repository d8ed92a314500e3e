"""Group commit: claims and outcomes are collected while the previous batch is written, and written together.

No call waits for the write of an outcome, so outcomes are gathered for a moment, too. All claims of a batch wait for
one commit. An outcome is always written after its claim: it exists only once the claim was granted.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TypeAlias

from dispatchkit.core.claim import ClaimResult
from dispatchkit.core.clock import Clock
from dispatchkit.core.stop import StopSignal
from dispatchkit.errors import LedgerError, State
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.store import Store

__all__ = ["GroupCommit"]


_GATHER_TIME = 0.01
"""Seconds for which an outcome waits for others. A statement costs the time of ten rows, so small batches are dear."""
_SAME_MOMENT = 0.02
"""Seconds for which claims share their start: each of them may have begun later by that time."""
_PendingClaim: TypeAlias = tuple[Claim, bool, "asyncio.Future[ClaimResult]"]
"""A claim, whether it is for a first attempt, and the answer that its caller waits for."""


class GroupCommit:
    """Writes the claims and outcomes of one journal to its store.

    One batch of claims is written at a time. A second one would hold the few claims of one moment, and cost a commit of
    its own.

    Args:
        store: The store.
        clock: The clock.
        stop: The stop signal of the journal. Once it is set, nothing more is granted.
    """

    def __init__(self, store: Store, clock: Clock, stop: StopSignal) -> None:
        self._store = store
        self._clock = clock
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._since: datetime | None = None
        """The start of the next claims."""
        self._since_ends = 0.0
        """When it is too old for another claim, on the boot clock."""
        self._pending: list[_PendingClaim] = []
        self._batch: list[_PendingClaim] = []
        """The claims that are written now."""
        self._records: list[Record] = []
        self._claiming: asyncio.Task[None] | None = None
        self._recording: asyncio.Task[None] | None = None
        self._gathering: asyncio.TimerHandle | None = None
        """Starts the write of the outcomes, once a few more may have come."""
        self._is_flushing = False
        """Whether `flush` writes, which takes what comes meanwhile, too."""
        self._error: LedgerError | None = None
        self._unreported: LedgerError | None = None

    def since(self) -> datetime:
        """The start of a claim that is made now. Claims of one moment and batch share it: their rows differ in less."""
        moment = self._clock.boottime()
        if self._since is None or moment > self._since_ends:
            self._since, self._since_ends = self._clock.now(), moment + _SAME_MOMENT
        return self._since

    def claim(self, claim: Claim, *, first_attempt: bool) -> asyncio.Future[ClaimResult]:
        """Write a claim. The caller waits for the answer.

        If the caller was cancelled before the answer came, a granted claim is recorded as not sent.

        Args:
            claim: The claim.
            first_attempt: Whether no earlier request is unclear, so that a cancelled claim means that nothing was sent.

        Raises:
            LedgerError: The claim, or an earlier batch, cannot be written.
        """
        if self._error is not None and not self._stop.is_set:
            self._unreported = None
            raise self._error
        answer: asyncio.Future[ClaimResult] = self._loop.create_future()
        if self._stop.is_set:
            answer.set_result(ClaimResult.STOPPED)
            return answer
        self._pending.append((claim, first_attempt, answer))
        if self._claiming is None:
            self._claiming = asyncio.create_task(self._write_claims())
        return answer

    def record(self, record: Record) -> None:
        """Write an outcome with the next batch."""
        self._records.append(record)
        if self._gathering is None and self._recording is None and self._error is None:
            self._gather()

    def _gather(self) -> None:
        """Write the outcomes in a moment. While `flush` writes, it does so itself: it would not wait for another."""
        if not self._is_flushing:
            self._gathering = self._loop.call_later(_GATHER_TIME, self._start_recording)

    def _start_recording(self) -> None:
        self._gathering = None
        if self._records and self._error is None and self._recording is None:
            self._recording = self._loop.create_task(self._write_records())

    def end_waits(self) -> None:
        """Answer all waiting claims that the run was stopped."""
        for _, _, answer in (*self._batch, *self._pending):
            if not answer.done():
                answer.set_result(ClaimResult.STOPPED)

    def fail(self, error: LedgerError) -> None:
        """Grant nothing more, because of an error."""
        self._error = self._unreported = self._error or error

    async def flush(self) -> None:
        """Write all outcomes, including those whose earlier write failed.

        Raises:
            LedgerError: They cannot be written.
        """
        while writing := [task for task in (self._claiming, self._recording) if task is not None]:
            await asyncio.wait(writing)
        if self._records:
            self._error = None
            self._is_flushing = True
            try:
                while self._records and self._error is None:
                    await self._write_records()
            finally:
                self._is_flushing = False
            self._unreported = self._error
        if self._unreported is not None:
            raise self._unreported

    async def _write_claims(self) -> None:
        """Write batches of claims. Each ``await`` delays all waiting calls, so there are few."""
        try:
            while self._pending and self._error is None:
                self._since = None
                batch, self._pending = self._pending, []
                if any(answer.done() for _, _, answer in batch):  # cancelled, or stopped
                    batch = [pending for pending in batch if not pending[2].done()]
                if batch:
                    self._batch = batch
                    claim_results = await self._store.claim([claim for claim, _, _ in batch])
                    for pending, claim_result in zip(batch, claim_results, strict=True):
                        if pending[2].done():
                            self._tell(pending, claim_result)
                        else:
                            pending[2].set_result(claim_result)
                    self._batch = []
        except Exception as error:  # noqa: BLE001 - the waiting calls get it
            self._fail(error)
        finally:
            self._claiming = None
            batch, self._batch = self._batch, []
            if self._error is not None:
                batch, self._pending = batch + self._pending, []
            for pending in batch:
                self._tell(pending, self._error or ClaimResult.STOPPED)

    async def _write_records(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        records, self._records = self._records, []
        try:
            await self._store.record(records)
        except Exception as error:  # noqa: BLE001 - `flush` raises it
            self._records = records + self._records
            self._fail(error)
        except BaseException:
            self._records = records + self._records
            raise
        finally:
            self._recording = None
        if self._records and self._error is None:
            self._gather()

    def _fail(self, error: BaseException) -> None:
        self.fail(error if isinstance(error, LedgerError) else LedgerError(f"the ledger failed: {error!r}"))

    def _tell(self, pending: _PendingClaim, claim_result: ClaimResult | LedgerError) -> None:
        answer = pending[2]
        if answer.done():
            if claim_result is ClaimResult.GRANTED:
                self._unsent(pending)
        elif isinstance(claim_result, LedgerError):
            self._unreported = None
            answer.set_exception(claim_result)
        else:
            answer.set_result(claim_result)

    def _unsent(self, pending: _PendingClaim) -> None:
        """Record that nothing was sent: the claim was granted after its caller was cancelled."""
        claim, first_attempt, _ = pending
        if first_attempt:
            text = "the run was stopped before the request left"
            what = (claim.run, claim.chunk, claim.index, claim.token, State.NOT_SENT, text, None, claim.request_id)
            self.record(Record(*what, attempts=0, at=claim.since))

"""Group commit: claims and outcomes are gathered while the batch before them is written, and go down together.

Nobody waits for an outcome to be written, and whoever waits for a claim waits for one commit, however many others do.
What is recorded of a claim never overtakes it, since nobody has anything to say of it before it was granted.
"""

from __future__ import annotations

import asyncio

import attrs

from dispatchkit.core.fanout.journal import Leave
from dispatchkit.errors import LedgerError, State
from dispatchkit.ledger.store import Claim, Record, Store

__all__ = ["Gathering"]

_UNDER_WAY = 2
"""Batches of claims at a time: while the database writes one, the next one already waits at its door."""


@attrs.frozen(eq=False)
class _Asked:
    """Somebody waits for leave."""

    claim: Claim
    fresh: bool
    answer: asyncio.Future[Leave]


class Gathering:
    """The claims and outcomes of one journal on their way to its store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: list[_Asked] = []
        self._waiting: set[_Asked] = set()
        self._records: list[Record] = []
        self._claiming: set[asyncio.Task[None]] = set()
        self._gathers = False
        self._recording: asyncio.Task[None] | None = None
        self._halted = False
        self._error: LedgerError | None = None
        self._untold: LedgerError | None = None

    async def claim(self, claim: Claim, *, fresh: bool) -> Leave:
        """Ask for leave.

        Args:
            claim: For what.
            fresh: Whether no earlier request is unclear. Then, if whoever asks is cancelled, nothing was sent.

        Raises:
            LedgerError: It cannot be written, or something before it could not.
        """
        if self._halted:
            return Leave.STOPPED
        if self._error is not None:
            self._untold = None
            raise self._error
        answer: asyncio.Future[Leave] = asyncio.get_running_loop().create_future()
        asked = _Asked(claim, fresh, answer)
        self._asked.append(asked)
        self._waiting.add(asked)
        if not self._gathers and len(self._claiming) < _UNDER_WAY:
            self._gathers = True
            self._claiming.add(asyncio.create_task(self._write_claims()))
        try:
            return await answer
        except asyncio.CancelledError:
            # The answer may have come in the same turn of the loop. If it comes later, `_tell` finds nobody.
            if not answer.cancelled() and answer.exception() is None and answer.result() is Leave.GRANTED:
                self._unsent(asked)
            raise
        finally:
            self._waiting.discard(asked)

    def record(self, record: Record) -> None:
        """Have an outcome written with the next batch."""
        self._records.append(record)
        if self._error is None and self._recording is None:
            self._recording = asyncio.create_task(self._write_records())

    def halt(self) -> None:
        """Grant nothing any more, and let nobody wait."""
        self._halted = True
        for asked in self._waiting:
            if not asked.answer.done():
                asked.answer.set_result(Leave.STOPPED)

    def fail(self, error: LedgerError) -> None:
        """Grant nothing any more: the store cannot be trusted to write."""
        self._error = self._untold = self._error or error

    async def flush(self) -> None:
        """Write what is left, what could not be written before included.

        Raises:
            LedgerError: It cannot be written.
        """
        while writing := [task for task in (*self._claiming, self._recording) if task is not None]:
            await asyncio.wait(writing)
        if self._records:
            self._error = None
            await self._write_records()
            self._untold = self._error
        if self._untold is not None:
            raise self._untold

    async def _write_claims(self) -> None:
        """Each step between two tasks costs a turn of the loop, and everybody waits for this one: there are few."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this coroutine is only ever a task
        batch: list[_Asked] = []
        try:
            while self._asked and self._error is None:
                self._gathers = False
                batch, self._asked = [asked for asked in self._asked if not asked.answer.done()], []
                if batch:
                    leaves = await self._store.claim([asked.claim for asked in batch])
                    for asked, leave in zip(batch, leaves, strict=True):
                        self._tell(asked, leave)
                    batch = []
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            self._fail(error)
        finally:
            self._gathers = False
            self._claiming.discard(task)
            if self._error is not None:
                batch, self._asked = batch + self._asked, []
            for asked in batch:
                self._tell(asked, self._error or Leave.STOPPED)

    async def _write_records(self) -> None:
        try:
            while self._records and self._error is None:
                records, self._records = self._records, []
                try:
                    await self._store.record(records)
                except BaseException:
                    self._records = records + self._records
                    raise
        except Exception as error:  # noqa: BLE001 - `flush` tells
            self._fail(error)
        finally:
            self._recording = None

    def _fail(self, error: BaseException) -> None:
        self.fail(error if isinstance(error, LedgerError) else LedgerError(f"the ledger broke: {error!r}"))

    def _tell(self, asked: _Asked, leave: Leave | LedgerError) -> None:
        if asked.answer.done():
            if leave is Leave.GRANTED:
                self._unsent(asked)
        elif isinstance(leave, LedgerError):
            self._untold = None
            asked.answer.set_exception(leave)
        else:
            asked.answer.set_result(leave)

    def _unsent(self, asked: _Asked) -> None:
        """Leave was granted to somebody who no longer waits, so nothing was sent."""
        claim = asked.claim
        if asked.fresh:
            text = "the run was stopped before the request left"
            what = (claim.run, claim.chunk, claim.index, claim.token, State.NOT_SENT, text, None, claim.request_id)
            self.record(Record(*what, attempts=0, at=claim.since))

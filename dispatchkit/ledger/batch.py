"""Group commit: claims and outcomes are gathered while the batch before them is written, and go down together.

Nobody waits for an outcome to be written, and whoever waits for a claim waits for one commit, however many others do.
What is recorded of a claim never overtakes it, since nobody has anything to say of it before it was granted.
"""

from __future__ import annotations

import asyncio

import attrs

from dispatchkit.core.journal import Leave
from dispatchkit.errors import LedgerError, State
from dispatchkit.ledger.store import Claim, Record, Store

__all__ = ["Gathering"]


@attrs.frozen
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
        self._under_way: list[_Asked] = []
        self._records: list[Record] = []
        self._claiming: asyncio.Task[None] | None = None
        self._recording: asyncio.Task[None] | None = None
        self._halted = False
        self._error: LedgerError | None = None

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
            raise self._error
        answer: asyncio.Future[Leave] = asyncio.get_running_loop().create_future()
        asked = _Asked(claim, fresh, answer)
        self._asked.append(asked)
        if self._claiming is None:
            self._claiming = asyncio.create_task(self._write_claims())
        try:
            return await answer
        except asyncio.CancelledError:
            # The answer may have come in the same turn of the loop. If it comes later, `_tell` finds nobody.
            if not answer.cancelled() and answer.exception() is None and answer.result() is Leave.GRANTED:
                self._unsent(asked)
            raise

    def record(self, record: Record) -> None:
        """Have an outcome written with the next batch."""
        self._records.append(record)
        if self._error is None and self._recording is None:
            self._recording = asyncio.create_task(self._write_records())

    def halt(self) -> None:
        """Grant nothing any more, and let nobody wait."""
        self._halted = True
        for asked in self._asked + self._under_way:
            if not asked.answer.done():
                asked.answer.set_result(Leave.STOPPED)

    def fail(self, error: LedgerError) -> None:
        """Grant nothing any more: the store cannot be trusted to write."""
        self._error = self._error or error

    async def flush(self) -> None:
        """Write what is left, what could not be written before included.

        Raises:
            LedgerError: It cannot be written.
        """
        while writing := {task for task in (self._claiming, self._recording) if task is not None}:
            await asyncio.wait(writing)
        self._error = None
        if self._records:
            await self._write_records()
        if self._error is not None:
            raise self._error

    async def _write_claims(self) -> None:
        """Each step between two tasks costs a turn of the loop, and everybody waits for this one: there are few."""
        try:
            while self._asked and self._error is None:
                self._under_way = [asked for asked in self._asked if not asked.answer.done()]
                self._asked = []
                if self._under_way:
                    leaves = await self._store.claim([asked.claim for asked in self._under_way])
                    for asked, leave in zip(self._under_way, leaves, strict=True):
                        self._tell(asked, leave)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            self._fail(error)
        finally:
            self._claiming = None
            for asked in self._under_way + self._asked:
                self._tell(asked, self._error or Leave.STOPPED)
            self._under_way, self._asked = [], []

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

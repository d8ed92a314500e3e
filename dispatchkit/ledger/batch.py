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

__all__ = ["Asked", "Gathering"]

_UNDER_WAY = 2
"""Batches of claims at a time: while the database writes one, the next one already waits at its door."""


@attrs.frozen(eq=False)
class Asked:
    """A claim that somebody waits for, or will."""

    claim: Claim
    fresh: bool
    answer: asyncio.Future[Leave]


class Gathering:
    """The claims and outcomes of one journal on their way to its store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: list[Asked] = []
        self._waiting: set[Asked] = set()
        self._records: list[Record] = []
        self._claiming: set[asyncio.Task[None]] = set()
        self._gathers = False
        self.size = 0
        """How many claims there were in the last batch."""
        self._recording: asyncio.Task[None] | None = None
        self._halted = False
        self._error: LedgerError | None = None
        self._untold: LedgerError | None = None

    def ask(self, claim: Claim, *, fresh: bool) -> Asked:
        """Ask for leave.

        Args:
            claim: For what.
            fresh: Whether no earlier request is unclear. Then, if nobody takes the answer, nothing was sent.

        Raises:
            LedgerError: Something could not be written before it.
        """
        if self._error is not None:
            self._untold = None
            raise self._error
        asked = Asked(claim, fresh, asyncio.get_running_loop().create_future())
        if self._halted:
            asked.answer.set_result(Leave.STOPPED)
            return asked
        self._asked.append(asked)
        self._waiting.add(asked)
        if not self._gathers and len(self._claiming) < _UNDER_WAY:
            self._gathers = True
            self._claiming.add(asyncio.create_task(self._write_claims()))
        return asked

    async def answer(self, asked: Asked) -> Leave:
        """Wait for leave.

        Raises:
            LedgerError: It cannot be written.
        """
        try:
            return await asked.answer
        except asyncio.CancelledError:
            self.give_back(asked)
            raise

    def give_back(self, asked: Asked) -> None:
        """Nobody takes the answer, or nothing was sent on it."""
        # If the answer comes later, `_tell` finds nobody.
        self._waiting.discard(asked)
        answer = asked.answer
        if not answer.cancel() and not answer.cancelled() and answer.exception() is None:
            self._tell(asked, answer.result())

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
        while writing := self._claiming | ({self._recording} if self._recording is not None else set()):
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
        batch: list[Asked] = []
        try:
            while self._asked and self._error is None:
                self._gathers = False
                batch, self._asked = [asked for asked in self._asked if not asked.answer.done()], []
                self.size = len(batch)
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

    def _tell(self, asked: Asked, leave: Leave | LedgerError) -> None:
        self._waiting.discard(asked)
        if asked.answer.done():
            if leave is Leave.GRANTED:
                self._unsent(asked)
        elif isinstance(leave, LedgerError):
            self._untold = None
            asked.answer.set_exception(leave)
        else:
            asked.answer.set_result(leave)

    def _unsent(self, asked: Asked) -> None:
        """Leave was granted to somebody who no longer waits, so nothing was sent."""
        claim = asked.claim
        if asked.fresh:
            text = "the run ended before its turn"
            what = (claim.run, claim.chunk, claim.index, claim.token, State.NOT_SENT, text, None, claim.request_id)
            self.record(Record(*what, attempts=0, at=claim.since))

"""Group commit: claims and outcomes are gathered while the batch before them is written, and go down together.

Nobody waits for an outcome to be written, and whoever waits for a claim waits for one commit, however many others do.
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
        self._writing: asyncio.Task[None] | None = None
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
        self._write_soon()
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
        if self._error is None:
            self._write_soon()

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
        if self._writing is not None:
            await self._writing
        self._error = None
        if self._records:
            self._write_soon()
            assert self._writing is not None  # noqa: S101 - it was made just now
            await self._writing
        if self._error is not None:
            raise self._error

    def _write_soon(self) -> None:
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while (self._asked or self._records) and self._error is None:
                await self._write_batch()
        finally:
            self._writing = None
            for asked in self._asked:
                self._tell(asked, self._error or Leave.STOPPED)

    async def _write_batch(self) -> None:
        self._under_way = [asked for asked in self._asked if not asked.answer.done()]
        records = self._records
        self._asked, self._records = [], []
        claims = [asked.claim for asked in self._under_way]
        # Started in this order, so that what was recorded of a claim can never overtake it.
        claiming = asyncio.ensure_future(self._store.claim(claims)) if claims else None
        recording = asyncio.ensure_future(self._store.record(records)) if records else None
        await asyncio.wait([each for each in (claiming, recording) if each is not None])
        if recording is not None and (error := recording.exception()) is not None:
            self._records = records + self._records
            self._fail(error)
        if claiming is not None:
            error = claiming.exception()
            if error is not None:
                self._fail(error)
            leaves = claiming.result() if error is None else [self._error or Leave.STOPPED] * len(claims)
            for asked, leave in zip(self._under_way, leaves, strict=True):
                self._tell(asked, leave)
        self._under_way = []

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

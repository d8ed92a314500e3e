"""The unsettled targets of the held chunks, read ahead in pages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from dispatchkit.core.clock import Clock
from dispatchkit.core.fanout.id_set import IdSet
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.chunk import Chunk
from dispatchkit.ledger.contents import needs_contents, unique_length
from dispatchkit.ledger.hold import Hold
from dispatchkit.ledger.keys import is_intact
from dispatchkit.ledger.run import Run
from dispatchkit.ledger.store import Store
from dispatchkit.ledger.target import Unsettled
from dispatchkit.ledger.tasks import mark_retrieved

__all__ = ["Pages", "Row"]

_PAGE_ROWS, _PAGE_TEXT = 1000, 1_000_000
"""Maximum rows and characters of a page that is read ahead."""

Row: TypeAlias = tuple[Chunk, Unsettled, float]
"""A target with its chunk, and until when an earlier process's request may still act, on the clock's ``monotonic``."""


class Pages:
    """The unsettled targets of the held chunks, in pages. While one page is launched, the next one is read.

    Args:
        store: The store of the run.
        run: The run.
        hold: The hold of the chunks.
        clock: The clock.
    """

    def __init__(self, store: Store, run: Run, hold: Hold, clock: Clock) -> None:
        self._store = store
        self._run = run
        self._hold = hold
        self._clock = clock
        self.left_out: IdSet | None = None
        """The indexes of targets that are left out; None without any."""
        self.ready: deque[list[Row]] = deque()
        """The pages that are read. None is empty."""
        self._reading: asyncio.Task[None] | None = None
        self._at = 0
        """Position of the chunk that is read now."""
        self._after = -1
        self._limit = 16

    def take(self) -> list[Row]:
        """Take the first page that is read, and read ahead."""
        page = self.ready.popleft()
        self._read_ahead()
        return page

    async def more(self) -> bool:
        """Wait for the next page. Returns False after the last one.

        Raises:
            LedgerError: The ledger cannot be read, or a command is not what was planned.
        """
        self._read_ahead()
        if self._reading is None:
            return False
        await asyncio.shield(self._reading)  # other calls wait for it, too
        return True

    async def check_all(self, is_stopped: Callable[[], bool]) -> None:
        """Refuse a resumed run with a changed command before any of it is launched.

        It takes 2 us a target. So a new plan is not read again, nor is a chunk by each of its workers.

        Raises:
            LedgerError: A command is not what was planned, or the ledger cannot be read.
        """
        for chunk in self._hold.chunks:
            after = -1
            while not is_stopped() and (
                rows := await self._store.unsettled(self._run.number, chunk.number, after=after, limit=self._limit)
            ):
                self._check(rows)
                after = rows[-1].index

    async def close(self) -> None:
        """End the read that is under way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def _read_ahead(self) -> None:
        if self._reading is None and not self.ready and self._at < len(self._hold.chunks):
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(mark_retrieved)

    async def _read(self) -> None:
        try:
            chunk = self._hold.chunks[self._at]
            rows = await self._store.unsettled(self._run.number, chunk.number, after=self._after, limit=self._limit)
            if not rows:
                self._at, self._after = self._at + 1, -1
                return
            self._check(rows)
            now = self._clock.monotonic()
            self._after = rows[-1].index
            if (left_out := self.left_out) is not None:
                rows = [row for row in rows if row.index not in left_out]
            if rows:  # else all of the page are left out
                self.ready.append([(chunk, row, now + row.acting_for) for row in rows])
        finally:
            self._reading = None

    def _check(self, rows: Sequence[Unsettled]) -> None:
        """Refuse a command that was changed since it was planned, before any of its page is launched."""
        long = unique_length(row.command for row in rows)
        average = (sum(len(row.command) for row in rows) + long) // len(rows) + 1
        self._limit = max(1, min(_PAGE_ROWS, _PAGE_TEXT // average))
        for row in rows:
            if not is_intact(row.command, row.key):
                pruned = self._run.contents_pruned
                if pruned is not None and needs_contents(row.command):
                    raise LedgerError(
                        f"the contents of the run {self._run.name!r} were pruned at {pruned:%Y-%m-%d %H:%M} UTC, so "
                        "what is left of it cannot be launched. Launch it with its contents as another run"
                    )
                raise LedgerError(
                    f"the command {row.index} of the run {self._run.name!r} is not what was planned. The ledger is "
                    "damaged: restore it from a copy"
                )

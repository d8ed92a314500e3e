"""A run in a ledger that many machines share takes its part of the account's pace, as workers do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Never, TypeVar

from dispatchkit.workers.chunk import in_postgres
from dispatchkit.workers.shared_pace import leave, shared

if TYPE_CHECKING:
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command
    from dispatchkit.core.fanout.journal import Entry, Journal, Journals, Leave, Planned, RunSettings
    from dispatchkit.core.fanout.outcome import Outcome
    from dispatchkit.ledger.ledger import Ledger

__all__ = ["SharingLedger"]

R = TypeVar("R")
W = TypeVar("W")


class SharingLedger:
    """Gives journals whose runs share the account's pace from the end of their plan on.

    Args:
        ledger: The ledger, in PostgreSQL.
        journals: What gives the journals themselves.
        client: What launches the run.
    """

    def __init__(self, ledger: Ledger, journals: Journals, client: Client[Never]) -> None:
        self._ledger = ledger
        self._journals = journals
        self._client = client

    def journal(self, run: str, settings: RunSettings) -> Journal:
        """See `Journals.journal`."""
        return _SharingJournal(self._journals.journal(run, settings), self._ledger, run, self._client)


class _SharingJournal:
    """A `Journal` that holds a part of the account's pace while it is open."""

    def __init__(self, journal: Journal, ledger: Ledger, run: str, client: Client[Never]) -> None:
        self._journal = journal
        self._ledger = ledger
        self._run = run
        self._client = client
        self._halted = asyncio.Event()
        self._part = contextlib.AsyncExitStack()

    async def open(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None, stop: Callable[[], None]
    ) -> Planned:
        planned = await self._journal.open(commands, stop)
        taking = asyncio.create_task(self._take_part())
        halting = asyncio.create_task(self._halted.wait())
        try:
            await asyncio.wait((taking, halting), return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                taking.result()
        except BaseException:
            await self.close()
            raise
        finally:
            for task in (taking, halting):  # the database may be away, and a run that was halted does not wait for it
                task.cancel()
            await asyncio.wait((taking, halting))
        return planned

    async def _take_part(self) -> None:
        store = await in_postgres(self._ledger)
        run = await self._ledger.run(self._run)
        pacer = self._client.pacer
        account = await asyncio.to_thread(self._client.account)
        self._part.push_async_callback(leave, store)
        await self._part.enter_async_context(
            shared(store, account, pacer, run=run.number, stop=self._halted, rate=pacer.pace.rate)
        )

    async def take(self) -> Entry[Never, object] | None:
        return await self._journal.take()

    async def claim(self, entry: Entry[W, R], request_id: str | None) -> Leave:
        return await self._journal.claim(entry, request_id)

    async def has_rival(self, entry: Entry[W, R], within: float) -> bool:
        return await self._journal.has_rival(entry, within)

    def halt(self) -> None:
        self._halted.set()
        self._journal.halt()

    def record(self, entry: Entry[W, R], outcome: Outcome[R]) -> None:
        self._journal.record(entry, outcome)

    async def close(self) -> None:
        leaving = asyncio.create_task(self._part.aclose())  # nothing is launched any more
        try:
            await self._journal.close()
        finally:
            await leaving

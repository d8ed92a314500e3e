"""A run in a ledger that many machines share takes its part of the account's pace, as workers do."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Never, TypeVar

from dispatchkit.workers.chunk import in_postgres
from dispatchkit.workers.shared_pace import release_leases, share_pace

if TYPE_CHECKING:
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.call.context import RunSettings
    from dispatchkit.core.claim import ClaimResult
    from dispatchkit.core.command import Command
    from dispatchkit.core.fanout.journal import Journal, JournalProvider, PlanSummary, WorkItem
    from dispatchkit.core.fanout.outcome import Outcome
    from dispatchkit.ledger.ledger import Ledger

__all__ = ["SharingLedger"]

R = TypeVar("R")
W = TypeVar("W")


class SharingLedger:
    """Gives journals whose runs share the account's pace from the end of their plan on.

    Args:
        ledger: The ledger, in PostgreSQL.
        journal_provider: What gives the journals themselves.
        client: What launches the run.
    """

    def __init__(self, ledger: Ledger, journal_provider: JournalProvider, client: Client[Never]) -> None:
        self._ledger = ledger
        self._journal_provider = journal_provider
        self._client = client

    def journal(self, run: str, settings: RunSettings) -> Journal:
        """See `JournalProvider.journal`."""
        return _SharingJournal(self._journal_provider.journal(run, settings), self._ledger, run, self._client)


class _SharingJournal:
    """A `Journal` that holds a part of the account's pace while it is open."""

    def __init__(self, journal: Journal, ledger: Ledger, run: str, client: Client[Never]) -> None:
        self._journal = journal
        self._ledger = ledger
        self._run = run
        self._client = client
        self._stopped = asyncio.Event()
        self._part = contextlib.AsyncExitStack()

    async def open(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None, stop: Callable[[], None]
    ) -> PlanSummary:
        planned = await self._journal.open(commands, stop)
        taking = asyncio.create_task(self._take_part())
        stopping = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait((taking, stopping), return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                taking.result()
        except BaseException:
            await self.close()
            raise
        finally:
            for task in (taking, stopping):  # the database may be away, and a run that was stopped does not wait for it
                task.cancel()
            await asyncio.wait((taking, stopping))
        return planned

    async def _take_part(self) -> None:
        store = await in_postgres(self._ledger)
        run = await self._ledger.run(self._run)
        pacer = self._client._pacer
        account = await asyncio.to_thread(self._client._account_key)
        self._part.push_async_callback(release_leases, store)
        await self._part.enter_async_context(
            share_pace(store, account, pacer, run=run.number, stop=self._stopped, rate=pacer.pace.rate)
        )

    async def next_item(self) -> WorkItem[Never, object] | None:
        return await self._journal.next_item()

    def next_at_once(self) -> WorkItem[Never, object] | None:
        return self._journal.next_at_once()

    def claim(self, item: WorkItem[W, R], request_id: str | None) -> Awaitable[ClaimResult]:
        return self._journal.claim(item, request_id)

    async def has_rival(self, item: WorkItem[W, R], within: float) -> bool:
        return await self._journal.has_rival(item, within)

    def stop(self) -> None:
        self._stopped.set()
        self._journal.stop()

    def record(self, item: WorkItem[W, R], outcome: Outcome[R]) -> None:
        self._journal.record(item, outcome)

    async def close(self) -> None:
        leaving = asyncio.create_task(self._part.aclose())  # nothing is launched any more
        try:
            await self._journal.close()
        finally:
            await leaving

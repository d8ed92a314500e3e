"""The store of a ledger's address, and its opening on first use."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path

from dispatchkit.core.clock import Clock
from dispatchkit.core.loop import running_loop
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.sqlite.store import SqliteStore
from dispatchkit.ledger.store import Store

__all__ = ["Opening", "make_store"]


class Opening:
    """Opens a store once, on first use, for the event loop of that use.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_closed = False

    async def wait(self) -> None:
        """Wait until the store is open. A failed opening is tried again.

        Raises:
            LedgerError: The store cannot be opened.
            RuntimeError: The loop is another one, or the store was closed.
        """
        loop = running_loop("Ledger")
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("this Ledger belongs to another event loop: make one Ledger per loop")
        if self.is_closed:
            raise RuntimeError("this Ledger is closed: make a new one")
        if self._task is None or (self._task.done() and (self._task.cancelled() or self._task.exception())):
            self._task = asyncio.create_task(self._store.open())
        await asyncio.shield(self._task)  # other calls wait for it, too

    async def close(self) -> None:
        """Close the store. A second call does nothing.

        Raises:
            LedgerError: The store reports an error.
        """
        self.is_closed = True
        if self._task is not None:
            self._task.cancel()  # it may wait for an unreachable database
            await asyncio.wait([self._task])
            await self._store.close()


def make_store(address: Address, schema: str | None, clock: Clock) -> Store:
    """Make the store of an address.

    Raises:
        ValueError: The address is of another kind, or a file has a schema.
        ImportError: The extra ``ledger`` is not installed.
    """
    address.check()
    if not address.is_database:
        if schema is not None:
            raise ValueError("schema= is for a ledger in PostgreSQL, and this one is a file")
        return SqliteStore(Path(address.file), clock=clock)
    try:
        module = importlib.import_module("dispatchkit.ledger.postgres.store")
    except ImportError as missing:
        raise ImportError("a ledger in PostgreSQL needs its extra: pip install 'dispatchkit[ledger]'") from missing
    store: Store = module.PostgresStore(address, schema=schema, clock=clock)
    return store

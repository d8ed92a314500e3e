"""The ledger of the control room. It may be away at any time, and be another file when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from dispatchkit.errors import LedgerError
from dispatchkit.ledger.ledger import Ledger
from dispatchkit.ledger.store import Store
from dispatchkit.redaction import redact_urls

__all__ = ["AwayError", "LedgerSource"]

T = TypeVar("T")

_CLOSE_TIMEOUT = 1.0


class AwayError(Exception):
    """The ledger cannot be read now. The text is for people, and holds no password."""


class LedgerSource:
    """Opens a ledger when it is needed, and opens it again after its file was moved, deleted or replaced.

    Args:
        open_ledger: Makes the ledger. A ``ValueError`` says why there is none.
        file: Its file; None for a database.
    """

    def __init__(self, open_ledger: Callable[[], Ledger], file: Path | None) -> None:
        self._open = open_ledger
        self._file = file
        self._ledger: Ledger | None = None
        self._identity: tuple[int, int] | None = None
        self._opening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def read(self, work: Callable[[Ledger, Store], Awaitable[T]]) -> T:
        """Do work with the ledger.

        Raises:
            AwayError: The ledger cannot be read.
        """
        async with self._use() as ledger:
            store = await ledger._open_store()  # pyright: ignore[reportPrivateUsage]
            return await work(ledger, store)

    async def close(self) -> None:
        """Close the ledger."""
        self._drop()
        if self._closing:
            await asyncio.wait(self._closing, timeout=_CLOSE_TIMEOUT)

    @asynccontextmanager
    async def _use(self) -> AsyncGenerator[Ledger]:
        try:
            yield await self._current()
        except (LedgerError, ValueError, OSError) as error:
            raise AwayError(redact_urls(str(error))) from None

    async def _current(self) -> Ledger:
        async with self._opening:
            identity = self._identify()
            if self._ledger is not None and identity != self._identity:
                self._drop()
            if self._ledger is None:
                self._ledger, self._identity = self._open(), identity
            return self._ledger

    def _identify(self) -> tuple[int, int] | None:
        """Device and inode of the file. An open file can still be read after it was moved or deleted."""
        if self._file is None:
            return None
        with suppress(OSError):
            status = self._file.stat()
            return status.st_dev, status.st_ino
        return None

    def _drop(self) -> None:
        if self._ledger is None:
            return
        task = asyncio.create_task(_closed(self._ledger))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self._ledger = None


async def _closed(ledger: Ledger) -> None:
    with suppress(LedgerError):
        await ledger.close()

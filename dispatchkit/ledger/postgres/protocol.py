"""As much of asyncpg as the ledger uses, with types: asyncpg comes without its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

__all__ = ["Connection", "Row"]


class Row(Protocol):
    """One row of an answer."""

    def __getitem__(self, name: str | int, /) -> Any:
        """One column of it."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Its columns, in order."""
        ...


class Connection(Protocol):
    """As much of asyncpg's connection as is needed here. It comes without types of its own."""

    async def execute(self, statement: str, *values: object) -> str:
        """Run a statement."""
        ...

    async def fetch(self, statement: str, *values: object) -> list[Row]:
        """Run a statement, and return its rows."""
        ...

    async def fetchrow(self, statement: str, *values: object) -> Row | None:
        """Run a statement, and return its first row."""
        ...

    async def fetchval(self, statement: str, *values: object) -> Any:
        """Run a statement, and return the first column of its first row."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """All or nothing of what is run inside."""
        ...

    def get_server_pid(self) -> int:
        """The process id that the server, or a pooler in front of it, gave for cancelling."""
        ...

    def is_closed(self) -> bool:
        """Whether it is of no use any more."""
        ...

    def terminate(self) -> None:
        """Close it without a word."""
        ...

    async def close(self, *, timeout: float | None = None) -> None:
        """Close it."""
        ...

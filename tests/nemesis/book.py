"""The ledger as the harness reads it: by SQL, past the product, and only to choose moments.

What the ledger reports of each target is judged from ``dispatchkit ledger export --json``, as a user would see it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from typing import Any

import asyncpg

__all__ = ["Book"]

_INDEX = ("index", "place")
_OPEN = """
SELECT DISTINCT s.{index} FROM {schema}sending s
WHERE NOT EXISTS (SELECT 1 FROM {schema}outcome o WHERE o.run = s.run AND o.{index} = s.{index})
"""
_FINAL = "SELECT count(DISTINCT {index}) FROM {schema}outcome WHERE state IN ('done', 'rejected')"
_OWNERS = "SELECT number, token FROM {schema}chunk WHERE token IS NOT NULL"


class Book:
    """A database that holds one run.

    Args:
        where: A file, or the address of a database, not through a proxy.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._shared = "://" in where
        self._index = ""
        self._lock = asyncio.Lock()
        self._connection: Any = None

    async def open_claims(self) -> set[int]:
        """The indices of targets that were claimed and have no outcome. Empty where there are no tables yet."""
        return {row[0] for row in await self._ask(_OPEN)}

    async def final(self) -> int:
        """How many targets are done or rejected."""
        rows = await self._ask(_FINAL)
        return rows[0][0] if rows else 0

    async def written(self) -> int:
        """How many claims and outcomes there are."""
        rows = await self._ask("SELECT (SELECT count(*) FROM {schema}sending) + (SELECT count(*) FROM {schema}outcome)")
        return rows[0][0] if rows else 0

    async def owners(self) -> dict[int, str]:
        """The token under which each chunk is held."""
        return dict(tuple(row) for row in await self._ask(_OWNERS))

    def locked(self) -> bool:
        """Whether a transaction holds the file's write lock."""
        if self._shared:
            return False
        connection = sqlite3.connect(self._where, timeout=0.05, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return True
        finally:
            connection.close()
        return False

    async def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _ask(self, statement: str) -> list[Any]:
        async with self._lock:
            try:
                return await (self._ask_postgres(statement) if self._shared else self._ask_sqlite(statement))
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error):
                await self.close()
                return []  # it is not there yet, or away

    async def _ask_postgres(self, statement: str) -> list[Any]:
        if self._connection is None:
            self._connection = await asyncpg.connect(self._where, timeout=5, command_timeout=10)
        if not self._index:
            rows = await self._connection.fetch(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'sending'"
            )
            self._index = _name([row[0] for row in rows])
        return await self._connection.fetch(statement.format(index=self._index, schema="dispatchkit."))

    async def _ask_sqlite(self, statement: str) -> list[Any]:
        if not os.path.exists(self._where):  # noqa: ASYNC240, PTH110 - a file on this machine
            return []
        connection = sqlite3.connect(f"file:{self._where}?mode=ro", uri=True, timeout=2)
        try:
            if not self._index:
                self._index = _name([row[1] for row in connection.execute("PRAGMA table_info(sending)")])
            return connection.execute(statement.format(index=self._index, schema="")).fetchall()
        finally:
            connection.close()


def _name(columns: list[str]) -> str:
    for name in _INDEX:
        if name in columns:
            return f'"{name}"'
    return ""

"""The databases that the contract is tested on. A new database needs one class more here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from dispatchkit.ledger.chunk import Holder
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.ledger.sqlite.store import SqliteStore
from dispatchkit.ledger.store import Store
from dispatchkit.testing import FakeClock

BOOT = "boot-1"


class Sqlite:
    """A file. Its times are those of the clock."""

    lock_decides = True

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.path = folder / "launch.db"
        self.clock = clock
        self.stack = AsyncExitStack()

    async def open(self, *, boot_id: str = BOOT) -> SqliteStore:
        """Open one more store, as another process would."""
        store = SqliteStore(self.path, clock=self.clock, boot_id=boot_id)
        await store.open()
        self.stack.push_async_callback(store.close)
        return store

    async def pass_time(self, seconds: float) -> None:
        """Let time pass for the database."""
        self.clock.advance(seconds)

    async def lose(self, run: int, chunk: int = 0) -> None:
        """Let the holder of a chunk look as if it had ended, though it has not."""
        (self.path.parent / f"launch.db-hold-{run}-{chunk}").unlink()

    async def restore(self, store: Store) -> Store:
        """The same database, restored from a backup."""
        copy = self.path.with_name("copy.db")
        await store.close()
        shutil.copy(self.path, copy)
        self.path = copy
        restored = await self.open()
        await restored.accept_copy()
        return restored


class Postgres:
    """A database, whose clock no test can set: instead of time that passes, what it holds grows older."""

    lock_decides = False

    def __init__(self, dsn: str, clock: FakeClock) -> None:
        self.dsn = dsn
        self.clock = clock
        self.stack = AsyncExitStack()

    async def open(self) -> PostgresStore:
        store = PostgresStore(self.dsn, clock=self.clock)
        await store.open()
        self.stack.push_async_callback(store.close)
        return store

    async def execute(self, statement: str) -> None:
        store = PostgresStore(self.dsn)
        await store.connection.run(lambda connection: connection.execute(statement))
        await store.close()

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        age = f"- interval '{seconds} s'"
        await self.execute(f"""
            UPDATE dispatchkit.chunk SET seen = seen {age}, since = since {age};
            UPDATE dispatchkit.sending SET claimed_at = claimed_at {age};
            UPDATE dispatchkit.outcome SET at = at {age};
        """)

    async def lose(self, run: int, chunk: int = 0) -> None:
        await self.execute(
            f"UPDATE dispatchkit.chunk SET seen = seen - interval '31 s' WHERE run = {run} AND number = {chunk}"
        )

    async def restore(self, store: Store) -> Store:
        """The same, after a failover."""
        del store
        await self.execute("UPDATE dispatchkit.run SET database_id[2] = '00000000'")
        return await self.open()


Database = Sqlite | Postgres

DATABASES: dict[str, Callable[[pytest.FixtureRequest, FakeClock], Database]] = {
    "sqlite": lambda request, clock: Sqlite(request.getfixturevalue("tmp_path"), clock),
    "postgres": lambda request, clock: Postgres(request.getfixturevalue("dsn"), clock),
}


def holder(token: str = "one", *, host: str = "another-host", pid: int = 1) -> Holder:
    return Holder(token, pid, host, boot_id=BOOT, process_started=7, pid_namespace=9)

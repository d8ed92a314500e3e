"""The tables of a ledger are upgraded once, in one transaction. A release that does not know them refuses them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from dispatchkit import Ledger, LedgerError
from dispatchkit.ledger import migrations
from dispatchkit.ledger.migrations import Migration
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.ledger.sqlite.store import SqliteStore
from tests.ledger.test_store import held, hold

NEXT = Migration(
    postgres="""
    ALTER TABLE dispatchkit.run ADD COLUMN colour text NOT NULL DEFAULT 'a;b';
    CREATE TABLE dispatchkit.extra (number int PRIMARY KEY);
    """,
    sqlite="""
    ALTER TABLE run ADD COLUMN colour TEXT NOT NULL DEFAULT 'a;b';
    CREATE TABLE extra (number INTEGER PRIMARY KEY);
    CREATE TRIGGER extra_is_kept BEFORE DELETE ON extra BEGIN SELECT 1; SELECT RAISE(ABORT, 'kept'); END;
    """,
)
BROKEN = Migration(
    postgres="CREATE TABLE dispatchkit.half (number int); SELECT 1 / 0;",
    sqlite="CREATE TABLE half (number INTEGER); INSERT INTO nowhere VALUES (1);",
)


@contextlib.contextmanager
def release_with(*more: Migration) -> Iterator[None]:
    migrations.MIGRATIONS.extend(more)
    try:
        yield
    finally:
        del migrations.MIGRATIONS[-len(more) :]


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger, in a file or in a database, with a run."""
    address = str(tmp_path / "launch.db") if request.param == "sqlite" else request.getfixturevalue("dsn")
    asyncio.run(make(address))
    return address


def store_of(where: str) -> SqliteStore | PostgresStore:
    return PostgresStore(where) if "://" in where else SqliteStore(Path(where))


async def make(where: str) -> None:
    store = store_of(where)
    await store.open()
    await store.release(await held(store), 0, "one")
    await store.close()


async def names(where: str) -> list[str]:
    async with Ledger(where) as ledger:
        return [run.name for run in await ledger.runs()]


def fetch(where: str, statement: str) -> list[tuple[object, ...]]:
    async def ask() -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(where, server_settings={"search_path": "dispatchkit"})
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    if "://" in where:
        return asyncio.run(ask())
    with contextlib.closing(sqlite3.connect(where)) as db:
        return db.execute(statement).fetchall()


@pytest.mark.second_stage
def test_newer_release_upgrades(where: str) -> None:
    with release_with(NEXT):
        assert asyncio.run(names(where)) == ["a"]
        assert fetch(where, "SELECT colour FROM run") == [("a;b",)]
        assert asyncio.run(names(where)) == ["a"]


def test_older_release_refuses_by_name(where: str) -> None:
    with release_with(NEXT):
        asyncio.run(names(where))
    with pytest.raises(
        LedgerError, match=r"is of version 2, made by dispatchkit \d+\.\d.* knows versions up to 1: upgrade"
    ):
        asyncio.run(names(where))


def test_failed_upgrade_changes_nothing(where: str) -> None:
    with release_with(NEXT, BROKEN), pytest.raises(LedgerError):
        asyncio.run(names(where))
    assert asyncio.run(names(where)) == ["a"]
    for table in ("half", "extra"):
        with pytest.raises((asyncpg.UndefinedTableError, sqlite3.OperationalError)):
            fetch(where, f"SELECT * FROM {table}")


def test_held_ledger_is_not_upgraded(where: str) -> None:
    async def upgrade_while_held() -> None:
        store = store_of(where)
        await store.open()
        try:
            run = (await store.runs())[0].number
            assert await hold(store, run, "one") is None
            with (
                release_with(NEXT),
                pytest.raises(LedgerError, match=r"version 2 is needed\. A process of an earlier"),
            ):
                await names(where)
            await store.release(run, 0, "one")
        finally:
            await store.close()

    asyncio.run(upgrade_while_held())
    with release_with(NEXT):
        assert asyncio.run(names(where)) == ["a"]


async def test_many_processes_upgrade_once(dsn: str) -> None:
    await make(dsn)
    with release_with(NEXT):
        assert await asyncio.gather(*(names(dsn) for _ in range(6))) == [["a"]] * 6


async def test_new_ledger_gets_all_migrations(dsn: str, tmp_path: Path) -> None:
    with release_with(NEXT):
        for where in (dsn, str(tmp_path / "new.db")):
            assert await names(where) == []

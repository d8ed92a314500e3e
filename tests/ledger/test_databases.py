"""Databases as people run them: roles with few rights, schemas of another name, encodings that are not UTF-8."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import asyncpg
import pytest

from dispatchkit import DirectClient, FanOut, Ledger, LedgerError, StartDispatch, State
from dispatchkit.core.claim import ClaimResult
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.postgres.adapt import escaping
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.sandbox import Sandbox
from dispatchkit.workers.queue_connection import creation_sql
from tests.ledger.test_store import hold, run_plan
from tests.postgres import Server
from tests.workers.conftest import Field

pytestmark = pytest.mark.second_stage

NAME = "Чёрная пятница € 😀 é"
QUEUE = re.findall(r"dispatchkit_queue_\w+", creation_sql())[0]
NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)


def execute(dsn: str, *statements: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(work())


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "dispatchkit", *words]
    return subprocess.run(
        line, check=False, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


@pytest.fixture(params=["LATIN1", "SQL_ASCII", "WIN1251", "EUC_JP"])
def encoded(request: pytest.FixtureRequest, postgres: Server) -> Iterator[str]:
    name = f"encoded_{request.param.lower()}"
    admin = postgres.dsn("postgres")
    execute(
        admin,
        f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
        f"CREATE DATABASE {name} ENCODING '{request.param}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'",
    )
    yield postgres.dsn(name)
    execute(admin, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def role(postgres: Server, dsn: str) -> Iterator[str]:
    """The address of a role that may not create schemas."""
    execute(dsn, "CREATE ROLE least LOGIN")
    yield dsn.replace("postgres@", "least@")
    execute(dsn, "DROP OWNED BY least CASCADE", "DROP ROLE least")


def test_any_encoding_records_outcomes(encoded: str) -> None:
    async def record() -> None:
        store = PostgresStore(encoded)
        await store.open()
        try:
            run = (await store.begin(run_plan(NAME, settings='{"account": "Ж😀"}'))).number
            await store.plan(run, [(b"1", '{"a": "Ж😀"}')])
            await store.planned(run)
            assert await hold(store, run, "one") is None
            assert await store.claim([Claim(run, 0, 0, "one", None, NOW)]) == [ClaimResult.GRANTED]
            await store.record([Record(run, 0, 0, "one", State.REJECTED, "нет € 😀", "ё", None, 1, NOW)])
            assert (await store.counts(run)).rejected == 1
            [target] = [target async for target in store.targets(run)]
            assert target.summary.isascii() == target.summary.isascii()
            assert target.command in {'{"a": "Ж😀"}', '{"a": "\\u0416\\ud83d\\ude00"}', '{"a": "Ж\\ud83d\\ude00"}'}
            found = await store.run(NAME)
            assert found is not None
            assert found.number == run
        finally:
            await store.close()

    asyncio.run(record())


def test_workers_launch_in_any_encoding(encoded: str, sandbox: Sandbox) -> None:
    field = Field(encoded, sandbox)
    try:
        field.plan(20, size=10, name=NAME)
        field.worker()
        field.wait_until_done(20, name=NAME)
    finally:
        field.end()


@pytest.mark.parametrize(
    ("encoding", "text", "fits"),
    [
        ("LATIN1", "é€", "é\\u20ac"),
        ("WIN1251", "Жé", "Ж\\u00e9"),
        ("LATIN9", "€", "€"),
        ("KOI8R", "Ж€", "Ж\\u20ac"),
        ("EUC_JP", "Ж😀", "\\u0416\\ud83d\\ude00"),
        ("NEW_ONE", "é", "\\u00e9"),
    ],
)
def test_unfit_text_is_escaped(encoding: str, text: str, fits: str) -> None:
    escape = escaping(encoding)
    assert escape is not None
    assert escape(text) == fits
    assert escape("plain") == "plain"


def test_utf8_is_left_alone() -> None:
    assert escaping("UTF8") is None
    assert escaping("SQL_ASCII") is None


async def test_schema_is_an_option(dsn: str, sandbox: Sandbox) -> None:
    async with Ledger(dsn, schema="user") as ledger, Ledger(dsn) as other:
        async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
            commands = map(StartDispatch, range(1, 21))
            report = await FanOut(direct, commands, ledger=ledger, run="a").finish()
        assert report.done == 20
        assert [run.name for run in await ledger.runs()] == ["a"]
        assert await other.runs() == []
    async with Ledger(f"{dsn}&schema=user") as again:
        assert (await again.counts("a")).done == 20
    connection = await asyncpg.connect(dsn)
    await connection.execute('DROP SCHEMA "user" CASCADE')
    await connection.close()


@pytest.mark.parametrize("schema", ["", "Upper", "a-b", "a;b", "pg_x", "x" * 41])
def test_other_schema_name_is_refused(schema: str) -> None:
    with pytest.raises(ValueError, match="schema is not a name"):
        Ledger("postgresql://db/x", schema=schema)


def test_two_schemas_are_refused() -> None:
    with pytest.raises(ValueError, match="schema= is 'a', but the ledger's address names 'b'"):
        Ledger("postgresql://db/x?schema=b", schema="a")
    with pytest.raises(ValueError, match="this one is a file"):
        Ledger("launch.db", schema="a")


def test_prepared_schema_serves_limited_role(dsn: str, role: str, sandbox: Sandbox) -> None:
    queue = QUEUE
    execute(dsn, *(f"CREATE SCHEMA {name} AUTHORIZATION least" for name in ("dispatchkit", queue)))
    field = Field(role, sandbox)
    try:
        field.plan(20, size=10)
        field.worker()
        field.wait_until_done(20)
    finally:
        field.end()


async def test_limited_role_gets_remedy(role: str) -> None:
    with pytest.raises(LedgerError, match=r"permission denied for database .* 'dispatchkit ledger init LEDGER --sql'"):
        async with Ledger(role) as ledger:
            await ledger.runs()


def test_init_prints_runnable_sql(dsn: str, role: str) -> None:
    printed = command("ledger", "init", role, "--sql")
    assert printed.returncode == 0, printed.stderr
    queue = QUEUE
    execute(dsn, *(f"CREATE SCHEMA {name} AUTHORIZATION least" for name in ("dispatchkit", queue)))
    execute(role, printed.stdout)
    made = command("ledger", "init", DISPATCHKIT_LEDGER=role)
    assert (made.returncode, made.stderr) == (0, "")
    assert "is ready" in made.stdout


def test_init_makes_another_schema(dsn: str) -> None:
    assert command("ledger", "init", f"{dsn}&schema=dispatchkit_b").returncode == 0
    execute(dsn, "SELECT * FROM dispatchkit_b.run")
    refused = command("ledger", "init", "launch.db", "--sql")
    assert (refused.returncode, refused.stdout) == (2, "")


@pytest.mark.parametrize("limit", [1, 2])
async def test_limit_of_role_is_told(
    dsn: str, role: str, limit: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dispatchkit.ledger.postgres.store._RECONNECT_TIMEOUT", 0.2)
    blocker = await asyncpg.connect(role)
    admin = await asyncpg.connect(dsn)
    try:
        await admin.execute(f"ALTER ROLE least CONNECTION LIMIT {limit}; CREATE SCHEMA dispatchkit AUTHORIZATION least")
        store = PostgresStore(role)
        if limit == 1:
            with pytest.raises(
                LedgerError, match=r"no connection left \(too many connections .* needs 4, and each worker 9"
            ):
                await store.open()
            return
        await store.open()
        waiting = asyncio.create_task(store._claims.run(lambda connection: connection.fetchval("SELECT 1")))
        while not caplog.records:  # noqa: ASYNC110 - of a log
            await asyncio.sleep(0.02)
        assert "no connection left" in caplog.text
        await blocker.close()
        assert await waiting == 1
        await store.close()
    finally:
        await blocker.close()
        await admin.close()

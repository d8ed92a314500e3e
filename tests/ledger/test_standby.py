"""A ledger and its workers on a primary and a real standby."""

# ruff: noqa: ASYNC110 - it looks at servers, logs and small files
from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Iterator

import asyncpg
import pytest

from dispatchkit import Ledger, LedgerError
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.sandbox import Sandbox
from dispatchkit.workers.chunk import in_postgres
from tests.ledger.test_store import run_plan
from tests.postgres import Server
from tests.workers.conftest import Field

pytestmark = pytest.mark.second_stage


class Pair:
    """A primary and its standby. They are made for one test, which may promote the standby."""

    def __init__(self) -> None:
        self.primary = Server()
        self.primary.start()
        self.standby = self.primary.standby()
        self.standby.start()

    def dsn(self, *servers: Server) -> str:
        return f"postgresql://postgres@/postgres?host={','.join(str(server.folder) for server in servers)}"

    def remove(self) -> None:
        for server in (self.standby, self.primary):
            if server.is_running:
                server.stop("immediate")
            server.remove()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.remove()


async def test_first_standby_is_skipped(pair: Pair) -> None:
    async with Ledger(pair.dsn(pair.standby, pair.primary)) as ledger:
        assert await ledger.runs() == []


async def test_keyword_form_takes_many_hosts(pair: Pair) -> None:
    hosts = f"{pair.standby.folder},{pair.primary.folder}"
    async with Ledger(f"host='{hosts}' dbname=postgres user=postgres target_session_attrs=primary") as ledger:
        assert await ledger.runs() == []


def connections(listening: socket.socket) -> int:
    """Accept and close the connections to a socket; how many came since the last time."""
    for count in itertools.count():
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return count
    raise AssertionError


async def test_silent_host_is_skipped(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = f"{silent.getsockname()[1]},5432"
        where = f"host=127.0.0.1,{pair.primary.folder} port={ports} dbname=postgres user=postgres connect_timeout=2"
        async with Ledger(where) as ledger:
            async with asyncio.timeout(4):
                await ledger.runs()
            silent.setblocking(False)
            assert connections(silent)
            another = (await in_postgres(ledger)).new_connection()  # it knows the primary
            await another.run(lambda connection: connection.fetchval("SELECT 1"))
            await another.close()
            assert connections(silent) == 0


async def test_standby_alone_is_refused(pair: Pair) -> None:
    with pytest.raises(LedgerError, match=r"cannot be reached \(it takes no writes: a standby"):
        async with Ledger(pair.dsn(pair.standby)) as ledger:
            await ledger.runs()


async def test_run_goes_on_after_failover(pair: Pair) -> None:
    store = PostgresStore(pair.dsn(pair.primary, pair.standby))
    await store.open()
    run = await store.begin(run_plan("a"))
    await store.connection.run(lambda connection: connection.execute("SELECT pg_switch_wal()"))
    while await _standby_lacks(pair, "a"):
        await asyncio.sleep(0.05)
    await asyncio.to_thread(pair.primary.stop, "immediate")
    await asyncio.to_thread(pair.standby.become_primary)
    found = await store.connection.run(lambda connection: store._run(connection, "a"))
    await store.close()
    assert found is not None
    assert found.number == run.number
    assert found.restored


async def _standby_lacks(pair: Pair, name: str) -> bool:
    connection = await asyncpg.connect(pair.dsn(pair.standby))
    try:
        return await connection.fetchval("SELECT count(*) FROM dispatchkit.run WHERE name = $1", name) == 0
    except asyncpg.UndefinedTableError:
        return True
    finally:
        await connection.close()


def test_workers_pass_over_a_standby(pair: Pair, sandbox: Sandbox) -> None:
    field = Field(pair.dsn(pair.standby, pair.primary), sandbox)
    try:
        field.plan(20, size=10)
        field.worker()
        field.wait_until_done(20)
    finally:
        field.end()

"""What a worker does about runs that fail, and about a database that does not answer."""

from __future__ import annotations

import asyncio
import logging
import traceback

import psycopg
import pytest

from dispatchkit import AccountMismatchError, LedgerError
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.dsn import Parameters
from dispatchkit.ledger.postgres.connection import Connection, ReconnectingConnection
from dispatchkit.ledger.postgres.driver_settings import DriverSettings
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.workers.procrastinate_queue import _Avoided, enqueue
from dispatchkit.workers.queue_connection import QueueConnections
from tests.workers.conftest import DatabaseProxy


async def test_run_failure_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatchkit.workers.procrastinate_queue._AVOID", 0.0)
    told: list[str] = []
    avoided = _Avoided(told.append)
    for error in (LedgerError("a"), LedgerError("a"), LedgerError("b"), LedgerError("b")):
        avoided.add("r", error)
        assert "r" not in avoided
    assert told == [f"the run 'r' is not launched here: {reason}" for reason in "ab"]


async def test_failed_run_rests_a_minute() -> None:
    avoided = _Avoided(lambda text: None)
    avoided.add("r", KeyError("x"))
    avoided.add("s", AccountMismatchError("x"))
    assert list(avoided) == ["r", "s"]
    assert [avoided.is_elsewhere(run) for run in avoided] == [False, True]
    monotonic = asyncio.get_running_loop().time()
    avoided._now = lambda: monotonic + 61
    assert list(avoided) == []


async def test_cancelled_transaction_never_waits(dsn: str) -> None:
    with DatabaseProxy(dsn) as proxy:
        link = ReconnectingConnection(DriverSettings(Address.of(proxy.dsn)))
        begun = asyncio.Event()

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                proxy.silence()
                begun.set()
                await connection.fetchval("SELECT 1")

        asking = asyncio.create_task(link.run(work))
        await begun.wait()
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.wait([asking], timeout=5)
        assert asking.cancelled()
        await link.close()


async def test_close_never_waits_for_database(dsn: str) -> None:
    with DatabaseProxy(dsn) as proxy:
        link = ReconnectingConnection(DriverSettings(Address.of(proxy.dsn)))
        await link.run(lambda connection: connection.fetchval("SELECT 1"))
        proxy.silence()
        asking = asyncio.create_task(link.run(lambda connection: connection.fetchval("SELECT 1")))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(5):
            await link.close()
        with pytest.raises(LedgerError, match="closed"):
            await asyncio.wait_for(asking, 5)


@pytest.mark.second_stage
async def test_libraries_stay_silent_during_outage(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dispatchkit.workers.queue_connection._POOL_TIMEOUT", 0.1)
    store = PostgresStore(dsn)
    await store.open()
    away = Parameters(host="127.0.0.1", port="1", user="app", password="hunter2", dbname="x")
    monkeypatch.setattr(store.settings, "for_libpq", lambda: away)
    monkeypatch.setattr(DriverSettings, "connect_timeout", -0.5)  # so that the pool is given half a second
    caplog.set_level(logging.INFO)
    level = logging.getLogger("psycopg.pool").getEffectiveLevel()
    with pytest.raises(LedgerError, match=r"could not be enqueued \(PoolTimeout\): run the same again") as failed:
        await enqueue(store, [("r", 0)])
    assert [record.name for record in caplog.records if not record.name.startswith("dispatchkit")] == []
    assert logging.getLogger("psycopg.pool").getEffectiveLevel() == level
    trace = traceback.TracebackException.from_exception(failed.value, capture_locals=True)
    assert trace.__cause__ is not None
    assert not trace.__cause__.stack
    assert all("hunter2" not in str(frame.locals) for frame in trace.stack if "/tests/" not in frame.filename)
    monkeypatch.undo()
    await store.close()


def test_shortage_of_connections_is_told() -> None:
    connections = QueueConnections()
    assert connections.shortage() is None
    connections.error = psycopg.OperationalError('FATAL: too many connections for role "few"')
    assert "each worker 9" in (connections.shortage() or "")
    connections.error = psycopg.OperationalError("FATAL: no more connections allowed (max_client_conn)")
    assert "each worker 9" in (connections.shortage() or "")
    connections.error = psycopg.OperationalError("refused")
    assert connections.shortage() is None

"""What a worker does about runs that fail, and about a database that does not answer."""

from __future__ import annotations

import asyncio
import time

import pytest

from dispatchkit import AccountMismatchError, LedgerError
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.postgres.connection import Connection, ReconnectingConnection
from dispatchkit.ledger.postgres.driver_settings import DriverSettings
from dispatchkit.workers.procrastinate_queue import _Avoided
from tests.workers.conftest import DatabaseProxy


async def test_failure_of_run_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatchkit.workers.procrastinate_queue._AVOID", 0.0)
    told: list[str] = []
    avoided = _Avoided(told.append)
    for error in (LedgerError("a"), LedgerError("a"), LedgerError("b"), LedgerError("b")):
        avoided.add("r", error)
        assert "r" not in avoided
    assert told == [f"the run 'r' is not launched here: {reason}" for reason in "ab"]


async def test_failed_run_is_left_out_for_a_minute() -> None:
    avoided = _Avoided(lambda text: None)
    avoided.add("r", KeyError("x"))
    avoided.add("s", AccountMismatchError("x"))
    assert list(avoided) == ["r", "s"]
    assert [avoided.is_elsewhere(run) for run in avoided] == [False, True]
    monotonic = asyncio.get_running_loop().time()
    avoided._now = lambda: monotonic + 61
    assert list(avoided) == []


async def test_cancelled_transaction_does_not_wait_for_the_database(dsn: str) -> None:
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
        began = time.monotonic()
        asking.cancel()
        await asyncio.wait([asking], timeout=5)
        assert asking.cancelled()
        assert time.monotonic() - began < 1
        await link.close()


async def test_close_does_not_wait_for_the_database(dsn: str) -> None:
    with DatabaseProxy(dsn) as proxy:
        link = ReconnectingConnection(DriverSettings(Address.of(proxy.dsn)))
        await link.run(lambda connection: connection.fetchval("SELECT 1"))
        proxy.silence()
        asking = asyncio.create_task(link.run(lambda connection: connection.fetchval("SELECT 1")))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await link.close()
        assert time.monotonic() - began < 1
        with pytest.raises(LedgerError, match="closed"):
            await asyncio.wait_for(asking, 5)

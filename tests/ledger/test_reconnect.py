"""Work on PostgreSQL is repeated while the database is unreachable, and after nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from dispatchkit.errors import LedgerError
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.postgres.connection import ReconnectingConnection
from dispatchkit.ledger.postgres.driver_settings import DriverSettings
from dispatchkit.testing import FakeClock


class Server:
    """A connection whose connects fail as told."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.failures: list[Exception] = []
        self.asked: list[float] = []
        self.terminated = 0

    async def connect(self, _: DriverSettings) -> Any:
        self.asked.append(self.clock.time)
        if self.failures:
            raise self.failures.pop(0)
        return self

    def is_closed(self) -> bool:
        return False

    def terminate(self) -> None:
        self.terminated += 1

    def waits(self) -> list[float]:
        return [round(after - before, 6) for before, after in pairwise(self.asked)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server(FakeClock())
    monkeypatch.setattr("dispatchkit.ledger.postgres.connection.connect", server.connect)
    return server


@pytest.fixture
def link(server: Server) -> ReconnectingConnection:
    settings = DriverSettings(Address.of("postgresql://app@127.0.0.1/x"))
    return ReconnectingConnection(settings, clock=server.clock)


async def answer(_: object) -> str:
    return "answer"


async def test_waits_double(server: Server, link: ReconnectingConnection) -> None:
    server.failures = [ConnectionError("away")] * 8
    assert await link.run(answer) == "answer"
    assert server.waits() == [0.0375, 0.075, 0.15, 0.3, 0.6, 1.2, 1.5, 1.5]  # 3/4 of 0.05 s, doubled up to 2 s


async def test_timeout_ends_waits(server: Server, link: ReconnectingConnection) -> None:
    server.failures = [ConnectionError("away")] * 99
    with pytest.raises(LedgerError) as failed:
        await link.run(answer, timeout=1.0)
    assert isinstance(failed.value.__cause__, ConnectionError)
    assert server.waits() == [0.0375, 0.075, 0.15, 0.3]  # the next wait may last until after the timeout


async def test_no_timeout_means_one_attempt(server: Server, link: ReconnectingConnection) -> None:
    server.failures = [ConnectionError("away")] * 2
    with pytest.raises(LedgerError):
        await link.run(answer, timeout=0.0)
    assert server.asked == [0.0]


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("error", [asyncpg.UndefinedTableError("gone"), asyncpg.DataError("bad"), ValueError("bad")])
async def test_refusal_is_not_repeated(
    server: Server, link: ReconnectingConnection, error: Exception, after: int
) -> None:
    server.failures = [*[ConnectionError("away")] * after, error, error]
    with pytest.raises(LedgerError):
        await link.run(answer)
    assert len(server.asked) == after + 1


async def test_shortage_is_logged_once(
    server: Server, link: ReconnectingConnection, caplog: pytest.LogCaptureFixture
) -> None:
    server.failures = [ConnectionError("away"), *[asyncpg.TooManyConnectionsError("full")] * 3]
    await link.run(answer)
    (message,) = caplog.messages
    assert message.endswith("Waiting for one")


async def test_close_ends_repeats(server: Server, link: ReconnectingConnection) -> None:
    done: list[str] = []

    async def closing(_: object) -> None:
        done.append("")
        link._closed = True
        raise ConnectionError("away")

    with pytest.raises(LedgerError, match="closed"):
        await link.run(closing)
    assert (len(done), server.terminated) == (1, 1)


async def test_cancelled_repeat_drops_connection(server: Server, link: ReconnectingConnection) -> None:
    begun = asyncio.Event()

    async def silent(_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    server.failures = [ConnectionError("away")]
    asking = asyncio.create_task(link.run(silent))
    await begun.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert (asking.cancelled(), server.terminated) == (True, 1)


def test_only_errors_import_tenacity() -> None:
    script = "import dispatchkit.ledger.postgres.store, sys; print('tenacity' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "False\n"

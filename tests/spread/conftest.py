"""Workers as processes of their own, on a real database, against a sandbox that counts what really happened."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from dispatchkit import Counts, DirectClient, Ledger, StartDispatch
from dispatchkit.sandbox import Sandbox
from dispatchkit.spread import plan_chunks
from dispatchkit.spread.chunk import in_postgres
from dispatchkit.spread.engine import enqueue
from tests.launcher import COMMAND, Process


def wait_until(holds: Callable[[], bool], *, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


# How long a worker waits before it looks for what nobody delivered, and for a database that is away.
HURRIED = {
    "dispatchkit.spread.engine:_LOOK_EVERY": 0.5,
    "dispatchkit.spread.engine:_AGAIN": 0.2,
    "dispatchkit.ledger.link:_LONGEST": 0.2,
    "dispatchkit.ledger.postgres:LEASE_TIMEOUT": 2.0,
}


class Field:
    """A run in a ledger, and the workers on it."""

    def __init__(self, dsn: str, sandbox: Sandbox) -> None:
        self.dsn = dsn
        self.sandbox = sandbox
        self.workers: list[subprocess.Popen[str]] = []

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DISPATCHKIT_LEDGER": self.dsn,
            "DISPATCHKIT_DIRECT_TOKEN": self.sandbox.direct_token,
        }

    def spread(
        self, count: int, *, size: int = 50, rate: float | None = None, queue: bool = True, name: str = "r"
    ) -> list[int]:
        async def plan() -> list[int]:
            client = DirectClient(self.sandbox.direct_token, base_url=self.sandbox.url)
            async with client, Ledger(self.dsn) as ledger:
                commands = map(StartDispatch, range(1, count + 1))
                chunks = await plan_chunks(ledger, name, client, commands, size=size, rate=rate)
                if queue:
                    await enqueue(self.dsn, await in_postgres(ledger), [(name, chunk) for chunk in chunks])
                return chunks

        return asyncio.run(plan())

    def worker(self, *options: object) -> subprocess.Popen[str]:
        command = [*COMMAND, "worker", "--direct-url", self.sandbox.url, *map(str, options)]
        worker = Process(command, constants=HURRIED, stderr=subprocess.PIPE, text=True, env=self.environment())
        self.workers.append(worker)
        assert worker.stderr is not None
        assert "Ready" in worker.stderr.readline()
        return worker

    def counts(self, name: str = "r") -> Counts:
        async def read() -> Counts:
            async with Ledger(self.dsn) as ledger:
                return await ledger.counts(name)

        return asyncio.run(read())

    def wait_until_done(self, count: int, name: str = "r") -> None:
        wait_until(lambda: self.launched() >= count)  # which asks the database nothing
        wait_until(lambda: self.counts(name) == Counts(done=count))

    def stop(self, name: str = "r") -> None:
        async def write() -> None:
            async with Ledger(self.dsn) as ledger:
                await ledger.stop(name)

        asyncio.run(write())

    def launched(self) -> int:
        # Not `Sandbox.launches`, which adds up in this thread what another one is just counting.
        return sum(self.sandbox.direct.launches.values())

    def end(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                worker.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.communicate()


@pytest.fixture
def field(dsn: str, sandbox: Sandbox) -> Iterator[Field]:
    field = Field(dsn, sandbox)
    yield field
    field.end()

"""Workers as processes of their own, on a real database, against a sandbox that counts what really happened."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import pytest

from dispatchkit import Counts, DirectClient, Ledger, StartDispatch
from dispatchkit.sandbox import Sandbox
from dispatchkit.workers import plan_chunks
from dispatchkit.workers.chunk import in_postgres
from dispatchkit.workers.procrastinate_queue import enqueue
from tests.launcher import COMMAND, Process


def wait_until(holds: Callable[[], bool], *, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


# Seconds before a worker polls for orphaned chunks, or retries an unreachable database.
HURRIED = {
    "dispatchkit.workers.procrastinate_queue:_LOOK_EVERY": 0.5,
    "dispatchkit.workers.procrastinate_queue:_AGAIN": 0.2,
    "dispatchkit.ledger.postgres.connection:_MAX_WAIT": 0.2,
    "dispatchkit.ledger.postgres.holds:LEASE_TIMEOUT": 2.0,
}


class Lines:
    """What a process writes to standard error, read while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self._stream, process.stderr = process.stderr, None
        self._lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with self._stream as stream:
            self._lines.extend(iter(stream.readline, ""))

    @property
    def text(self) -> str:
        return "".join(self._lines)


class DatabaseProxy:
    """Stands between a process and the database. Each answer can be delayed.

    It can fall silent, too: it accepts connections and says nothing.

    Args:
        dsn: The database's, on a Unix socket.
    """

    def __init__(self, dsn: str) -> None:
        _, _, folder = dsn.partition("?host=")
        self._socket = f"{folder}/.s.PGSQL.5432"
        self._silent = threading.Event()
        self.delay = 0.0
        """Seconds by which each answer is late."""
        self.answers = 0
        """How many answers have gone on."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.dsn = f"postgresql://postgres@127.0.0.1:{self._listener.getsockname()[1]}/postgres"

    def silence(self) -> None:
        self._silent.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                server = socket.socket(socket.AF_UNIX)
                self._sockets.append(server)
                try:
                    server.connect(self._socket)
                except OSError:
                    client.close()
                    continue
                for source, sink in ((client, server), (server, client)):
                    arguments = (source, sink, source is server)
                    threading.Thread(target=self._pipe, args=arguments, daemon=True).start()

    def _pipe(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers:
                    time.sleep(self.delay)
                    self.answers += 1
                if not self._silent.is_set():
                    sink.sendall(data)
            if not self._silent.is_set():
                sink.shutdown(socket.SHUT_RDWR)


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

    def plan(
        self, count: int, *, size: int = 50, rate: float | None = None, queue: bool = True, name: str = "r"
    ) -> list[int]:
        async def plan() -> list[int]:
            client = DirectClient(self.sandbox.direct_token, base_url=self.sandbox.url)
            async with client, Ledger(self.dsn) as ledger:
                commands = map(StartDispatch, range(1, count + 1))
                chunks = await plan_chunks(ledger, name, client, commands, size=size, rate=rate)
                if queue:
                    await enqueue(await in_postgres(ledger), [(name, chunk) for chunk in chunks])
                return chunks

        return asyncio.run(plan())

    def worker(
        self, *options: object, token: str | None = None, dsn: str | None = None, **constants: float
    ) -> subprocess.Popen[str]:
        command = [*COMMAND, "worker", "--url", f"direct={self.sandbox.url}", *map(str, options)]
        environment = self.environment()
        if token is not None:
            environment["DISPATCHKIT_DIRECT_TOKEN"] = token
        if dsn is not None:
            environment["DISPATCHKIT_LEDGER"] = dsn
        named = {f"dispatchkit.workers.procrastinate_queue:{name}": value for name, value in constants.items()}
        worker = Process(command, constants={**HURRIED, **named}, stderr=subprocess.PIPE, text=True, env=environment)
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

    def execute(self, statement: str) -> None:
        async def write() -> None:
            async with Ledger(self.dsn) as ledger:
                await (await in_postgres(ledger)).connection.run(lambda connection: connection.execute(statement))

        asyncio.run(write())

    def leased_rates(self) -> list[float]:
        """The part of an account's rate that each worker may use."""

        async def read() -> list[float]:
            async with Ledger(self.dsn) as ledger:
                rows = await (await in_postgres(ledger)).connection.run(
                    lambda connection: connection.fetch("SELECT rate FROM dispatchkit.lease")
                )
                return [row["rate"] for row in rows]

        return asyncio.run(read())

    def planned(self, name: str) -> int:
        async def read() -> int:
            async with Ledger(self.dsn) as ledger:
                return sum(run.total for run in await ledger.runs() if run.name == name)

        return asyncio.run(read())

    def wait_until_all_arrived(self) -> None:
        """Until all that was claimed has arrived at the sandbox, whose latency holds it there."""

        async def claimed() -> int:
            async with Ledger(self.dsn) as ledger:
                statement = "SELECT count(*) FROM dispatchkit.sending"
                number: int = await (await in_postgres(ledger)).connection.run(
                    lambda connection: connection.fetchval(statement)
                )
                return number

        def holds() -> bool:
            before = self.launched()
            time.sleep(0.3)
            return asyncio.run(claimed()) == self.launched() == before

        wait_until(holds)

    def wait_until_still(self) -> None:
        """Until nothing was launched for half a second."""

        def holds() -> bool:
            before = self.launched()
            time.sleep(0.5)
            return self.launched() == before

        wait_until(holds, seconds=10)

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

"""The cost of a ledger, in a file and in PostgreSQL, and the gain of several workers.

`plan_chunks` plans the runs, as ``dispatchkit plan`` does. The command would also enqueue the chunks, and so start the
workers, while its own process still uses CPU time.

python -m benchmarks.workers
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import cpu_seconds, table
from benchmarks.server import Starts, on_a_thread
from dispatchkit import DirectClient, Ledger, StartDispatch, State
from dispatchkit.core.fanout.outcome import Report
from dispatchkit.ledger.chunk import Holder
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.ledger.run import RunPlan
from dispatchkit.workers import plan_chunks
from dispatchkit.workers.chunk import in_postgres
from dispatchkit.workers.procrastinate_queue import enqueue, work
from tests.postgres import Server

try:
    import uvloop
except ImportError:  # the extra `speed` is not there on every platform
    LOOPS = {"asyncio": asyncio.run}
else:
    LOOPS = {"asyncio": asyncio.run, "uvloop": uvloop.run}

TOKEN = "c2FuZGJveDpzYW5kYm94"
TURNS = 6
ROUNDS = 5
LATENCY = 0.02
"""Seconds until the provider of the workers answers."""
CONCURRENCY = 8
"""Calls in flight of each worker. Workers, database and provider then leave half of two cores idle.

A launch waits for its claim and its answer, so the gain is that of the workers' coordination. With 64, two workers need
more CPU time than two cores have.
"""
MORE = (16, 64)
"""Calls in flight of each worker, to see where the machine limits them."""
CHUNKS = 8
TARGETS = 4000
IDLE = 0.1
"""Share of idle CPU time under which the machine limits the workers."""


@contextlib.contextmanager
def provider(latency: float) -> Iterator[str]:
    """A server with a latency, in a process of its own."""
    code = (
        "import asyncio\n"
        "from dispatchkit.sandbox import Sandbox\n"
        "async def main():\n"
        f"    async with Sandbox(latency={latency}) as sandbox:\n"
        "        print(sandbox.url, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield child.stdout.readline().strip()
        child.kill()


async def rows_per_second(dsn: str, *, batch: int = 64, total: int = 40_000) -> float:
    """Claims and outcomes of many journals at a time."""
    store = PostgresStore(dsn)
    await store.open()
    run = (
        await store.begin(
            RunPlan(name="rows", settings="{}", host="here", account=None, fingerprint="", attempt_timeout=70.0)
        )
    ).number
    await store.plan(run, [(b"%d" % number, "{}") for number in range(total)])
    await store.planned(run)
    await store.acquire(run, 0, Holder("us", os.getpid(), "here"), attempt_timeout=70.0)
    now = datetime.now(UTC)
    began = time.perf_counter()
    before: list[Record] = []
    for first in range(0, total, batch):
        indexes = range(first, min(total, first + batch))
        claims = [Claim(run, 0, index, "us", str(uuid.uuid4()), now) for index in indexes]
        await asyncio.gather(store.claim(claims), store.record(before))
        before = [Record(run, 0, index, "us", State.DONE, "", None, None, 1, now) for index in indexes]
    await store.record(before)
    elapsed = time.perf_counter() - began
    await store.close()
    return total / elapsed


async def launches(url: str, count: int, ledger: Ledger | None) -> float:
    async with DirectClient(TOKEN, base_url=url) as direct:
        await direct.start_many(range(1, 200)).finish()
        name = None if ledger is None else uuid.uuid4().hex
        run = direct.start_many(range(1000, 1000 + count), ledger=ledger, run=name)
        began = 0.0
        async for _ in run:
            began = began or time.perf_counter()
        return count / (time.perf_counter() - began)


async def compare(url: str, place: str) -> list[float]:
    """Launches a second with a ledger, as a share of those without one, in turns."""
    ratios = []
    for turn in range(TURNS):
        async with Ledger(place) as ledger:
            first, second = (None, ledger) if turn % 2 else (ledger, None)
            rates = {first: await launches(url, 6000, first), second: await launches(url, 6000, second)}
        ratios.append(rates[ledger] / rates[None])
    return ratios


async def chunk_cost(dsn: str, url: str, count: int = 200) -> tuple[float, float]:
    """Seconds for each chunk: to enqueue it, and to take and finish it."""
    async with DirectClient("any", base_url=url) as direct, Ledger(dsn) as ledger:
        await plan_chunks(ledger, "chunks", direct, map(StartDispatch, range(1, count + 1)), size=1)
        store = await in_postgres(ledger)
        began = time.perf_counter()
        await enqueue(store, [("chunks", chunk) for chunk in range(count)])
        put = (time.perf_counter() - began) / count
        stop, taken = asyncio.Event(), list[float]()

        async def launch(run: str, chunk: int) -> Report:
            del run, chunk
            taken.append(time.perf_counter())
            if len(taken) == count:
                stop.set()
            return Report()

        await work(store, launch, stop)
        return put, (taken[-1] - taken[0]) / (count - 1)


@dataclass(frozen=True)
class Worked:
    """One planned run, launched by worker processes."""

    rate: float
    """Launches a second, from the first to the last one that reached the provider."""
    worker_cpu: float
    """CPU seconds of the workers for each launch."""
    idle: float
    """The share of the machine's CPU time that nothing used. Near 0, the machine is what limits the workers."""


_arrivals: list[float] = []


class _Answering(Starts):
    """Notes when each request arrives, and answers `LATENCY` later."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.now = super().data_received

    def data_received(self, data: bytes) -> None:
        _arrivals.extend([time.perf_counter()] * data.count(b"\r\n\r\n"))
        asyncio.get_running_loop().call_later(LATENCY, self.now, data)


def workers(dsn: str, url: str, number: int, *, concurrency: int, count: int) -> Worked:
    """Plan a run in chunks, and let so many worker processes launch it to its end.

    The run counts from its first launch, so the start of the processes and the plan are no part of it. Its end is: a
    worker that has no chunk left waits for the other one.
    """

    async def plan() -> None:
        async with DirectClient(TOKEN, base_url=url) as direct, Ledger(dsn) as ledger:
            await plan_chunks(ledger, "run", direct, map(StartDispatch, range(1, count + 1)), size=count // CHUNKS)

    async def deliver() -> None:
        async with Ledger(dsn) as ledger:
            await enqueue(await in_postgres(ledger), [("run", chunk) for chunk in range(CHUNKS)])

    asyncio.run(plan())
    command = [sys.executable, "-m", "dispatchkit", "worker", "--ledger", dsn, "--url", f"direct={url}"]
    command += ["--concurrency", str(concurrency)]
    environment = {**os.environ, "DISPATCHKIT_DIRECT_TOKEN": TOKEN}
    started = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(number)]
    try:
        for worker in started:
            assert worker.stderr is not None
            worker.stderr.readline()
        _arrivals.clear()
        cpu, (busy, total) = _cpu(started), _machine()
        asyncio.run(deliver())
        until = time.perf_counter() + 120
        while len(_arrivals) < count:
            if time.perf_counter() > until:
                raise RuntimeError(f"{len(_arrivals):,} of {count:,} targets were launched in 120 s")
            time.sleep(0.05)
        used, (busy_after, total_after) = _cpu(started) - cpu, _machine()
    finally:
        for worker in started:
            worker.terminate()
            worker.communicate()
    arrivals = sorted(_arrivals)
    idle = 1 - (busy_after - busy) / max(1, total_after - total)
    return Worked((count - 1) / (arrivals[-1] - arrivals[0]), used / count, idle)


def _cpu(processes: Iterable[subprocess.Popen[str]]) -> float:
    return sum(cpu_seconds(process.pid) or 0.0 for process in processes)


def _machine() -> tuple[int, int]:
    """Busy and all CPU time of the machine so far, in ticks; nothing without /proc."""
    try:
        ticks = list(map(int, Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]))
    except OSError:
        return 0, 0
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def measure(
    *, concurrency: int = CONCURRENCY, rounds: int = ROUNDS, targets: int = TARGETS
) -> list[tuple[Worked, Worked]]:
    """One worker and two, in turns, with a PostgreSQL of their own.

    Args:
        concurrency: Calls in flight of each worker.
        rounds: How often each has its turn.
        targets: Launches of a turn, in `CHUNKS` chunks.
    """
    taken: list[tuple[Worked, Worked]] = []
    server = Server(durable=True)
    server.start()
    try:
        with on_a_thread(_Answering) as url:
            for turn in range(rounds):
                by_number: dict[int, Worked] = {}
                for number in (1, 2) if turn % 2 else (2, 1):
                    dsn = asyncio.run(server.create())
                    by_number[number] = workers(dsn, url, number, concurrency=concurrency, count=targets)
                taken.append((by_number[1], by_number[2]))
    finally:
        server.stop("immediate")
        server.remove()
    return taken


def report(taken: Sequence[tuple[Worked, Worked]], *, concurrency: int = CONCURRENCY) -> str:
    """The gain of the second worker, a table, and what limits it."""
    gains = sorted(two.rate / one.rate for one, two in taken)
    rows = [
        [
            f"{'two workers' if number else 'one worker'}",
            f"{statistics.median(pair[number].rate for pair in taken):,.0f}",
            f"{statistics.median(pair[number].worker_cpu for pair in taken) * 1e6:,.0f}",
            f"{statistics.median(pair[number].idle for pair in taken):.0%}",
        ]
        for number in (0, 1)
    ]
    cells = table(["", "launches/s", "CPU us a launch", "machine idle"], rows)
    what = f"{concurrency} in flight each, {LATENCY * 1000:.0f} ms"
    gain = f"{what}: two workers are {statistics.median(gains):.2f} times one ({gains[0]:.2f} to {gains[-1]:.2f})."
    if statistics.median(two.idle for _, two in taken) < IDLE:
        gain += " The machine has no CPU time left, and limits them."
    return f"{gain}\n\n{cells}"


def main() -> None:
    server = Server(durable=True)
    server.start()
    try:
        dsn = asyncio.run(server.create())
        for batch in (16, 64, 256):
            rate = asyncio.run(rows_per_second(asyncio.run(server.create()), batch=batch))
            print(f"claims and outcomes, {batch} at a time: {rate:,.0f} of each a second")
        with provider(0.02) as url:
            with tempfile.TemporaryDirectory() as folder:
                for kind, place in (("SQLite", f"{folder}/launch.db"), ("PostgreSQL", dsn)):
                    for loop, run in LOOPS.items():
                        ratios = run(compare(url, place))
                        print(
                            f"64 workers, 20 ms, {loop}: a ledger in {kind} leaves {statistics.median(ratios):.2f} of "
                            f"the launches a second ({min(ratios):.2f} to {max(ratios):.2f})"
                        )
            put, take = asyncio.run(chunk_cost(asyncio.run(server.create()), url))
            print(f"a chunk in the engine: {put * 1000:.1f} ms to enqueue, {take * 1000:.1f} ms to take and finish")
    finally:
        server.stop("immediate")
        server.remove()
    for concurrency in (CONCURRENCY, *MORE):
        print(report(measure(concurrency=concurrency), concurrency=concurrency))


if __name__ == "__main__":
    main()

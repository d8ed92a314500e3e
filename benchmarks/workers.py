"""The cost of a ledger, in a file and in PostgreSQL, and the gain of several workers.

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
from collections.abc import Iterator
from datetime import UTC, datetime

from dispatchkit import DirectClient, Ledger, StartDispatch, State
from dispatchkit.core.fanout.outcome import Report
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.ledger.store import Claim, Holder, Record, RunPlan
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


def workers(dsn: str, url: str, number: int, count: int) -> float:
    """Launches a second by so many worker processes."""
    name = f"workers-{number}"

    async def plan() -> None:
        async with DirectClient(TOKEN, base_url=url) as direct, Ledger(dsn) as ledger:
            first = 1 + 40_000 * (number - 1)
            chunks = await plan_chunks(ledger, name, direct, map(StartDispatch, range(first, first + count)), size=500)
            await enqueue(await in_postgres(ledger), [(name, chunk) for chunk in chunks])

    async def until(done: int) -> float:
        async with Ledger(dsn) as ledger:
            while (await ledger.counts(name)).done < done:  # noqa: ASYNC110 - of processes
                await asyncio.sleep(0.05)
            return time.perf_counter()

    command = [sys.executable, "-m", "dispatchkit", "worker", "--ledger", dsn, "--url", f"direct={url}"]
    environment = {**os.environ, "DISPATCHKIT_DIRECT_TOKEN": TOKEN}
    started = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(number)]
    for worker in started:
        assert worker.stderr is not None
        worker.stderr.readline()
    asyncio.run(plan())
    began = asyncio.run(until(count // 10))
    rate = count * 0.9 / (asyncio.run(until(count)) - began)
    for worker in started:
        worker.terminate()
        worker.communicate()
    return rate


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
        for latency in (0.02, 0.1):
            with provider(latency) as url:
                one, two = (workers(asyncio.run(server.create()), url, number, 8000) for number in (1, 2))
            what = f"64 in flight each, {latency * 1000:.0f} ms"
            print(f"two workers, {what}: {two / one:.2f} times one ({two:,.0f} and {one:,.0f} launches a second)")
    finally:
        server.stop("immediate")
        server.remove()


if __name__ == "__main__":
    main()

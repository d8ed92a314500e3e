"""The cost of a ledger: CPU time of a launch with and without one.

Run as a module, it is one fan-out in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from benchmarks import child
from benchmarks.machine import allow_many_files, cores, peak, pinned, resident, table
from benchmarks.server import Server
from benchmarks.task import FIRST, TOKEN

if TYPE_CHECKING:
    from dispatchkit import Ledger

WORKERS = (32, 256)
LIMIT = 900.0
"""Seconds that one fan-out may take."""
NONE, SQLITE, POSTGRES = "none", "SQLite", "PostgreSQL"


@dataclass(frozen=True)
class Fan:
    """One fan-out."""

    targets: int
    cpu: float
    """CPU microseconds a launch, of all threads, between the first and the last answers."""
    rate: float
    memory: float
    """Peak memory in MiB beyond that after the imports."""


@contextmanager
def databases() -> Iterator[dict[str, Callable[[], str]]]:
    """A fresh ledger's address by kind. PostgreSQL is left out where its wheel is not installed."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        numbers = iter(range(10**6))
        made: dict[str, Callable[[], str]] = {NONE: str, SQLITE: lambda: f"{folder}/{next(numbers)}.db"}
        with contextlib.suppress(ImportError):
            from tests.postgres import Server as Postgres

            postgres = Postgres(durable=True)
            stack.callback(postgres.remove)
            pair = cores()
            with pinned(pair and pair[1]):
                postgres.start()
            stack.callback(postgres.stop, "immediate")
            made[POSTGRES] = lambda: asyncio.run(postgres.create())
        yield made


def launch_costs(server: Server, loops: Sequence[str], *, workers: Iterable[int], rounds: int, targets: int) -> str:
    """The table of launches with and without a ledger, in turns, each in a fresh process."""
    rows: list[list[str]] = []
    with databases() as places:
        for count in workers:
            for loop in loops:
                taken: dict[str, list[Fan]] = {}
                for turn in range(rounds):
                    for kind, place in places.items():
                        tell(f"{count} workers on {loop}, round {turn + 1}: {kind}")
                        taken.setdefault(kind, []).append(fan_out(server, loop, targets, count, place()))
                base = taken[NONE]
                for kind, fans in taken.items():
                    more = [one.cpu - bare.cpu for one, bare in zip(fans, base, strict=True)]
                    rows.append(
                        [
                            kind,
                            loop,
                            f"{count:,}",
                            f"{statistics.median(one.cpu for one in fans):.1f}",
                            f"{statistics.median(more):+.1f}",
                            f"{min(more):+.1f} to {max(more):+.1f}",
                            f"{statistics.median(one.rate for one in fans):,.0f}",
                        ]
                    )
    tell("")
    return table(["ledger", "loop", "workers", "CPU us a launch", "above none", "spread", "launches/s"], rows)


def fan_out(server: Server, loop: str, targets: int, workers: int, where: str) -> Fan:
    """One fan-out in a fresh process, on the client's core."""
    return Fan(**child.run("benchmarks.ledger", [loop, server.url, targets, workers, where], limit=LIMIT))


def tell(text: str) -> None:
    """Show the progress on standard error; an empty text clears it."""
    print(f"\r{text:60}", end="\r" if not text else "", file=sys.stderr, flush=True)


@asynccontextmanager
async def _opened(where: str) -> AsyncIterator[Ledger | None]:
    if not where:
        yield None
        return
    from dispatchkit import Ledger

    async with Ledger(where) as ledger:
        yield ledger


async def _fan_out(url: str, targets: int, workers: int, where: str) -> Fan:
    from dispatchkit import DirectClient, FanOut, StartDispatch

    before, warm = resident(), min(targets // 4, max(400, 4 * workers))
    start: tuple[int, float, float] | None = None
    end: tuple[int, float, float] | None = None
    async with DirectClient(TOKEN, base_url=url) as direct, _opened(where) as ledger:
        run = FanOut(
            direct,
            map(StartDispatch, range(FIRST, FIRST + targets)),
            concurrency=workers,
            ledger=ledger,
            run=None if ledger is None else "run",
        )
        seen = 0
        while outcomes := await run.batch(256):
            now = (seen := seen + len(outcomes)), time.process_time(), time.perf_counter()
            if seen >= warm and start is None:
                start = now
            if seen <= targets - 2 * workers:
                end = now
        assert run.report.done == targets, run.report
    assert start is not None
    assert end is not None
    launches = end[0] - start[0]
    return Fan(
        targets,
        cpu=(end[1] - start[1]) / launches * 1e6,
        rate=launches / (end[2] - start[2]),
        memory=peak() - before,
    )


def preload(where: str) -> None:
    """Import what a fan-out with this ledger needs, so that it is not measured."""
    import aiohttp  # noqa: F401 - its memory is not ours: dispatchkit loads it on first use

    import dispatchkit.core.fanout.fan_out
    import dispatchkit.direct.client
    import dispatchkit.ledger.ledger

    if "://" in where:
        import dispatchkit.ledger.postgres.store
    elif where:
        import dispatchkit.ledger.sqlite.store  # noqa: F401


def _main() -> None:
    loop, url, targets, workers, where = sys.argv[1:]
    allow_many_files()
    preload(where)
    print(json.dumps(asdict(child.run_on(loop, lambda: _fan_out(url, int(targets), int(workers), where)))))


if __name__ == "__main__":
    _main()

"""The cost of a ledger: CPU time of a launch with and without one, and of a large run's steps.

Run as a module, it is one fan-out in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contestants import FIRST, TOKEN
from benchmarks.machine import ROOT, allow_many_files, cores, peak, pinned, resident, table
from benchmarks.server import Server

if TYPE_CHECKING:
    from dispatchkit import Ledger

WORKERS = (32, 256)
LOOKS = 5
"""Times that each reading command runs; the median counts."""
NONE, SQLITE, POSTGRES = "none", "SQLite", "PostgreSQL"


@dataclass(frozen=True)
class Fan:
    """One fan-out."""

    targets: int
    cpu: float
    """CPU microseconds a launch, of all threads, between the first and the last answers."""
    rate: float
    planning: float
    """CPU microseconds a target until the first outcome."""
    memory: float
    """Peak memory in MiB beyond that after the imports."""


@dataclass(frozen=True)
class Step:
    """One command of the command line on a large run."""

    name: str
    cpu: float
    """CPU seconds of its process, with its start."""
    seconds: float
    memory: float
    """Peak memory of its process in MiB."""


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
                        _tell(f"{count} workers on {loop}, round {turn + 1}: {kind}")
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
    _tell("")
    return table(["ledger", "loop", "workers", "CPU us a launch", "above none", "spread", "launches/s"], rows)


def fan_out(server: Server, loop: str, targets: int, workers: int, where: str) -> Fan:
    """One fan-out in a fresh process, on the client's core."""
    command = [sys.executable, "-m", "benchmarks.ledger", loop, server.url, str(targets), str(workers), where]
    pair = cores()
    with pinned(pair and pair[0]):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return Fan(**json.loads(done.stdout))


def large_run(server: Server, loop: str, *, kind: str, targets: int) -> str:
    """The table of a run's life: plan and launch, then each command on the finished run."""
    with databases() as places, tempfile.TemporaryDirectory() as folder:
        where = places[kind]()
        ids = Path(folder, "ids.txt")
        ids.write_text("".join(f"{FIRST + number}\n" for number in range(targets)), encoding="ascii")
        _tell(f"{kind}: {targets:,} targets")
        fan = fan_out(server, loop, targets, WORKERS[-1], where)
        rows = [
            ["plan", f"{fan.planning:.1f} us a target", "", ""],
            ["launch", f"{fan.cpu:.1f} us a launch", f"{fan.rate:,.0f} launches/s", f"{fan.memory:.0f}"],
        ]
        again = ["direct", "start", "--from", str(ids), "--ledger", where, "--run", "run", "--yes", "--quiet"]
        again += ["--base-url", server.url]
        dry = ["direct", "start", "--from", str(ids), "--expected", str(targets + 1)]
        commands = {
            "start of a process": ["--version"],
            "read the input": dry,
            "same line again": again,
            "list": ["ledger", "list", where],
            "show": ["ledger", "show", where, "run"],
            "resume of nothing": ["resume", where, "--run", "run", "--yes"],
            "export --csv": ["ledger", "export", where, "run", "--csv"],
        }
        for name, words in commands.items():
            _tell(f"{kind}: {name}")
            steps = [command(name, words) for _ in range(1 if name.startswith(("export", "same")) else LOOKS)]
            median = sorted(steps, key=lambda step: step.cpu)[len(steps) // 2]
            each = f" ({median.cpu / targets * 1e6:.1f} us a row)" if name.startswith("export") else ""
            rows.append([name, f"{median.cpu:.2f} s{each}", f"{median.seconds:.2f} s", f"{median.memory:.0f}"])
        rows += asyncio.run(_looks(where))
    _tell("")
    return table([f"{targets:,} targets, {kind}", "CPU", "time", "MiB"], rows)


def command(name: str, words: Sequence[str]) -> Step:
    """One command in a process of its own."""
    environment = {**os.environ, "DISPATCHKIT_DIRECT_TOKEN": TOKEN}
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "dispatchkit", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Step(name, used.ru_utime + used.ru_stime, time.perf_counter() - began, used.ru_maxrss / 2**10)


async def _looks(where: str) -> list[list[str]]:
    """Each look of a follower, without the start of its process."""
    from dispatchkit import Ledger
    from dispatchkit.cli.views.snapshot import take_snapshot

    async with Ledger(where) as ledger:
        used: list[tuple[float, float]] = []
        for _ in range(LOOKS):
            cpu, began = time.process_time(), time.perf_counter()
            await take_snapshot(ledger, await ledger.run("run"))
            used.append((time.perf_counter() - began, time.process_time() - cpu))
    seconds, cpu = sorted(used)[LOOKS // 2]
    return [["a look of --follow", f"{cpu * 1000:.1f} ms", f"{seconds * 1000:.1f} ms", ""]]


def _tell(text: str) -> None:
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

    before, began, warm = resident(), time.process_time(), min(targets // 4, max(400, 4 * workers))
    planning = 0.0
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
            planning = planning or now[1] - began
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
        planning=planning / targets * 1e6,
        memory=peak() - before,
    )


def _main() -> None:
    loop, url, targets, workers, where = sys.argv[1:]
    allow_many_files()
    import aiohttp  # noqa: F401 - its memory is not ours: dispatchkit loads it on first use

    import dispatchkit.core.fanout.fan_out
    import dispatchkit.direct.client
    import dispatchkit.ledger.ledger

    if "://" in where:
        import dispatchkit.ledger.postgres.store  # noqa: F401
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        print(json.dumps(asdict(runner.run(_fan_out(url, int(targets), int(workers), where)))))


if __name__ == "__main__":
    _main()

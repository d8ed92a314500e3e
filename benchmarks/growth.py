"""What grows with the list: seconds a target and memory of one fan-out, from a thousand targets to a million.

Run as a module, it is one fan-out in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from benchmarks.machine import ROOT, allow_many_files, cores, peak, pinned, resident, table
from benchmarks.server import Server
from benchmarks.task import FIRST, TOKEN

WORKERS = 256
SLOWEST = 1500.0
"""Minimum targets a second. A slower run is aborted."""


@dataclass(frozen=True)
class Growth:
    """One fan-out."""

    targets: int
    seconds: float
    memory: float
    """Peak memory in MiB beyond that after the imports."""


def measure(server: Server, loop: str, *, sizes: Iterable[int], rounds: int) -> list[Growth]:
    """Run each size in fresh processes: the large ones once, the small ones as often as there are rounds."""
    taken: list[Growth] = []
    for targets in sizes:
        for _ in range(rounds if targets <= 10_000 else 1):
            print(f"\rgrowth: {targets:,} targets", end=" " * 20, file=sys.stderr, flush=True)
            pair = cores()
            with pinned(pair and pair[0]):
                process = subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.growth", loop, server.url, str(targets)],
                    cwd=ROOT,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            try:
                output, _ = process.communicate(timeout=20 + targets / SLOWEST)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise RuntimeError(f"growth: {targets:,} targets took too long") from None
            taken.append(Growth(**json.loads(output)))
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)
    return taken


def report(taken: Sequence[Growth]) -> str:
    """The table, with medians over the rounds of a size."""
    found = [
        (
            targets,
            statistics.median(one.seconds / targets * 1e6 for one in taken if one.targets == targets),
            statistics.median(one.memory for one in taken if one.targets == targets),
        )
        for targets in dict.fromkeys(one.targets for one in taken)
    ]
    first = found[0]
    head = ["targets", "time a target x", "us a target", "memory x", "MiB above imports"]
    return table(
        head,
        [
            [f"{targets:,}", f"{each / first[1]:.2f}", f"{each:.1f}", f"{memory / first[2]:.2f}", f"{memory:.1f}"]
            for targets, each, memory in found
        ],
    )


async def _fan_out(url: str, targets: int) -> Growth:
    from dispatchkit import DirectClient, FanOut, StartDispatch

    commands = map(StartDispatch, range(FIRST, FIRST + targets))
    before = resident()
    began = time.perf_counter()
    async with DirectClient(TOKEN, base_url=url) as direct:
        done = (await FanOut(direct, commands, concurrency=WORKERS).finish()).done
    assert done == targets
    return Growth(targets, time.perf_counter() - began, peak() - before)


def _main() -> None:
    loop, url, targets = sys.argv[1:]
    allow_many_files()
    import aiohttp  # noqa: F401 - its memory is not ours: dispatchkit loads it on first use

    import dispatchkit.core.fanout.fan_out
    import dispatchkit.direct.client  # noqa: F401

    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        print(json.dumps(asdict(runner.run(_fan_out(url, int(targets))))))


if __name__ == "__main__":
    _main()

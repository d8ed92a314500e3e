"""The extra cost of a call of the blocking client over the same call of the asynchronous one.

Both call the same server in turns. Every other turn begins with the blocking client. A bare hop to the loop thread and
back, by ``call_soon_threadsafe`` and a lock, shows what the two threads cost without a call.
Run as a module, it is all turns on one event loop.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from benchmarks import child
from benchmarks.machine import table
from benchmarks.server import Server
from benchmarks.sync_overhead import bare_hop
from benchmarks.task import FIRST, TOKEN

CALLS = 300
TURNS = 10
LIMIT = 120.0


@dataclass(frozen=True)
class Turn:
    """Some calls of each client, one after the other. In seconds a call."""

    loop: str
    blocking: float
    asynchronous: float
    blocking_cpu: float
    asynchronous_cpu: float
    hop_cpu: float


def measure(server: Server, loops: Sequence[str], *, rounds: int) -> list[Turn]:
    """Each loop in turn, in fresh processes."""
    return [
        Turn(**turn)
        for _ in range(rounds)
        for loop in loops
        for turn in child.run("benchmarks.blocking_call", [loop, server.url], limit=LIMIT)
    ]


def report(turns: Sequence[Turn]) -> str:
    """The table, with medians over all turns, and the spread of the difference in CPU time."""
    cells: list[list[str]] = []
    for loop in dict.fromkeys(turn.loop for turn in turns):
        these = [turn for turn in turns if turn.loop == loop]

        def median(value: Callable[[Turn], float], these: list[Turn] = these) -> str:
            return f"{statistics.median(map(value, these)) * 1e6:.1f}"

        more = sorted((turn.blocking_cpu - turn.asynchronous_cpu) * 1e6 for turn in these)
        cells.append(
            [
                loop,
                median(lambda turn: turn.asynchronous_cpu),
                median(lambda turn: turn.blocking_cpu),
                median(lambda turn: turn.blocking_cpu - turn.asynchronous_cpu),
                f"{more[0]:.1f} to {more[-1]:.1f}",
                median(lambda turn: turn.hop_cpu),
                median(lambda turn: turn.asynchronous),
                median(lambda turn: turn.blocking),
                median(lambda turn: turn.blocking - turn.asynchronous),
            ]
        )
    kinds = ("asynchronous", "blocking", "difference")
    cpu = (*(f"CPU us {kind}" for kind in kinds), "spread", "CPU us bare hop")
    heads = [*cpu, *(f"us {kind}" for kind in kinds)]
    return table(["loop", *heads], cells)


def _turns(loop: str, url: str) -> list[Turn]:
    from dispatchkit import DirectClient, sync
    from dispatchkit.sync import portal

    portal.new_event_loop = child.loop_factory(loop)
    turns: list[Turn] = []
    with (
        sync.DirectClient(TOKEN, base_url=url) as blocking,
        asyncio.Runner(loop_factory=child.loop_factory(loop)) as runner,
    ):
        direct = DirectClient(TOKEN, base_url=url)

        async def await_all() -> None:
            for number in range(FIRST, FIRST + CALLS):
                await direct.start(number)

        def block_for_all() -> None:
            for number in range(FIRST, FIRST + CALLS):
                blocking.start(number)

        async def this_loop() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        loop_thread = blocking._handle.run(this_loop, "start")

        def hop_for_all() -> None:
            for _ in range(CALLS):
                bare_hop(loop_thread)

        works: list[Callable[[], None]] = [lambda: runner.run(await_all()), block_for_all]
        for number in range(TURNS + 1):  # the first one warms both up
            order = -1 if number % 2 else 1
            measured = [_seconds(work) for work in works[::order]]
            asynchronous, blocked = measured[::order]
            turns.append(Turn(loop, blocked[0], asynchronous[0], blocked[1], asynchronous[1], _seconds(hop_for_all)[1]))
        runner.run(direct.close())
    return turns[1:]


def _seconds(work: Callable[[], None]) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - began) / CALLS, (time.process_time() - cpu) / CALLS


def _main() -> None:
    print(json.dumps([asdict(turn) for turn in _turns(*sys.argv[1:])]))


if __name__ == "__main__":
    _main()

"""A list of many dispatches: the longest block of the event loop, CPU time and peak memory.

Run as a module, it is one `DirectClient.dispatches`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks import child
from benchmarks.fixed_server import serving
from benchmarks.loop_blocks import LoopBlocks
from benchmarks.machine import peak, resident, table

LIMIT = 120.0
_TOKEN = "c2FuZGJveDpzYW5kYm94"


@dataclass(frozen=True)
class Listed:
    """One list."""

    loop: str
    items: int
    block: float
    """The longest block of the loop in seconds."""
    block_cpu: float
    """The longest CPU time between two ticks of the loop in seconds."""
    cpu: float
    seconds: float
    memory: float
    """Peak memory in MiB beyond that after the imports."""


def measure(loops: Sequence[str], *, rounds: int, items: int) -> list[Listed]:
    """Each loop in turn, in fresh processes."""
    from dispatchkit.sandbox import Call, DirectProvider

    direct = DirectProvider(range(1, items + 1), token=_TOKEN, listed=items)
    body = direct.answer(Call("GET", "/api/v1/dispatch", headers={"Authorization": f"Basic {_TOKEN}"})).body
    with serving(body) as url:
        return [
            Listed(**child.run("benchmarks.listing", [loop, url, items], limit=LIMIT))
            for _ in range(rounds)
            for loop in loops
        ]


def report(taken: Sequence[Listed]) -> str:
    """The table, with medians over the rounds."""
    cells: list[list[str]] = []
    for loop in dict.fromkeys(each.loop for each in taken):
        these = [each for each in taken if each.loop == loop]
        blocks = sorted(each.block * 1e3 for each in these)
        cells.append(
            [
                f"{loop}, {these[0].items:,} dispatches",
                f"{statistics.median(blocks):.1f}",
                f"{blocks[0]:.1f} to {blocks[-1]:.1f}",
                f"{statistics.median(each.block_cpu for each in these) * 1e3:.1f}",
                f"{statistics.median(each.cpu for each in these):.2f}",
                f"{statistics.median(each.seconds for each in these):.2f}",
                f"{statistics.median(each.memory for each in these):,.0f}",
            ]
        )
    return table(["", "longest block, ms", "spread", "of CPU, ms", "CPU s", "s", "peak MiB above imports"], cells)


async def _list(loop: str, url: str, items: int) -> Listed:
    from dispatchkit import DirectClient

    async with DirectClient(_TOKEN, base_url=url) as direct:
        before, cpu, began = resident(), time.process_time(), time.perf_counter()
        with LoopBlocks() as blocks:
            listed = await direct.dispatches()
        elapsed, used = time.perf_counter() - began, time.process_time() - cpu
    assert len(listed) == items
    return Listed(loop, items, blocks.longest, blocks.longest_cpu, used, elapsed, peak() - before)


def _main() -> None:
    loop, url, items = sys.argv[1:]
    print(json.dumps(asdict(child.run_on(loop, lambda: _list(loop, url, int(items))))))


if __name__ == "__main__":
    _main()

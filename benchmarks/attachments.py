"""Launches with large attachments at once: peak memory, and the longest block of the event loop.

Run as a module, it is one fan-out. It has as many launches as workers, each with a file of its own.
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

WORKERS = 32
LIMIT = 300.0
_ANSWER = b'{"data": null, "error": 0, "error_text": "Successful operation"}'


@dataclass(frozen=True)
class Sent:
    """One fan-out."""

    loop: str
    workers: int
    mebibytes: int
    """The size of each file."""
    memory: float
    """Peak memory in MiB beyond that after the files were made."""
    block: float
    """The longest block of the loop in seconds."""
    block_cpu: float
    """The longest CPU time between two ticks of the loop in seconds."""
    seconds: float


def measure(loops: Sequence[str], *, rounds: int, mebibytes: int, workers: int = WORKERS) -> list[Sent]:
    """Each loop in turn, in fresh processes."""
    with serving(_ANSWER) as url:
        return [
            Sent(**child.run("benchmarks.attachments", [loop, url, workers, mebibytes], limit=LIMIT))
            for _ in range(rounds)
            for loop in loops
        ]


def report(taken: Sequence[Sent]) -> str:
    """The table, with medians over the rounds."""
    cells: list[list[str]] = []
    for loop in dict.fromkeys(each.loop for each in taken):
        these = [each for each in taken if each.loop == loop]
        first = these[0]
        memory = statistics.median(each.memory for each in these)
        blocks = sorted(each.block * 1e3 for each in these)
        cells.append(
            [
                f"{loop}, {first.workers} workers x {first.mebibytes} MiB",
                f"{memory:,.0f}",
                f"{memory / (first.workers * first.mebibytes):.2f}",
                f"{statistics.median(blocks):.0f}",
                f"{blocks[0]:.0f} to {blocks[-1]:.0f}",
                f"{statistics.median(each.block_cpu for each in these) * 1e3:.0f}",
                f"{statistics.median(each.seconds for each in these):.1f}",
            ]
        )
    return table(
        ["", "peak MiB above the files", "of the files", "longest block, ms", "spread", "of CPU, ms", "s"], cells
    )


async def _send(loop: str, url: str, workers: int, mebibytes: int) -> Sent:
    from dispatchkit import ActivateMailing, AltcraftClient, Attachment, FanOut

    def command(number: int) -> ActivateMailing:
        data = number.to_bytes(4, "big") * (mebibytes * 2**18)
        return ActivateMailing(number, run_now=True, attachments=[Attachment.from_bytes(data, name="price.pdf")])

    commands = [command(number) for number in range(1, workers + 1)]
    before = resident()
    began = time.perf_counter()
    with LoopBlocks() as blocks:
        async with AltcraftClient(url, "token") as altcraft:
            report = await FanOut(altcraft, commands, concurrency=workers).finish()
    elapsed = time.perf_counter() - began
    assert report.done == workers, report
    return Sent(loop, workers, mebibytes, peak() - before, blocks.longest, blocks.longest_cpu, elapsed)


def _main() -> None:
    loop, url, workers, mebibytes = sys.argv[1:]
    print(json.dumps(asdict(child.run_on(loop, lambda: _send(loop, url, int(workers), int(mebibytes))))))


if __name__ == "__main__":
    _main()

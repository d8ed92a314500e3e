"""Launches with large attachments at once: peak memory, and the longest block of the event loop.

Run as a module, it is one fan-out without a ledger, or with one in SQLite or PostgreSQL. It has as many launches as
workers, each with a file of its own, or all with one file, which is encoded once. A resumed run has its files from the
ledger: they count in its memory.
"""

# A journal needs the client's settings.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product

from benchmarks import child
from benchmarks.fixed_server import serving
from benchmarks.ledger import NONE, POSTGRES, SQLITE, databases
from benchmarks.loop_blocks import LoopBlocks
from benchmarks.machine import peak, resident, table

WORKERS = 32
LIMIT = 300.0
MAX_TOTAL = 1700
"""Mebibytes of all files of a fan-out, so that a small machine can hold them."""
LEDGER_SIZES = (20, 50, 70)
"""Mebibytes of a file with a ledger."""
LEDGER_WORKERS = 4
SHARED = ", one file"
"""Ends the kind of a ledger whose launches share one file."""
RESUMED = ", resumed"
"""Ends the kind of a ledger whose run another process has planned."""
_ANSWER = b'{"data": null, "error": 0, "error_text": "Successful operation"}'


@dataclass(frozen=True)
class Sent:
    """One fan-out."""

    loop: str
    ledger: str
    """The kind of the ledger, whether all launches share one file, and whether the run is resumed."""
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
    """Each loop in turn, in fresh processes, without a ledger: a file for each launch, then one for all."""
    with serving(_ANSWER) as url:
        turns = product(range(rounds), loops, (NONE, f"{NONE}{SHARED}"))
        return [_one(loop, url, workers, mebibytes, kind, "") for _, loop, kind in turns]


def measure_ledgers(
    loops: Sequence[str], *, rounds: int, sizes: Sequence[int] = LEDGER_SIZES, workers: int = LEDGER_WORKERS
) -> list[Sent]:
    """Each loop, ledger and size in turn: a new run, then one that reads its files back from the ledger."""
    taken: list[Sent] = []
    with serving(_ANSWER) as url, databases() as places:
        for _ in range(rounds):
            for kind, loop, size in product((SQLITE, POSTGRES), loops, sizes):
                if kind in places:
                    where = places[kind]()
                    taken += [_one(loop, url, workers, size, named, where) for named in (kind, f"{kind}{RESUMED}")]
    return taken


def _one(loop: str, url: str, workers: int, mebibytes: int, kind: str, where: str) -> Sent:
    if not kind.endswith(SHARED):
        workers = min(workers, MAX_TOTAL // mebibytes)
    return Sent(**child.run("benchmarks.attachments", [loop, url, workers, mebibytes, kind, where], limit=LIMIT))


def report(taken: Sequence[Sent]) -> str:
    """The table, with medians over the rounds."""
    cells: list[list[str]] = []
    for key in sorted({(each.ledger, each.mebibytes, each.loop) for each in taken}):
        these = [each for each in taken if (each.ledger, each.mebibytes, each.loop) == key]
        first = these[0]
        memory = statistics.median(each.memory for each in these)
        files = 1 if first.ledger.endswith(SHARED) else first.workers
        blocks = sorted(each.block * 1e3 for each in these)
        cells.append(
            [
                f"{first.loop}, ledger: {first.ledger}, {first.workers} workers x {first.mebibytes} MiB",
                f"{memory:,.0f}",
                f"{memory / (files * first.mebibytes):.2f}",
                f"{statistics.median(blocks):.0f}",
                f"{blocks[0]:.0f} to {blocks[-1]:.0f}",
                f"{statistics.median(each.block_cpu for each in these) * 1e3:.0f}",
                f"{statistics.median(each.seconds for each in these):.1f}",
            ]
        )
    return table(
        ["", "peak MiB above the files", "of the files", "longest block, ms", "spread", "of CPU, ms", "s"], cells
    )


async def _send(loop: str, url: str, workers: int, mebibytes: int, kind: str, where: str) -> Sent:
    from dispatchkit import ActivateMailing, AltcraftClient, Attachment, FanOut, Ledger

    def file(number: int) -> Attachment:
        return Attachment.from_bytes(number.to_bytes(4, "big") * (mebibytes * 2**18), name="price.pdf")

    is_resumed = kind.endswith(RESUMED)
    shared = file(0) if kind.endswith(SHARED) else None
    commands = None
    if not is_resumed:
        commands = [
            ActivateMailing(number, run_now=True, attachments=[shared or file(number)])
            for number in range(1, workers + 1)
        ]
    async with contextlib.AsyncExitStack() as stack:
        altcraft = await stack.enter_async_context(AltcraftClient(url, "token"))
        ledger = await stack.enter_async_context(Ledger(where)) if where else None
        before = resident()
        began = time.perf_counter()
        with LoopBlocks() as blocks:
            run = None if ledger is None else "resumed" if is_resumed else "new"
            report = await FanOut(altcraft, commands, concurrency=workers, ledger=ledger, run=run).finish()
        elapsed = time.perf_counter() - began
        assert report.done == workers, report
        memory = peak() - before
        if ledger is not None and commands is not None:  # for the process that resumes it
            await ledger.journal("resumed", altcraft._run_settings()).plan_chunks(commands, size=workers)
    return Sent(loop, kind, workers, mebibytes, memory, blocks.longest, blocks.longest_cpu, elapsed)


def _main() -> None:
    loop, url, workers, mebibytes, kind, where = sys.argv[1:]
    work = child.run_on(loop, lambda: _send(loop, url, int(workers), int(mebibytes), kind, where))
    print(json.dumps(asdict(work)))


if __name__ == "__main__":
    _main()

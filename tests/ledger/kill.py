"""Kill a launching process at random points, resume until it is whole, and count what the provider really did.

    python -m tests.ledger.kill --points 1000

The provider is the sandbox, in this process: it outlives killed processes, and counts every act. A point is one run of
some targets. Signal 9 kills its process at a random moment between its fork and the time that a whole run takes. Every
second time, it also kills the process that resumes it. The last one is left alone.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import tempfile
import time
from collections.abc import Container
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import attrs

from dispatchkit import Ledger, LedgerError
from dispatchkit.ledger.run import Counts
from dispatchkit.sandbox import Ids, Sandbox
from tests.ledger.ledger_process import Provider, launch

__all__ = ["Tally", "kill"]

_TARGETS = 40
_TIMEOUT = 60.0
_MAX_RUNS = 20
_IDS = Ids(range(1, 10**9))


@attrs.define
class Tally:
    """What came of all points."""

    points: int = 0
    kills: int = 0
    """How many processes were killed before they had ended."""
    orphans: int = 0
    """Targets that a killed process left in flight, as the ledger tells."""
    twice: int = 0
    """Targets on which the provider acted more than once. It must be 0."""
    lost: int = 0
    """Targets on which it never acted, and which the ledger does not call unknown. It must be 0."""
    unknown: int = 0
    """Starts of Direct that stayed unknown: their state tells."""
    given_up: int = 0
    """Launches of Altcraft that stayed unknown: two processes that were killed may have sent them."""

    def table(self) -> str:
        """All of it, for people."""
        rows = {
            "points": f"{self.points:,} ({self.points * _TARGETS:,} targets)",
            "kills in time": f"{self.kills:,}",
            "acts > 1": f"{self.twice:,}",
            "targets lost": f"{self.lost:,}",
            "left unknown": f"{self.unknown:,}",
            "given up": f"{self.given_up:,}",
            "orphans per kill": f"{self.orphans / max(1, self.kills):.2f}",
        }
        return "\n".join(f"{name:<18}{value:>24}" for name, value in rows.items())


async def kill(points: int, seed: int, *, together: int = 2) -> Tally:
    """Kill at so many points, so many at a time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.ledger.ledger_process"])
    tally = Tally()
    numbers = iter(range(points))
    async with Sandbox(dispatches=_IDS, mailings=_IDS, active=_IDS, latency=0.005) as sandbox:
        with tempfile.TemporaryDirectory() as folder:
            # The first whole run also starts the server of forks, so the second one is measured.
            for point in (points, points + 1):
                began = time.monotonic()
                await _run(context.Process(target=launch, args=_given(sandbox, point, Path(folder))))
                whole = time.monotonic() - began

            async def work() -> None:
                for point in numbers:
                    chance = random.Random(f"{seed}-{point}")
                    unknown = await _point(context, _given(sandbox, point, Path(folder)), whole, chance, tally)
                    _judge(sandbox, point, unknown, tally)

            await asyncio.gather(*(work() for _ in range(together)))
    return tally


def _given(sandbox: Sandbox, point: int, folder: Path) -> tuple[Provider, str, str, str, range]:
    ids = range(point * _TARGETS + 1, (point + 1) * _TARGETS + 1)
    where = str(folder / f"{point}.db")
    if point % 2:
        return "altcraft", sandbox.url, sandbox.altcraft_token, where, ids
    return "direct", sandbox.url, sandbox.direct_token, where, ids


async def _point(
    context: multiprocessing.context.ForkServerContext,
    given: tuple[Provider, str, str, str, range],
    whole: float,
    chance: random.Random,
    tally: Tally,
) -> set[int]:
    """Kill and resume until the run is over. Returns the ids that stay unknown."""
    killing = True
    for _ in range(_MAX_RUNS):
        process = context.Process(target=launch, args=given)
        status = await _run(process, after=chance.uniform(0, whole) if killing else None)
        if status == -9:
            tally.kills += 1
            tally.orphans += (await _counts(given[3])).sending
        elif status not in {0, 3}:
            raise RuntimeError(f"the process that launches ended with {status}")
        elif status == 0 and (await _counts(given[3])).done == _TARGETS:
            break
        killing = killing and chance.random() < 0.5
    async with Ledger(given[3]) as ledger:
        unknown = {given[4][target.index] async for target in ledger.targets("run", states=["unknown"])}
    if given[0] == "direct":
        tally.unknown += len(unknown)
    else:
        tally.given_up += len(unknown)
    tally.points += 1
    return unknown


async def _run(process: ForkServerProcess, *, after: float | None = None) -> int | None:
    process.start()
    if after is not None:
        await asyncio.sleep(after)
        process.kill()
    # All in this thread: a child watcher in another one would consume the status.
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(process.sentinel, ended.set)
    try:
        async with asyncio.timeout(_TIMEOUT):
            await ended.wait()
    finally:
        loop.remove_reader(process.sentinel)
        process.kill()
        process.join()
    status = process.exitcode
    process.close()
    return status


async def _counts(where: str) -> Counts:
    async with Ledger(where) as ledger:
        try:
            return await ledger.counts("run")
        except LedgerError:
            return Counts()  # it was killed before it had begun


def _judge(sandbox: Sandbox, point: int, unknown: Container[int], tally: Tally) -> None:
    launches = sandbox.altcraft.launches if point % 2 else sandbox.direct.launches
    for number in range(point * _TARGETS + 1, (point + 1) * _TARGETS + 1):
        tally.twice += launches[number] > 1
        # Two processes that were killed between a claim and its request leave a launch that was never sent unknown.
        tally.lost += launches[number] == 0 and number not in unknown


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(asyncio.run(kill(given.points, given.seed)).table())


if __name__ == "__main__":
    main()

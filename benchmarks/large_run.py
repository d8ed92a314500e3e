"""The life of a large run with a ledger: planning, launching, resuming, and the commands that read it.

Planning is measured at a tenth of the targets and at all of them, so that its growth shows. So is a resume of a run
that is half done, until its first outcome: it finds its first open target beyond all that are done.
Run as a module, it is one fan-out that stops after so many outcomes.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import child
from benchmarks.ledger import WORKERS, databases, fan_out, preload, tell
from benchmarks.machine import ROOT, allow_many_files, peak, table
from benchmarks.server import Server
from benchmarks.task import FIRST, TOKEN

FEW = WORKERS[0]
"""Launches in flight of a run that is stopped, so that it stops near the wanted outcome."""
LIMIT = 900.0
"""Seconds that one process may take."""
START = "start of a process"
INPUT = "read the input"


@dataclass(frozen=True)
class Step:
    """One step of a run, or one command on it."""

    cpu: float
    """CPU seconds."""
    seconds: float
    memory: float | None = None
    """Peak memory of its process in MiB, if known."""


def report(server: Server, loop: str, *, kind: str, targets: int, rounds: int) -> str:
    """The tables of a run's life in a ledger of this kind."""
    with databases() as places:
        growth = _growth(server, loop, kind, places[kind], targets, rounds)
        where = places[kind]()
        tell(f"{kind}: {targets:,} launches")
        fan = fan_out(server, loop, targets, WORKERS[-1], where)
        launched = f"{targets:,} launches, once: {fan.cpu:.1f} us of CPU each, {fan.rate:,.0f} a second, "
        launched += f"{fan.memory:.0f} MiB above the imports."
        commands = _commands(server, kind, where, targets, rounds)
    tell("")
    return f"{growth}\n\n{launched}\n\n{commands}"


def _growth(server: Server, loop: str, kind: str, place: Callable[[], str], targets: int, rounds: int) -> str:
    """Plans in turns, each in a new ledger; then resumes of the last ones, once they are half done."""
    sizes = (targets // 10, targets)
    plans: dict[int, list[Step]] = {size: [] for size in sizes}
    resumes: dict[int, list[Step]] = {size: [] for size in sizes}
    planned: dict[int, str] = {}
    for turn in range(rounds):
        for size in sizes:
            tell(f"{kind}: plan of {size:,}, round {turn + 1}")
            planned[size] = place()
            plans[size].append(_until(server, loop, planned[size], size, 1))
    for size, where in planned.items():
        tell(f"{kind}: half of {size:,} launches")
        _until(server, loop, where, 0, size // 2)
    for turn in range(rounds):
        for size, where in planned.items():
            tell(f"{kind}: resume of {size:,}, round {turn + 1}")
            resumes[size].append(_until(server, loop, where, 0, 1))
    rows: list[list[str]] = []
    for what, steps in (("plan", plans), ("resume at half, to its first outcome", resumes)):
        for size, taken in steps.items():
            ratios = [one.cpu / least.cpu for one, least in zip(taken, steps[sizes[0]], strict=True)]
            ratio = f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"
            rows.append([*_cells(f"{what}, {size:,} targets", taken, size), *ratio])
    return table([kind, *_HEAD, "CPU x a tenth", "spread"], rows)


def _until(server: Server, loop: str, where: str, targets: int, outcomes: int) -> Step:
    """One fan-out in a fresh process: until its first outcome. It stops after so many."""
    arguments = [loop, server.url, where, targets, outcomes]
    return Step(**child.run("benchmarks.large_run", arguments, limit=LIMIT))


def _commands(server: Server, kind: str, where: str, targets: int, rounds: int) -> str:
    """Each command on the finished run, in turns, with what it takes beyond another one of its round."""
    with tempfile.TemporaryDirectory() as folder:
        ids = Path(folder, "ids.txt")
        ids.write_text("".join(f"{FIRST + number}\n" for number in range(targets)), encoding="ascii")
        start = ["direct", "start", "--from", str(ids), "--base-url", server.url]
        commands: dict[str, tuple[int, list[str], str]] = {
            START: (0, ["--version"], ""),
            INPUT: (2, [*start, "--dry-run", "--expected", str(targets + 1)], START),
            "same line again": (0, [*start, "--ledger", where, "--run", "run", "--yes", "--quiet"], INPUT),
            "list": (0, ["ledger", "list", where], START),
            "show": (0, ["ledger", "show", where, "run"], START),
            "resume of nothing": (0, ["resume", where, "--run", "run", "--yes"], START),
            "export --csv": (0, ["ledger", "export", where, "run", "--csv"], START),
        }
        taken: dict[str, list[Step]] = {name: [] for name in commands}
        for turn in range(rounds):
            for name, (status, words, _) in commands.items():
                tell(f"{kind}: {name}, round {turn + 1}")
                taken[name].append(command(words, status))
    rows: list[list[str]] = []
    for name, (_, _, base) in commands.items():
        rows.append(_cells(name, taken[name], targets))
        if base:
            pairs = zip(taken[name], taken[base], strict=True)
            beyond = [Step(one.cpu - least.cpu, one.seconds - least.seconds) for one, least in pairs]
            rows.append(_cells(f"{name}, beyond {base}", beyond, targets))
    rows += [_cells(name, looks, targets) for name, looks in asyncio.run(_looks(where, rounds)).items()]
    return table([f"{targets:,} targets, {kind}", *_HEAD], rows)


_HEAD = ("CPU ms", "spread", "us a target", "ms", "peak MiB")


def _cells(name: str, taken: Sequence[Step], targets: int) -> list[str]:
    cpu = sorted(one.cpu * 1e3 for one in taken)
    median = statistics.median(cpu)
    memory = [one.memory for one in taken if one.memory is not None]
    return [
        name,
        f"{median:,.1f}",
        f"{cpu[0]:,.1f} to {cpu[-1]:,.1f}",
        f"{median / targets * 1e3:.2f}",
        f"{statistics.median(one.seconds for one in taken) * 1e3:,.1f}",
        f"{statistics.median(memory):.0f}" if memory else "",
    ]


def command(words: Sequence[str], expected: int) -> Step:
    """One command in a process of its own.

    Raises:
        RuntimeError: Its exit status is another one than expected.
    """
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
    if process.returncode != expected:
        raise RuntimeError(f"dispatchkit {' '.join(words)}: exit status {process.returncode}, not {expected}")
    memory = used.ru_maxrss / 2**10  # no less than what this process had at the fork
    return Step(used.ru_utime + used.ru_stime, time.perf_counter() - began, memory if memory > peak() else None)


async def _looks(where: str, rounds: int) -> dict[str, list[Step]]:
    """What `list`, `show` and each look of a follower read, without the start of their process."""
    from dispatchkit import Ledger
    from dispatchkit.ledger.run_snapshot import take_snapshot, with_taken_over

    async with Ledger(where) as ledger:

        async def list_runs() -> None:
            for run in await ledger.runs():
                await take_snapshot(ledger, run)

        async def show() -> None:
            await with_taken_over(ledger, await take_snapshot(ledger, await ledger.run("run")))

        async def follow() -> None:
            await take_snapshot(ledger, await ledger.run("run"))

        looks: dict[str, list[Step]] = {}
        for name, look in (("list", list_runs), ("show", show), ("--follow", follow)):
            await look()  # the first one prepares the statements
            for _ in range(rounds):
                cpu, began = time.process_time(), time.perf_counter()
                await look()
                taken = Step(time.process_time() - cpu, time.perf_counter() - began)
                looks.setdefault(f"a look of {name}", []).append(taken)
    return looks


async def _fan_out(url: str, where: str, targets: int, outcomes: int) -> Step:
    from dispatchkit import DirectClient, FanOut, Ledger, StartDispatch

    cpu, began = time.process_time(), time.perf_counter()
    async with DirectClient(TOKEN, base_url=url) as direct, Ledger(where) as ledger:
        commands = map(StartDispatch, range(FIRST, FIRST + targets)) if targets else None
        run = FanOut(direct, commands, concurrency=FEW, ledger=ledger, run="run")
        seen = len(await run.batch(1))
        first = Step(time.process_time() - cpu, time.perf_counter() - began, peak())
        assert seen, "no target of the run is open"
        while seen < outcomes and (taken := await run.batch(FEW)):
            seen += len(taken)
        run.stop()
        report = await run.finish()
        assert not report.unknown, report
    return first


def _main() -> None:
    loop, url, where, targets, outcomes = sys.argv[1:]
    allow_many_files()
    preload(where)
    print(json.dumps(asdict(child.run_on(loop, lambda: _fan_out(url, where, int(targets), int(outcomes))))))


if __name__ == "__main__":
    _main()

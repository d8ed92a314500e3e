"""CPU time of whole processes from start to exit: a run of one target, a dry run, and bare interpreters."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.machine import ROOT, cores, pinned, table
from benchmarks.server import Server
from benchmarks.task import FIRST, TOKEN

_ONE = f"""
import asyncio, sys
from dispatchkit import DirectClient
async def main():
    async with DirectClient({TOKEN!r}, base_url=sys.argv[1]) as direct:
        await direct.start({FIRST})
asyncio.run(main())
"""


@dataclass(frozen=True)
class Started:
    """One process."""

    what: str
    cpu: float
    seconds: float


def commands(url: str) -> dict[str, list[str]]:
    """What is started, by name. Without the extra `cli`, the command line is left out."""
    start = [sys.executable, "-m", "dispatchkit", "direct", "start", str(FIRST), "--base-url", url]
    bare = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import aiohttp": [sys.executable, "-c", "import aiohttp"],
        "import dispatchkit": [sys.executable, "-c", "import dispatchkit"],
        "one call, in Python": [sys.executable, "-c", _ONE, url],
    }
    if not importlib.util.find_spec("typer"):
        return bare
    return {
        **bare,
        # Its ledger has the target after the first turn.
        "one target, direct start --yes --again": [*start, "--yes", "--again"],
        "one target, --no-ledger": [*start, "--yes", "--no-ledger"],
        "one target, --dry-run": [*start, "--dry-run"],
        "dispatchkit --help": [sys.executable, "-m", "dispatchkit", "--help"],
    }


def measure(server: Server, *, rounds: int) -> list[Started]:
    """All of them in turns, after one turn that warms the caches of files and byte code.

    Raises:
        RuntimeError: One failed.
    """
    taken: list[Started] = []
    pair = cores()
    with tempfile.TemporaryDirectory() as home, pinned(pair and pair[0]):
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment = {**kept, "HOME": home, "DISPATCHKIT_DIRECT_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
        for turn in range(rounds + 1):
            for what, command in commands(server.url).items():
                one = _start(what, command, environment)
                if turn:
                    taken.append(one)
    return taken


def _start(what: str, command: Sequence[str], environment: dict[str, str]) -> Started:
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{what}: exit status {process.returncode}")
    return Started(what, used.ru_utime + used.ru_stime, elapsed)


def report(taken: Sequence[Started]) -> str:
    """The table, with medians over the rounds."""
    cells: list[list[str]] = []
    for what in dict.fromkeys(each.what for each in taken):
        cpu = sorted(each.cpu * 1e3 for each in taken if each.what == what)
        seconds = statistics.median(each.seconds for each in taken if each.what == what)
        spread = f"{cpu[0]:.0f} to {cpu[-1]:.0f}"
        cells.append([what, f"{statistics.median(cpu):.0f}", spread, f"{seconds * 1e3:.0f}"])
    return table(["process", "CPU ms", "spread", "ms"], cells)

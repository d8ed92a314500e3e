"""A measurement in a fresh process, on the client's core: a module is run with its arguments, and prints JSON."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from benchmarks.machine import ROOT, cores, pinned

T = TypeVar("T")


def run(module: str, arguments: Sequence[object], *, limit: float) -> Any:
    """What ``python -m module`` prints, read as JSON.

    Raises:
        RuntimeError: It failed, or took longer than ``limit`` seconds.
    """
    pair = cores()
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with pinned(pair and pair[0]):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RuntimeError(f"{module}: not done after {limit:g} s") from None
    if process.returncode:
        raise RuntimeError(f"{module}: {(errors.strip().splitlines() or ['no word'])[-1]}")
    return json.loads(output)


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The event loop of this name, uvloop or asyncio."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop  # type: ignore[no-any-return, unused-ignore]
    return asyncio.new_event_loop


def run_on(loop: str, work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine on a new loop of this name."""

    async def perform() -> T:
        return await work()

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        return runner.run(perform())

"""Runs every fault as often as asked, some at a time, and repeats those that did not fire."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.nemesis.database import Server
from tests.nemesis.faults import FAULTS, Fault
from tests.nemesis.scene import Kind, NotFiredError, Scene, Store, check_times
from tests.nemesis.table import bad, table
from tests.nemesis.times import Times

__all__ = ["Runner"]

_NOTHING: dict[str, Any] = {
    "fired": False, "double": 0, "lost": 0, "false": 0, "unknown": 0, "errors": 0, "proof": [], "notes": []
}  # fmt: skip
_HANGS = 90.0
"""An attempt that was under way for so many seconds when the time was over counts as an error."""
_WAIT_AT_MOST = 5
"""One attempt may take so many times the time-out of one process."""


class Runner:
    """All runs of one invocation.

    Args:
        given: The options of the command line.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._times = Times.of(given.scale)
        self._rows: list[dict[str, Any]] = []
        self._server: Server | None = None
        self._busy = asyncio.Semaphore(given.jobs)
        self._began = time.monotonic()

    def _wanted(self) -> Iterator[tuple[Fault, Store, Kind]]:
        for name in self._given.faults.split(","):
            fault = FAULTS[name]
            for store in self._given.stores.split(","):
                for kind in self._given.kinds.split(","):
                    if not fault.fits(store, kind):
                        continue
                    if fault.missing and self._given.allow_missing:
                        print(f"# {name} is left out: this machine lacks {', '.join(fault.missing)}", file=sys.stderr)
                    else:
                        yield fault, store, kind

    async def all(self) -> int:
        """Run everything, and print the table. Returns the exit status."""
        loop, wanted = asyncio.get_running_loop(), list(self._wanted())
        cut = False
        loop.set_exception_handler(_complain)
        task = asyncio.current_task()
        assert task is not None
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            await check_times(self._times)
            if any(store == "postgres" for _, store, _ in wanted):
                self._server = await Server.started()
            runs = [(place, each, number) for number in range(self._given.runs) for place, each in enumerate(wanted)]
            async with asyncio.timeout(self._given.limit):
                await asyncio.gather(*(self._one(*each, number, _loop(place, number)) for place, each, number in runs))
        except TimeoutError:
            print(f"# the time is over: {self._given.limit} s", file=sys.stderr)
        except asyncio.CancelledError:
            print("# interrupted: the table is of the runs that are over", file=sys.stderr)
            cut = True
        finally:
            if self._server is not None:
                await asyncio.to_thread(self._server.remove)
        print(table(self._rows))
        seconds = time.monotonic() - self._began
        print(f"\n{len(self._rows)} runs in {seconds:.0f} s, seed {self._given.seed!r}, {self._times}")
        if self._given.sample:  # a busy machine misses moments
            missed = sum(not row["fired"] and not row["dropped"] for row in self._rows)
            broken = any(bad(row | {"fired": True}) for row in self._rows)
            return int(cut or broken or 2 * missed > len(self._rows) or not self._rows)
        return int(cut or any(map(bad, self._rows)))

    async def _one(self, fault: Fault, store: Store, kind: Kind, number: int, loop: str) -> None:
        async with self._busy:
            if self._is_late(self._given.deadline):
                return
            for repeat in range(self._given.repeats + 1):
                seed = f"{self._given.seed} {fault.name} {store} {kind} {number} {repeat}"
                played = "" if self._given.provider == "direct" else f" ({self._given.provider})"
                row = {
                    "fault": fault.name + played,
                    "store": store,
                    "kind": kind,
                    "number": number,
                    "seed": seed,
                    "loop": loop,
                }
                began = time.monotonic()
                try:
                    row |= await self._attempt(fault, store, kind, random.Random(seed), loop)
                except asyncio.CancelledError:
                    if (elapsed := time.monotonic() - began) > _HANGS:
                        notes = [f"it had not ended after {elapsed:.0f} s"]
                        row |= {**_NOTHING, "fired": True, "dropped": False, "errors": 1, "notes": notes}
                        self._rows.append(row)
                    raise
                last = repeat == self._given.repeats or self._is_late(self._given.deadline)
                row["dropped"] = not (row["fired"] or row["errors"] or last)
                self._rows.append(row)
                self._write()
                self._tell(row)
                if not row["dropped"]:
                    break

    def _is_late(self, deadline: float | None) -> bool:
        return deadline is not None and time.monotonic() - self._began > deadline

    def _tell(self, row: dict[str, Any]) -> None:
        if self._given.verbose or bad(row):
            counts = " ".join(f"{key} {row[key]}" for key in ("double", "lost", "false", "unknown", "errors"))
            fired = "" if row["fired"] else " NOT FIRED"
            print(
                f"# {row['seed']} {row['loop']} {row['seconds']} s: {counts}{fired} {row['proof']} {row['notes'][:3]}",
                file=sys.stderr,
                flush=True,
            )

    def _write(self) -> None:
        if self._given.json is not None:
            Path(self._given.json).write_text(json.dumps(self._rows, indent=1))

    async def _attempt(
        self, fault: Fault, store: Store, kind: Kind, chance: random.Random, loop: str
    ) -> dict[str, Any]:
        """One attempt. It is judged whether its fault has fired or not; an error and a time-out are bad, too."""
        row: dict[str, Any] = {**_NOTHING, "notes": []}
        began = time.monotonic()
        server = self._server if store == "postgres" else None
        if server is not None and fault.own_server:
            server = await Server.started(programs=server.programs)
        plays = self._given.provider
        scene = Scene(fault.name, store, kind, chance, self._times, fault.total, loop, plays, server)
        try:
            async with asyncio.timeout(_WAIT_AT_MOST * self._times.timeout + 120):
                await scene.open()
                try:
                    await fault.strike(scene)
                    row["fired"] = True
                except NotFiredError as reason:
                    row["notes"].append(f"not fired: {reason}")
                await (scene.finish_by or scene.finish)()
                verdict = await scene.verdict()
            row |= {"double": verdict.double, "lost": verdict.lost, "false": verdict.false, "unknown": verdict.unknown}
            row["notes"] += verdict.notes
        except Exception as error:  # noqa: BLE001 - it is told, and counts as bad
            frames = traceback.extract_tb(error.__traceback__)
            where = next((each for each in reversed(frames) if "nemesis" in each.filename), frames[-1])
            row["errors"] = 1
            row["notes"].append(f"error: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})")
        finally:
            row["proof"] = scene.proof
            row["processes"] = [f"{command.name}: {command.status}" for command in scene.commands]
            with contextlib.suppress(Exception):
                await scene.close()
            if server is not None and server is not self._server:
                await asyncio.to_thread(server.remove)
        row["seconds"] = round(time.monotonic() - began, 1)
        return row


def _loop(place: int, number: int) -> str:
    return ("uvloop", "asyncio")[(place + number) % 2]


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Connections that are cut are no news here; an error of the harness itself is."""
    del loop
    error = context.get("exception")
    if error is not None and not isinstance(error, OSError | asyncio.CancelledError):
        print(f"# harness: {context.get('message')}: {error!r}", file=sys.stderr)

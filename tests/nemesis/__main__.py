"""The command line: run faults, print the table.

python -m tests.nemesis --list
python -m tests.nemesis --sample                     # what CI runs: seeded, short times, at most four minutes
python -m tests.nemesis --faults takeover,kill --stores postgres --runs 20 --seed 7 --scale 0.1 --json out.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.nemesis.database import Server
from tests.nemesis.faults import FAULTS, Fault
from tests.nemesis.scene import Kind, NotFired, Scene, Store
from tests.nemesis.times import Times

_RETRIES = 4
"""How often a run whose fault did not fire is repeated."""
_INSIDE = "NEMESIS_INSIDE"


def main() -> int:
    """The command line. The exit status is 1 if a promise was broken, or a fault never fired."""
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--faults", default=",".join(FAULTS), metavar="A,B")
    parser.add_argument("--stores", default="sqlite,postgres", metavar="A,B")
    parser.add_argument("--kinds", default="command,worker", metavar="A,B")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="for each fault, store and kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=0.05, help="of all times; 1 is the product's own")
    parser.add_argument("--jobs", type=int, default=2, help="how many runs at once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to a file")
    parser.add_argument("--sample", action="store_true", help="one short run of each, for CI")
    parser.add_argument("--list", action="store_true", help="list the faults")
    parser.add_argument("--verbose", action="store_true", help="print each run")
    given = parser.parse_args()
    if given.list:
        for each in FAULTS.values():
            places = " ".join(
                f"{store}/{kind}" for store in each.stores for kind in each.kinds if each.fits(store, kind)
            )
            print(f"{each.name:<16} {places:<50} {each.about}")
        return 0
    if given.sample:
        given.runs, given.scale, given.jobs = 1, 0.01, max(given.jobs, 3)
    unknown = set(given.faults.split(",")) - set(FAULTS)
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    _alone_on_loopback()
    return _loop(Nemesis(given).all())


def _loop(work: Any) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _alone_on_loopback() -> None:
    """Go on in a network namespace of our own: nothing leaves it, and packet filters are ours alone."""
    if os.environ.get(_INSIDE) or shutil.which("unshare") is None:
        return
    options = ["--net"] if os.geteuid() == 0 else ["--net", "--map-root-user"]
    if subprocess.run(
        ["unshare", *options, "ip", "link", "set", "lo", "up"], check=False, capture_output=True
    ).returncode:
        return
    line = [
        "unshare",
        *options,
        "sh",
        "-c",
        'ip link set lo up; exec "$@"',
        "sh",
        sys.executable,
        "-m",
        "tests.nemesis",
    ]
    os.environ[_INSIDE] = "1"
    os.execvp("unshare", [*line, *sys.argv[1:]])


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Connections that are cut are no news here; an error of the harness itself is."""
    del loop
    error = context.get("exception")
    if not isinstance(error, OSError | asyncio.CancelledError):
        print(f"# harness: {context.get('message')}: {error!r}", file=sys.stderr)


class Nemesis:
    """All runs of one invocation."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._times = Times.of(given.scale)
        self._rows: list[dict[str, Any]] = []
        self._server: Server | None = None
        self._busy = asyncio.Semaphore(given.jobs)

    def _wanted(self) -> Iterator[tuple[Fault, Store, Kind]]:
        for name in self._given.faults.split(","):
            for store in self._given.stores.split(","):
                for kind in self._given.kinds.split(","):
                    if FAULTS[name].fits(store, kind):
                        yield FAULTS[name], store, kind

    async def all(self) -> int:
        """Run everything. Returns the exit status."""
        asyncio.get_running_loop().set_exception_handler(_complain)
        began = time.monotonic()
        wanted = list(self._wanted())
        try:
            if any(store == "postgres" for _, store, _ in wanted):
                self._server = await Server.started()
            together = [each for each in wanted if not each[0].alone]
            runs = [(each, number) for number in range(self._given.runs) for each in together]
            await asyncio.gather(*(self._one(*each, number) for each, number in runs))
            for each in wanted:
                if each[0].alone:
                    for number in range(self._given.runs):
                        await self._one(*each, number)
        finally:
            if self._server is not None:
                await asyncio.to_thread(self._server.remove)
            if self._given.json is not None:
                self._given.json.write_text(json.dumps(self._rows, indent=1))
        print(self._table(wanted))
        print(f"\n{len(self._rows)} runs in {time.monotonic() - began:.0f} s, seed {self._given.seed}, {self._times}")
        bad = [row for row in self._rows if row["double"] or row["lost"] or row["false"] or not row["fired"]]
        for row in bad[:40]:
            print(
                f"- {row['fault']} {row['store']} {row['kind']} #{row['number']} ({row['loop']}): "
                + "; ".join([*row["proof"][:2], *row["notes"][:3]])
            )
        return 1 if bad else 0

    async def _one(self, fault: Fault, store: Store, kind: Kind, number: int) -> None:
        async with self._busy:
            for repeat in range(_RETRIES + 1):
                seed = f"{self._given.seed} {fault.name} {store} {kind} {number} {repeat}"
                row = await self._attempt(fault, store, kind, number, seed)
                if row["fired"]:
                    break
            self._rows.append(row)
            if self._given.verbose or not row["fired"]:
                print(
                    f"# {row['fault']} {row['store']} {row['kind']} #{number}.{repeat} {row['loop']} {row['seconds']} s: "
                    f"double {row['double']} lost {row['lost']} false {row['false']} unknown {row['unknown']} "
                    f"{'' if row['fired'] else 'NOT FIRED'} {row['proof']} {row['notes'][:4]}",
                    file=sys.stderr,
                )

    async def _attempt(self, fault: Fault, store: Store, kind: Kind, number: int, seed: str) -> dict[str, Any]:
        chance = random.Random(seed)
        loop = ("uvloop", "asyncio")[number % 2]
        row: dict[str, Any] = {
            "fault": fault.name, "store": store, "kind": kind, "number": number, "seed": seed, "loop": loop,
            "fired": False, "double": 0, "lost": 0, "false": 0, "unknown": 0, "proof": [], "notes": [],
        }  # fmt: skip
        began = time.monotonic()
        server, programs = self._server, self._server.programs if self._server else None
        if fault.own_server and store == "postgres":
            server = await Server.started(programs=programs)
        scene = Scene(fault.name, store, kind, chance, self._times, fault.total, loop, server, programs)
        try:
            await scene.open()
            await fault.strike(scene)
            await (scene.finish_by or scene.finish)()
            verdict = await scene.verdict()
            row |= {"fired": True, "double": verdict.double, "lost": verdict.lost, "false": verdict.false}
            row |= {"unknown": verdict.unknown, "notes": verdict.notes}
        except NotFired as reason:
            row["notes"] = [f"not fired: {reason}"]
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            row["notes"] = [f"harness: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"]
        finally:
            row["proof"] = scene.proof
            with contextlib.suppress(Exception):
                await scene.close()
            if server is not None and server is not self._server:
                await asyncio.to_thread(server.remove)
        row["seconds"] = round(time.monotonic() - began, 1)
        row["said"] = [f"{each.name}: {each.status}" for each in scene.commands]
        return row

    def _table(self, wanted: list[tuple[Fault, Store, Kind]]) -> str:
        lines = [
            "| fault | store | kind | runs | fired | double | lost | false | unknown |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for fault, store, kind in wanted:
            rows = [r for r in self._rows if (r["fault"], r["store"], r["kind"]) == (fault.name, store, kind)]
            sums = [sum(int(row[key]) for row in rows) for key in ("fired", "double", "lost", "false", "unknown")]
            lines.append("| " + " | ".join(map(str, (fault.name, store, kind, len(rows), *sums))) + " |")
        return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

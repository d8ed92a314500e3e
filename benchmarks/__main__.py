"""``python -m benchmarks``: every measurement of the project, as Markdown tables. ``--quick``: about a minute.

``URLLIB3_NO_OVERRIDE=1 pip install -e '.[benchmarks]' --no-binary urllib3-future`` installs the Python peers. A plain
install lets niquests replace the urllib3 of requests. nginx and wrk are system packages. Missing contestants are
reported and left out. ``python -m benchmarks --plots`` measures everything and draws the README's plots.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import (
    attachments,
    blocking_call,
    fanout,
    growth,
    large_run,
    ledger,
    listing,
    pacing,
    plots,
    single_call,
    startup,
    sync_overhead,
)
from benchmarks.contestants import PEERS
from benchmarks.faults import scorecard
from benchmarks.machine import cores, describe
from benchmarks.server import Server, provider

if TYPE_CHECKING:
    from benchmarks import workers

WITH_SERVER = ("fanout", "single_call", "growth", "ledger", "startup", "blocking_call")
"""The measurements against `provider`; the others start servers of their own."""
CHOICES = (*WITH_SERVER, "sync_overhead", "pacing", "attachments", "listing", "workers", "faults")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    wanted = set(CHOICES) - {"faults"} if options.what == "all" else {options.what}
    if options.what == "all" and not options.quick:
        wanted.add("faults")
    rounds = options.rounds or (2 if options.quick else 5)
    loops = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]
    records: list[fanout.Record] = []
    grown: list[growth.Growth] = []
    raw: dict[str, object] = {}
    began = datetime.now(UTC)
    measured_on = f"{began:%Y-%m-%d}, {describe()}"
    print(f"# Benchmarks\n\n{began:%Y-%m-%d %H:%M} UTC, {describe()}.\n", flush=True)
    if wanted & {*WITH_SERVER}:
        with provider() as server:
            measured_on += f"; one core for the client, one for {server.name}"
            print(f"{_setting(server, loops)}\n")
            records, grown = _compare(server, loops, wanted, options, rounds)
            raw |= {"records": [asdict(each) for each in records], "growth": [asdict(each) for each in grown]}
            if "ledger" in wanted:
                _ledger(server, loops[-1], options, rounds)
            raw |= _own(server, loops, wanted, rounds, is_quick=options.quick)
    if "sync_overhead" in wanted:
        print("## Blocking face\n")
        sync_overhead.main([])
        print(flush=True)
    raw |= _alone(loops, wanted, is_quick=options.quick)
    if options.json is not None:
        when = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        options.json.write_text(json.dumps({"at": when, "on": measured_on, **raw}), encoding="utf-8")
    if options.plots:
        for path in plots.draw(records, measured_on):
            print(f"drawn: {path} ({path.stat().st_size / 1000:.0f} kB)")


def _compare(
    server: Server, loops: Sequence[str], wanted: set[str], options: argparse.Namespace, rounds: int
) -> tuple[list[fanout.Record], list[growth.Growth]]:
    """The comparisons with other clients, and the growth with the list."""
    records: list[fanout.Record] = []
    grown: list[growth.Growth] = []
    seconds = options.seconds or (0.3 if options.quick else 1.5)
    if wanted & {"fanout", "single_call"}:
        print(f"{'One round' if rounds == 1 else f'{rounds} rounds'}, {seconds:g} s a contestant, in turns.\n")
    if "fanout" in wanted:
        workers = options.workers or ([32] if options.quick else fanout.WORKERS)
        entered = fanout.contestants(fanout.FAN_OUT_PEERS, loops)
        records, failures = fanout.compare(server, entered, workers=workers, rounds=rounds, seconds=seconds)
        print(f"## Fan-out\n\n{fanout.report(records, server)}\n{_listed(failures)}")
        print(f"## Own cost\n\n{fanout.own_cost(records)}\n")
        print(f"## Beside Rust and C\n\n{fanout.beside(records)}\n", flush=True)
    if "single_call" in wanted:
        workers = options.workers if options.what == "single_call" and options.workers else [1]
        taken, failures = single_call.measure(
            server, loops, rounds=1 if options.quick else rounds, seconds=seconds, workers=workers
        )
        print(f"## Calls\n\n{fanout.report(taken, server)}\n{_listed(failures)}{fanout.own_cost(taken)}\n", flush=True)
    if "growth" in wanted:
        sizes = [10**power for power in range(3, 5 if options.quick else 7)]
        grown = growth.measure(server, loops[-1], sizes=sizes, rounds=min(rounds, 3))
        print(f"## Growth, on {loops[-1]}, {growth.WORKERS} workers\n\n{growth.report(grown)}\n", flush=True)
    return records, grown


def _ledger(server: Server, loop: str, options: argparse.Namespace, rounds: int) -> None:
    """What a ledger costs a launch, and the life of a large run."""
    counts = options.workers or ([256] if options.quick else ledger.WORKERS)
    size = options.targets or (10_000 if options.quick else 1_000_000)
    costs = ledger.launch_costs(server, [loop], workers=counts, rounds=min(rounds, 3), targets=20_000)
    print(f"## Ledger\n\n{costs}\n", flush=True)
    for kind in options.ledgers:
        print(f"{large_run.report(server, loop, kind=kind, targets=size, rounds=min(rounds, 3))}\n", flush=True)


def _own(
    server: Server, loops: Sequence[str], wanted: set[str], rounds: int, *, is_quick: bool
) -> dict[str, list[dict[str, object]]]:
    """What has no contestant: start-up, and the blocking client beside the asynchronous one."""
    raw: dict[str, list[dict[str, object]]] = {}
    if "startup" in wanted:
        started = startup.measure(server, rounds=3 if is_quick else 10)
        print(f"## Start-up\n\n{startup.report(started)}\n", flush=True)
        raw["startup"] = [asdict(each) for each in started]
    if "blocking_call" in wanted:
        turns = blocking_call.measure(server, loops, rounds=1 if is_quick else min(rounds, 3))
        print(f"## Blocking call\n\n{blocking_call.report(turns)}\n", flush=True)
        raw["blocking_call"] = [asdict(each) for each in turns]
    return raw


def _alone(loops: Sequence[str], wanted: set[str], *, is_quick: bool) -> dict[str, object]:
    """What starts servers of its own."""
    raw: dict[str, object] = {}
    rounds = 1 if is_quick else 3
    if "pacing" in wanted:
        paced = pacing.measure(loops, rounds=rounds, seconds=2 if is_quick else 5)
        print(f"## Pacing\n\n{pacing.report(paced)}\n", flush=True)
        raw["pacing"] = [asdict(each) for each in paced]
    if "attachments" in wanted:
        sent = attachments.measure(loops, rounds=rounds, mebibytes=5 if is_quick else 50)
        print(f"## Attachments\n\n{attachments.report(sent)}\n", flush=True)
        sizes = (5,) if is_quick else attachments.LEDGER_SIZES
        stored = attachments.measure_ledgers(loops, rounds=rounds, sizes=sizes)
        print(f"With a ledger:\n\n{attachments.report(stored)}\n", flush=True)
        raw["attachments"] = [asdict(each) for each in (*sent, *stored)]
    if "listing" in wanted:
        listed = listing.measure(loops, rounds=rounds, items=10_000 if is_quick else 100_000)
        print(f"## Listing\n\n{listing.report(listed)}\n", flush=True)
        raw["listing"] = [asdict(each) for each in listed]
    if "workers" in wanted:
        worked = _workers(rounds=rounds, is_quick=is_quick)
        raw["workers"] = [[asdict(each) for each in pair] for pair in worked]
    if "faults" in wanted:
        card = asyncio.run(scorecard.measure())
        print(f"## One lost answer\n\n{scorecard.report(card)}\n", flush=True)
        raw["faults"] = asdict(card)
    return raw


def _workers(*, rounds: int, is_quick: bool) -> Sequence[tuple[workers.Worked, workers.Worked]]:
    """What a second worker gains; nothing where PostgreSQL or the extra is missing."""
    try:
        from benchmarks import workers
    except ImportError as missing:
        print(f"## Workers\n\n- Missing: {missing.name} (pip install -e '.[test]').\n", flush=True)
        return []
    worked = workers.measure(rounds=rounds, targets=800 if is_quick else workers.TARGETS)
    print(f"## Workers\n\n{workers.report(worked)}\n", flush=True)
    return worked


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["all", *CHOICES], default="all")
    parser.add_argument("--targets", type=int, help="how many targets a large run with a ledger has (default 10**6)")
    parser.add_argument(
        "--ledgers", nargs="+", choices=[ledger.SQLITE, ledger.POSTGRES], default=[ledger.SQLITE], help="of large runs"
    )
    parser.add_argument("--quick", action="store_true", help="short rounds at 32 workers and small sizes, no faults")
    parser.add_argument("--rounds", type=int, help="how often each contestant has its turn (default 5)")
    parser.add_argument("--seconds", type=float, help="how long a turn is, warming up aside (default 1.5)")
    parser.add_argument("--workers", type=int, nargs="+", help="how many at a time (default 32 256 1024)")
    parser.add_argument("--json", type=Path, help="write the raw samples to this file")
    parser.add_argument("--plots", action="store_true", help="draw benchmarks/plots/*.svg from this run")
    return parser.parse_args(arguments)


def _setting(server: Server, loops: Sequence[str]) -> str:
    pair = cores()
    where = f"Clients on core {pair[0]}, the server on core {pair[1]}" if pair else "Nothing is pinned to a core"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    lines = [
        f"{where}{load}.",
        f"Server: {server.name}. Loops: {', '.join(loops)}.",
        "Contestants: " + "; ".join(name for name, peer in PEERS.items() if not peer.missing()) + ".",
    ]
    lines += [f"Missing: {peer.name} ({peer.missing()})." for peer in PEERS.values() if peer.missing()]
    if len(loops) == 1:
        lines.append("Missing: uvloop (pip install uvloop).")
    if shutil.which("nginx") is None:
        lines.append("Missing: nginx (apt install nginx); Python answers instead, and may be what bounds the fastest.")
    return "\n".join(f"- {line}" for line in lines)


def _listed(failures: Sequence[str]) -> str:
    return "".join(f"- Failed: {failure}\n" for failure in failures) + ("\n" if failures else "")


if __name__ == "__main__":
    main()

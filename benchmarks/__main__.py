"""``python -m benchmarks``: every measurement of the project, as Markdown tables. ``--quick``: under a minute.

``URLLIB3_NO_OVERRIDE=1 pip install -e '.[benchmarks]' --no-binary urllib3-future`` installs the Python peers. A plain
install lets niquests replace the urllib3 of requests. nginx and wrk are system packages. Missing contestants are
reported and left out. ``python -m benchmarks --plots`` measures everything and draws the README's plots.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import fanout, growth, ledger, plots, single_call, sync_overhead
from benchmarks.contestants import PEERS
from benchmarks.machine import cores, describe
from benchmarks.server import Server, provider


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    wanted = ["fanout", "single_call", "sync_overhead", "growth", "ledger"] if options.what == "all" else [options.what]
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = options.seconds or (0.3 if options.quick else 1.5)
    loops = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]
    records: list[fanout.Record] = []
    grown: list[growth.Growth] = []
    with provider() as server:
        print(f"# Benchmarks\n\n{_setting(server, loops)}\n")
        print(f"{'One round' if rounds == 1 else f'{rounds} rounds'}, {seconds:g} s a contestant, in turns.\n")
        if "fanout" in wanted:
            workers = options.workers or ([32] if options.quick else fanout.WORKERS)
            entered = fanout.contestants(fanout.FAN_OUT_PEERS, loops)
            records, failures = fanout.compare(server, entered, workers=workers, rounds=rounds, seconds=seconds)
            print(f"## Fan-out\n\n{fanout.report(records, server)}\n{_listed(failures)}")
            print(f"## Own cost\n\n{fanout.own_cost(records)}\n", flush=True)
        if "single_call" in wanted:
            workers = options.workers if options.what == "single_call" and options.workers else [1]
            taken, failures = single_call.measure(
                server, loops, rounds=1 if options.quick else rounds, seconds=seconds, workers=workers
            )
            print(
                f"## Calls\n\n{fanout.report(taken, server)}\n{_listed(failures)}{fanout.own_cost(taken)}\n", flush=True
            )
        if "growth" in wanted:
            sizes = [10**power for power in range(3, 5 if options.quick else 7)]
            grown = growth.measure(server, loops[-1], sizes=sizes, rounds=min(rounds, 3))
            print(f"## Growth, on {loops[-1]}, {growth.WORKERS} workers\n\n{growth.report(grown)}\n", flush=True)
        if "ledger" in wanted:
            counts = options.workers or ([256] if options.quick else ledger.WORKERS)
            size = options.targets or (10_000 if options.quick else 1_000_000)
            costs = ledger.launch_costs(server, loops[-1:], workers=counts, rounds=min(rounds, 3), targets=20_000)
            print(f"## Ledger\n\n{costs}\n", flush=True)
            for kind in options.ledgers:
                print(f"{ledger.large_run(server, loops[-1], kind=kind, targets=size)}\n", flush=True)
        measured_on = f"{describe()}; one core for the client, one for {server.name}"
    if "sync_overhead" in wanted:
        print("## The blocking face\n")
        sync_overhead.main([])
    if options.json is not None:
        raw = {"on": measured_on, "records": [asdict(r) for r in records], "growth": [asdict(g) for g in grown]}
        options.json.write_text(json.dumps(raw), encoding="utf-8")
    if options.plots:
        for path in plots.draw(records, grown, measured_on):
            print(f"drawn: {path} ({path.stat().st_size / 1000:.0f} kB)")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=["all", "fanout", "single_call", "sync_overhead", "growth", "ledger"], default="all"
    )
    parser.add_argument(
        "--targets", type=int, help="how many targets a large run with a ledger has (default a million)"
    )
    parser.add_argument(
        "--ledgers", nargs="+", choices=[ledger.SQLITE, ledger.POSTGRES], default=[ledger.SQLITE], help="of large runs"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two short rounds at 32 workers: all of it in under a minute"
    )
    parser.add_argument("--rounds", type=int, help="how often each contestant has its turn (default 5)")
    parser.add_argument("--seconds", type=float, help="how long a turn is, warming up aside (default 1.5)")
    parser.add_argument("--workers", type=int, nargs="+", help="how many at a time (default 32 256 1024)")
    parser.add_argument("--json", type=Path, help="write the raw samples to this file")
    parser.add_argument("--plots", action="store_true", help="draw benchmarks/plots/*.svg from this run")
    return parser.parse_args(arguments)


def _setting(server: Server, loops: Sequence[str]) -> str:
    pair = cores()
    where = f"clients on core {pair[0]}, the server on core {pair[1]}" if pair else "nothing is pinned to a core"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    lines = [
        f"{describe()}; {where}{load}.",
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

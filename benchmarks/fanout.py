"""Throughput of many workers, and CPU time a request, of dispatchkit and of its peers: in turns, in one run.

Every figure is a median over rounds. Every ratio compares contestants of the same round, since they share most of the
machine's noise. The base is ``aiohttp, default`` on the same event loop, or on asyncio for contestants without a loop.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.contestants import CURL, DEFAULT, FLOOR, OUR_CALLS, OURS, PEERS, REQWEST, TUNED, WRK, Peer, sample
from benchmarks.machine import table
from benchmarks.server import Server
from benchmarks.task import Sample

WORKERS = (32, 256, 1024)


@dataclass(frozen=True)
class Record(Sample):
    """A sample with its contestant, loop, workers and round."""

    peer: str
    loop: str
    workers: int
    round: int

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def cost(self) -> float:
        """CPU microseconds a request."""
        return self.cpu / self.requests * 1e6


@dataclass(frozen=True)
class Row:
    """The medians of one contestant over all rounds."""

    peer: str
    loop: str
    workers: int
    ratio: float
    """Of requests a second."""
    least: float
    most: float
    cpu_ratio: float
    cpu_least: float
    cpu_most: float
    cost: float
    least_cost: float
    """Other processes on the machine only add to it."""
    rate: float
    busy: float | None
    """The share of its core that the server used."""


def contestants(peers: Iterable[Peer], loops: Sequence[str]) -> list[tuple[str, str]]:
    """The installed contestants, once for each event loop."""
    return [(peer.name, loop) for peer in peers if not peer.missing() for loop in peer.loops if loop in {"", *loops}]


def compare(
    server: Server, entered: Sequence[tuple[str, str]], *, workers: Iterable[int], rounds: int, seconds: float
) -> tuple[list[Record], list[str]]:
    """The samples of all rounds, and the failures. A failed contestant is left out of the later rounds of its size."""
    records: list[Record] = []
    failures: list[str] = []
    for count in workers:
        running = list(entered)
        for turn in range(rounds):
            for peer, loop in running[:]:
                print(
                    f"\r{count} workers, round {turn + 1} of {rounds}: {peer:22}", end="", file=sys.stderr, flush=True
                )
                try:
                    taken = sample(peer, loop, server, workers=count, seconds=seconds)
                except RuntimeError as error:
                    running.remove((peer, loop))
                    failures.append(f"{peer}{loop and f' on {loop}'}, {count} workers: {error}")
                else:
                    records.append(Record(peer=peer, loop=loop, workers=count, round=turn, **vars(taken)))
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)
    return records, failures


def rows(records: Sequence[Record]) -> list[Row]:
    """One for each contestant and number of workers, in the order of the contestants."""
    by_key: dict[tuple[int, str, str], list[Record]] = {}
    for record in records:
        by_key.setdefault((record.workers, record.peer, record.loop), []).append(record)
    made: list[Row] = []
    for (workers, peer, loop), taken in by_key.items():
        base = {record.round: record for record in by_key.get((workers, DEFAULT, loop or "asyncio"), [])}
        pairs = [(record, base[record.round]) for record in taken if record.round in base]
        if not pairs:
            continue
        ratios = [record.rate / default.rate for record, default in pairs]
        costs = [record.cost / default.cost for record, default in pairs]
        made.append(
            Row(
                peer,
                loop,
                workers,
                ratio=statistics.median(ratios),
                least=min(ratios),
                most=max(ratios),
                cpu_ratio=statistics.median(costs),
                cpu_least=min(costs),
                cpu_most=max(costs),
                cost=statistics.median(record.cost for record in taken),
                least_cost=min(record.cost for record in taken),
                rate=statistics.median(record.rate for record in taken),
                busy=None
                if taken[0].server_cpu is None
                else statistics.median((record.server_cpu or 0) / record.seconds for record in taken),
            )
        )
    return made


def report(records: Sequence[Record], server: Server) -> str:
    """The tables: ratios first."""
    made = rows(records)
    parts: list[str] = []
    for workers in dict.fromkeys(row.workers for row in made):
        for loop in ("asyncio", "uvloop", ""):
            these = [row for row in made if (row.workers, row.loop) == (workers, loop)]
            if these:
                where = loop or "no Python event loop (ratios to asyncio)"
                parts.append(f"### Workers: {workers:,}; {where}\n")
                parts.append(_table(sorted(these, key=lambda row: -row.ratio)) + "\n")
        headroom = _headroom([row for row in made if row.workers == workers], server)
        if headroom:
            parts.append(headroom + "\n")
    return "\n".join(parts)


def _table(made: Sequence[Row]) -> str:
    cost = ["CPU x default", "CPU us a request", "least"]
    return table(
        ["contestant", "x default", "spread", *cost, "requests/s", "server busy"],
        [
            [
                row.peer,
                f"{row.ratio:.2f}",
                f"{row.least:.2f} to {row.most:.2f}",
                f"{row.cpu_ratio:.2f}",
                f"{row.cost:.1f}",
                f"{row.least_cost:.1f}",
                f"{row.rate:,.0f}",
                "?" if row.busy is None else f"{row.busy:.0%}",
            ]
            for row in made
        ],
    )


def _headroom(made: Sequence[Row], server: Server) -> str:
    """Whether the server was the bottleneck."""
    gauges = [row for row in made if row.peer in {WRK, FLOOR}]
    clients = [row for row in made if row.peer not in {WRK, FLOOR}]
    if not gauges or not clients:
        return ""
    gauge = max(gauges, key=lambda row: row.rate)
    fastest = max(clients, key=lambda row: row.rate)
    busiest = max(clients, key=lambda row: row.busy or 0)
    share = "" if busiest.busy is None else f" No client kept it busier than {busiest.busy:.0%} ({busiest.peer})."
    return (
        f"The server ({server.name}) answered {gauge.peer} {gauge.rate / fastest.rate:.1f} times as fast as the "
        f"fastest client, {fastest.peer}.{share}"
    )


def own_cost(records: Sequence[Record]) -> str:
    """CPU microseconds a request beyond those of tuned aiohttp, in the same round on the same loop."""
    cells: list[list[str]] = []
    for peer in (OURS, OUR_CALLS):
        for loop, workers in dict.fromkeys((r.loop, r.workers) for r in records if r.peer == peer):
            pairs = _pairs(records, peer, TUNED, loop, workers)
            if pairs:
                own = [ours.cost - tuned.cost for ours, tuned in pairs]
                share = statistics.median(ours.cost / tuned.cost for ours, tuned in pairs)
                spread = f"{min(own):.1f} to {max(own):.1f}"
                cells.append([peer, loop, f"{workers:,}", f"{share:.2f}", f"{statistics.median(own):.1f}", spread])
    return table(["", "loop", "workers", "CPU x tuned", "own CPU us a request", "spread"], cells)


def beside(records: Sequence[Record]) -> str:
    """dispatchkit divided by the clients in Rust and C, in the same round on the same loop.

    pycurl has no Python event loop: dispatchkit on each loop is divided by it.
    """
    cells: list[list[str]] = []
    for peer in (REQWEST, CURL):
        for loop, workers in dict.fromkeys((r.loop, r.workers) for r in records if r.peer == OURS):
            pairs = _pairs(records, OURS, peer, loop, workers)
            if pairs:
                cost = _ratio([ours.cost / theirs.cost for ours, theirs in pairs])
                rate = _ratio([ours.rate / theirs.rate for ours, theirs in pairs])
                cells.append([f"dispatchkit / {peer}", loop, f"{workers:,}", *cost, *rate])
    return table(["", "loop", "workers", "CPU x", "spread", "requests/s x", "spread"], cells)


def _pairs(records: Sequence[Record], peer: str, other: str, loop: str, workers: int) -> list[tuple[Record, Record]]:
    """The records of a contestant on a loop, each with another one's of the same round."""
    by_round = {r.round: r for r in records if r.peer == other and r.workers == workers and r.loop in {loop, ""}}
    return [
        (r, by_round[r.round])
        for r in records
        if (r.peer, r.loop, r.workers) == (peer, loop, workers) and r.round in by_round
    ]


def _ratio(ratios: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"


FAN_OUT_PEERS = [peer for peer in PEERS.values() if peer.name != OUR_CALLS]

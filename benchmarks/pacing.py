"""A paced fan-out: the rate that arrives, the gaps between requests as the provider sees them, and the CPU time.

The provider notes when each request arrives. The first second is left out, since a run begins with one call. Run as a
module, it is one fan-out.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import child
from benchmarks.machine import cores, table
from benchmarks.server import Starts, on_a_thread
from benchmarks.task import FIRST, TOKEN

RATES = (1000, 5000)
WORKERS = 64
WARM = 1.0
"""Seconds that are left out at the beginning."""


@dataclass(frozen=True)
class Paced:
    """One fan-out at one rate."""

    loop: str
    rate: int
    achieved: float
    """Requests a second that arrived."""
    cpu: float
    """The share of a core that the client used."""
    p99_gap: float
    """Seconds between two requests as they arrive: 99 % are at most so far apart."""
    longest_gap: float


_arrivals: list[float] = []


class _Noting(Starts):
    """Notes when each request arrives."""

    def data_received(self, data: bytes) -> None:
        _arrivals.extend([time.perf_counter()] * data.count(b"\r\n\r\n"))
        super().data_received(data)


def measure(loops: Sequence[str], *, rounds: int, seconds: float, rates: Sequence[int] = RATES) -> list[Paced]:
    """Every rate on every loop, in turns, in fresh processes."""
    taken: list[Paced] = []
    pair = cores()
    with on_a_thread(_Noting, core=pair and pair[1]) as url:
        for _ in range(rounds):
            for rate in rates:
                for loop in loops:
                    _arrivals.clear()
                    cpu = child.run("benchmarks.pacing", [loop, url, rate, seconds], limit=60 + 3 * seconds)
                    taken.append(_paced(loop, rate, cpu, sorted(_arrivals)))
    return taken


def _paced(loop: str, rate: int, cpu: float, arrivals: Sequence[float]) -> Paced:
    steady = [moment for moment in arrivals if moment >= arrivals[0] + WARM]
    gaps = sorted(after - before for before, after in itertools.pairwise(steady))
    achieved = len(gaps) / (steady[-1] - steady[0])
    return Paced(loop, rate, achieved, cpu, gaps[int(len(gaps) * 0.99)], gaps[-1])


def report(taken: Sequence[Paced]) -> str:
    """The table, with medians over the rounds. Other processes only lengthen gaps, so the best round is shown too."""
    cells: list[list[str]] = []
    for rate, loop in dict.fromkeys((each.rate, each.loop) for each in taken):
        these = [each for each in taken if (each.rate, each.loop) == (rate, loop)]
        shares = sorted(each.cpu for each in these)
        cells.append(
            [
                f"{rate:,}/s on {loop}",
                f"{statistics.median(each.achieved for each in these):,.0f}",
                f"{max(each.achieved for each in these):,.0f}",
                f"{statistics.median(shares):.1%}",
                f"{shares[0]:.1%} to {shares[-1]:.1%}",
                f"{1e6 / rate:,.0f}",
                f"{statistics.median(each.p99_gap for each in these) * 1e6:,.0f}",
                f"{min(each.p99_gap for each in these) * 1e6:,.0f}",
                f"{statistics.median(each.longest_gap for each in these) * 1e3:.1f}",
            ]
        )
    gaps = ["even gap, us", "p99 gap, us", "best p99", "longest gap, ms"]
    return table(["", "achieved/s", "best", "CPU of a core", "spread", *gaps], cells)


async def _fan_out(url: str, rate: int, seconds: float) -> float:
    from dispatchkit import DirectClient, FanOut, Pace, StartDispatch

    marks: list[tuple[float, float]] = []

    def starts() -> Iterator[StartDispatch]:
        began = time.perf_counter()
        for number in range(FIRST, FIRST + round(rate * (WARM + seconds))):
            if not marks and time.perf_counter() >= began + WARM:
                marks.append((time.perf_counter(), time.process_time()))
            yield StartDispatch(number)
        marks.append((time.perf_counter(), time.process_time()))

    async with DirectClient(TOKEN, base_url=url, pace=Pace(rate=rate)) as direct:
        report = await FanOut(direct, starts(), concurrency=WORKERS).finish()
    assert report.done == report.total, report
    (began, cpu), (ended, used) = marks
    return (used - cpu) / (ended - began)


def _main() -> None:
    loop, url, rate, seconds = sys.argv[1:]
    print(json.dumps(child.run_on(loop, lambda: _fan_out(url, int(rate), float(seconds)))))


if __name__ == "__main__":
    _main()

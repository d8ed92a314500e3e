"""One call at a time: `DirectClient.start` and a `FanOut` of one worker beside plain aiohttp.

Shows requests a second and CPU time as ratios to aiohttp with its default settings. A second table has the CPU
microseconds of a call beyond those of tuned aiohttp. Both compare within a round, on the same event loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.contestants import DEFAULT, OUR_CALLS, OURS, PEERS, TUNED
from benchmarks.fanout import Record, compare, contestants
from benchmarks.server import Server


def measure(
    server: Server, loops: Sequence[str], *, rounds: int, seconds: float, workers: Sequence[int]
) -> tuple[list[Record], list[str]]:
    """The samples, as `compare` takes them."""
    entered = contestants((PEERS[name] for name in (OURS, OUR_CALLS, DEFAULT, TUNED)), loops)
    return compare(server, entered, workers=workers, rounds=rounds, seconds=seconds)

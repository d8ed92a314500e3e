"""The overhead of `dispatchkit.sync`: one call against a bare hop to a loop thread, and the results a second.

Both sides of the comparison run on the same loop thread, in turns. The ratio is the median of
the turns' ratios. Run it with ``python -m benchmarks.sync_overhead``; ``--loop asyncio`` leaves uvloop out.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence

from dispatchkit import DirectClient, Done, FanOut, Outcome, StartDispatch
from dispatchkit.sync import portal
from dispatchkit.sync.client import SyncClient, blocking_many

TURNS = 40
HOPS = 1000
RESULTS = 200_000


def _seconds(work: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def bare_hop(loop: asyncio.AbstractEventLoop) -> None:
    """To the thread of a loop and back, by the cheapest means of asyncio and threading."""
    over = threading.Lock()
    over.acquire()
    loop.call_soon_threadsafe(over.release)
    over.acquire()


def calls() -> tuple[float, float, float]:
    """Seconds of a bare hop, seconds of a synchronous call, and the ratio of the two."""

    class Instant:
        async def close(self) -> None:
            pass

        async def call(self) -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

    client = Instant()
    handle = portal.PortalHandle(client)
    # Both use one loop thread. A hop costs 16 us or 55 us, depending on the cores of the two threads.
    loop = handle.run(client.call, "call")

    def hop() -> None:
        bare_hop(loop)

    def call() -> None:
        handle.run(client.call, "call")

    _seconds(hop, HOPS), _seconds(call, HOPS)
    turns = [(_seconds(hop, HOPS), _seconds(call, HOPS)) for _ in range(TURNS)]
    handle.close()
    return (
        statistics.median(bare for bare, _ in turns),
        statistics.median(face for _, face in turns),
        statistics.median(face / bare for bare, face in turns),
    )


def results() -> float:
    """Results a second that reach a blocking caller, from a provider that answers at once."""
    outcome: Outcome[object] = Done(0, StartDispatch(1), None)

    class Instant(FanOut[object]):
        """Replaces the asynchronous fan-out, whose cost is measured elsewhere."""

        def __init__(self, client: DirectClient) -> None:
            super().__init__(client, [])
            self.left = RESULTS

        async def batch(self, most: int = 1024) -> list[Outcome[object]]:
            count = min(most, self.left)
            self.left -= count
            await asyncio.sleep(0)
            return [outcome] * count

        async def close(self, *, timeout: float | None = None) -> None:
            pass

        def stop(self) -> None:
            pass

    def instant(client: DirectClient, dispatch_ids: Sequence[int]) -> FanOut[object]:
        assert not dispatch_ids
        return Instant(client)

    class Blocking(SyncClient[DirectClient]):
        instant_many = blocking_many(instant)

    with Blocking(DirectClient("token")) as client:
        fan_out = client.instant_many([])
        began = time.perf_counter()
        assert sum(1 for _ in fan_out) == RESULTS
        elapsed = time.perf_counter() - began
    return RESULTS / elapsed


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What the blocking face costs.")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], help="default: uvloop where it is installed")
    if parser.parse_args(arguments).loop == "asyncio":
        portal.new_event_loop = asyncio.new_event_loop
    loop = portal.new_event_loop.__module__.partition(".")[0]
    bare, face, ratio = calls()
    print(f"python {sys.version.split()[0]}, {loop}")
    print(f"a bare hop {bare * 1e6:.1f} us, a call {face * 1e6:.1f} us, ratio {ratio:.2f}")
    print(f"results across the thread: {results():,.0f} a second")


if __name__ == "__main__":
    main()

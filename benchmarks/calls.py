"""What a call costs on the way on which nothing fails, against aiohttp by hand, in the same run and in turns.

- ``default``: an aiohttp worker loop as most people write it: a default session, ``async with``, ``json()``.
- ``tuned``: the same with everything off that can be: no total time-out, no limit, ``read()``.
- ``start``: `DirectClient.start`: the deadline, the witness, the pace, judging, strict reading.
- ``fan-out``: `FanOut` over the same client.

Figures are CPU microseconds of this process a request (the machine is noisy, the CPU time less so) and requests a
second; what counts is the ratio.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import aiohttp

from benchmarks.server import provider
from dispatchkit import DirectClient, FanOut, StartDispatch

HEADERS = {"Authorization": "Basic a2V5OmtleQ=="}
Run = Callable[[int, int], Awaitable[None]]


async def _workers(work: Callable[[int], Awaitable[object]], requests: int, workers: int) -> None:
    numbers = iter(range(1, requests + 1))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(worker() for _ in range(workers)))


async def compare(url: str, *, requests: int, workers: int, turns: int) -> dict[str, tuple[float, float]]:
    """CPU microseconds a request and requests a second of each candidate: the medians of the turns."""
    untimed = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession() as plain,
        aiohttp.ClientSession(timeout=untimed, connector=aiohttp.TCPConnector(limit=0)) as bare,
        DirectClient("a2V5OmtleQ==", base_url=url) as direct,
    ):

        async def default(number: int) -> None:
            async with plain.post(f"{url}/api/v1/dispatch/{number}/start", headers=HEADERS) as response:
                response.raise_for_status()
                await response.json()

        async def tuned(number: int) -> None:
            address = f"{url}/api/v1/dispatch/{number}/start"
            response = await bare.post(address, headers=HEADERS, allow_redirects=False)
            await response.read()

        async def fan_out(requests: int, workers: int) -> None:
            commands = (StartDispatch(number) for number in range(1, requests + 1))
            report = await FanOut(direct, commands, concurrency=workers).finish()
            assert report.done == requests, report

        candidates: dict[str, Run] = {
            "default": lambda requests, workers: _workers(default, requests, workers),
            "tuned": lambda requests, workers: _workers(tuned, requests, workers),
            "start": lambda requests, workers: _workers(direct.start, requests, workers),
            "fan-out": fan_out,
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
        for turn in range(turns + 1):
            for name, run in candidates.items():
                cpu, began = time.process_time(), time.perf_counter()
                await run(requests, workers)
                if turn:  # the first opens the connections
                    elapsed = time.perf_counter() - began
                    taken[name].append(((time.process_time() - cpu) / requests * 1e6, requests / elapsed))
    return {
        name: tuple(statistics.median(column) for column in zip(*rows, strict=True)) for name, rows in taken.items()
    }  # type: ignore[misc]


def main(*, quick: bool) -> None:
    """Print a table a loop."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop  # noqa: PLC0415 - an extra

        loops["uvloop"] = uvloop.new_event_loop
    except ImportError:
        print("uvloop is not installed: pip install 'dispatchkit[speed]'")
    requests, turns = (2000, 5) if quick else (5000, 15)
    print(f"{'':22}{'CPU us a request':>18}{'requests/s':>12}{'of default':>12}{'of tuned':>10}{'own CPU us':>12}")
    with provider() as url:
        for name, factory in loops.items():
            for workers in (1, 32, 256):
                with asyncio.Runner(loop_factory=factory) as runner:
                    rows = runner.run(compare(url, requests=requests, workers=workers, turns=turns))
                for candidate, (cpu, rate) in rows.items():
                    print(
                        f"{name:8}{workers:5} {candidate:8}{cpu:18.1f}{rate:12,.0f}{rate / rows['default'][1]:12.2f}"
                        f"{rate / rows['tuned'][1]:10.2f}{cpu - rows['tuned'][0]:12.1f}"
                    )

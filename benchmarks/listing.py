"""The longest times for which a long list of dispatches keeps an event loop from its other work.

A task of the same loop notes the CPU time between two of its turns. The server is another process. Run it with
``python -m benchmarks.listing``; ``--dispatches 350000`` is the longest list that a client reads.

After the list was read, the interpreter looks once through all objects of the process. That takes 3 us a dispatch, like
any other collection while the list is kept, and is shown apart.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from dispatchkit import DirectClient

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_SHOWN = 5
_AFTER = 0.5
"""Seconds for which the loop is watched after the list was read: a collection of garbage is due then."""


def body(count: int) -> bytes:
    """A list of dispatches, as the provider's page shows one."""
    counts = {"total": 1235, "delivered": 1000, "undelivered": 100, "unsent": 30, "sent": 45, "sending": 60}
    files = {"included": {"type": "FILE", "name": "a.xlsx"}, "excluded": {"type": "FILE", "name": "b.xlsx"}}
    item = {
        "dispatchName": "имя рассылки", "created": "2020-07-07T20:00:00Z", "localSendTime": "2020-07-08 10:00:00",
        "localCompletionTime": "2020-07-08 20:00:00", "useLocalTime": True, "status": "sending", "source": "sender",
        "message": "текст сообщения", "trafficCenterId": 12, "trafficCenterName": "ЦРТ для рассылок", "base": files,
        "parts": counts, "messages": counts,
    }  # fmt: skip
    rest = json.dumps(item, ensure_ascii=False).removeprefix("{")
    items = ", ".join(f'{{"dispatchId": {10_000_000_000 + number}, {rest}' for number in range(count))
    return f'{{"total": {count}, "items": [{items}]}}'.encode()


def _serve(count: int, ready: Connection) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(_HEAD % len(data))
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    data = body(count)
    with suppress(KeyboardInterrupt):
        asyncio.run(serve())


async def blocks(url: str, count: int) -> tuple[float, list[float], float]:
    """Seconds to read the list, the longest blocks until then, and the longest one afterwards."""
    gaps: list[float] = []
    began = time.perf_counter()

    async def watch() -> None:
        last = time.thread_time()
        while True:
            # Other work of the loop makes objects, which the garbage collector counts.
            [[] for _ in range(1000)]
            await asyncio.sleep(0)
            now = time.thread_time()
            gaps.append(now - last)
            last = now

    async with DirectClient("token", base_url=url) as direct:
        watching = asyncio.create_task(watch())
        listing = await direct.dispatches()
        elapsed = time.perf_counter() - began
        assert len(listing) == count
        await asyncio.sleep(0)
        longest = sorted(gaps, reverse=True)[:_SHOWN]
        gaps.clear()
        await asyncio.sleep(_AFTER)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    return elapsed, longest, max(gaps)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How long a list of dispatches blocks an event loop.")
    parser.add_argument("--dispatches", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], help="default: uvloop where it is installed")
    options = parser.parse_args(arguments)
    factory = asyncio.new_event_loop if options.loop == "asyncio" else new_event_loop
    print(f"python {sys.version.split()[0]}, {factory.__module__.partition('.')[0]}, {options.dispatches:,} dispatches")
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(options.dispatches, sender))
    server.start()
    try:
        url = f"http://127.0.0.1:{receiver.recv()}"
        for _ in range(options.rounds):
            gc.collect()
            with asyncio.Runner(loop_factory=factory) as runner:
                elapsed, longest, later = runner.run(blocks(url, options.dispatches))
            print(
                f"read in {elapsed:.1f} s; longest blocks in ms: {', '.join(f'{gap * 1e3:.1f}' for gap in longest)}; "
                f"afterwards {later * 1e3:.1f}"
            )
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()

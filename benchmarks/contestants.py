"""The contestants. Each sends the same starts under the same headers, checks the status and decodes the answer.

Its documentation tunes each for many requests to one host. Each has a connection per worker, no short timeout, and no
proxies from the environment. Only ``aiohttp, default`` has the default settings.

Run as a module, it is one contestant in its own process, with a `Task` in JSON.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import cast
from urllib.parse import urlsplit

from benchmarks import child
from benchmarks.loopless import pycurl_multi, requests_threads, wrk
from benchmarks.machine import allow_many_files
from benchmarks.server import Server
from benchmarks.task import LIMIT, TOKEN, Contestant, Run, Sample, Starts, Task, headers


def _worker_loop(send: Callable[[int], Awaitable[object]], workers: int) -> Run:
    async def run(starts: Starts) -> None:
        numbers = iter(starts)

        async def worker() -> None:
            for number in numbers:
                await send(number)

        await asyncio.gather(*(worker() for _ in range(workers)))

    return run


@asynccontextmanager
async def fan_out(url: str, workers: int) -> AsyncIterator[Run]:
    """dispatchkit with every policy on: deadline, send tracking, pace, breaker, judging, strict reading, outcomes."""
    from dispatchkit import DirectClient, FanOut, StartDispatch

    async with DirectClient(TOKEN, base_url=url) as direct:

        async def run(starts: Starts) -> None:
            report = await FanOut(direct, map(StartDispatch, starts), concurrency=workers).finish()
            assert report.done == starts.taken, report

        yield run


@asynccontextmanager
async def calls(url: str, workers: int) -> AsyncIterator[Run]:
    """``await direct.start(id)``, in a worker loop."""
    from dispatchkit import DirectClient

    async with DirectClient(TOKEN, base_url=url) as direct:
        yield _worker_loop(direct.start, workers)


@asynccontextmanager
async def aiohttp_default(url: str, workers: int) -> AsyncIterator[Run]:
    """The usual loop over one session, whose default limit is 100 connections."""
    import aiohttp

    async with aiohttp.ClientSession(
        headers=headers(), skip_auto_headers=("Accept-Encoding", "Content-Type")
    ) as session:

        async def send(number: int) -> None:
            async with session.post(f"{url}/api/v1/dispatch/{number}/start") as response:
                response.raise_for_status()
                await response.json()

        yield _worker_loop(send, workers)


@asynccontextmanager
async def aiohttp_tuned(url: str, workers: int) -> AsyncIterator[Run]:
    """aiohttp with every optional feature turned off."""
    import aiohttp
    from yarl import URL

    base = URL(url)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers(),
        skip_auto_headers=("Accept-Encoding", "Content-Type"),
        auto_decompress=False,
    ) as session:

        async def send(number: int) -> None:
            address = base.with_path(f"/api/v1/dispatch/{number}/start", encoded=True)
            response = await session.post(address, allow_redirects=False)
            body = await response.read()
            assert response.status == 200
            json.loads(body)

        yield _worker_loop(send, workers)


@asynccontextmanager
async def httpx_async(url: str, workers: int) -> AsyncIterator[Run]:
    import httpx

    limits = httpx.Limits(max_connections=workers, max_keepalive_connections=workers)
    async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as client:
        client.headers.clear()
        client.headers.update(headers())

        async def send(number: int) -> None:
            response = await client.post(f"{url}/api/v1/dispatch/{number}/start")
            response.raise_for_status()
            response.json()

        yield _worker_loop(send, workers)


@asynccontextmanager
async def niquests_async(url: str, workers: int) -> AsyncIterator[Run]:
    import niquests

    async with niquests.AsyncSession(pool_connections=1, pool_maxsize=workers, timeout=LIMIT) as session:
        session.trust_env = False
        session.headers.clear()
        session.headers.update(headers())

        async def send(number: int) -> None:
            response = await session.post(f"{url}/api/v1/dispatch/{number}/start")
            response.raise_for_status()
            response.json()

        yield _worker_loop(send, workers)


@asynccontextmanager
async def pyreqwest_async(url: str, workers: int) -> AsyncIterator[Run]:
    from pyreqwest.client import ClientBuilder

    builder = ClientBuilder().default_headers(headers()).no_proxy().error_for_status(True)
    builder = builder.gzip(False).brotli(False).zstd(False).deflate(False).pool_max_idle_per_host(workers)
    async with builder.build() as client:

        async def send(number: int) -> None:
            response = await client.post(f"{url}/api/v1/dispatch/{number}/start").build().send()
            await response.json()

        yield _worker_loop(send, workers)


@asynccontextmanager
async def bare_protocol(url: str, workers: int) -> AsyncIterator[Run]:
    """The floor: bytes into a socket, and of the answer only where it ends. One request at a time a connection."""
    split = urlsplit(url)
    host, port = split.hostname, split.port
    assert host is not None
    assert port is not None
    lines = [f"Host: {split.netloc}", *(f"{name}: {text}" for name, text in headers().items()), "Content-Length: 0"]
    before, after = b"POST /api/v1/dispatch/", ("/start HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode()

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            stream = cast("asyncio.Transport", transport)  # uvloop's is of no such class
            self.write, self.close = stream.write, stream.close
            self.pending = b""

        def begin(self, numbers: Iterator[int]) -> asyncio.Future[None]:
            self.numbers = numbers
            self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.next()
            return self.over

        def next(self) -> None:
            number = next(self.numbers, None)
            if number is None:
                self.over.set_result(None)
            else:
                self.write(b"%b%d%b" % (before, number, after))

        def data_received(self, data: bytes) -> None:
            self.pending += data
            head, end, body = self.pending.partition(b"\r\n\r\n")
            if not end:
                return
            length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            if len(body) < length:
                return
            assert head.startswith(b"HTTP/1.1 200")
            json.loads(body)
            self.pending = b""
            self.next()

        def connection_lost(self, error: Exception | None) -> None:
            if not self.over.done():
                self.over.set_exception(error or ConnectionError("the server closed"))

    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(Connection, host, port) for _ in range(workers)]

    async def run(starts: Starts) -> None:
        numbers = iter(starts)
        await asyncio.gather(*(connection.begin(numbers) for _, connection in made))

    yield run
    for _, connection in made:
        connection.close()


def _not_its_own() -> str | None:
    """Check urllib3: niquests may replace it with its own fork, which requests does not support."""
    import urllib3

    if urllib3.__version__ == importlib.metadata.version("urllib3"):
        return None
    return (
        "niquests replaced its urllib3: URLLIB3_NO_OVERRIDE=1 pip install --no-binary urllib3-future niquests urllib3"
    )


@dataclass(frozen=True)
class Peer:
    """A contestant: its name in tables, its requirement, and how to install it."""

    name: str
    contestant: Contestant | None
    needs: str = "aiohttp"
    loops: tuple[str, ...] = ("asyncio", "uvloop")

    def missing(self) -> str | None:
        """The missing requirement; None if it is installed."""
        if self.contestant is None:
            return None if shutil.which(self.needs) else f"apt install {self.needs}"
        if not importlib.util.find_spec(self.needs):
            return f"pip install {self.needs}"
        return _not_its_own() if self.needs == "requests" else None


OURS = "dispatchkit FanOut"
OUR_CALLS = "dispatchkit calls"
DEFAULT = "aiohttp, default"
TUNED = "aiohttp, tuned"
REQWEST = "pyreqwest"
CURL = "pycurl multi"
FLOOR = "bare protocol"
WRK = "wrk (C)"

PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, fan_out),
        Peer(OUR_CALLS, calls),
        Peer(DEFAULT, aiohttp_default),
        Peer(TUNED, aiohttp_tuned),
        Peer("httpx", httpx_async, "httpx"),
        Peer("niquests", niquests_async, "niquests"),
        Peer(REQWEST, pyreqwest_async, "pyreqwest"),
        Peer(FLOOR, bare_protocol),
        Peer("requests, threads", requests_threads, "requests", ("",)),
        Peer(CURL, pycurl_multi, "pycurl", ("",)),
        Peer(WRK, None, "wrk", ("",)),
    )
}


def sample(peer: str, loop: str, server: Server, *, workers: int, seconds: float) -> Sample:
    """Run one contestant in a fresh process, on the client's core.

    Raises:
        RuntimeError: It failed, or took too long.
    """
    task = Task(peer, loop, server.url, server.process, workers, seconds)
    return Sample(**child.run("benchmarks.contestants", [json.dumps(asdict(task))], limit=LIMIT))


async def _perform(task: Task) -> Sample:
    contestant = PEERS[task.peer].contestant
    assert contestant is not None
    async with contestant(task.url, task.workers) as run:
        starts = Starts(task)
        await run(starts)
    assert starts.sample is not None
    return starts.sample


def _main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    allow_many_files()
    done = wrk(task) if PEERS[task.peer].contestant is None else child.run_on(task.loop, lambda: _perform(task))
    print(json.dumps(asdict(done)), flush=True)
    os._exit(0)  # skip finalisation: threads of an extension may crash the interpreter


if __name__ == "__main__":
    _main()

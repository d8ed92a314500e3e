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
import re
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from benchmarks import child
from benchmarks.machine import allow_many_files, cpu_seconds
from benchmarks.server import Server

if TYPE_CHECKING:
    import pycurl

TOKEN = "a2V5OmtleQ=="
FIRST = 10_000_000_000
LIMIT = 30.0
"""Seconds that one contestant may take for one task."""


@dataclass(frozen=True)
class Task:
    """The task of a contestant in its process: warm up, then send for some seconds."""

    peer: str
    loop: str
    url: str
    server: int
    workers: int
    seconds: float


@dataclass(frozen=True)
class Sample:
    """The result of a contestant in its process."""

    requests: int
    seconds: float
    cpu: float
    """Seconds of this process alone, on all of its threads."""
    server_cpu: float | None


class Starts:
    """The ids to start, until the time is up. The contestant fails if a taken id gets no answer.

    The measurement starts when every worker has had some answers, and ends before the last answers. So it includes
    neither the connects nor the end of the run.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.taken = 0
        self.sample: Sample | None = None

    def __iter__(self) -> Iterator[int]:
        for _ in range(max(200, 4 * self._task.workers)):
            self.taken += 1
            yield FIRST + self.taken
        warm, server, cpu = self.taken, cpu_seconds(self._task.server), time.process_time()
        began = time.perf_counter()
        end = began + self._task.seconds
        while (now := time.perf_counter()) < end:
            self.taken += 1
            yield FIRST + self.taken
        used = time.process_time() - cpu
        self.sample = Sample(self.taken - warm, now - began, used, _less(cpu_seconds(self._task.server), server))


Run = Callable[[Starts], Awaitable[None]]
Contestant = Callable[[str, int], AbstractAsyncContextManager[Run]]


def headers() -> dict[str, str]:
    """The headers that dispatchkit sends."""
    from dispatchkit.core.command import USER_AGENT

    return {
        "Authorization": f"Basic {TOKEN}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
    }


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


@asynccontextmanager
async def requests_threads(url: str, workers: int) -> AsyncIterator[Run]:
    """One thread a worker, one session a thread. The event loop only waits."""
    import requests

    local = threading.local()
    turn = threading.Lock()

    def session() -> requests.Session:
        made = requests.Session()
        made.trust_env = False
        made.headers.clear()
        made.headers.update(headers())
        return made

    def worker(numbers: Iterator[int]) -> None:
        if not hasattr(local, "session"):
            local.session = session()
        while True:
            with turn:
                number = next(numbers, None)
            if number is None:
                return
            response = local.session.post(f"{url}/api/v1/dispatch/{number}/start")
            response.raise_for_status()
            response.json()

    with ThreadPoolExecutor(workers) as pool:
        loop = asyncio.get_running_loop()

        async def run(starts: Starts) -> None:
            numbers = iter(starts)
            await asyncio.gather(*(loop.run_in_executor(pool, worker, numbers) for _ in range(workers)))

        yield run


class _Curl:
    """libcurl's multi interface with reused handles. It is an event loop of its own, and blocks ours."""

    def __init__(self, url: str, workers: int) -> None:
        import pycurl

        self.url = url
        self.curl = pycurl
        self.selector = selectors.DefaultSelector()
        self.due: float | None = None
        self.bodies: dict[object, BytesIO] = {}
        self.multi = pycurl.CurlMulti()
        self.multi.setopt(pycurl.M_MAXCONNECTS, workers)
        self.multi.setopt(pycurl.M_SOCKETFUNCTION, self.watch)
        self.multi.setopt(pycurl.M_TIMERFUNCTION, self.set_timer)
        self.events = {
            pycurl.POLL_IN: selectors.EVENT_READ,
            pycurl.POLL_OUT: selectors.EVENT_WRITE,
            pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
        }
        self.handles = [pycurl.Curl() for _ in range(workers)]
        for handle in self.handles:
            handle.setopt(pycurl.POST, 1)
            handle.setopt(pycurl.POSTFIELDSIZE, 0)
            handle.setopt(
                pycurl.HTTPHEADER, [*(f"{name}: {text}" for name, text in headers().items()), "Content-Type:"]
            )
            handle.setopt(pycurl.PROXY, "")

    def watch(self, event: int, socket: int, *_: object) -> None:
        known = socket in self.selector.get_map()
        if event == self.curl.POLL_REMOVE:
            if known:
                self.selector.unregister(socket)
        elif known:
            self.selector.modify(socket, self.events[event])
        else:
            self.selector.register(socket, self.events[event])

    def set_timer(self, milliseconds: int) -> None:
        self.due = None if milliseconds < 0 else time.perf_counter() + milliseconds / 1000

    def turn(self) -> None:
        ready = self.selector.select(None if self.due is None else max(0.0, self.due - time.perf_counter()))
        if self.due is not None and time.perf_counter() >= self.due:
            self.due = None
            self.multi.socket_action(self.curl.SOCKET_TIMEOUT, 0)
        for key, events in ready:
            bits = self.curl.CSELECT_IN if events & selectors.EVENT_READ else 0
            bits |= self.curl.CSELECT_OUT if events & selectors.EVENT_WRITE else 0
            self.multi.socket_action(key.fd, bits)

    async def run(self, starts: Starts) -> None:
        numbers = iter(starts)
        busy = sum(self.begin(handle, next(numbers, None)) for handle in self.handles)
        while busy:
            self.turn()
            _, done, failed = self.multi.info_read()
            assert not failed, failed
            for handle in done:
                assert handle.getinfo(self.curl.RESPONSE_CODE) == 200
                json.loads(self.bodies[handle].getvalue())
                self.multi.remove_handle(handle)
                busy -= not self.begin(handle, next(numbers, None))

    def begin(self, handle: pycurl.Curl, number: int | None) -> bool:
        if number is None:
            return False
        self.bodies[handle] = body = BytesIO()
        handle.setopt(self.curl.URL, f"{self.url}/api/v1/dispatch/{number}/start")
        handle.setopt(self.curl.WRITEFUNCTION, body.write)
        self.multi.add_handle(handle)
        return True

    def close(self) -> None:
        for handle in self.handles:
            handle.close()
        self.multi.close()
        self.selector.close()


@asynccontextmanager
async def pycurl_multi(url: str, workers: int) -> AsyncIterator[Run]:
    with closing(_Curl(url, workers)) as curl:
        yield curl.run


def wrk(task: Task) -> Sample:
    """The limit of server and sockets: C, one thread, one path, no decoding. Its time includes the warm-up."""
    script = ["wrk.method = 'POST'", "wrk.body = ''"]
    script += [f"wrk.headers['{name}'] = '{text}'" for name, text in headers().items()]
    whole = max(1, round(task.seconds))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write("\n".join(script))
        file.flush()
        command = ["wrk", "-t1", f"-c{task.workers}", f"-d{whole}s", "-s", file.name]
        before, server = _children(), cpu_seconds(task.server)
        done = subprocess.run(
            [*command, f"{task.url}/api/v1/dispatch/{FIRST}/start"], capture_output=True, text=True, check=True
        )
    assert "Non-2xx" not in done.stdout, done.stdout
    count, seconds = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout).groups()  # type: ignore[union-attr]
    return Sample(int(count), float(seconds), _children() - before, _less(cpu_seconds(task.server), server))


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


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

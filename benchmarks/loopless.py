"""The contestants without a Python event loop: requests on threads, pycurl and wrk."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import selectors
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from io import BytesIO
from typing import TYPE_CHECKING

from benchmarks.machine import cpu_seconds
from benchmarks.task import FIRST, Run, Sample, Starts, Task, headers, less

if TYPE_CHECKING:
    import pycurl


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
    return Sample(int(count), float(seconds), _children() - before, less(cpu_seconds(task.server), server))


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

"""A provider that answers every start at once, in its own process: nginx, or else a minimal Python server.

An answer has 10 to 15 header fields, as behind a real gateway. Number and values differ from answer to answer, so a
client that keeps what it has parsed gains nothing.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import ROOT, allow_many_files, cores, pinned

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop

# One process that stays in the foreground, so that its CPU time is all of the server's.
_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; multi_accept on; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    default_type application/json;
    map $request_id $cache {{ ~^[0-7] "HIT-$msec"; default ""; }}
    map $request_id $zone {{ ~^.[0-7] "zone-$connection_requests"; default ""; }}
    map $request_id $region {{ ~^..[0-7] "region-$connection"; default ""; }}
    map $request_id $entity {{ ~^...[0-7] '"$request_id"'; default ""; }}
    map $request_id $edge {{ ~^....[0-7] "edge-$request_id"; default ""; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        add_header X-Request-Id $request_id;
        add_header X-Trace-Id $connection-$connection_requests;
        add_header X-Served-At $msec;
        add_header Cache-Control no-store;
        add_header Strict-Transport-Security max-age=31536000;
        # An empty one is not sent.
        add_header X-Cache $cache;
        add_header X-Zone $zone;
        add_header X-Region $region;
        add_header ETag $entity;
        add_header X-Edge $edge;
        location ~ ^/api/v1/dispatch/(?<dispatch>[0-9]+)/start$ {{ return 200 '{{"dispatchId":$dispatch}}'; }}
    }}
}}
"""


@dataclass(frozen=True)
class Server:
    """Where a provider listens."""

    name: str
    url: str
    process: int


_ALWAYS = (
    b"Server: benchmark\r\nDate: %d\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
    b"X-Request-Id: %d\r\nX-Trace-Id: %d\r\nX-Served-At: %d\r\nCache-Control: no-store\r\n"
    b"Strict-Transport-Security: max-age=31536000\r\n"
)
_AT_TIMES = (b"X-Cache: HIT-", b"X-Zone: zone-", b"X-Region: region-", b"ETag: ", b"X-Edge: edge-")


class Starts(asyncio.Protocol):
    """The part of HTTP/1.1 that a start needs: requests without a body, keep-alive, pipelining."""

    served = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.pending = b""

    def data_received(self, data: bytes) -> None:
        self.pending += data
        *heads, self.pending = self.pending.split(b"\r\n\r\n")
        for head in heads:
            body = b'{"dispatchId":%s}' % head.split(b"/", 5)[4]
            Starts.served = number = Starts.served + 1
            fields = _ALWAYS % (number, number, number, number)
            for field in _AT_TIMES[: number % 6]:
                fields += b"%b%d\r\n" % (field, number)
            self.transport.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body))


@contextmanager
def on_a_thread(protocol: type[Starts], *, core: int | None = None) -> Iterator[str]:
    """A cheap provider on a thread of this process. Yields its address.

    Args:
        protocol: How it answers.
        core: The core of the thread; None for any.
    """
    loop = new_event_loop()
    server = loop.run_until_complete(loop.create_server(protocol, "127.0.0.1", 0, backlog=512))
    thread = threading.Thread(target=loop.run_forever)
    with pinned(core):
        thread.start()  # it keeps its core, and this thread gets its own back
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def provider() -> Iterator[Server]:
    """Start it, on the server's core."""
    pair = cores()
    with tempfile.TemporaryDirectory() as folder:
        nginx = shutil.which("nginx")
        if nginx is None:
            name, port, command = "Python on uvloop", 0, [sys.executable, "-m", "benchmarks.server"]
        else:
            name, port = "nginx", _free_port()
            configuration = Path(folder, "nginx.conf")
            configuration.write_text(_NGINX.format(folder=folder, port=port), encoding="utf-8")
            command = [nginx, "-p", folder, "-e", "stderr", "-c", str(configuration)]
        allow_many_files()
        with pinned(pair and pair[1]):
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            if nginx is None:
                assert process.stdout is not None
                port = int(process.stdout.readline())
            _wait_for(process, port)
            yield Server(name, f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.kill()
            process.communicate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def _wait_for(process: subprocess.Popen[str], port: int) -> None:
    for _ in range(100):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the server did not come up on port {port}")


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Starts, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    allow_many_files()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve())

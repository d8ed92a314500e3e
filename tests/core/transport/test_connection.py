"""Bytes that must not leave late: in the kernel, in the event loop, below TLS, and behind an expired claim."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from yarl import URL

from dispatchkit.core.claim import CLAIM_AGE, ClaimAge
from dispatchkit.core.command import Request, Response
from dispatchkit.core.transport import connection, fork, pool
from dispatchkit.core.transport.connection import Handler
from dispatchkit.core.transport.transport import SendTracker, Transport, TransportFailure
from dispatchkit.testing import FakeClock
from tests.faults import tls
from tests.wire import Listener, http

EXPIRED = "its claim expired"


@asynccontextmanager
async def transport(url: str, **settings: Any) -> AsyncIterator[Transport]:
    made = Transport(URL(url), connect_timeout=5, **settings)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(jumps=False)


class Peer:
    """A server whose connections are read by the test, byte for byte."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.context = context
        self.connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self.connections.put((reader, writer))

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=self.context)
        scheme = "http" if self.context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        while not self.connections.empty():
            self.connections.get_nowait()[1].transport.abort()

    async def accept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.wait_for(self.connections.get(), 5)


async def all_of(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Read to the end. How many bytes came, and whether the end was a FIN."""
    received = 0
    try:
        while data := await asyncio.wait_for(reader.read(2**16), 5):
            received += len(data)
    except ConnectionError:
        return received, False
    return received, True


def made_sockets() -> list[socket.socket]:
    return [sock for sock in fork._sockets if sock.fileno() >= 0]


def linger(each: socket.socket) -> tuple[int, int]:
    first, second = struct.unpack("ii", each.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    return first, second


async def test_socket_drops_unsent_bytes() -> None:
    before = {id(each) for each in made_sockets()}
    async with Peer() as peer, transport(peer.url, attempt_timeout=7.5) as made:
        sending = asyncio.create_task(made.send(Request("POST", "/"), SendTracker(), timeout=5))
        reader, writer = await peer.accept()
        await reader.readuntil(b"\r\n\r\n")
        [ours] = [each for each in made_sockets() if id(each) not in before]
        assert linger(ours) == (1, 0)
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7500
        writer.write(http(200))
        assert isinstance(await sending, Response)
        await made.close()
        assert await all_of(reader) == (0, True)
        writer.close()


@pytest.mark.parametrize("response", [http(200, b"yes"), http(200, b"yes", Connection="close")])
@pytest.mark.parametrize("secure", [False, True])
async def test_orderly_close_sends_fin(response: bytes, secure: bool, tmp_path: Path) -> None:
    context = tls.serving(tmp_path) if secure else None
    async with Peer(context) as peer, transport(peer.url, ssl=tls.trusting() if secure else True) as made:
        sending = asyncio.create_task(made.send(Request("POST", "/"), SendTracker(), timeout=5))
        reader, writer = await peer.accept()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        assert isinstance(await sending, Response)
        await made.close()
        assert await all_of(reader) == (0, True)
        writer.close()


async def test_expired_idle_connection_sends_fin(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Peer() as peer, transport(peer.url) as made:
        sending = asyncio.create_task(made.send(Request("POST", "/"), SendTracker(), timeout=5))
        reader, writer = await peer.accept()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(200))
        assert isinstance(await sending, Response)
        monkeypatch.setattr(pool, "_IDLE_TIMEOUT", -1.0)
        made._http._pool.expire()  # type: ignore[union-attr]
        assert await all_of(reader) == (0, True)
        writer.close()


@pytest.mark.parametrize("how", ["cancelled", "closed", "timed out"])
async def test_abandoned_request_is_reset(how: str) -> None:
    async with Peer() as peer, transport(peer.url) as made:
        sending = asyncio.create_task(made.send(Request("POST", "/"), SendTracker(), timeout=0.2))
        reader, writer = await peer.accept()
        await reader.readuntil(b"\r\n\r\n")
        if how == "cancelled":
            sending.cancel()
        elif how == "closed":
            await made.close()
        await asyncio.wait([sending])
        assert await all_of(reader) == (0, False)
        writer.close()


@asynccontextmanager
async def connected(secure: bool, folder: Path) -> AsyncIterator[tuple[asyncio.Transport, Handler, socket.socket]]:
    """A connection on this loop, and its other end as a blocking socket."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> socket.socket:
            taken, _ = listening.accept()
            return tls.serving(folder).wrap_socket(taken, server_side=True) if secure else taken

        accepting = loop.run_in_executor(None, accept)
        settings: Any = {"ssl": tls.trusting(), "server_hostname": "127.0.0.1"} if secure else {}
        made, protocol = await loop.create_connection(lambda: Handler(loop), *listening.getsockname(), **settings)
        with await accepting as peer:
            peer.settimeout(0)
            yield made, protocol, peer
            made.abort()
            await asyncio.sleep(0)


@pytest.mark.parametrize("secure", [False, True])
async def test_write_reaches_kernel_at_once(secure: bool, tmp_path: Path) -> None:
    async with connected(secure, tmp_path) as (made, _, peer):
        for _ in range(3):
            made.write(b"x" * 100)  # no turn of the loop comes between
            assert len(peer.recv(1000)) == 100


@pytest.mark.parametrize("secure", [False, True])
async def test_backlog_includes_tls_buffer(secure: bool, tmp_path: Path) -> None:
    async with connected(secure, tmp_path) as (made, protocol, _):
        assert protocol.backlog() == 0
        assert protocol.takes_more()
        made.write(bytes(50_000_000))
        assert protocol.backlog() > 10_000_000
        assert not protocol.takes_more()


@pytest.mark.parametrize("size", [0, 5_000, 2**16, 2**20])
async def test_an_expired_claim_sends_nothing(clock: FakeClock, size: int) -> None:
    async with Listener(http(200, b"yes")) as listener, transport(listener.url) as made:
        tracker = SendTracker(ClaimAge(clock))
        clock.advance(CLAIM_AGE)
        reply = await made.send(Request("POST", "/", body=bytes(size)), tracker, timeout=5)
        assert reply == TransportFailure(EXPIRED, sent=False, claim_expired=True)
        assert not tracker.sent
        assert listener.requests == []
        # The connection that it had is good for the next one.
        reply = await made.send(Request("POST", "/", body=bytes(size)), SendTracker(ClaimAge(clock)), timeout=5)
        assert isinstance(reply, Response)
        assert len(listener.requests) == 1


async def test_claim_expires_during_handshake(clock: FakeClock, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        async with transport(url, ssl=tls.trusting()) as made:
            tracker = SendTracker(ClaimAge(clock))
            sending = asyncio.create_task(made.send(Request("POST", "/"), tracker, timeout=5))
            taken, _ = await asyncio.to_thread(listening.accept)
            clock.advance(CLAIM_AGE + 1)
            server = tls.serving(tmp_path)
            wrapping = asyncio.to_thread(server.wrap_socket, taken, server_side=True)
            with await wrapping as peer:
                assert await sending == TransportFailure(EXPIRED, sent=False, claim_expired=True)
                peer.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    peer.recv(1000)


class Once:
    """A claim that expires after it was checked so many times."""

    expires_at = math.inf

    def __init__(self, checks: int) -> None:
        self.checks = checks

    def boottime(self) -> float:
        return 0.0

    def is_expired(self) -> bool:
        self.checks -= 1
        return self.checks < 0


async def test_last_part_checks_claim() -> None:
    async with Listener(http(200)) as listener, transport(listener.url) as made:
        request = Request("POST", "/", body=bytes(5_000))
        reply = await made.send(request, SendTracker(Once(1)), timeout=5)  # type: ignore[arg-type]
        assert reply == TransportFailure(EXPIRED, sent=True, claim_expired=True)
        assert isinstance(await made.send(request, SendTracker(Once(2)), timeout=5), Response)  # type: ignore[arg-type]
        assert len(listener.requests) == 1


class Waking(FakeClock):
    """A boot clock that jumps, as over a suspension, after it was read so many times."""

    def __init__(self, readings: int) -> None:
        super().__init__()
        self.readings = readings

    def boottime(self) -> float:
        self.readings -= 1
        return super().boottime() + (CLAIM_AGE if self.readings < 0 else 0.0)


class FailingWrites:
    """A transport whose writes fail."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        raise ConnectionResetError


async def test_partial_write_counts_as_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an error of the first system call proves that nothing left."""
    connect = Handler.connection_made
    monkeypatch.setattr(Handler, "connection_made", lambda handler, made: connect(handler, FailingWrites(made)))  # type: ignore[arg-type]
    monkeypatch.setattr(connection, "_write", lambda descriptor, data: os.write(descriptor, data[:5]))
    async with Listener(http(200)) as listener, transport(listener.url) as made:
        reply = await made.send(Request("POST", "/"), SendTracker(), timeout=5)
        assert reply == TransportFailure(
            "the connection was reset (if its port speaks TLS, its URL begins with https://)", sent=True
        )


async def test_clock_is_read_before_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    def take(_: int, data: bytes) -> int:
        written.append(data)
        return len(data)

    monkeypatch.setattr(connection, "_write", take)
    async with Listener(http(200)) as listener, transport(listener.url) as made:
        claim = ClaimAge(Waking(2))  # when it was requested, and the check of both clocks
        reply = await made.send(Request("POST", "/"), SendTracker(claim), timeout=5)
        assert reply == TransportFailure(EXPIRED, sent=False, claim_expired=True)
        assert written == [], "what the kernel has taken leaves, whatever is checked afterwards"


async def test_a_broken_connection_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int, data: bytes) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(connection, "_write", broken)
    async with Listener(http(200)) as listener, transport(listener.url) as made:
        reply = await made.send(Request("POST", "/"), SendTracker(), timeout=5)
        assert isinstance(reply, TransportFailure)
        assert not reply.sent
        assert listener.requests == []


@pytest.mark.parametrize("taken", [None, 1])
async def test_kernel_remainder_is_written(taken: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        if taken is None:
            raise BlockingIOError
        return os.write(descriptor, data[:taken])

    monkeypatch.setattr(connection, "_write", full)
    async with Listener(http(200)) as listener, transport(listener.url) as made:
        assert isinstance(await made.send(Request("POST", "/"), SendTracker(), timeout=5), Response)
        assert len(listener.requests) == 1


async def test_close_within_request_is_reset() -> None:
    async with Peer() as peer, transport(peer.url) as made:
        sending = asyncio.create_task(made.send(Request("POST", "/"), SendTracker(), timeout=5))
        reader, writer = await peer.accept()
        await reader.readuntil(b"\r\n\r\n")
        [lane] = made._http._opener._connector._acquired  # type: ignore[union-attr]
        lane.close()
        assert await all_of(reader) == (0, False)
        await asyncio.wait([sending])
        writer.close()


async def test_full_kernel_delays_last_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first write of an empty buffer is taken whole, and leaves no room for another."""
    small_buffers(monkeypatch)
    async with Listener(http(200)) as listener, transport(listener.url) as made:
        reply = await made.send(Request("POST", "/", body=bytes(60_000)), SendTracker(), timeout=5)
        assert isinstance(reply, Response)
        assert len(listener.requests) == 1


def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel take a few kilobytes only."""

    def make(address: Any) -> socket.socket:
        made = socket.socket(*address[:3])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        return made

    monkeypatch.setattr(connection, "fork_safe_socket", make)


def answered(peer: socket.socket, size: int) -> tuple[int, bool]:
    """Read a request of so many bytes, and answer it. How many came, and whether they were cut off by RST."""
    received = 0
    try:
        while received < size and (data := peer.recv(2**16)):
            received += len(data)
        if received >= size:
            peer.sendall(http(200))
    except ConnectionError:
        return received, True
    return received, False


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("size", [60_000, 2**18])
@pytest.mark.parametrize("late", [False, True])
async def test_last_part_is_held_back(
    clock: FakeClock, size: int, late: bool, secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_buffers(monkeypatch)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def accept() -> socket.socket:
            taken, _ = listening.accept()
            return tls.serving(tmp_path).wrap_socket(taken, server_side=True) if secure else taken

        url = f"{'https' if secure else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
        async with transport(url, ssl=tls.trusting() if secure else True) as made:
            tracker = SendTracker(ClaimAge(clock))
            sending = asyncio.create_task(made.send(Request("POST", "/", body=bytes(size)), tracker, timeout=10))
            with await asyncio.to_thread(accept) as peer:
                peer.settimeout(5)
                await asyncio.sleep(0.05)  # until no buffer takes any more
                if late:
                    clock.advance(CLAIM_AGE)
                received, reset = await asyncio.to_thread(answered, peer, size)
                assert (received < size) == late
                assert secure or reset == late  # TLS tells no RST from a FIN
                reply = await sending
                assert (
                    reply == TransportFailure(EXPIRED, sent=True, claim_expired=True)
                    if late
                    else isinstance(reply, Response)
                )


async def test_slow_upload_renews_its_claim(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    small_buffers(monkeypatch)
    renewals: list[ClaimAge | None] = []
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        async def renew() -> ClaimAge | None:
            renewals.append(ClaimAge(clock))
            return renewals[-1]

        async with transport(f"http://127.0.0.1:{listening.getsockname()[1]}") as made:
            tracker = SendTracker(ClaimAge(clock), renew)
            sending = asyncio.create_task(made.send(Request("POST", "/", body=bytes(2**18)), tracker, timeout=10))
            peer, _ = await asyncio.to_thread(listening.accept)
            with peer:
                peer.settimeout(5)
                await asyncio.sleep(0.05)  # until no buffer takes any more
                clock.advance(2 * CLAIM_AGE)
                received, reset = await asyncio.to_thread(answered, peer, 2**18)
                assert (received >= 2**18, reset) == (True, False)
                assert isinstance(await sending, Response)
    assert len(renewals) == 1
    assert tracker.claim is renewals[0]


async def test_reads_stay_below_mapped_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[Handler] = []
    connect = Handler.connection_made

    def connected(handler: Handler, made: asyncio.BaseTransport) -> None:
        handlers.append(handler)
        connect(handler, made)

    monkeypatch.setattr(Handler, "connection_made", connected)
    async with Peer() as peer, transport(peer.url) as made:
        sending = asyncio.create_task(made.send(Request("POST", "/"), SendTracker(), timeout=5))
        reader, writer = await peer.connections.get()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(200, b"{}"))
        assert isinstance(await sending, Response)
        writer.close()
    [handler] = handlers
    # Only asyncio's own transport has such a limit. Its 256 KiB would be mapped and unmapped for each read.
    assert getattr(handler._lowest, "max_size", 64 * 1024) == 64 * 1024

"""Lanes: plain responses without aiohttp's parser, all others through it, and bytes that no request asked for."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import socket
import ssl
import threading
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp.client_proto import ResponseHandler
from aioresponses import aioresponses
from yarl import URL

from dispatchkit.core.claim import CLAIM_AGE, ClaimAge
from dispatchkit.core.command import Request, Response
from dispatchkit.core.transport.lane import Lane
from dispatchkit.core.transport.recognise import PlainHeaders, Recogniser
from dispatchkit.core.transport.transport import SendTracker, Transport, TransportFailure
from dispatchkit.testing import FakeClock
from tests.core.transport.test_connection import Peer
from tests.faults import tls
from tests.wire import Listener, http

PLAIN = http(200, b"yes")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n"
POST = Request("POST", "/")


@asynccontextmanager
async def transport(url: str, **settings: Any) -> AsyncIterator[Transport]:
    made = Transport(URL(url), connect_timeout=5, **settings)
    try:
        yield made
    finally:
        await made.close()


async def send(made: Transport) -> Response | TransportFailure:
    return await made.send(POST, SendTracker(), timeout=5)


def idle(made: Transport) -> list[Lane]:
    assert made._http is not None
    return list(made._http._pool._idle)


def lane_of(made: Transport) -> Lane:
    """The lane of the only exchange that is under way."""
    assert made._http is not None
    [opener] = made._http._opener._connector._acquired
    assert opener.transport is not None
    lane = opener.transport.get_protocol()
    assert isinstance(lane, Lane)
    return lane


class Serving:
    """A server that answers when told to, and a client of it."""

    def __init__(self, peer: Peer, made: Transport) -> None:
        self.peer, self.made = peer, made
        self.connections: list[asyncio.StreamWriter] = []

    async def connect(self) -> None:
        self.reader, self.writer = await self.peer.accept()
        self.connections.append(self.writer)

    async def exchange(self, *parts: bytes, first: bool = False) -> Response | TransportFailure:
        """One request, answered in parts with turns of the loop between them."""
        sending = asyncio.create_task(send(self.made))
        if first:
            await self.connect()
        await self.reader.readuntil(b"\r\n\r\n")
        for part in parts:
            self.writer.write(part)
            await asyncio.sleep(0.005)
        return await sending


@asynccontextmanager
async def served(context: ssl.SSLContext | None = None) -> AsyncIterator[Serving]:
    async with Peer(context) as peer, transport(peer.url, ssl=True if context is None else tls.trusting()) as made:
        serving = Serving(peer, made)
        yield serving
        await made.close()
        for writer in serving.connections:
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


def no_parser(*_: object, **__: object) -> None:
    raise AssertionError("the parser is not needed")


@pytest.mark.parametrize("secure", [False, True])
async def test_plain_response_needs_no_parser(secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lane, "set_response_params", no_parser)
    async with served(tls.serving(tmp_path) if secure else None) as serving:
        for number in range(3):
            reply = await serving.exchange(PLAIN, first=number == 0)
            assert isinstance(reply, Response)
            assert isinstance(reply.headers, PlainHeaders)
            assert (reply.status, reply.headers["content-length"], reply.body) == (200, "3", b"yes")
        assert len(idle(serving.made)) == 1


@pytest.mark.parametrize(
    "parts",
    [
        (CHUNKED,), (PLAIN[:9], PLAIN[9:]), (PLAIN[:-1], PLAIN[-1:]), (http(200, b"yes", X="\xe9"),),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", PLAIN), (b"HTTP/1.1 103 Early Hints\r\n\r\n" + PLAIN,),
    ],
)  # fmt: skip
async def test_parsed_and_plain_responses_alternate(parts: tuple[bytes, ...]) -> None:
    async with served() as serving:
        for number in range(4):
            reply = await serving.exchange(*(parts if number % 2 == 0 else (PLAIN,)), first=number == 0)
            assert isinstance(reply, Response)
            assert (reply.status, reply.body) == (200, b"yes")
            assert isinstance(reply.headers, PlainHeaders) == (number % 2 == 1)
        assert len(idle(serving.made)) == 1, "all went over one connection"


@pytest.mark.parametrize("former", [PLAIN, CHUNKED])
@pytest.mark.parametrize(
    "unasked", [b"H", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nye", PLAIN, CHUNKED, b"\0"]
)
async def test_unasked_bytes_end_a_lane(unasked: bytes, former: bytes) -> None:
    async with served() as serving:
        await serving.exchange(former, first=True)
        [lane] = idle(serving.made)
        serving.writer.write(unasked)
        await asyncio.sleep(0.01)  # the loop has read them
        assert not lane.is_silent()
        reply = await serving.exchange(http(200, b"no"), first=True)
        assert isinstance(reply, Response)
        assert reply.body == b"no"
        assert lane not in idle(serving.made)


@pytest.mark.parametrize("reader", [ResponseHandler, Lane])
async def test_lane_with_bytes_is_refused(reader: type[ResponseHandler], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the protocol that opened the connection reads the bytes, or the lane."""
    connected, is_ready = reader.connection_made, threading.Event()

    def wait_for_bytes(handler: ResponseHandler, made: asyncio.BaseTransport) -> None:
        connected(handler, made)
        if type(handler) is reader:
            is_ready.set()
            assert select.select([made.get_extra_info("socket")], [], [], 5)[0]

    monkeypatch.setattr(reader, "connection_made", wait_for_bytes)

    def talk(listening: socket.socket) -> bytes:
        peer, _ = listening.accept()
        with peer:
            assert is_ready.wait(5)
            peer.sendall(PLAIN)
            peer.settimeout(5)
            return peer.recv(2**16)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        talking = asyncio.get_running_loop().run_in_executor(None, talk, listening)
        async with transport(f"http://127.0.0.1:{listening.getsockname()[1]}") as made:
            reply = await send(made)
            assert reply == TransportFailure(
                "the connection was closed by the server before the request was written", sent=False
            )
            assert await talking == b""


async def test_bytearray_is_read_too() -> None:
    lane = Lane(Mock(transport=None, protocol=None), Recogniser())
    answer = lane.start_exchange()
    lane.data_received(bytearray(PLAIN))  # type: ignore[arg-type]
    response = await answer
    assert isinstance(response, Response)
    assert (type(response.body), response.body) == (bytes, b"yes")


async def test_trailing_bytes_end_a_lane() -> None:
    async with served() as serving:
        sending = asyncio.create_task(send(serving.made))
        await serving.connect()
        await serving.reader.readuntil(b"\r\n\r\n")
        lane = lane_of(serving.made)
        lane.data_received(PLAIN)
        lane.data_received(b"x")  # before the reader has run
        reply = await sending
        assert isinstance(reply, Response)
        assert idle(serving.made) == []


async def test_refused_claim_leaves_lane_unasked() -> None:
    clock = FakeClock(jumps=False)
    async with served() as serving:
        await serving.exchange(PLAIN, first=True)
        tracker = SendTracker(ClaimAge(clock))
        clock.advance(CLAIM_AGE)
        reply = await serving.made.send(POST, tracker, timeout=5)
        assert reply == TransportFailure("its claim expired", sent=False, claim_expired=True)
        [lane] = idle(serving.made)
        lane.data_received(b"H")
        assert not lane.is_silent(), "no request was written, so no response may come"


async def test_one_lane_replaces_closed_ones() -> None:
    async with served() as serving:
        sending = [asyncio.create_task(send(serving.made)) for _ in range(6)]
        for _ in sending:
            await serving.connect()
            await serving.reader.readuntil(b"\r\n\r\n")
            serving.writer.write(PLAIN)
        await asyncio.gather(*sending)
        assert len(idle(serving.made)) == 6
        for writer in serving.connections:
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
                sock.shutdown(socket.SHUT_RDWR)  # the client's loop has not seen it yet
        reply = await serving.exchange(PLAIN, first=True)
        assert isinstance(reply, Response)
        assert len(idle(serving.made)) == 1


async def test_dropped_client_closes_its_connections() -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    async with Peer() as peer:
        made = Transport(URL(peer.url), connect_timeout=5)
        serving = Serving(peer, made)
        await serving.exchange(PLAIN, first=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            serving.made = made = None  # type: ignore[assignment]
            gc.collect()
        assert await asyncio.wait_for(serving.reader.read(), 5) == b""
        assert complaints == ["Unclosed client session", "Unclosed connector"]
        serving.writer.close()
        await serving.writer.wait_closed()


async def test_mocked_session_gets_requests() -> None:
    async with Listener(http(200, b"real")) as listener, transport(listener.url) as made:
        bodies: list[bytes] = []
        for mocked in (False, True, False):
            if mocked:
                with aioresponses() as mock:
                    mock.post(f"{listener.url}/", status=200, body=b"mock")
                    reply = await send(made)
            else:
                reply = await send(made)
            assert isinstance(reply, Response)
            bodies.append(reply.body)
        assert bodies == [b"real", b"mock", b"real"]
        assert len(listener.requests) == 2

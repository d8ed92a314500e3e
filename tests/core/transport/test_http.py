"""What goes over a connection, byte for byte: large bodies, early answers, proxies, answers that never end."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from yarl import URL

from dispatchkit.core.command import Request, Response
from dispatchkit.core.transport.transport import SendTracker, Transport, TransportFailure
from tests.harness import until
from tests.wire import Listener, http

LARGE = bytes(range(256)) * 4096 * 8  # 8 MiB: more than the buffers of both sides take


@asynccontextmanager
async def transport(url: str, **settings: Any) -> AsyncIterator[Transport]:
    made = Transport(URL(url), connect_timeout=5, **settings)
    try:
        yield made
    finally:
        await made.close()


async def send(made: Transport, request: Request, *, timeout: float = 10) -> tuple[Response | TransportFailure, bool]:
    tracker = SendTracker()
    return await made.send(request, tracker, timeout=timeout), tracker.sent


@pytest.mark.parametrize("size", [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 2**20, len(LARGE)])
async def test_body_arrives_at_any_size(size: int) -> None:
    async with Listener(http(200, b"yes")) as listener, transport(listener.url) as made:
        for _ in range(2):
            reply, sent = await send(made, Request("POST", "/a?b=%20", {"X-One": "1"}, LARGE[:size]))
            assert sent
            assert isinstance(reply, Response)
            assert (reply.status, reply.body) == (200, b"yes")
    for received in listener.requests:
        assert received.body == LARGE[:size]
        assert received.line == "POST /a?b=%20 HTTP/1.1"
        assert received.headers == {"Host": listener.host, "X-One": "1", "Content-Length": str(size)}


@asynccontextmanager
async def server(response: bytes, *, reads: int = 0, closes: bool = False) -> AsyncIterator[str]:
    """Reads so many bytes, answers, and reads no more."""
    connected: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)
        await reader.readexactly(reads)
        writer.write(response)
        await writer.drain()
        if closes:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        for writer in connected:
            writer.close()


@pytest.mark.parametrize("closes", [False, True])
async def test_early_refusal_is_read(closes: bool) -> None:
    async with server(http(413, b"too large"), reads=100, closes=closes) as url, transport(url) as made:
        for _ in range(2):
            reply, sent = await send(made, Request("POST", "/", {}, LARGE))
            assert sent
            # Where it closes, the reset may overtake its answer: then the outcome is unknown.
            assert isinstance(reply, Response) or closes
            assert not isinstance(reply, Response) or (reply.status, reply.body) == (413, b"too large")


async def test_unread_body_ends_at_deadline() -> None:
    async with server(b"", reads=100) as url, transport(url) as made:
        reply, sent = await send(made, Request("POST", "/", {}, LARGE), timeout=0.3)
        assert (reply, sent) == (TransportFailure("no answer within 0.3 s", sent=True), True)


@asynccontextmanager
async def narrow() -> AsyncIterator[socket.socket]:
    """A socket that accepts connections, and takes a few kilobytes of each until the test reads."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def taken(listening: socket.socket) -> int:
    """How many bytes come over the first connection, to its end."""
    total = 0
    guest, _ = listening.accept()
    with guest, suppress(ConnectionError):
        guest.settimeout(5)
        while data := guest.recv(2**16):
            total += len(data)
    return total


# One that is written at once; one that waits in the system's buffers; one that waits in ours as well.
@pytest.mark.second_stage
@pytest.mark.parametrize("size", [30_000, 300_000, 3_000_000])
@pytest.mark.parametrize("how", ["limit", "cancelled", "closed"])
async def test_abandoned_request_is_not_delivered(size: int, how: str) -> None:
    async with narrow() as listening, transport(f"http://127.0.0.1:{listening.getsockname()[1]}") as made:
        request = Request("POST", "/", {}, LARGE[:size])
        task = asyncio.create_task(send(made, request, timeout=0.2 if how == "limit" else 30))
        await asyncio.sleep(0.1)
        if how == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            if how == "closed":
                await asyncio.wait_for(made.close(), 5)
            what = "the client was closed" if how == "closed" else "no answer within 0.2 s"
            assert await asyncio.wait_for(task, 5) == (
                TransportFailure(what, sent=True, client_closed=how == "closed"),
                True,
            )
        assert await asyncio.to_thread(taken, listening) < size


async def test_session_observer_replaces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    original = aiohttp.ClientSession.__init__

    def watched(self: aiohttp.ClientSession, *args: Any, **settings: Any) -> None:
        original(self, *args, **settings)

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", watched)
    async with Listener() as listener, transport(listener.url) as made:
        await send(made, Request("POST", "/"))
        assert listener.requests[0].headers == {"Host": listener.host, "Content-Length": "0"}


async def test_session_mock_may_have_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    original = aiohttp.ClientSession._request

    async def recorded(self: aiohttp.ClientSession, *args: Any, **settings: Any) -> object:
        return await original(self, *args, **settings)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", recorded)
    async with Listener(None) as listener, transport(listener.url) as made:
        reply, sent = await send(made, Request("POST", "/"), timeout=0.2)
        assert (reply, sent) == (TransportFailure("no answer within 0.2 s", sent=True), True)
        task = asyncio.create_task(made.send(Request("POST", "/"), tracker := SendTracker(), timeout=30))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tracker.sent
        assert len(listener.requests) == 2
    async with Listener(http(200, b"yes")) as proxy, transport("http://provider.test", proxy=proxy.url) as made:
        await send(made, Request("POST", "/a"))
        assert proxy.requests[0].line == "POST http://provider.test/a HTTP/1.1"


async def test_expired_time_is_not_negative() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with transport(f"http://127.0.0.1:{silent.getsockname()[1]}") as made:
            reply, _ = await send(made, Request("POST", "/"), timeout=-0.001)
            assert reply == TransportFailure("no answer within 0 s", sent=False)


async def test_continue_is_not_the_response() -> None:
    response = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + http(200, b"yes")
    async with Listener(response) as listener, transport(listener.url) as made:
        reply, _ = await send(made, Request("POST", "/"))
        assert isinstance(reply, Response)
        assert (reply.status, reply.body) == (200, b"yes")


@pytest.mark.parametrize("text", ["a\r\nX-Two: 2", "a\nb", "a\rb"])
async def test_duplicate_header_is_not_sent(text: str) -> None:
    async with Listener() as listener, transport(listener.url) as made:
        for request in (Request("POST", "/", {"X-One": text}), Request("POST", f"/{text}")):
            reply, sent = await send(made, request)
            assert isinstance(reply, TransportFailure)
            assert not sent
            assert not reply.sent
            assert text not in reply.what
        assert listener.requests == []


async def test_proxy_gets_address_and_credentials() -> None:
    async with Listener(http(200, b"yes")) as proxy:
        told = f"http://user:word@{proxy.host}"
        async with transport("http://provider.test:8080", proxy=told) as made:
            for _ in range(2):
                reply, _ = await send(made, Request("POST", "/a", {"Authorization": "Basic x"}))
                assert isinstance(reply, Response)
    for received in proxy.requests:
        assert received.line == "POST http://provider.test:8080/a HTTP/1.1"
        assert received.headers["Host"] == "provider.test:8080"
        assert received.headers["Authorization"] == "Basic x"
        assert received.headers["Proxy-Authorization"] == f"Basic {base64.b64encode(b'user:word').decode()}"


async def test_endless_response_is_bounded() -> None:
    chunk = b"10000\r\n" + b"x" * 2**16 + b"\r\n"
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 140
    async with Listener(endless) as listener, transport(listener.url) as made:
        reply, _ = await send(made, Request("GET", "/"))
    assert reply == TransportFailure("the answer is larger than 8 MiB", sent=True)


async def test_closed_transport_sends_nothing() -> None:
    made = Transport(URL("http://127.0.0.1:9"), connect_timeout=5)
    await made.close()
    assert await send(made, Request("POST", "/")) == (
        TransportFailure("the client was closed", sent=False, client_closed=True),
        False,
    )


async def test_cancelled_close_closes_connections() -> None:
    async with Listener(http(200)) as listener:
        made = Transport(URL(listener.url), connect_timeout=5)
        await send(made, Request("POST", "/"))
        session = made._http.session  # type: ignore[union-attr]  # pyright: ignore[reportPrivateUsage, reportOptionalMemberAccess]
        closing = asyncio.create_task(made.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert session.closed
        await until(lambda: not listener._open)  # pyright: ignore[reportPrivateUsage]

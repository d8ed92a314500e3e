"""One request for one answer, on aiohttp's connector and aiohttp's parser, without the session between them.

A session builds a request object, a response object, a URL, several header maps and a writer for every request: twice
the work of all the rest. What we send is known to the byte beforehand, so it is written as it is, in one piece, to a
connection that aiohttp keeps, and what comes back is read as aiohttp parses it.

It also is what makes the witness exact: the bytes are handed over in one place, `Http._write`. Nothing can have left
before, and nothing is ever sent a second time, as a session does with GET on a connection that was dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import socket
import ssl as ssl_module
import struct
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.http import StreamWriter
from yarl import URL

from dispatchkit.core.command import Answer, Request
from dispatchkit.core.fork import inherited_by_none
from dispatchkit.core.limit import Limits

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.streams import StreamReader

__all__ = ["MOST_ANSWER_BYTES", "Http", "StaleConnectionError", "TooLargeError", "Witness"]

MOST_ANSWER_BYTES = 8 * 1024 * 1024
_AT_ONCE = 64 * 1024
"""Bytes of a body that are written together with the head; a larger one is written in parts, while we listen."""
_TURNS = 4
_STALE_AT_MOST = 3


_BREAK = re.compile(r"[\r\n]")

_AT_ONCE_AND_FOR_GOOD = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""Of SO_LINGER: closing throws away what the peer has not taken yet."""


class Witness:
    """Whether any byte of a request may have left. It outlives the attempt's cancellation."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = False


class StaleConnectionError(Exception):
    """The connection was closed, or held bytes that nobody asked for, before the request was written."""


class TooLargeError(Exception):
    """The answer has more bytes than any that a provider documents."""


class Http:
    """The connections to one origin."""

    __slots__ = (
        "_after_target",
        "_before_target",
        "_connector",
        "_destination",
        "_fields",
        "_headers",
        "_timeouts",
        "limits",
        "session",
    )

    def __init__(
        self, base: URL, *, connect_timeout: float, proxy: URL | None, ssl: ssl_module.SSLContext | bool
    ) -> None:
        # The connector never queues: how many may go at a time is for our own pace to say.
        self._connector = aiohttp.TCPConnector(limit=0, ssl=ssl, socket_factory=inherited_by_none)
        self._timeouts = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self.session = aiohttp.ClientSession(
            connector=self._connector,
            timeout=self._timeouts,
            proxy=proxy,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        self.limits = Limits(asyncio.get_running_loop())
        # A connector is asked for the connection of a request. All of ours go to one origin, so this one, which is
        # never sent, stands for all of them.
        self._destination = aiohttp.ClientRequest(
            "POST", base, loop=asyncio.get_running_loop(), session=self.session, proxy=proxy
        )
        self._headers: Mapping[str, str] | None = None
        """The latest, and below as they are sent: most often the next request has the same."""
        self._fields = ""
        # A proxy that sees the request itself must be told the whole address.
        self._before_target = str(base) if proxy is not None and base.scheme == "http" else ""
        self._after_target = f" HTTP/1.1\r\nHost: {base.host_port_subcomponent}\r\n"

    async def exchange(self, request: Request, witness: Witness) -> Answer:
        """Send a request once and read the whole answer.

        Raises:
            StaleConnectionError: Every connection was closed by the server before the request was written.
            Exception: What aiohttp raises.
        """
        connection = await self._connect()
        protocol = connection.protocol
        assert protocol is not None  # noqa: S101 - only its release takes it away
        transport = protocol.transport
        writing: asyncio.Task[None] | None = None
        # What a coroutine of its own would say better is said here: each that waits costs, with thousands in flight.
        try:
            writing = self._write(protocol, request, witness)
            message, payload = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:  # "go on" is not the answer
                message, payload = await protocol.read()
            body = payload.read_nowait() if payload.is_eof() else await _rest(payload)
            if not body and not message.chunked and "Content-Length" not in message.headers:
                # The end of the connection is all that ended it: this may be the start of something else.
                raise aiohttp.ClientPayloadError("an answer without a length, and without a byte")
        except BaseException:
            _cut(transport, writing)
            connection.close()
            raise
        if writing is not None and not writing.done():
            _cut(transport, writing)  # answered before it was taken whole
        connection.release()
        return Answer(message.code, message.headers, body)

    async def _connect(self) -> Connection:
        """An open and silent connection: what comes unasked would be taken for the answer."""
        for _ in range(_STALE_AT_MOST):
            connection = await self._connector.connect(self._destination, [], self._timeouts)
            protocol = connection.protocol
            assert protocol is not None  # noqa: S101 - only its release takes it away
            fresh = protocol not in _polls
            try:
                if _is_silent(protocol) or await _falls_silent(protocol):
                    return connection
            except BaseException:
                connection.close()
                raise
            connection.close()
            if fresh:
                break  # another one would most likely fare no better
        raise StaleConnectionError

    def _write(self, protocol: ResponseHandler, request: Request, witness: Witness) -> asyncio.Task[None] | None:
        """Hand the request over. What of it is large is still being written when this returns."""
        transport = protocol.transport
        assert transport is not None  # noqa: S101 - `_connect` has just seen it open
        head, body = self._head(request), request.body or b""
        protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        witness.sent = True
        if len(body) <= _AT_ONCE:
            transport.write(head + body)
            return None
        transport.write(head)
        # A server may refuse a body before it has all of it, so we listen meanwhile.
        return asyncio.create_task(_write_on(protocol, body))

    def _head(self, request: Request) -> bytes:
        if request.headers is not self._headers:
            self._headers = request.headers
            self._fields = "".join(map("%s: %s\r\n".__mod__, request.headers.items()))
        lines = len(request.headers)
        if self._fields.count("\n") != lines or self._fields.count("\r") != lines or _BREAK.search(request.target):
            raise ValueError("a header or the target holds a line break")
        text = f"{request.method} {self._before_target}{request.target}{self._after_target}{self._fields}"
        if self._before_target and (credentials := self._destination.headers.get("Proxy-Authorization")) is not None:
            text += f"Proxy-Authorization: {credentials}\r\n"
        if request.body is not None or request.method != "GET":
            text += f"Content-Length: {len(request.body or b'')}\r\n"
        return f"{text}\r\n".encode("ascii")

    async def close(self) -> None:
        """Close the connections."""
        self.limits.close()
        await asyncio.sleep(0)  # the attempts that this ends cut their connections, for which the session would wait
        await self.session.close()

    def forget(self) -> object:
        """Leave the connections to the process that this one was forked from; what would close them if finalised."""
        self.session.detach()  # otherwise it complains, when it is finalised, that nobody closed it
        return self._connector


def _cut(transport: asyncio.Transport | None, writing: asyncio.Task[None] | None) -> None:
    """End a connection so that nothing more of its request leaves, now or ever.

    A polite end would first deliver what our buffers and the system's still hold, however long the server takes: a
    request that was given up, and perhaps repeated, would then act after all.
    """
    if writing is not None:
        writing.cancel()
    if transport is None:
        return
    if not transport.is_closing():
        with contextlib.suppress(OSError):
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE_AND_FOR_GOOD)
    transport.abort()


async def _write_on(protocol: ResponseHandler, body: bytes) -> None:
    writer = StreamWriter(protocol, asyncio.get_running_loop())
    whole = memoryview(body)
    with contextlib.suppress(Exception):  # the one who reads sees it too
        for start in range(0, len(body), _AT_ONCE):
            await writer.write(whole[start : start + _AT_ONCE])
            await writer.drain()


async def _rest(payload: StreamReader) -> bytes:
    """A body of which not all has come yet. A server that never ends it must not fill our memory."""
    parts = bytearray()
    while not payload.at_eof():
        parts += await payload.readany()
        if len(parts) > MOST_ANSWER_BYTES:
            raise TooLargeError
    return bytes(parts)


def _is_silent(protocol: ResponseHandler) -> bool:
    return not _has_unread(protocol) and not protocol.should_close and protocol.is_connected()


async def _falls_silent(protocol: ResponseHandler) -> bool:
    """Bytes, or the end, may have come that the loop has not read yet.

    It gets a few turns to read them: in TLS they may be of no importance.
    """
    for _ in range(_TURNS):
        if protocol.should_close or not protocol.is_connected():
            break
        await asyncio.sleep(0)
        if _is_silent(protocol):
            return True
    return False


_polls: WeakKeyDictionary[ResponseHandler, Callable[[], bool]] = WeakKeyDictionary()


def _has_unread(protocol: ResponseHandler) -> bool:
    """Whether the socket holds something that the loop has not read yet. Asked before every request."""
    poll = _polls.get(protocol)
    if poll is None:
        poll = _polls[protocol] = _poll(protocol.transport)
    return poll()


def _poll(transport: asyncio.BaseTransport | None) -> Callable[[], bool]:
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None:
        return lambda: False
    if not hasattr(select, "poll"):  # Windows
        return lambda: bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return lambda: bool(poll.poll(0))

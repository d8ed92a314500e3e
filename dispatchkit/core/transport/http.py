"""One HTTP exchange on aiohttp's connector and parser, without aiohttp's session.

A session builds a request, a response, a URL, several header maps and a writer for every request. That costs twice as
much CPU time as all the rest. `Http` serialises the request itself and writes it in one piece to a pooled connection.

This also makes the send tracker exact. Only `Http._write` writes bytes, and no request is ever sent a second time. A
session repeats a GET whose connection was dropped.
"""

from __future__ import annotations

import asyncio
import re
import select
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.hdrs import CONTENT_ENCODING
from aiohttp.http import StreamWriter
from yarl import URL

from dispatchkit.core.claim import CLAIM_AGE, ClaimAge, ClaimExpiredError
from dispatchkit.core.command import MAX_RESPONSE_BYTES, Request, Response
from dispatchkit.core.transport.connection import Handler, UnwrittenError, drop_unsent, socket_factory
from dispatchkit.core.transport.content_encoding import TooLargeError, decoded
from dispatchkit.core.transport.slices import LARGE_BODY, parsed_in_slices
from dispatchkit.core.transport.timer import AttemptTimers

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.streams import StreamReader

__all__ = ["Http", "SendTracker", "StaleConnectionError", "StuckWriteError"]

_MAX_FIELD = 65 * 1024
"""Maximum bytes of a header field, with a value of 64 KiB."""
_MAX_FIELDS = 256
_PART = 64 * 1024
"""Bytes per write of a large request."""
_FITS = 4096
"""Bytes of a request that the kernel's empty send buffer always takes at once."""
_LAST_PART = 256
"""Bytes of a larger request that are held back until the kernel has taken the rest. No server acts without them."""
_RENEW_BEFORE = CLAIM_AGE / 5
"""Seconds before its expiry from which the claim is renewed for the last part of a large request."""
_POLL_INTERVAL = 0.005
"""Seconds between checks for room in the kernel's send buffer."""
_MAX_LOOP_TURNS = 4
_MAX_STALE = 3


_BREAK = re.compile(r"[\r\n]")


class SendTracker:
    """Tracks whether any byte of a request may have left. It outlives the attempt's cancellation.

    Args:
        claim: The claim that permits the request; None without a ledger.
        renew: Requests another claim for the last part of a large request, whose upload may outlast a claim. It returns
            None if the claim is not granted.
    """

    __slots__ = ("claim", "renew", "sent")

    def __init__(
        self, claim: ClaimAge | None = None, renew: Callable[[], Awaitable[ClaimAge | None]] | None = None
    ) -> None:
        self.sent = False
        self.claim = claim
        self.renew = renew

    def check_claim(self) -> None:
        """Check the claim directly before a write.

        Raises:
            ClaimExpiredError: The claim has expired.
        """
        if self.claim is not None and self.claim.is_expired():
            raise ClaimExpiredError


class StuckWriteError(Exception):
    """The kernel did not take a small request at once, so its rest could leave late."""


class StaleConnectionError(Exception):
    """The connection was closed, or held unexpected bytes, before the request was written."""


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
        "session",
        "timers",
    )

    def __init__(
        self,
        base: URL,
        *,
        connect_timeout: float,
        attempt_timeout: float,
        proxy: URL | None,
        ssl: ssl_module.SSLContext | bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        # The connector never queues: the pacer limits the concurrency.
        factory = socket_factory(user_timeout=attempt_timeout)
        self._connector = aiohttp.TCPConnector(limit=0, ssl=ssl, socket_factory=factory)
        # aiohttp has no public setting for the connector's protocol.
        self._connector._factory = partial[ResponseHandler](Handler, loop=loop)  # type: ignore[assignment]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self._timeouts = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self.session = aiohttp.ClientSession(
            connector=self._connector,
            timeout=self._timeouts,
            proxy=proxy,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=_MAX_FIELD,
            max_field_size=_MAX_FIELD,
            max_headers=_MAX_FIELDS,
        )
        self.timers = AttemptTimers(loop)
        # The connector connects for a request object. One unsent request stands for all, since they share an origin.
        self._destination = aiohttp.ClientRequest("POST", base, loop=loop, session=self.session, proxy=proxy)
        self._headers: Mapping[str, str] | None = None
        """The headers of the latest request. Most often, the next request has the same ones."""
        self._fields = ""
        """The same headers, serialised."""
        # A proxy for plain HTTP needs the absolute URL.
        self._before_target = str(base) if proxy is not None and base.scheme == "http" else ""
        self._after_target = f" HTTP/1.1\r\nHost: {base.host_port_subcomponent}\r\n"

    async def exchange(self, request: Request, tracker: SendTracker) -> Response:
        """Send a request once and read the whole response.

        Raises:
            StaleConnectionError: The server had closed every connection before the request was written.
            ClaimExpiredError: The claim expired before the whole request was written.
            Exception: Any exception of aiohttp.
        """
        connection = await self._connect()
        protocol = _handler(connection)
        transport = protocol.transport
        writing: asyncio.Task[None] | None = None
        # Inlined on purpose: one more coroutine per request is measurable at thousands in flight.
        try:
            writing = self._write(protocol, request, tracker)
            message, payload = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:  # skip interim responses
                message, payload = await protocol.read()
            limit = request.max_response_bytes if message.code == 200 else MAX_RESPONSE_BYTES
            body = payload.read_nowait() if payload.is_eof() else await _rest(payload, limit)
            if not body and not message.chunked and "Content-Length" not in message.headers:
                # Only the end of the connection ended it, so it may be the start of a longer response.
                raise aiohttp.ClientPayloadError("an empty response without a length")
        except BaseException as error:
            if isinstance(error, ClaimExpiredError) and not tracker.sent:
                connection.release()  # unused: the next request can use it
                raise
            _cut(transport, writing)
            connection.close()
            raise
        if writing is not None and not writing.done():
            _cut(transport, writing)  # the server answered before it had the whole request
        else:
            protocol.is_settled = True
        connection.release()
        response = Response(message.code, message.headers, body)
        if CONTENT_ENCODING in message.headers:
            response = await decoded(response, ",".join(message.headers.getall(CONTENT_ENCODING)), limit)
        if request.slices is not None and len(response.body) > LARGE_BODY and response.status == 200:
            return await parsed_in_slices(response, request.slices)
        return response

    async def _connect(self) -> Connection:
        """Get an open connection without unread bytes, which would be taken for the response."""
        for _ in range(_MAX_STALE):
            connection = await self._connector.connect(self._destination, [], self._timeouts)
            protocol = _handler(connection)
            is_new = protocol not in _polls
            try:
                if _is_silent(protocol) or await _falls_silent(protocol):
                    return connection
            except BaseException:
                connection.close()
                raise
            if is_new:
                # Another new connection would most likely fail, too.
                reason = await _why_closed(protocol)
                connection.close()
                raise StaleConnectionError from reason
            connection.close()
        raise StaleConnectionError

    def _write(self, protocol: Handler, request: Request, tracker: SendTracker) -> asyncio.Task[None] | None:
        """Write the request. For a large one, returns the task that writes the rest."""
        head, body = self._head(request), request.body or b""
        size = len(head) + len(body)
        whole = head + body if size <= _PART else head
        first = whole if size <= _FITS or size > _PART else whole[:-_LAST_PART]
        protocol.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=_MAX_FIELD,
            max_field_size=_MAX_FIELD,
            max_headers=_MAX_FIELDS,
        )
        protocol.is_settled = False
        tracker.sent = True
        try:
            protocol.send(first, tracker.claim)
        except ClaimExpiredError:
            tracker.sent, protocol.is_settled = False, True
            raise
        except UnwrittenError as unwritten:
            tracker.sent = False
            raise StaleConnectionError from unwritten.__cause__
        if size <= _FITS:
            if protocol.backlog():
                raise StuckWriteError
            return None
        if size <= _PART:
            if protocol.takes_more():
                protocol.send(whole[-_LAST_PART:], tracker.claim)
                if protocol.backlog():
                    raise StuckWriteError
                return None
            writing = _write_last_part(protocol, memoryview(whole)[-_LAST_PART:], tracker)
        else:
            writing = _write_in_parts(protocol, memoryview(body), tracker)
        # A server may refuse a body before it has all of it, so the response is read concurrently.
        return asyncio.create_task(_report_expiry(protocol, writing))

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
        self.timers.close()
        await asyncio.sleep(0)  # let the cancelled attempts cut their connections, or the session waits for them
        await self.session.close()

    def reset_after_fork(self) -> object:
        """Leave the connections to the parent process. Returns the object that would close them if finalised."""
        self.session.detach()  # or its finaliser would warn of an unclosed session
        return self._connector


def _handler(connection: Connection) -> Handler:
    protocol = connection.protocol
    assert isinstance(protocol, Handler)  # noqa: S101 - the connector makes no other
    return protocol


def _cut(transport: asyncio.Transport | None, writing: asyncio.Task[None] | None) -> None:
    """Abort a connection so that no further byte of its request ever leaves.

    A graceful close would first flush our buffers and the kernel's. An abandoned request, perhaps retried already,
    would then act after all.
    """
    if writing is not None:
        writing.cancel()
    if transport is not None:
        drop_unsent(transport)


async def _write_in_parts(protocol: Handler, body: memoryview, tracker: SendTracker) -> None:
    writer = StreamWriter(protocol, asyncio.get_running_loop())
    end = max(0, len(body) - _LAST_PART)
    for start in range(0, end, _PART):
        await writer.write(body[start : min(start + _PART, end)])
        await writer.drain()
    await _write_last_part(protocol, body[end:], tracker)


async def _write_last_part(protocol: Handler, part: memoryview, tracker: SendTracker) -> None:
    """Write the end of a request once the kernel has room for it, so that no byte waits in a buffer."""
    while protocol.is_connected() and not protocol.takes_more():  # noqa: ASYNC110
        await asyncio.sleep(_POLL_INTERVAL)  # event loops do not report room in the kernel's buffer
    if tracker.claim is not None and tracker.renew is not None and tracker.claim.is_expired(margin=_RENEW_BEFORE):
        tracker.claim = await tracker.renew() or tracker.claim
    if protocol.transport is None or protocol.transport.is_closing():
        return
    protocol.send(part, tracker.claim)
    if protocol.backlog():
        raise StuckWriteError


async def _report_expiry(protocol: Handler, writing: Coroutine[None, None, None]) -> None:
    """Write the rest of a request. If it stays incomplete, wake the reader, since no response can come."""
    try:
        await writing
    except (ClaimExpiredError, StuckWriteError) as error:
        protocol.set_exception(error)
    except Exception:  # noqa: BLE001, S110 - the reader sees the broken connection, too
        pass


async def _rest(payload: StreamReader, limit: int) -> bytes:
    """Read the rest of a body, up to a limit."""
    parts = bytearray()
    while not payload.at_eof():
        parts += await payload.readany()
        if len(parts) > limit:
            raise TooLargeError(limit)
    return bytes(parts)


def _is_silent(protocol: Handler) -> bool:
    return not _has_unread(protocol) and not protocol.should_close and protocol.is_connected()


async def _falls_silent(protocol: Handler) -> bool:
    """Whether a connection becomes silent once the event loop has read its pending bytes.

    The loop gets a few iterations for that: the bytes may be TLS records without data, such as session tickets.
    """
    for _ in range(_MAX_LOOP_TURNS):
        if protocol.should_close or not protocol.is_connected():
            break
        await asyncio.sleep(0)
        if _is_silent(protocol):
            return True
    return False


async def _why_closed(protocol: Handler) -> BaseException | None:
    """The exception that ended a connection, such as a TLS alert. It arrives a few loop iterations after the close."""
    for _ in range(_MAX_LOOP_TURNS):
        if protocol.exception() is not None:
            break
        await asyncio.sleep(0)
    return protocol.exception()


_polls: WeakKeyDictionary[Handler, Callable[[], bool]] = WeakKeyDictionary()


def _has_unread(protocol: Handler) -> bool:
    """Whether the socket holds bytes that the event loop has not read yet. Called before every request."""
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

"""One request for one answer, on aiohttp's connector and aiohttp's parser, without the session between them.

A session builds a request object, a response object, a URL, several header maps and a writer for every request: twice
the work of all the rest. What we send is known to the byte beforehand, so it is written as it is, in one piece, to a
connection that aiohttp keeps, and what comes back is read as aiohttp parses it.

It also is what makes the tracker exact: the bytes are handed over in one place, `Http._write`. Nothing can have left
before, and nothing is ever sent a second time, as a session does with GET on a connection that was dropped.
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
from dispatchkit.core.command import Request, Response
from dispatchkit.core.transport.connection import Handler, drop_unsent, socket_factory
from dispatchkit.core.transport.content_encoding import MAX_RESPONSE_BYTES, TooLargeError, decoded
from dispatchkit.core.transport.timer import AttemptTimers

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.streams import StreamReader

__all__ = ["Http", "SendTracker", "StaleConnectionError", "StuckWriteError"]

_MAX_FIELD = 65 * 1024
"""Bytes of one header field: its value has 64 KiB."""
_MAX_FIELDS = 256
_PART = 64 * 1024
"""Bytes of a large request that are written at a time, while we listen."""
_FITS = 4096
"""Bytes of a request that an empty buffer of the kernel takes at once."""
_LAST_PART = 256
"""Bytes of a larger request that are held back until the kernel has taken all others. No server acts without them."""
_RENEW_BEFORE = CLAIM_AGE / 5
"""Seconds before its expiry from which the claim of a large request is renewed for its last part."""
_LOOK_AGAIN = 0.005
"""Seconds between two looks whether the kernel has room for the last part."""
_MAX_LOOP_TURNS = 4
_STALE_AT_MOST = 3


_BREAK = re.compile(r"[\r\n]")


class SendTracker:
    """Whether any byte of a request may have left. It outlives the attempt's cancellation.

    Args:
        claim: The claim that permits the request. None: nothing remembers the request, so nothing expires.
        renew: Requests another claim for the last part of a large request, which may take longer to upload than a claim
            lasts. It returns None where there is none.
    """

    __slots__ = ("claim", "renew", "sent")

    def __init__(
        self, claim: ClaimAge | None = None, renew: Callable[[], Awaitable[ClaimAge | None]] | None = None
    ) -> None:
        self.sent = False
        self.claim = claim
        self.renew = renew

    def check_claim(self) -> None:
        """Check that the request may still be sent. Called in front of the write that sends.

        Raises:
            ClaimExpiredError: It may not.
        """
        if self.claim is not None and self.claim.is_expired():
            raise ClaimExpiredError


class StuckWriteError(Exception):
    """The kernel did not take a small request at once, so its rest could have left late."""


class StaleConnectionError(Exception):
    """The connection was closed, or held bytes that nobody asked for, before the request was written."""


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
        # The connector never queues: how many may go at a time is for our own pace to say.
        factory = socket_factory(user_timeout=attempt_timeout)
        self._connector = aiohttp.TCPConnector(limit=0, ssl=ssl, socket_factory=factory)
        # No public setting has the connector make another protocol.
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
        # A connector is asked for the connection of a request. All of ours go to one origin, so this one, which is
        # never sent, stands for all of them.
        self._destination = aiohttp.ClientRequest("POST", base, loop=loop, session=self.session, proxy=proxy)
        self._headers: Mapping[str, str] | None = None
        """The latest, and below as they are sent: most often the next request has the same."""
        self._fields = ""
        # A proxy that sees the request itself must be told the whole address.
        self._before_target = str(base) if proxy is not None and base.scheme == "http" else ""
        self._after_target = f" HTTP/1.1\r\nHost: {base.host_port_subcomponent}\r\n"

    async def exchange(self, request: Request, tracker: SendTracker) -> Response:
        """Send a request once and read the whole answer.

        Raises:
            StaleConnectionError: Every connection was closed by the server before the request was written.
            ClaimExpiredError: The claim expired before the whole request was written.
            Exception: What aiohttp raises.
        """
        connection = await self._connect()
        protocol = _handler(connection)
        transport = protocol.transport
        writing: asyncio.Task[None] | None = None
        # What a coroutine of its own would say better is said here: each that waits costs, with thousands in flight.
        try:
            writing = self._write(protocol, request, tracker)
            message, payload = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:  # "go on" is not the answer
                message, payload = await protocol.read()
            body = payload.read_nowait() if payload.is_eof() else await _rest(payload)
            if not body and not message.chunked and "Content-Length" not in message.headers:
                # The end of the connection is all that ended it: this may be the start of something else.
                raise aiohttp.ClientPayloadError("an answer without a length, and without a byte")
        except BaseException as error:
            if isinstance(error, ClaimExpiredError) and not tracker.sent:
                connection.release()  # the next request takes it
                raise
            _cut(transport, writing)
            connection.close()
            raise
        if writing is not None and not writing.done():
            _cut(transport, writing)  # answered before it was taken whole
        else:
            protocol.is_settled = True
        connection.release()
        response = Response(message.code, message.headers, body)
        if CONTENT_ENCODING in message.headers:
            return await decoded(response, ",".join(message.headers.getall(CONTENT_ENCODING)))
        return response

    async def _connect(self) -> Connection:
        """An open and silent connection: what comes unasked would be taken for the answer."""
        for _ in range(_STALE_AT_MOST):
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
                # Another one would most likely fare no better.
                reason = await _why_closed(protocol)
                connection.close()
                raise StaleConnectionError from reason
            connection.close()
        raise StaleConnectionError

    def _write(self, protocol: Handler, request: Request, tracker: SendTracker) -> asyncio.Task[None] | None:
        """Hand the request over. Of a large one, the last part is still to be written when this returns."""
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
        except OSError as broken:
            tracker.sent = False  # the kernel took nothing
            raise StaleConnectionError from broken
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
        # A server may refuse a body before it has all of it, so we listen meanwhile.
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
        await asyncio.sleep(0)  # the attempts that this ends cut their connections, for which the session would wait
        await self.session.close()

    def reset_after_fork(self) -> object:
        """Leave the connections to the process that this one was forked from; what would close them if finalised."""
        self.session.detach()  # otherwise it complains, when it is finalised, that nobody closed it
        return self._connector


def _handler(connection: Connection) -> Handler:
    protocol = connection.protocol
    assert isinstance(protocol, Handler)  # noqa: S101 - the connector makes no other
    return protocol


def _cut(transport: asyncio.Transport | None, writing: asyncio.Task[None] | None) -> None:
    """End a connection so that nothing more of its request leaves, now or ever.

    A graceful close would first flush our buffers and the kernel's: a request that was given up, and perhaps repeated,
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
    """Write the end of a request once the kernel has taken all before it, and has room: so it cannot wait anywhere."""
    while protocol.is_connected() and not protocol.takes_more():  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_AGAIN)  # no loop tells of room in the kernel's buffer
    if tracker.claim is not None and tracker.renew is not None and tracker.claim.is_expired(margin=_RENEW_BEFORE):
        tracker.claim = await tracker.renew() or tracker.claim
    if protocol.transport is None or protocol.transport.is_closing():
        return
    protocol.send(part, tracker.claim)
    if protocol.backlog():
        raise StuckWriteError


async def _report_expiry(protocol: Handler, writing: Coroutine[None, None, None]) -> None:
    """Write what is left, and wake the reader where no answer can come: the request was not written whole."""
    try:
        await writing
    except (ClaimExpiredError, StuckWriteError) as error:
        protocol.set_exception(error)
    except Exception:  # noqa: BLE001, S110 - the one who reads sees it too
        pass


async def _rest(payload: StreamReader) -> bytes:
    """A body of which not all has come yet. A server that never ends it must not fill our memory."""
    parts = bytearray()
    while not payload.at_eof():
        parts += await payload.readany()
        if len(parts) > MAX_RESPONSE_BYTES:
            raise TooLargeError
    return bytes(parts)


def _is_silent(protocol: Handler) -> bool:
    return not _has_unread(protocol) and not protocol.should_close and protocol.is_connected()


async def _falls_silent(protocol: Handler) -> bool:
    """Bytes, or the end, may have come that the loop has not read yet.

    It gets a few turns to read them: in TLS they may be of no importance.
    """
    for _ in range(_MAX_LOOP_TURNS):
        if protocol.should_close or not protocol.is_connected():
            break
        await asyncio.sleep(0)
        if _is_silent(protocol):
            return True
    return False


async def _why_closed(protocol: Handler) -> BaseException | None:
    """What ended a connection, such as an alert of TLS. It is known a few turns after the transport is closing."""
    for _ in range(_MAX_LOOP_TURNS):
        if protocol.exception() is not None:
            break
        await asyncio.sleep(0)
    return protocol.exception()


_polls: WeakKeyDictionary[Handler, Callable[[], bool]] = WeakKeyDictionary()


def _has_unread(protocol: Handler) -> bool:
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

"""One HTTP exchange over a connection that aiohttp opens, without aiohttp's session.

A session builds a request, a response, a URL, several header maps and a writer for every request. That costs twice as
much CPU time as all the rest. `Http` serialises the request itself and writes it in one piece to an idle `Lane`.

This also makes the send tracker exact. Only `Http._write` writes bytes, and no request is ever sent a second time. A
session repeats a GET whose connection was dropped.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, cast

import aiohttp
from aiohttp.hdrs import CONTENT_ENCODING
from aiohttp.http import StreamWriter
from yarl import URL

from dispatchkit.core.body import PIECE, Parts, pieces
from dispatchkit.core.claim import CLAIM_AGE, ClaimAge, ClaimExpiredError
from dispatchkit.core.command import MAX_RESPONSE_BYTES, Request, Response
from dispatchkit.core.transport.connection import UnwrittenError, drop_unsent
from dispatchkit.core.transport.content_encoding import TooLargeError, decoded
from dispatchkit.core.transport.lane import Lane, StaleConnectionError
from dispatchkit.core.transport.open import Opener
from dispatchkit.core.transport.pool import Pool
from dispatchkit.core.transport.slices import LARGE_BODY, parsed_in_slices, with_bytes
from dispatchkit.core.transport.timer import AttemptTimer, AttemptTimers

if TYPE_CHECKING:
    from aiohttp.streams import StreamReader

__all__ = ["Http", "SendTracker", "StuckWriteError"]

_FITS = 4096
"""Bytes of a request that the kernel's empty send buffer always takes at once."""
_LAST_PART = 256
"""Bytes of a larger request that are held back until the kernel has taken the rest. No server acts without them."""
_RENEW_BEFORE = CLAIM_AGE / 5
"""Seconds before its expiry from which the claim is renewed for the last part of a large request."""
_POLL_INTERVAL = 0.005
"""Seconds between checks for room in the kernel's send buffer."""


class SendTracker(AttemptTimer):
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


class Http:
    """The connections to one origin."""

    __slots__ = (
        "_after_target",
        "_before_target",
        "_empty_body",
        "_fields",
        "_headers",
        "_opener",
        "_pool",
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
        self._opener = Opener(
            base, connect_timeout=connect_timeout, attempt_timeout=attempt_timeout, proxy=proxy, ssl=ssl
        )
        self._pool = Pool(loop)
        self.session = self._opener.session
        self.timers = AttemptTimers(loop)
        self._headers: Mapping[str, str] | None = None
        """The headers of the latest request. Most often, the next request has the same ones."""
        self._fields = self._empty_body = ""
        """What follows the target: the same headers, serialised. And that of a request with an empty body."""
        # A proxy for plain HTTP needs the absolute URL.
        self._before_target = str(base) if proxy is not None and base.scheme == "http" else ""
        self._after_target = f" HTTP/1.1\r\nHost: {base.host_port_subcomponent}\r\n"

    async def exchange(self, request: Request, tracker: SendTracker) -> Response:
        """Send a request once and read the whole response.

        Raises:
            StaleConnectionError: The connection ended, or held unexpected bytes, before the request was written.
            ClaimExpiredError: The claim expired before the whole request was written.
            Exception: Any exception of aiohttp.
        """
        # Inlined on purpose: one more coroutine per request is measurable at thousands in flight.
        lane = self._pool.take()
        if lane is None or not lane.is_silent():
            lane = await self._silent(lane)
        transport = lane.transport
        writing: asyncio.Task[None] | None = None
        try:
            answer = lane.start_exchange()
            writing = self._write(lane, request, tracker)
            response, encoding, limit = await answer, "", 0
            if response is None:
                response, encoding, limit = await _read_parsed(lane, request.max_response_bytes)
        except BaseException as error:
            if isinstance(error, ClaimExpiredError) and not tracker.sent:
                self._pool.give(lane)  # unused: the next request can use it
                raise
            _cut(transport, writing)
            lane.end()
            raise
        if writing is not None and not writing.done():
            _cut(transport, writing)  # the server answered before it had the whole request
        else:
            lane.end_exchange()
        self._pool.give(lane)
        if encoding:
            response = await decoded(response, encoding, limit)
        body = response.body
        if len(body) > LARGE_BODY and request.slices is not None and response.status == 200:
            return await parsed_in_slices(response, request.slices)
        return response if type(body) is bytes else with_bytes(response)

    async def _silent(self, lane: Lane | None) -> Lane:
        """Get an idle connection without unread bytes in place of one that holds some, or open one."""
        while lane is not None:
            try:
                if lane.is_silent() or await lane.falls_silent():
                    return lane
            except BaseException:
                lane.end()
                raise
            lane.end()
            lane = self._pool.take()
        return await self._opener.open()

    def _write(self, lane: Lane, request: Request, tracker: SendTracker) -> asyncio.Task[None] | None:
        """Write the request. For a large one, returns the task that writes the rest."""
        length = 0 if request.parts is None else request.body_size
        whole = first = self._head(request, length)
        size = len(first) + length
        if length and size <= PIECE:
            whole += request.body or b""
            first = whole if size <= _FITS else whole[:-_LAST_PART]
        tracker.sent = True
        try:
            is_taken = lane.send(first, tracker.claim)
        except ClaimExpiredError:
            tracker.sent = False
            lane.end_exchange()
            raise
        except UnwrittenError as unwritten:
            tracker.sent = False
            raise StaleConnectionError from unwritten.__cause__
        if size <= _FITS:
            if not is_taken:
                raise StuckWriteError
            return None
        if size <= PIECE:
            if lane.takes_more():
                if not lane.send(whole[-_LAST_PART:], tracker.claim):
                    raise StuckWriteError
                return None
            writing = _write_last_part(lane, memoryview(whole)[-_LAST_PART:], tracker)
        else:
            writing = _write_in_pieces(lane, request.parts or (), length, tracker)
        # A server may refuse a body before it has all of it, so the response is read concurrently.
        return asyncio.create_task(_report_expiry(lane, writing))

    def _head(self, request: Request, length: int) -> bytes:
        method, target = request.method, request.target
        if request.headers is not self._headers:
            self._serialise(request.headers)
        if not target.isprintable():
            raise ValueError("the target holds a line break, or another character that is not printable")
        if not length and method != "GET" and not self._before_target:
            return f"{method} {target}{self._empty_body}".encode("ascii")
        text = f"{method} {self._before_target}{target}{self._fields}"
        if self._before_target and (credentials := self._opener.proxy_credentials()) is not None:
            text += f"Proxy-Authorization: {credentials}\r\n"
        if request.parts is not None or method != "GET":
            text += f"Content-Length: {length}\r\n"
        return f"{text}\r\n".encode("ascii")

    def _serialise(self, headers: Mapping[str, str]) -> None:
        fields = "".join(map("%s: %s\r\n".__mod__, headers.items()))
        if fields.count("\n") != len(headers) or fields.count("\r") != len(headers):
            raise ValueError("a header holds a line break")
        self._headers, self._fields = headers, f"{self._after_target}{fields}"
        self._empty_body = f"{self._fields}Content-Length: 0\r\n\r\n"

    async def close(self) -> None:
        """Close the connections."""
        self.timers.close()
        try:
            await asyncio.sleep(0)  # let the cancelled attempts cut their connections, or the session waits for them
        finally:  # a cancelled close closes, too: another one does nothing
            self._pool.close()
            await self._opener.close()

    def reset_after_fork(self) -> object:
        """Leave the connections to the parent process. Returns the objects that would close them if finalised."""
        return self._opener.reset_after_fork(), self._pool


def _cut(transport: asyncio.Transport | None, writing: asyncio.Task[None] | None) -> None:
    """Abort a connection so that no further byte of its request ever leaves.

    A graceful close would first flush our buffers and the kernel's. An abandoned request, perhaps retried already,
    would then act after all.
    """
    if writing is not None:
        writing.cancel()
    if transport is not None:
        drop_unsent(transport)


async def _write_in_pieces(lane: Lane, parts: Parts, length: int, tracker: SendTracker) -> None:
    writer = StreamWriter(lane, asyncio.get_running_loop())
    left = length - _LAST_PART  # bytes before those that are held back
    last: list[memoryview] = []
    for piece in pieces(parts):
        if left > 0:
            await writer.write(piece[:left])
            await writer.drain()  # returns at once while the kernel has room
            await asyncio.sleep(0)
        if left < len(piece):
            last.append(piece[max(0, left) :])
        left -= len(piece)
    await _write_last_part(lane, memoryview(b"".join(last)), tracker)


async def _write_last_part(lane: Lane, part: memoryview, tracker: SendTracker) -> None:
    """Write the end of a request once the kernel has room, so that no byte waits in a buffer."""
    while lane.is_connected() and not lane.takes_more():  # noqa: ASYNC110
        await asyncio.sleep(_POLL_INTERVAL)  # event loops do not report room in the kernel's buffer
    if tracker.claim is not None and tracker.renew is not None and tracker.claim.is_expired(margin=_RENEW_BEFORE):
        tracker.claim = await tracker.renew() or tracker.claim
    if lane.transport is None or lane.transport.is_closing():
        return
    if not lane.send(part, tracker.claim):
        raise StuckWriteError


async def _report_expiry(lane: Lane, writing: Coroutine[None, None, None]) -> None:
    """Write the rest of a request. If it stays incomplete, wake the reader, since no response can come."""
    try:
        await writing
    except (ClaimExpiredError, StuckWriteError) as error:
        lane.set_exception(error)
    except Exception:  # noqa: BLE001, S110 - the reader sees the broken connection, too
        pass


async def _read_parsed(lane: Lane, max_bytes: int) -> tuple[Response, str, int]:
    """Read a response that aiohttp parses. Returns its Content-Encoding and its limit, too."""
    message, payload = await lane.read()
    while 100 <= message.code < 200 and message.code != 101:  # skip interim responses
        message, payload = await lane.read()
    limit = max_bytes if message.code == 200 else MAX_RESPONSE_BYTES
    body = payload.read_nowait() if payload.is_eof() else await _rest(payload, limit)
    if not body and not message.chunked and "Content-Length" not in message.headers:
        # Only the end of the connection ended it, so it may be the start of a longer response.
        raise aiohttp.ClientPayloadError("an empty response without a length")
    encoding = ",".join(message.headers.getall(CONTENT_ENCODING, ()))
    return Response(message.code, message.headers, body), encoding, limit


async def _rest(payload: StreamReader, limit: int) -> bytes:
    """Read the rest of a body, up to a limit. A large one is a bytearray: a copy of 64 MB blocks the loop for 50 ms."""
    parts = bytearray()
    while not payload.at_eof():
        parts += await payload.readany()
        if len(parts) > limit:
            raise TooLargeError(limit)
    return cast("bytes", parts) if len(parts) > LARGE_BODY else bytes(parts)

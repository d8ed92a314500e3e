"""One attempt in, one answer or one classified failure out. aiohttp's client lives here and nowhere else.

The witness. `Failure.sent` must be exact in one direction: when it says False, the server has seen no byte of this
request. Exception types cannot tell that (a time-out while connecting and a silent server raise the same), so
`_WitnessedRequest` marks the moment just before aiohttp hands the first byte to the socket: the start of the write
that carries the headers. Until then nothing has left; from then on we assume that it has. aiohttp also repeats GET,
PUT and DELETE by itself on a dropped connection; the second request object that it would build for that is refused.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import select
import ssl as ssl_module
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import aiohttp
import attrs
from yarl import URL

from dispatchkit.core.command import Answer, Request
from dispatchkit.core.fork import forgets_in_child, inherited_by_none

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

__all__ = ["Failure", "Transport", "Witness", "origin"]

_MOST_ANSWER_BYTES = 8 * 1024 * 1024
_CHUNK = 64 * 1024
_TURNS = 4
_STALE_AT_MOST = 3


@attrs.frozen
class Failure:
    """An attempt that brought no whole answer."""

    what: str
    """In a few words, never quoting the answer."""
    sent: bool
    """Whether any byte of the request may have left this process."""


class Witness:
    """What one attempt saw of itself. It outlives the attempt's cancellation."""

    __slots__ = ("built", "sent")

    def __init__(self) -> None:
        self.built = False
        """Whether aiohttp has made the request. Where it has not, something stands in for it, as aioresponses does:
        then no witness is asked, and only the exception can tell."""
        self.sent = False


_witness: ContextVar[Witness] = ContextVar("dispatchkit_witness")


class _HiddenResendError(Exception):
    """aiohttp was about to send the request a second time."""


class _TooLargeError(aiohttp.ClientPayloadError):
    """The answer has more bytes than any that a provider documents."""


class _StaleConnectionError(Exception):
    """The connection was closed, or held bytes that nobody asked for, before the request was written."""

    def __init__(self, *, fresh: bool) -> None:
        super().__init__()
        self.fresh = fresh
        """Whether it was just made. Then another one would most likely fare no better."""


class _WitnessedRequest(aiohttp.ClientRequest):
    # Else aiohttp declares the type of a body that is not there.
    POST_METHODS: set[str] = set()  # noqa: RUF012 - the class above calls it no ClassVar

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Add none: we say every header ourselves. Being part of the making, it also is where a re-send is refused."""
        witness = _witness.get()
        if witness.sent:
            raise _HiddenResendError
        witness.built = True

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        self._seen_by = witness = _witness.get()
        protocol = conn.protocol
        self._fresh = protocol not in _polls
        if protocol is None or _is_stale(protocol) or _has_unread(protocol):
            await _idle(conn, fresh=self._fresh)
        if not self.body:
            witness.sent = True  # without a body, the headers are written within this call
        return await super().send(conn)

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        # With a body, headers and body are written here, which may be a turn of the loop later.
        protocol = conn.protocol
        if not self._seen_by.sent and protocol is not None and _is_stale(protocol):
            protocol.set_exception(_StaleConnectionError(fresh=self._fresh))
            return
        self._seen_by.sent = True
        await super().write_bytes(writer, conn, content_length)


async def _idle(conn: Connection, *, fresh: bool) -> None:
    """Make sure that a connection is open and silent: what comes unasked would be taken for the next answer.

    Bytes, or the end, may have come that the loop has not read yet. It gets a few turns to read them: in TLS they may
    be of no importance.

    Raises:
        _StaleConnectionError: It is not.
    """
    for _ in range(_TURNS):
        protocol = conn.protocol
        if protocol is None or _is_stale(protocol):
            break
        if not _has_unread(protocol):
            return
        await asyncio.sleep(0)
    raise _StaleConnectionError(fresh=fresh)


def _is_stale(protocol: ResponseHandler) -> bool:
    return protocol.should_close or not protocol.is_connected()


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


def origin(base_url: str, *, insecure: bool = False) -> URL:
    """Check a base URL and return it as scheme, host and port.

    Raises:
        TypeError: It is not text.
        ValueError: It is empty, holds more than ``scheme://host[:port]``, or would send the token in the clear.
    """
    if not isinstance(base_url, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise TypeError(f"base_url must be a string, not {type(base_url).__name__}")
    allowed = "scheme://host[:port], such as https://example.com"
    if not base_url:
        raise ValueError(f"no host: base_url must be {allowed}")
    try:
        url: URL | None = URL(base_url)
    except ValueError:
        url = None
    if url is None or url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"base_url must be {allowed}: the one given has no scheme http or https, or no host")
    if url.user is not None or url.password is not None:
        raise ValueError(f"base_url must be {allowed}, without credentials: pass the token as token=")
    if url.path != "/" or "?" in base_url or "#" in base_url:
        # Only the origin is shown: what follows it may be a key.
        raise ValueError(f"base_url must be {allowed}, without path, query or fragment: give {str(url.origin())!r}")
    if url.scheme == "http" and not insecure and not _is_loopback(url.host):
        raise ValueError(
            f"base_url must be https, not {base_url!r}: plain http shows the token to everyone on the way "
            "(insecure=True allows it)"
        )
    return url.origin()


def _proxy_url(proxy: str) -> str:
    """Check a proxy's URL, without showing the credentials that it may hold."""
    try:
        url = URL(proxy)
    except (TypeError, ValueError):
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("proxy must be the URL of an HTTP proxy, such as http://proxy.example:3128")
    return proxy


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Transport:
    """Sends requests to one origin through one aiohttp session, made on the first request."""

    __slots__ = (
        "__weakref__",
        "_base",
        "_closed",
        "_connect_timeout",
        "_loop",
        "_origin",
        "_proxy",
        "_session",
        "_ssl",
    )

    def __init__(
        self,
        base: URL,
        *,
        connect_timeout: float,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool = True,
    ) -> None:
        self._base = base
        self._origin = str(base)
        self._closed = False
        self._connect_timeout = connect_timeout
        self._proxy = None if proxy is None else _proxy_url(proxy)
        self._ssl = ssl
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        forgets_in_child(self)

    async def send(self, request: Request, witness: Witness, *, timeout: float) -> Answer | Failure:
        """Send a request once.

        A failure is returned, not raised: aiohttp's exceptions and the frames below them hold headers and body.

        Args:
            request: What to send.
            witness: A new one; afterwards it knows whether any byte has left.
            timeout: Seconds for the whole attempt, connecting and reading included.

        Raises:
            asyncio.CancelledError: The caller was cancelled.
            RuntimeError: The client belongs to another event loop.
        """
        if self._closed:
            return Failure("the client was closed", sent=False)
        session = self._session or self._open()
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("a client serves one event loop, that of its first call: make one for each loop")
        _witness.set(witness)
        what: str
        timer = asyncio.timeout(timeout)
        try:
            async with timer:
                for _ in range(_STALE_AT_MOST):
                    try:
                        answer = await self._exchange(session, request)
                    except _StaleConnectionError as stale:
                        if stale.fresh:
                            break
                    else:
                        if witness.sent or not witness.built:
                            return answer
                        # It came before the request was written: the answer to something else.
                    # Nothing has left, so the next connection is as good.
            what = "the connection was closed by the server before the request was written"
        except asyncio.CancelledError as cancelled:
            # Its traceback runs through frames whose locals are headers and body.
            cancelled.with_traceback(None)
            raise
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in an attempt is classified, not leaked
            what = f"no answer within {round(timeout, 2):g} s" if timer.expired() else _describe(error)
            if not witness.built:
                witness.sent = not isinstance(error, aiohttp.ClientConnectorError)
        return Failure(what, sent=witness.sent)

    async def _exchange(self, session: aiohttp.ClientSession, request: Request) -> Answer:
        response = await session.request(
            request.method,
            self._url(request.target),
            headers=request.headers,
            data=_payload(request.body),
            allow_redirects=False,
        )
        try:
            length = response.content_length
            if length is not None and length <= _CHUNK:
                body = await response.read()
            else:
                body = await _read_bounded(response)
            if not body and length is None and not _is_chunked(response) and _witness.get().built:
                # The end of the connection is all that ended it: this may be the start of something else.
                raise aiohttp.ClientPayloadError("an answer without a length, and without a byte")
        except BaseException:
            response.close()
            raise
        return Answer(response.status, response.headers, body)

    def _url(self, target: str) -> URL:
        if "?" in target:
            return URL(self._origin + target, encoded=True)
        return self._base.with_path(target, encoded=True)  # nothing to parse

    def _open(self) -> aiohttp.ClientSession:
        self._loop = asyncio.get_running_loop()
        self._session = aiohttp.ClientSession(
            # The connector never queues: how many may go at a time is for our own pace to say.
            connector=aiohttp.TCPConnector(limit=0, ssl=self._ssl, socket_factory=inherited_by_none),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_WitnessedRequest,
            auto_decompress=False,
            proxy=self._proxy,
        )
        return self._session

    async def close(self) -> None:
        """Close the connections. What is in flight fails, and nothing starts any more."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def forget(self) -> object:
        """Leave the connections to the process that this one was forked from, and begin anew."""
        session, self._session, self._loop = self._session, None, None
        if session is None:
            return None
        connector = session.connector
        session.detach()  # otherwise it complains, when it is finalised, that nobody closed it
        return connector


def _is_chunked(response: aiohttp.ClientResponse) -> bool:
    return "chunked" in response.headers.get("Transfer-Encoding", "").lower()


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    """What aiohttp is given to send. It warns of raw bytes beyond a mebibyte: a file it writes in parts."""
    return body if body is None or len(body) <= 2**20 else io.BytesIO(body)


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """Read a body of unknown or large size; a server that never ends it must not fill our memory."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > _MOST_ANSWER_BYTES:
            raise _TooLargeError
    return bytes(body)


def _describe(error: Exception) -> str:
    """What went wrong, in words that never quote what was sent or received."""
    match error:
        case _HiddenResendError() | aiohttp.ServerDisconnectedError():
            return "the connection was closed before an answer came"
        case aiohttp.ClientConnectorDNSError():
            return "the host name could not be resolved"
        case aiohttp.ClientConnectorCertificateError():
            return "the server's certificate is not valid for this host"
        case aiohttp.ClientConnectorSSLError():
            return "TLS could not be agreed on"
        case aiohttp.ClientProxyConnectionError():
            return "the proxy could not be reached"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refused the connection (HTTP {error.status})"
        case aiohttp.ClientConnectorError():
            return f"no connection: {error.os_error.strerror or 'refused'}"
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return "no connection in time"
        case aiohttp.ClientPayloadError():
            large = isinstance(error, _TooLargeError)
            return f"the answer is larger than {_MOST_ANSWER_BYTES // 2**20} MiB" if large else "the answer was cut off"
        case aiohttp.ClientResponseError():
            return "the answer was not HTTP"
        case OSError():
            return "the connection was reset"
        case _:
            return f"the attempt failed ({type(error).__name__})"

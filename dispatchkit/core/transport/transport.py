"""One attempt in, one answer or one classified failure out. aiohttp's client lives here and in `http`, nowhere else.

The send tracker. `TransportFailure.sent` must be exact in one direction: when it says False, the server has seen no
byte of this request. Exception types cannot tell that (a time-out while connecting and a silent server raise the same),
so `Http` marks the moment just before it hands the first byte to the socket. Until then nothing has left; from then on
we assume that it has.
"""

from __future__ import annotations

import asyncio
import io
import ssl as ssl_module

import aiohttp
import aiohttp.client
import attrs
from yarl import URL

from dispatchkit.core.claim import ClaimExpiredError
from dispatchkit.core.command import Request, Response
from dispatchkit.core.secret import Unshown
from dispatchkit.core.transport.content_encoding import decoded
from dispatchkit.core.transport.describe import describe
from dispatchkit.core.transport.fork import register_fork_reset
from dispatchkit.core.transport.http import Http, SendTracker
from dispatchkit.core.transport.url import proxy_url

__all__ = ["ForeignLoopError", "SendTracker", "Transport", "TransportFailure"]


class ForeignLoopError(RuntimeError):
    """A client was called from another event loop than that of its first call. Nothing was sent."""


@attrs.frozen
class TransportFailure:
    """An attempt that brought no whole answer."""

    what: str
    """In a few words, never quoting the answer."""
    sent: bool
    """Whether any byte of the request may have left this process."""
    claim_expired: bool = False
    """Whether the claim expired before the whole request had left: the request is to be made again, under a new one."""


class Transport:
    """Sends requests to one origin, through connections that are made when they are needed."""

    __slots__ = (
        "__weakref__",
        "_attempt_timeout",
        "_base",
        "_closed",
        "_connect_timeout",
        "_http",
        "_loop",
        "_proxy",
        "_ssl",
    )

    def __init__(
        self,
        base: URL,
        *,
        connect_timeout: float,
        attempt_timeout: float = 70.0,
        proxy: str | Unshown[str] | None = None,
        ssl: ssl_module.SSLContext | bool = True,
    ) -> None:
        self._base = base
        self._closed = False
        self._connect_timeout = connect_timeout
        self._attempt_timeout = attempt_timeout
        self._proxy = None if proxy is None else proxy_url(proxy)
        self._ssl = ssl
        self._http: Http | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        register_fork_reset(self)

    async def send(self, request: Request, tracker: SendTracker, *, timeout: float) -> Response | TransportFailure:
        """Send a request once.

        A failure is returned, not raised: aiohttp's exceptions and the frames below them hold headers and body.

        Args:
            request: What to send.
            tracker: A new one; afterwards it knows whether any byte has left.
            timeout: Seconds for the whole attempt, connecting and reading included.

        Raises:
            asyncio.CancelledError: The caller was cancelled.
            ForeignLoopError: The client belongs to another event loop.
        """
        if self._closed:
            return TransportFailure("the client was closed", sent=False)
        http = self._http or self._open()
        if self._loop is not asyncio.get_running_loop():
            raise ForeignLoopError("a client serves one event loop, that of its first call: make one for each loop")
        timers = http.timers
        timer = timers.start(timeout)
        # A limit that stays behind would cancel whatever the task does next.
        try:
            if _is_mocked():
                response = await self._ask_mock(http.session, request, tracker)
            else:
                response = await http.exchange(request, tracker)
        except asyncio.CancelledError as cancelled:
            if not timers.stop(timer):
                # Its traceback runs through frames whose locals are headers and body.
                cancelled.with_traceback(None)
                raise
            what = self._why_ended(timeout)
        except ClaimExpiredError:
            if not timers.stop(timer):
                return TransportFailure("its claim expired", sent=tracker.sent, claim_expired=True)
            what = self._why_ended(timeout)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in an attempt is classified, not leaked
            what = self._why_ended(timeout) if timers.stop(timer) else self._describe(error, tracker)
        else:
            return response
        finally:
            timers.stop(timer)
        return TransportFailure(what, sent=tracker.sent)

    def _why_ended(self, timeout: float) -> str:
        return "the client was closed" if self._closed else f"no answer within {max(0, round(timeout, 2)):g} s"

    def _describe(self, error: Exception, tracker: SendTracker) -> str:
        return describe(error, sent=tracker.sent, plain=self._base.scheme == "http")

    async def _ask_mock(self, session: aiohttp.ClientSession, request: Request, tracker: SendTracker) -> Response:
        body = request.body
        tracker.check_claim()
        # No tracker sees what a mock does, and behind it there may be a server: only an exception can say no.
        tracker.sent = True
        try:
            response = await session.request(
                request.method,
                URL(f"{self._base}{request.target}", encoded=True),
                headers=request.headers,
                # aiohttp warns of raw bytes beyond a mebibyte.
                data=body if body is None or len(body) <= 2**20 else io.BytesIO(body),
                allow_redirects=False,
            )
            answer = Response(response.status, response.headers, await response.read())
            return await decoded(answer, response.headers.get("Content-Encoding", ""))
        except aiohttp.ClientConnectorError:
            tracker.sent = False
            raise

    def _open(self) -> Http:
        self._loop = asyncio.get_running_loop()
        self._http = Http(
            self._base,
            connect_timeout=self._connect_timeout,
            attempt_timeout=self._attempt_timeout,
            proxy=None if self._proxy is None else self._proxy.reveal(),
            ssl=self._ssl,
        )
        return self._http

    async def close(self) -> None:
        """Close the connections. What is in flight fails, and nothing starts any more."""
        self._closed = True
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def reset_after_fork(self) -> object:
        """Leave the connections to the process that this one was forked from, and begin anew."""
        http, self._http, self._loop = self._http, None, None
        return None if http is None else http.reset_after_fork()


def _is_mocked() -> bool:
    """Whether something stands in for aiohttp's own requests, as aioresponses does: then it is what must be asked.

    What only watches them, as a monitor that wraps the session's constructor, does not.
    """
    asked: object = vars(aiohttp.ClientSession)["_request"]
    return getattr(asked, "__globals__", None) is not vars(aiohttp.client)

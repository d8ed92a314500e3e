"""Send a request once: the result is a response or a `TransportFailure`. Only this package imports aiohttp.

`TransportFailure.sent` must be exact in one direction: False means that the server saw no byte of the request. The
type of an exception does not tell: a connect timeout and a silent server raise the same one. So `Http` sets the send
tracker just before it writes the first byte. From then on, the request counts as sent.
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
from dispatchkit.core.loop import ForeignLoopError, running_loop
from dispatchkit.core.secret import Unshown
from dispatchkit.core.transport.content_encoding import decoded
from dispatchkit.core.transport.describe import describe
from dispatchkit.core.transport.fork import register_fork_reset
from dispatchkit.core.transport.http import Http, SendTracker
from dispatchkit.core.transport.slices import with_bytes
from dispatchkit.core.transport.url import proxy_url

__all__ = ["ForeignLoopError", "MockError", "SendTracker", "Transport", "TransportFailure"]

_EXCHANGE_ERRORS = (aiohttp.ClientError, OSError, EOFError)
"""The exceptions with which a mock plays a failed exchange. `TimeoutError` is an `OSError`."""


class MockError(Exception):
    """A mock in place of aiohttp's session failed itself, such as with a `TypeError` for a wrong signature.

    It is no outcome of a request: the caller raises ``error``.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.error = error


@attrs.frozen
class TransportFailure:
    """An attempt without a complete response."""

    what: str
    """A short description that never quotes the response."""
    sent: bool
    """Whether any byte of the request may have left this process."""
    claim_expired: bool = False
    """Whether the claim expired before the whole request had left: send it again, with a new claim."""
    client_closed: bool = False
    """Whether the client was closed meanwhile, so the failure tells nothing of the provider."""


class Transport:
    """Sends requests to one origin, over connections made on demand."""

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

        A failure is returned, not raised: aiohttp's exceptions and their frames hold headers and body.

        Args:
            request: The request.
            tracker: A new tracker. Afterwards it tells whether any byte may have left.
            timeout: Seconds for the whole attempt, including connecting and reading.

        Raises:
            asyncio.CancelledError: The caller was cancelled.
            ForeignLoopError: The client belongs to another event loop, or none of asyncio is running. Or gevent or
                eventlet has replaced the sockets since the client was made.
            MockError: A mock in place of aiohttp's session failed itself.
        """
        if self._closed:
            return TransportFailure("the client was closed", sent=False, client_closed=True)
        http = self._http or self._open()
        if self._loop is not asyncio.get_running_loop():
            raise ForeignLoopError("a client belongs to the event loop of its first call: make one client per loop")
        timers = http.timers
        timers.start(tracker, timeout)
        # The `finally` stops the timer on every path: it would cancel the task's next work.
        try:
            if aiohttp.ClientSession._request is not _genuine and _is_mocked():  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
                response = await self._ask_mock(http.session, request, tracker)
            else:
                response = await http.exchange(request, tracker)
        except asyncio.CancelledError as cancelled:
            if not timers.stop(tracker):
                # The locals of its traceback hold headers and body.
                cancelled.with_traceback(None)
                raise
            what = self._why_ended(timeout)
        except ClaimExpiredError:
            if not timers.stop(tracker):
                return TransportFailure("its claim expired", sent=tracker.sent, claim_expired=True)
            what = self._why_ended(timeout)
        except (MockError, ForeignLoopError):
            raise
        except Exception as error:  # noqa: BLE001 - every failure of an attempt becomes a TransportFailure
            what = self._why_ended(timeout) if timers.stop(tracker) else self._describe(error, tracker)
        else:
            return response
        finally:
            timers.stop(tracker)
        return TransportFailure(what, sent=tracker.sent, client_closed=self._closed)

    def _why_ended(self, timeout: float) -> str:
        return "the client was closed" if self._closed else f"no answer within {max(0, round(timeout, 2)):g} s"

    def _describe(self, error: Exception, tracker: SendTracker) -> str:
        return describe(error, sent=tracker.sent, plain=self._base.scheme == "http")

    async def _ask_mock(self, session: aiohttp.ClientSession, request: Request, tracker: SendTracker) -> Response:
        body = request.body
        tracker.check_claim()
        # A mock may pass requests to a server without the tracker, so only an exception proves that nothing left.
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
            encoding = response.headers.get("Content-Encoding", "")
        except aiohttp.ClientConnectorError:
            tracker.sent = False
            raise
        except _EXCHANGE_ERRORS:
            raise
        except Exception as error:
            if self._closed:  # a session that a mock passes requests to may be closed meanwhile
                raise
            raise MockError(error) from None
        return with_bytes(await decoded(answer, encoding))

    def _open(self) -> Http:
        self._loop = running_loop("client")
        self._http = Http(
            self._base,
            connect_timeout=self._connect_timeout,
            attempt_timeout=self._attempt_timeout,
            proxy=None if self._proxy is None else self._proxy.reveal(),
            ssl=self._ssl,
        )
        return self._http

    async def close(self) -> None:
        """Close the connections. Attempts in flight fail, and no further one starts."""
        self._closed = True
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def reset_after_fork(self) -> object:
        """Leave the connections to the parent process. The next request opens new ones."""
        http, self._http, self._loop = self._http, None, None
        return None if http is None else http.reset_after_fork()


_genuine: object = None
"""aiohttp's own ``_request``, once it was seen."""


def _is_mocked() -> bool:
    """Whether a mock such as aioresponses replaces aiohttp's ``_request``, so that requests must go through it.

    A monitor that wraps only the session's constructor is no mock.
    """
    global _genuine  # noqa: PLW0603 - a look at each request costs less than the whole check
    request: object = vars(aiohttp.ClientSession)["_request"]
    if request is _genuine:
        return False
    is_mocked = getattr(request, "__globals__", None) is not vars(aiohttp.client)
    _genuine = _genuine if is_mocked else request
    return is_mocked

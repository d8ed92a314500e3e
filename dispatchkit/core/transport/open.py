"""Open connections to one origin with aiohttp's connector: name resolution, TLS and proxies are its own."""

from __future__ import annotations

import asyncio
import ssl as ssl_module

import aiohttp
from yarl import URL

from dispatchkit.core.loop import ForeignLoopError
from dispatchkit.core.transport.connection import socket_factory
from dispatchkit.core.transport.lane import MAX_FIELD, MAX_FIELDS, Lane, StaleConnectionError
from dispatchkit.core.transport.patched import refuse_patched
from dispatchkit.core.transport.recognise import Recogniser

__all__ = ["Opener"]


class Opener:
    """Opens lanes to one origin."""

    __slots__ = ("_connector", "_destination", "_recognise", "_timeouts", "session")

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
        self._recognise = Recogniser().__call__  # the method: calling its object would first look for it
        self._timeouts = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self.session = aiohttp.ClientSession(
            connector=self._connector,
            timeout=self._timeouts,
            proxy=proxy,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=MAX_FIELD,
            max_field_size=MAX_FIELD,
            max_headers=MAX_FIELDS,
        )
        """The session that a mock replaces."""
        # The connector connects for a request object. One unsent request stands for all, since they share an origin.
        self._destination = aiohttp.ClientRequest("POST", base, loop=loop, session=self.session, proxy=proxy)

    async def open(self) -> Lane:
        """Open a connection without unread bytes, which would be taken for the response.

        Raises:
            ForeignLoopError: gevent or eventlet has replaced the sockets since the client was made.
            StaleConnectionError: The server closed the connection at once, or sent unexpected bytes.
            Exception: Any exception of aiohttp's connector.
        """
        try:
            refuse_patched()
        except RuntimeError as error:
            raise ForeignLoopError(str(error)) from None
        connection = await self._connector.connect(self._destination, [], self._timeouts)
        lane = Lane(connection, self._recognise)
        try:
            if lane.is_silent() or await lane.falls_silent():
                return lane
            reason = await lane.why_closed()
        except BaseException:
            lane.end()
            raise
        lane.end()
        raise StaleConnectionError from reason

    def proxy_credentials(self) -> str | None:
        """The Proxy-Authorization of a plain HTTP proxy. aiohttp knows it from the first connection on."""
        return self._destination.headers.get("Proxy-Authorization")

    async def close(self) -> None:
        """Close the session and its connections."""
        await self.session.close()

    def reset_after_fork(self) -> object:
        """Leave the connections to the parent process. Returns the object that would close them if finalised."""
        self.session.detach()  # or its finaliser would warn of an unclosed session
        return self._connector

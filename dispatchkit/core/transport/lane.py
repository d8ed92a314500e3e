"""A connection that carries one request and its response at a time.

A plain response goes from the socket to its reader at once (see `Recogniser`). Every other response goes, byte for
byte, through aiohttp's own protocol and parser, under our limits. After bytes that no request asked for, a lane is not
used again. So they are never taken for a response.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import TYPE_CHECKING

from dispatchkit.core.command import Response
from dispatchkit.core.transport.connection import Handler

if TYPE_CHECKING:
    from aiohttp.connector import Connection

__all__ = ["MAX_FIELD", "MAX_FIELDS", "Lane", "StaleConnectionError"]

MAX_FIELD = 65 * 1024
"""Maximum bytes of a header field, with a value of 64 KiB."""
MAX_FIELDS = 256
_MAX_LOOP_TURNS = 4
_NO_CAUSE = BaseException()


class StaleConnectionError(Exception):
    """The connection was closed, or held unexpected bytes, before the request was written."""


class Lane(Handler):
    """The protocol that takes over a connection from aiohttp's connector.

    Args:
        connection: aiohttp's handle of the connection, which is open and unused.
        recognise: Recognises the plain responses of the origin.
    """

    def __init__(self, connection: Connection, recognise: Callable[[bytes], Response | None]) -> None:
        super().__init__(asyncio.get_running_loop())
        self._connection = connection
        self._former = connection.protocol
        """The protocol that opened the connection. The connector closes the connection through it."""
        self._recognise = recognise
        self.idle_since = 0.0
        """When the last exchange ended, by the event loop's clock."""
        self._unread: Callable[[int], object] = _nothing
        """Whether the socket holds bytes that the event loop has not read yet. Its argument is 0."""
        self._awaits_response = False
        """Whether the next bytes begin a response."""
        self._is_parsing = False
        """Whether aiohttp's parser has the response."""
        self._is_plain = True
        """Whether nothing but plain responses has come, so that aiohttp's part of the protocol knows of none."""
        self._response: asyncio.Future[Response | None] | None = None
        """The response of the latest exchange."""
        self._take_over(connection.transport)

    def _take_over(self, transport: asyncio.Transport | None) -> None:
        if transport is not None:
            self.connection_made(transport)
            transport.set_protocol(self)
        if self._former is None or self._former.should_close:  # it has read bytes, or the end of the connection
            self.force_close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection."""
        super().connection_made(transport)
        self._unread = _poll(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the exchange. The connector waits for the news, too, when it closes."""
        super().connection_lost(exc)
        if self._former is not None:
            self._former.connection_lost(exc)

    def end(self) -> None:
        """Close the connection, with FIN if nothing is outstanding, else with RST."""
        self.settle()
        self._connection.close()

    def give_back(self) -> None:
        """Give the idle connection back to the connector, which closes it with the session."""
        self.settle()
        self._connection.release()
        del self._connection  # the event loop refers to the lane, which would keep the connector of a dropped client

    def data_received(self, data: bytes) -> None:
        """Read a plain response, or leave the bytes to aiohttp's parser."""
        if self._awaits_response:
            self._awaits_response = False
            response = self._recognise(data if type(data) is bytes else bytes(data))  # Windows passes a bytearray
            if response is not None:
                answer, self._response = self._response, None
                if answer is not None and not answer.done():
                    answer.set_result(response)
                return
            self._leave_to_parser()
            self._is_parsing, self._is_plain = True, False
            self.set_response_params(
                read_until_eof=True,
                auto_decompress=False,
                max_line_size=MAX_FIELD,
                max_field_size=MAX_FIELD,
                max_headers=MAX_FIELDS,
            )
        if self._is_parsing:
            super().data_received(data)
        else:
            self.force_close()

    def force_close(self) -> None:
        """Let no further exchange use the connection."""
        self._is_plain = False
        super().force_close()

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _NO_CAUSE) -> None:
        """End the exchange with an exception. The end of the connection is one, too."""
        self._is_plain = False
        super().set_exception(exc, *(() if exc_cause is _NO_CAUSE else (exc_cause,)))
        self._leave_to_parser()

    def _leave_to_parser(self) -> None:
        """Let the reader ask aiohttp's part of the protocol for the response, or for what ended the exchange."""
        answer, self._response = self._response, None
        if answer is not None and not answer.done():
            answer.set_result(None)

    def start_exchange(self) -> asyncio.Future[Response | None]:
        """Expect a response to the request that is written next.

        Returns:
            The plain response, or None: `read` gives the head that aiohttp parses, or raises what ended the exchange.
        """
        self.is_settled = False
        self._awaits_response = True
        self._response = response = self._loop.create_future()
        return response

    def end_exchange(self) -> None:
        """Expect nothing more: the response is complete, or no byte of the request was written."""
        self.is_settled = True
        self._awaits_response = self._is_parsing = False

    def is_open(self) -> bool:
        """Whether another request can follow, as far as the event loop has read."""
        transport = self.transport
        # Of a lane with plain responses alone, aiohttp knows nothing that its own long check could find.
        return transport is not None and not transport.is_closing() and (self._is_plain or not self.should_close)

    def is_silent(self) -> bool:
        """Whether the connection is open and holds no bytes, which would be taken for the next response."""
        transport = self.transport
        if transport is None or transport.is_closing() or not (self._is_plain or not self.should_close):
            return False
        return not self._unread(0)

    async def falls_silent(self) -> bool:
        """Whether the connection becomes silent once the event loop has read its pending bytes.

        The loop gets a few iterations for that: the bytes may be TLS records without data, such as session tickets.
        """
        for _ in range(_MAX_LOOP_TURNS):
            if self.should_close or not self.is_connected():
                break
            await asyncio.sleep(0)
            if self.is_silent():
                return True
        return False

    async def why_closed(self) -> BaseException | None:
        """What ended the connection, such as a TLS alert. It arrives a few loop iterations after the close."""
        for _ in range(_MAX_LOOP_TURNS):
            if self.exception() is not None:
                break
            await asyncio.sleep(0)
        ended = self.exception()
        return self._former.exception() if ended is None and self._former is not None else ended


def _nothing(_: int) -> bool:
    return False


def _poll(transport: asyncio.BaseTransport) -> Callable[[int], object]:
    sock = transport.get_extra_info("socket")
    if sock is None:
        return _nothing
    if not hasattr(select, "poll"):  # Windows
        return lambda seconds: select.select([sock], [], [], seconds)[0]
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return poll.poll

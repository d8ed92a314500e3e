"""A provider behind a hostile network: a raw server that lets the provider act, or not, and then misbehaves.

It parses requests itself and knows every byte that it was sent. By default, state is read honestly. Only calls that act
meet the faults, in the order in which they were given.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl as ssl_module
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias
from urllib.parse import parse_qsl, unquote

import attrs

from dispatchkit.sandbox import AltcraftProvider, Call, DirectProvider, Reply

Provider: TypeAlias = DirectProvider | AltcraftProvider

READS = ("/api/v1/dispatch", "/api/v1.1/campaigns/get_status", "/api/v1.1/campaigns/log_v2")
"""The calls that only read state."""


class _Reader(asyncio.StreamReader):
    """Counts what came in."""

    def __init__(self) -> None:
        super().__init__(limit=2**26)
        self.received = 0

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        self.received += len(data)
        super().feed_data(data)


class Peer:
    """One connection, as the server sees it."""

    def __init__(self, number: int, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer
        self.excused = 0
        """Bytes of calls that only read."""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """End the connection with RST."""
        with self.raw() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def hang(self) -> bool:
        """Stay silent until the client leaves."""
        while await self.reader.read(2**16):
            pass
        return False

    def raw(self) -> socket.socket:
        """The socket itself: what is done to it is done at once, whatever the loop is doing."""
        return socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno()))


@attrs.frozen
class Stage:
    """What a fault is given to play on."""

    peer: Peer
    server: Hostile
    call: Call | None
    """None where the fault strikes before the request was read."""

    def act(self) -> Reply:
        """Let the provider do what it was asked to."""
        assert self.call is not None
        return self.server.provider.answer(self.call)


Play: TypeAlias = Callable[[Stage], Awaitable[bool | None]]
"""Misbehave. True: the connection stays and the next request is read from it; otherwise it is closed."""


@attrs.frozen
class Strike:
    """When a play strikes: on a new connection, after so many bytes of a request, or on a whole request."""

    play: Play
    at: int | None = None
    """Bytes of a request after which it strikes. -1: on a new connection. None: after the whole request."""


class Hostile:
    """A server on 127.0.0.1 in front of a provider. ``strikes`` are met in turn by what acts; then all is honest.

    ``acting`` counts whole requests that act, ``reading`` those that read, ``connections`` what was accepted.
    """

    def __init__(
        self, provider: Provider, *, forever: Strike | None = None, ssl: ssl_module.SSLContext | None = None
    ) -> None:
        self.provider = provider
        self._ssl = ssl
        self.strikes: deque[Strike] = deque()
        self.forever = forever
        """Met by every acting request once ``strikes`` is empty."""
        self.dark: Callable[[Call], Reply] | None = None
        """Answers what reads, instead of the provider."""
        self.hides = False
        """Never answer what reads."""
        self.hangs_up = False
        """Close every connection on its first byte."""
        self.acting: list[Call] = []
        self.reading: list[Call] = []
        self.on_request: Callable[[Call], None] = lambda call: None
        self.peers: list[Peer] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self._ssl else 'http'}://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        return len(self.peers)

    @property
    def bytes_seen(self) -> int:
        """Bytes of anything but calls that only read."""
        return sum(peer.reader.received - peer.excused for peer in self.peers)

    def order(self, *strikes: Strike) -> None:
        self.strikes.extend(strikes)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0, backlog=512, ssl=self._ssl)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer.writer.transport.abort()
        await self._server.wait_closed()

    def _accept(self) -> asyncio.StreamReaderProtocol:
        reader = _Reader()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = Peer(len(self.peers) + 1, reader, writer)
            self.peers.append(peer)
            task = asyncio.ensure_future(self._serve(peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return asyncio.StreamReaderProtocol(reader, connected)

    async def _serve(self, peer: Peer) -> None:
        try:
            strike = self._struck(lambda at: at == -1)
            stays = True if strike is None else await strike.play(Stage(peer, self, None))
            while stays:
                stays = await self._one(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            peer.close()

    async def _one(self, peer: Peer) -> bool | None:
        first = await peer.reader.read(1)
        if not first or self.hangs_up:
            return False
        strike = self._struck(lambda at: at is not None and at > 0)
        if strike is not None:
            await peer.reader.readexactly((strike.at or 1) - 1)
            return await strike.play(Stage(peer, self, None))
        call, size = await read_call(peer.reader, first)
        self.on_request(call)
        if call.path in READS:
            self.reading.append(call)
            peer.excused += size
            if self.hides:
                return await peer.hang()
            reply = self.provider.answer(call) if self.dark is None else self.dark(call)
            await peer.send(reply.raw())
            return True
        self.acting.append(call)
        strike = self._struck(lambda at: at is None) or self.forever
        if strike is None:
            await peer.send(self.provider.answer(call).raw())
            return True
        return await strike.play(Stage(peer, self, call))

    def _struck(self, meets: Callable[[int | None], bool]) -> Strike | None:
        return self.strikes.popleft() if self.strikes and meets(self.strikes[0].at) else None


async def read_call(reader: asyncio.StreamReader, first: bytes = b"") -> tuple[Call, int]:
    """Read one request and how many bytes it was. ``first`` was read of it before."""
    head = first + await reader.readuntil(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = start.split(" ")
    headers = dict(line.split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers.get("Content-Length", "0")))
    path, _, query = target.partition("?")
    return Call(method, unquote(path), dict(parse_qsl(query)), headers, body), len(head) + len(body)


class Recorder:
    """A second server, to which nothing must ever come: it counts connections and bytes, and answers nothing."""

    def __init__(self) -> None:
        self.connections = 0
        self.received = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.received += await reader.read(2**16)
        writer.close()


def share(many: int) -> int:
    """Where this loop begins when two loops divide a long list of bytes or cells between them: 0 or 1."""
    return int("uvloop" in type(asyncio.get_running_loop()).__module__) % many

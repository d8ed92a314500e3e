"""A TCP proxy with moods, between a client and its database."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

__all__ = ["Proxy"]


GRANTED = struct.pack("!hiii", 4, -1, -1, -1)
"""Begins the row with which PostgreSQL grants a batch of claims: it names no claim that is refused. See `write`."""


class Proxy:
    """It forwards, until told to do worse.

    Args:
        target: The port on loopback to which it forwards. Set another, and new connections go there.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.on_answer: Callable[[bytes], None] | None = None
        """Called with what the server said, before it is forwarded."""
        self.on_request: Callable[[bytes], None] | None = None
        """Called with what the client said, before it is forwarded."""
        self.delay = 0.0
        """Seconds by which each piece is late, in both directions."""
        self.swallowing = False
        """Black hole: what comes is read and thrown away, also on new connections."""
        self.refusing = False
        """New connections are reset."""
        self._go = asyncio.Event()
        self._go.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut everything, and listen no more."""
        if self._server is not None:
            self._server.close()
        self.cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def cut(self) -> int:
        """Reset all connections. Returns how many there were."""
        count = len(self._writers) // 2
        for writer in self._writers:
            with contextlib.suppress(OSError, ValueError):  # it is closed already, which uvloop tells as a ValueError
                if sock := writer.get_extra_info("socket"):  # or None of it is left
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no polite end
            writer.transport.abort()
        return count

    def stall(self) -> None:
        """Hold every byte, in both directions, until `go`. No connection is closed."""
        self._go.clear()

    def go(self) -> None:
        """Forward again, and first what was held."""
        self._go.set()

    def heal(self) -> None:
        """Forward again, whatever mood it was in."""
        if self.swallowing:
            self.swallowing = False
            self.cut()  # what was swallowed is missing
        self.on_answer = self.on_request = None
        self.delay, self.refusing = 0.0, False
        self.go()

    @property
    def stalled(self) -> bool:
        """Whether bytes are held."""
        return not self._go.is_set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        up: asyncio.StreamWriter | None = None
        try:
            if self.refusing:
                writer.transport.abort()
                return
            up_reader, up = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers |= {writer, up}
            await asyncio.gather(self._pipe(reader, up, answers=False), self._pipe(up_reader, writer, answers=True))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, up):
                if each is not None:
                    self._writers.discard(each)
                    with contextlib.suppress(Exception):
                        each.transport.abort()
            self._tasks.discard(task)

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if (hook := self.on_answer if answers else self.on_request) is not None:
                    hook(data)
                await self._go.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if not self.swallowing:
                    sink.write(data)
                    await sink.drain()
        sink.transport.abort() if sink.transport.is_closing() else sink.close()

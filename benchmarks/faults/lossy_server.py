"""A provider on loopback that acts on each complete request, and loses its first answer in one of several ways."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, unquote

from dispatchkit.sandbox import Call, Reply

FAULTS = ("closed", "reset", "500", "502", "504", "silent", "cut")
"""What happens after the provider has acted.

The connection is closed or reset, a gateway answers 500, 502 or 504, or no answer comes. The last one cuts the answer
in the middle of its body.
"""

REFUSED = "refused"
"""A control, no fault: the provider refuses the first request and does not act."""

_LINGER_ZERO = struct.pack("ii", 1, 0)


class LossyServer:
    """One contestant's provider under one fault.

    Args:
        fault: One of `FAULTS`, or `REFUSED`.
        answer: Acts on a call and makes its answer.
        refusal: The answer of `REFUSED`.
        reads: The paths that only read. They meet no fault and are not counted.
        context: For TLS.
    """

    def __init__(
        self,
        fault: str,
        answer: Callable[[Call], Reply],
        refusal: Reply,
        *,
        reads: frozenset[str] = frozenset(),
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[Call] = []
        """The complete requests that act."""
        self._fault: str | None = fault
        self._answer = answer
        self._refusal = refusal
        self._reads = reads
        self._context = context
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.url = f"{'https' if self._context else 'http'}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._exchange(await _read(reader), reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()

    async def _exchange(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request. Returns whether the next one may follow on this connection."""
        if call.path in self._reads:
            writer.write(self._answer(call).raw())
            return True
        fault, self._fault = self._fault, None
        if fault == REFUSED:
            writer.write(self._refusal.raw())
            return True
        self.requests.append(call)
        answer = self._answer(call).raw()
        match fault:
            case None:
                writer.write(answer)
            case "closed":
                return False
            case "reset":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
                writer.transport.abort()
                return False
            case "silent":
                await reader.read()  # until the client leaves
                return False
            case "cut":
                writer.write(answer[: answer.index(b"\r\n\r\n") + 5])
                return False
            case _:
                writer.write(Reply.of_web_server(int(fault)).raw())
        return True


async def _read(reader: asyncio.StreamReader) -> Call:
    """Read one request to its end."""
    start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    method, target, _ = start.split(" ")
    headers = {name.title(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        body = await reader.readexactly(int(headers.get("Content-Length", "0")))
    path, _, query = target.partition("?")
    return Call(method, unquote(path), dict(parse_qsl(query)), headers, body)

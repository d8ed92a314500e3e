"""A server of raw bytes: it records each request byte for byte, and answers the bytes that it was given."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import pytest

from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.errors import DispatchkitError


def http(status: int, body: bytes | str | object = b"", **headers: str) -> bytes:
    """An answer in bytes. A body that is neither bytes nor text is said in JSON."""
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Received(bytes):
    """A request as it came."""

    @property
    def line(self) -> str:
        return self.split(b"\r\n", 1)[0].decode()

    @property
    def headers(self) -> dict[str, str]:
        head = self.split(b"\r\n\r\n", 1)[0].decode()
        return dict(line.split(": ", 1) for line in head.split("\r\n")[1:])

    @property
    def body(self) -> bytes:
        return self.split(b"\r\n\r\n", 1)[1]


class Listener:
    """A server on 127.0.0.1. ``answers`` go out in turn, the last one again and again; None never answers."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers) or [http(200)]
        self.requests: list[Received] = []
        self.arrived = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**26)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._open:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = Received(head).headers.get("Content-Length", "0")
                self.requests.append(Received(head + await reader.readexactly(int(length))))
                self.arrived.set()
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
                    if b"\r\nConnection: close\r\n" in answer:
                        break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


class Instant:
    """A clock whose waits take no time, but count."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    def boottime(self) -> float:
        return self.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._ahead)

    async def sleep(self, seconds: float) -> None:
        self._ahead += seconds
        await asyncio.sleep(0)

    def random(self) -> float:
        return 0.5


def once() -> Any:
    """Settings of a client that repeats nothing and waits for nothing."""
    return {"retry": RetryPolicy(attempts=1), "clock": Instant()}


async def failure(call: Awaitable[object]) -> DispatchkitError:
    """The error of a call that must not succeed."""
    with pytest.raises(DispatchkitError) as caught:
        await call
    return caught.value

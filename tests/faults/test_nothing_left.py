"""Where nothing can have left, the outcome is not_sent; it is never not_sent where the server saw a byte."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from dispatchkit import DispatchkitError, NotSentError, RetryPolicy, State
from tests.faults import tls
from tests.faults.actions import ACTIONS, LAUNCH, QUICK, START, STOP, Action
from tests.faults.hostile_server import Hostile

ONCE = RetryPolicy(attempts=1)
NOWHERE = "https://direct.example"

Behaviour: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(behaviour: Behaviour, **settings: Any) -> AsyncIterator[int]:
    """A server that does with every connection as it is told."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await behaviour(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **settings)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader, writer


async def closes_when_asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del writer
    await reader.read(2**16)


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del writer
    while await reader.read(2**16):
        pass


def answers(data: bytes) -> Behaviour:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(2**16)
        writer.write(data)
        await writer.drain()
        writer.close()

    return behaviour


async def tunnels_and_closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await reader.read(2**16)  # the greeting of TLS


class _Resolver:
    """Resolves nothing: fails, or hangs."""

    def __init__(self, *, fails: bool) -> None:
        self._fails = fails

    async def resolve(self, *_: object, **__: object) -> list[object]:
        if self._fails:
            raise OSError(None, "Name or service not known")
        await asyncio.Event().wait()
        return []

    async def close(self) -> None:
        pass


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


CLOSED_DOORS = (
    "refused",
    "no such name",
    "the resolver hangs",
    "connecting hangs",
    "TLS to a plain server",
    "TLS, closed at once",
    "TLS, closed in the handshake",
    "TLS, hangs in the handshake",
    "TLS, untrusted certificate",
    "TLS, another host's certificate",
    "proxy refused",
    "proxy answers 407",
    "proxy answers 502",
    "proxy answers 200 and closes",
    "proxy answers rubbish",
    "proxy closes",
    "proxy closes when asked",
    "proxy hangs",
)


@asynccontextmanager
async def door(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, Any]]:
    """The settings of a client that cannot get through."""
    behaviours: dict[str, Behaviour] = {
        "TLS to a plain server": answers(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        "TLS, closed at once": closes,
        "TLS, closed in the handshake": closes_when_asked,
        "TLS, hangs in the handshake": hangs,
        "TLS, untrusted certificate": hangs,
        "TLS, another host's certificate": hangs,
        "proxy answers 407": answers(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n"),
        "proxy answers 502": answers(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nBad"),
        "proxy answers 200 and closes": tunnels_and_closes,
        "proxy answers rubbish": answers(b"\x00\x01\x02\r\n\r\n"),
        "proxy closes": closes,
        "proxy closes when asked": closes_when_asked,
        "proxy hangs": hangs,
    }
    async with AsyncExitStack() as stack:
        if name == "refused":
            yield {"url": f"http://127.0.0.1:{free_port()}"}
        elif name in {"no such name", "the resolver hangs"}:
            with monkeypatch.context() as patch:
                patch.setattr("aiohttp.connector.DefaultResolver", lambda **_: _Resolver(fails="no" in name))
                yield {"url": NOWHERE}
        elif name == "connecting hangs":
            yield {"url": f"http://127.0.0.1:{stack.enter_context(_full()).getsockname()[1]}"}
        elif name == "proxy refused":
            yield {"url": NOWHERE, "proxy": f"http://127.0.0.1:{free_port()}"}
        else:
            certified = {"ssl": tls.serving(folder)} if "certificate" in name else {}
            port = await stack.enter_async_context(listening(behaviours[name], **certified))
            if "proxy" in name:
                yield {"url": NOWHERE, "proxy": f"http://127.0.0.1:{port}"}
            elif "another" in name:
                yield {"url": f"https://localhost:{port}", "ssl": tls.trusting()}
            else:
                yield {"url": f"https://127.0.0.1:{port}"}


class _full:  # noqa: N801 - used like a function
    """A server whose queue is full: a connection to it is never opened."""

    def __enter__(self) -> socket.socket:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._guests = []
        for _ in range(3):
            guest = socket.socket()
            guest.setblocking(False)
            guest.connect_ex(self._server.getsockname())
            self._guests.append(guest)
        return self._server

    def __exit__(self, *_: object) -> None:
        for sock in (*self._guests, self._server):
            sock.close()


@pytest.mark.second_stage
async def test_nothing_left_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: Counter[str] = Counter()
    calls = 0
    for name in CLOSED_DOORS:
        if name == "connecting hangs" and sys.platform != "linux":
            continue  # elsewhere a full queue refuses
        async with door(name, tmp_path, monkeypatch) as settings:

            async def knock(action: Action, name: str = name, settings: dict[str, Any] = settings) -> None:
                async with action.client(timeout=0.3, retry=ONCE, **settings) as client:
                    with pytest.raises(DispatchkitError) as caught:
                        await client.perform(action.command)
                if not isinstance(caught.value, NotSentError):
                    told[f"{name}: {caught.value.state} ({caught.value.summary})"] += 1
                assert caught.value.state in {State.NOT_SENT, State.UNKNOWN}

            actions = ACTIONS * 2
            calls += len(actions)
            await asyncio.gather(*map(knock, actions))

    assert calls > 250
    assert told.total() <= calls / 100, told


@pytest.mark.parametrize("name", ["refused", "no such name", "proxy answers 502", "TLS, closed at once"])
async def test_not_sent_is_retried(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        door(name, tmp_path, monkeypatch) as settings,
        START.client(timeout=5.0, retry=QUICK, **settings) as client,
    ):
        with pytest.raises(NotSentError) as caught:
            await client.perform(START.command)

    assert len(caught.value.attempts) == QUICK.attempts
    assert not any(attempt.sent for attempt in caught.value.attempts)


@pytest.mark.parametrize(
    "name",
    ["the resolver hangs", "TLS, hangs in the handshake", "proxy hangs"],
)
@pytest.mark.parametrize("action", [STOP, LAUNCH], ids=lambda action: action.name)
async def test_early_cancellation_is_not_sent(
    name: str, action: Action, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with door(name, tmp_path, monkeypatch) as settings, action.client(retry=QUICK, **settings) as client:
        call = client._call(action.command)
        task = asyncio.ensure_future(call.run())
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert call.known_outcome().state is State.NOT_SENT
    assert [attempt.sent for attempt in call.attempts] == [False]


@pytest.mark.parametrize("action", [START, STOP, LAUNCH], ids=lambda action: action.name)
async def test_tls_uses_one_connection(action: Action, tmp_path: Path) -> None:
    # A server of TLS 1.3 sends tickets after its handshake: bytes that come unasked and mean no harm.
    async with (
        Hostile(action.provider(), ssl=tls.serving(tmp_path)) as server,
        action.client(server.url, retry=ONCE, ssl=tls.trusting()) as client,
    ):
        await client.perform(action.command)
        for _ in range(20):
            await client.perform(action.reads)
    assert server.connections == 1
    assert action.acts(server.provider) == 1

"""The benchmarks run, on what is installed, and compare like with like. What they measure here means nothing."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Iterator

import pytest

from benchmarks import fanout
from benchmarks.__main__ import main
from benchmarks.contestants import PEERS, sample
from benchmarks.server import Server, Starts

HEADS: dict[bytes, None] = {}
CONNECTIONS: list[Starts] = []


class Recording(Starts):
    """Answers as the benchmarks' own server does, and keeps what is asked."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        CONNECTIONS.append(self)

    def data_received(self, data: bytes) -> None:
        for head in (self.pending + data).split(b"\r\n\r\n")[:-1]:
            HEADS.setdefault(head)
        super().data_received(data)


@pytest.fixture
def recording() -> Iterator[Server]:
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(Recording, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield Server("test", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", os.getpid())

    async def close() -> None:
        server.close()
        for connection in CONNECTIONS:
            connection.transport.abort()
        CONNECTIONS.clear()
        await asyncio.sleep(0)  # a transport closes its socket a turn later

    asyncio.run_coroutine_threadsafe(close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.mark.second_stage
@pytest.mark.parametrize("peer", [peer.name for peer in PEERS.values() if not peer.missing()])
def test_contestants_send_same_request(peer: str, recording: Server) -> None:
    HEADS.clear()
    taken = sample(peer, PEERS[peer].loops[0] and "asyncio", recording, workers=3, seconds=0.05)
    assert taken.requests > 0
    assert taken.cpu > 0
    for head in HEADS:
        first, *lines = head.decode().split("\r\n")
        assert re.fullmatch(r"POST /api/v1/dispatch/1\d{10}/start HTTP/1\.1", first)
        sent = {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}
        assert sent.pop("host") == recording.url.removeprefix("http://")
        assert sent.pop("content-length", "0") == "0"
        assert sent.pop("authorization") == "Basic a2V5OmtleQ=="
        assert sent.pop("accept") == "application/json"
        assert sent.pop("accept-encoding") == "identity"
        assert sent.pop("user-agent").startswith("dispatchkit/")
        assert not sent


def test_command_shows_ratios_and_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "FAN_OUT_PEERS", [PEERS["dispatchkit FanOut"], PEERS["aiohttp, default"]])
    main(["fanout", "--rounds", "1", "--seconds", "0.05", "--workers", "4"])
    printed = capsys.readouterr().out
    assert re.search(r"^\| dispatchkit FanOut +\| +\d+\.\d\d \|", printed, re.MULTILINE)
    assert re.search(r"^\| aiohttp, default +\| +1\.00 \|", printed, re.MULTILINE)
    assert all(f"Missing: {peer.name}" in printed for peer in PEERS.values() if peer.missing())
    assert "Failed" not in printed

"""TLS that fails and proxies that refuse: each error names the cause and what to do, with the right outcome."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from dispatchkit import AltcraftClient, DirectClient, State
from tests.faults import tls
from tests.faults.test_nothing_left import (
    Behaviour,
    answers,
    closes,
    closes_when_asked,
    free_port,
    hangs,
    listening,
    tunnels_and_closes,
)
from tests.wire import Listener, failure, http, once

pytestmark = pytest.mark.second_stage

NOT_SENT, UNKNOWN = State.NOT_SENT, State.UNKNOWN
YES = http(200, {"dispatchId": 7})
PROXY = "http://127.0.0.1:{port}"


async def alerts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server of TLS that refuses with an alert: handshake failure."""
    await reader.read(2**16)
    writer.write(b"\x15\x03\x03\x00\x02\x02\x28")
    await writer.drain()


@attrs.frozen
class Case:
    """A server, a client's settings, and what comes of a call."""

    behaviour: Behaviour
    outcome: State
    says: str
    url: str = "https://127.0.0.1:{port}"
    certificate: str | None = None
    trusts: bool = True
    proxy: str | None = None
    newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
    timeout: float = 2.0


def through(behaviour: Behaviour, says: str, **settings: Any) -> Case:
    return Case(behaviour, NOT_SENT, says, url="https://direct.example", proxy=PROXY, **settings)


def refuses(status: int) -> Behaviour:
    return answers(http(status, "<html>"))


CASES = {
    "expired": Case(answers(YES), NOT_SENT, "127.0.0.1 has expired: its operator", certificate=tls.EXPIRED),
    "not valid yet": Case(answers(YES), NOT_SENT, "is not valid yet: check the clock", certificate=tls.FUTURE),
    "self-signed": Case(answers(YES), NOT_SENT, "is self-signed: pass", certificate=tls.CERTIFICATE, trusts=False),
    "unknown authority": Case(
        answers(YES), NOT_SENT, "an authority that this machine does not trust", certificate=tls.LEAF, trusts=False
    ),
    "another address": Case(answers(YES), NOT_SENT, "127.0.0.1 is for another host", certificate=tls.NAMED),
    "another name": Case(
        answers(YES),
        NOT_SENT,
        "localhost is for another host",
        url="https://localhost:{port}",
        certificate=tls.CERTIFICATE,
    ),
    "closed at once": Case(closes, NOT_SENT, "closed the connection during the TLS handshake"),
    "closed in the handshake": Case(closes_when_asked, NOT_SENT, "closed the connection during the TLS handshake"),
    "hangs in the handshake": Case(hangs, NOT_SENT, "no answer within|no connection in time", timeout=0.3),
    "refused by an alert": Case(alerts, NOT_SENT, "refused the TLS handshake: it may demand a client certificate"),
    "TLS to a plain port": Case(refuses(400), NOT_SENT, "the server does not speak TLS: check the port"),
    "plain to TLS": Case(
        answers(YES),
        UNKNOWN,
        r"\(if its port speaks TLS, its URL begins with https://\)",
        url="http://127.0.0.1:{port}",
        certificate=tls.CERTIFICATE,
    ),
    "plain to TLS, an alert": Case(
        alerts, UNKNOWN, r"was not HTTP \(if its port speaks TLS", url="http://127.0.0.1:{port}"
    ),
    "proxy 407": through(refuses(407), r"the proxy demands credentials \(HTTP 407\): give them in proxy="),
    "proxy 403": through(refuses(403), r"the proxy refused the connection \(HTTP 403\)"),
    "proxy 502": through(refuses(502), r"the proxy refused the connection \(HTTP 502\)"),
    "proxy closes": through(closes_when_asked, "the proxy closed the connection"),
    "proxy tunnels and closes": through(tunnels_and_closes, "closed the connection during the TLS handshake"),
    "proxy rubbish": through(answers(b"\0\1\2\r\n\r\n"), "the answer of the proxy was not HTTP"),
    "proxy that speaks TLS": through(answers(YES), "the proxy closed the connection", certificate=tls.CERTIFICATE),
    "proxy 407 over TLS": attrs.evolve(
        through(refuses(407), r"the proxy demands credentials \(HTTP 407\)", certificate=tls.CERTIFICATE),
        proxy="https://127.0.0.1:{port}",
    ),
    "proxy self-signed": attrs.evolve(
        through(refuses(407), "127.0.0.1 is self-signed", certificate=tls.CERTIFICATE, trusts=False),
        proxy="https://127.0.0.1:{port}",
    ),
    "proxy without TLS": attrs.evolve(
        through(refuses(407), "does not speak TLS"), proxy="https://127.0.0.1:{port}"
    ),
    "forward proxy 407": Case(
        refuses(407),
        UNKNOWN,
        r"a proxy on the way, not the provider, demands credentials \(HTTP 407\)",
        url="http://127.0.0.1:9",
        proxy=PROXY,
    ),
    "forward proxy 502": Case(
        refuses(502), UNKNOWN, r"the server failed \(HTTP 502\)", url="http://127.0.0.1:9", proxy=PROXY
    ),
    "forward proxy 403": Case(
        refuses(403), UNKNOWN, "this is no answer of the provider", url="http://127.0.0.1:9", proxy=PROXY
    ),
}  # fmt: skip


@asynccontextmanager
async def server(case: Case, folder: Path) -> AsyncIterator[dict[str, Any]]:
    """The settings of a client of a case."""
    secure = {} if case.certificate is None else {"ssl": tls.serving(folder, case.certificate, newest=case.newest)}
    async with listening(case.behaviour, **secure) as port:
        settings: dict[str, Any] = {**once(), "timeout": case.timeout, "base_url": case.url.format(port=port)}
        if case.trusts:
            settings["ssl"] = tls.trusting()
        if case.proxy is not None:
            settings["proxy"] = case.proxy.format(port=port)
        yield settings


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("provider", ["direct", "altcraft"])
async def test_connection_failure_is_explained(name: str, provider: str, tmp_path: Path) -> None:
    case = CASES[name]
    async with server(case, tmp_path) as settings:
        if provider == "direct":
            async with DirectClient("k", **settings) as direct:
                error = await failure(direct.start(7))
        else:
            async with AltcraftClient(token="t", **settings) as altcraft:
                error = await failure(altcraft.launch_broadcast(9))
    assert error.state is case.outcome, error
    assert re.search(case.says, error.summary), error
    assert {attempt.sent for attempt in error.attempts} == {case.outcome is UNKNOWN}


@contextmanager
def demanding(context: ssl.SSLContext) -> Iterator[int]:
    """A server of TLS in a thread, which says with an alert that it misses the client's certificate."""
    received: list[bytes] = []

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                guest, _ = listening.accept()
            except OSError:
                return
            with guest, contextlib.suppress(OSError), context.wrap_socket(guest, server_side=True) as secured:
                received.append(secured.recv(2**16))
                secured.sendall(YES)
                secured.recv(2**16)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_missing_client_certificate_is_explained(newest: ssl.TLSVersion, tmp_path: Path) -> None:
    with demanding(tls.serving(tmp_path, demands=True, newest=newest)) as port:
        url = f"https://127.0.0.1:{port}"
        async with DirectClient("k", base_url=url, ssl=tls.trusting(), timeout=2, **once()) as direct:
            error = await failure(direct.start(7))
        async with DirectClient("k", base_url=url, ssl=tls.trusting(tmp_path), **once()) as direct:
            assert (await direct.start(7)).dispatch_id == 7
    sent = [attempt.sent for attempt in error.attempts]
    if newest is ssl.TLSVersion.TLSv1_2:
        assert (error.state, sent) == (NOT_SENT, [False])
        assert "it may demand a client certificate" in error.summary
    else:
        # The alert comes after the handshake: before the request is written, or after it.
        assert error.state is (UNKNOWN if sent[0] else NOT_SENT)
        told = error.attempts[0].result
        assert "demands a client certificate" in told or (sent[0] and "connection was" in told)


async def test_late_certificate_demand_is_unknown(tmp_path: Path) -> None:
    # The server lets the request in and ends the handshake only then.
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secured = tls.serving(tmp_path, demands=True).wrap_bio(incoming, outgoing, server_side=True)
        for _ in range(2):
            incoming.write(await reader.read(2**16))
            if outgoing.pending == 0 and not reader.at_eof():
                await asyncio.sleep(0.05)  # so that request and end of handshake are read together
            with contextlib.suppress(ssl.SSLError):
                secured.do_handshake()
            writer.write(outgoing.read())
            await writer.drain()
            await asyncio.sleep(0.1)

    async with listening(late) as port:
        url = f"https://127.0.0.1:{port}"
        async with DirectClient("k", base_url=url, ssl=tls.trusting(), timeout=2, **once()) as direct:
            error = await failure(direct.start(7))
    assert error.state is UNKNOWN
    assert "demands a client certificate" in error.attempts[0].result


async def test_missing_proxy_is_refused() -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    async with DirectClient("k", base_url="https://direct.example", proxy=proxy, timeout=2, **once()) as direct:
        error = await failure(direct.start(7))
    assert (error.state, error.summary) == (NOT_SENT, "the proxy could not be reached")


@pytest.mark.parametrize("body", [{"error": {"code": 4031, "msg": "no"}}, {"dispatchId": 7}, b""])
async def test_407_comes_from_proxy(body: object) -> None:
    async with Listener(http(407, body)) as listener, DirectClient("k", base_url=listener.url, **once()) as direct:
        calls: list[Callable[[int], Any]] = [direct.start, direct.stop]
        for call in calls:
            error = await failure(call(7))
            assert error.state is UNKNOWN
            assert "a proxy on the way, not the provider, demands credentials (HTTP 407)" in error.summary

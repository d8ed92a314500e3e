"""Serve the control room until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping

import attrs
from aiohttp import web

from dispatchkit.web.app import ControlRoom, build_app
from dispatchkit.web.security import our_hosts

__all__ = ["serve"]

_HTTP_LOG = logging.getLogger("dispatchkit.web.http")
"""aiohttp's log of requests that it cannot read. It quotes them, with the cookie or a link's token: it stays off."""
_HTTP_LOG.disabled = True
_SHUTDOWN_TIMEOUT = 2.0
_HEAD_TIMEOUT = 30.0
"""Seconds in which a connection must send the head of its first request, and of each later one. aiohttp's own is an
hour."""
_LINKED: Mapping[str, str] = {"localhost": "127.0.0.1", "0.0.0.0": "", "::": ""}  # noqa: S104 - it is not bound here
"""What links name instead of some hosts; empty for this machine's name."""


async def serve(
    room: ControlRoom,
    *,
    port: int,
    tls: ssl.SSLContext | None,
    announce: Callable[[str], None],
    ended: asyncio.Event,
) -> None:
    """Serve until ``ended`` is set.

    Args:
        room: What is shown, and where it listens.
        port: The port; 0 takes any free one.
        tls: The certificate; None serves plain HTTP.
        announce: Called with each link, which opens the page in one browser.
        ended: Set to end.

    Raises:
        OSError: The port is taken, or the host is not of this machine.
    """
    listening = _listen("127.0.0.1" if room.host == "localhost" else room.host, port)
    bound = listening.getsockname()[1]
    secure = tls is not None
    shown = _LINKED.get(room.host, room.host) or socket.getfqdn()
    base = f"{'https' if secure else 'http'}://{f'[{shown}]' if ':' in shown else shown}:{bound}"

    def print_link() -> None:
        announce(f"{base}/open?token={room.access.new_link()}")

    room = attrs.evolve(
        room,
        hosts=frozenset(our_hosts(room.host)),
        is_secure=secure,
        cookie=f"{'__Host-' if secure else ''}dispatchkit_{bound}",
        on_admitted=print_link,
    )
    runner = web.AppRunner(
        build_app(room),
        access_log=None,
        logger=_HTTP_LOG,
        shutdown_timeout=_SHUTDOWN_TIMEOUT,
        keepalive_timeout=_HEAD_TIMEOUT,
        handle_signals=False,
    )
    try:
        await runner.setup()
        await web.SockSite(runner, listening, ssl_context=tls).start()
        print_link()
        await ended.wait()
    finally:
        await runner.cleanup()
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    """A socket on the first address of a host: the one that its links name."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family)

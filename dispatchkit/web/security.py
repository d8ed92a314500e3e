"""Access to the control room: one-time links, cookies, and checks of each request's headers.

A link has a token that works once. It gives a cookie, by which the browser is known until the server ends. A page has a
second token, which each write must repeat. A foreign page can send a request with the cookie, but cannot read the page.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Collection, Mapping
from hashlib import sha256
from urllib.parse import urlsplit

import attrs

__all__ = ["HEADERS", "Access", "Session", "is_loopback", "is_our_host", "is_own_fetch", "is_own_write", "our_hosts"]

HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "Server": "dispatchkit",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every response."""

_NO_HOST = frozenset("@/?#\\")
"""What parts an address from its host."""
_MAX_SESSIONS = 64
"""Browsers that are known at once. The oldest is forgotten for a new one."""


@attrs.frozen
class Session:
    """A browser that opened a link."""

    csrf: str = attrs.field(repr=False)
    """The token that each write of its pages repeats."""


class Access:
    """Links and sessions of one server. It keeps hashes only, so a dump of its memory gives no cookie."""

    def __init__(self) -> None:
        self._link = b""
        self._sessions: dict[bytes, Session] = {}

    def new_link(self) -> str:
        """A token for one browser. An earlier one that was not used is no longer valid."""
        token = secrets.token_urlsafe(32)
        self._link = _hash(token)
        return token

    def admit(self, token: str) -> str | None:
        """The cookie for a link's token; None if the token is not valid, or was used before."""
        if not hmac.compare_digest(_hash(token), self._link):
            return None
        self._link = b""
        cookie = secrets.token_urlsafe(32)
        if len(self._sessions) >= _MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[_hash(cookie)] = Session(secrets.token_urlsafe(32))
        return cookie

    def session(self, cookie: str | None) -> Session | None:
        """The session of a cookie; None if there is none."""
        return None if cookie is None else self._sessions.get(_hash(cookie))


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on a host.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.com")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def our_hosts(host: str) -> Collection[str]:
    """The names by which a server on a host is called. An address needs no name."""
    names = {"localhost", host.casefold()}
    if not is_loopback(host):
        names |= {socket.gethostname().casefold(), socket.getfqdn().casefold()}
    return frozenset(names)


def is_our_host(header: str | None, names: Collection[str], *, loopback: bool) -> bool:
    """Whether a ``Host`` header names this server.

    A page of a foreign name may point this name at this machine later (DNS rebinding). Then its requests have the
    foreign name as ``Host``. The port may be another one, as a tunnel has its own. On loopback, only addresses of
    loopback are ours. On a network, any address is: an address cannot be pointed elsewhere.
    """
    try:
        name = urlsplit(f"//{header or ''}").hostname
        if not name or not _NO_HOST.isdisjoint(header or ""):
            return False
    except ValueError:
        return False
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return address.is_loopback or not loopback


def is_own_write(headers: Mapping[str, str], scheme: str) -> bool:
    """Whether a page of this server sent a write: its ``Origin`` is required, and must be this server's."""
    site = headers.get("Sec-Fetch-Site", "same-origin")
    return headers.get("Origin") == f"{scheme}://{headers.get('Host', '')}" and site == "same-origin"


def is_own_fetch(headers: Mapping[str, str]) -> bool:
    """Whether a page of this server, or a person, asked for what is read. Browsers without the header are let in."""
    return headers.get("Sec-Fetch-Site", "none") in {"same-origin", "none"}

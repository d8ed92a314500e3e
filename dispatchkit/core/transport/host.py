"""Check host and port of a URL as they are written, before a parser cleans them up.

A parser drops tabs and line ends, and takes blanks, zone ids and empty labels for parts of a name. Such a host is a
mistake, or the name of another machine than the one that was meant.
"""

from __future__ import annotations

import ipaddress
import re

__all__ = ["host_problem"]

_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_PORT = re.compile(r"[0-9]{1,5}")
_MAX_LABEL = 63
_MAX_HOST = 253
_MAX_PORT = 65535


def host_problem(url: str) -> str | None:
    """Describe what is wrong with the host or the port of a URL, without a quote of it. None if both are valid.

    A name of other letters than ASCII is refused: it may look like another name. Its ASCII form, ``xn--``, is taken.
    """
    if any(char.isspace() or not char.isprintable() for char in url):
        return "the one given holds a blank or a control character"
    if "\\" in url:
        return "the one given holds a backslash"
    match = _AUTHORITY.match(url)
    if match is None:
        return "the one given has no host"
    place = match[1].rpartition("@")[2]
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        return (None if bracket and _is_ipv6(host) else "its IPv6 address is none, or has a zone") or _port(rest)
    host, colon, port = place.partition(":")
    return _name(host) or _port(colon + port)


def _name(host: str) -> str | None:
    if not host.isascii():
        return "its host has letters other than ASCII, which may look like others: write its ASCII form (xn--...)"
    if _NAME.fullmatch(host) is None:
        return "its host holds a character that no host name has" if host else "the one given has no host"
    labels = host.split(".")
    if not all(labels):
        return "its host has an empty part: a dot too many"
    if len(host) > _MAX_HOST or max(map(len, labels)) > _MAX_LABEL:
        return f"its host is longer than {_MAX_HOST} characters, or a part of it is longer than {_MAX_LABEL}"
    if any(label.startswith("-") or label.endswith("-") for label in labels):
        return "a part of its host begins or ends with a hyphen"
    if _NUMBER.fullmatch(labels[-1]) is not None and not _is_ipv4(host):
        return "its host is a number, but no IPv4 address such as 192.0.2.1"
    return None


def _port(text: str) -> str | None:
    if not text:
        return None
    if text.startswith(":") and _PORT.fullmatch(text[1:]) is not None and 0 < int(text[1:]) <= _MAX_PORT:
        return None
    return f"its port is no number from 1 to {_MAX_PORT}"


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False

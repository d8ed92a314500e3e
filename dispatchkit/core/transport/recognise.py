"""Recognise a plain response: status 200, a Content-Length, no unusual field, and all its bytes in one piece.

aiohttp's parser reads every other response. The recogniser may refuse a response that the parser reads. It must never
accept one that the parser refuses or reads differently. ``tests/core/transport/test_recognise.py`` compares both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from dispatchkit.core.command import Response
from dispatchkit.core.transport.shape import ANY_VALUE, LENGTH, STATUS_LINE, Shape

__all__ = ["PlainHeaders", "Recogniser"]

_MAX_HEAD = 8190
"""Maximum bytes of a plain head. A longer one is a case for the parser, which has limits per line."""

# Possessive quantifiers: a head that does not match costs one pass.
_HEAD = re.compile(STATUS_LINE + rb"(?:[A-Za-z0-9_-]++:" + ANY_VALUE + rb"\r\n){1,100}+\r\n")
_NAME = re.compile(rb"\n([a-z0-9_-]+):")
_LENGTH = re.compile(rb"\ncontent-length:" + LENGTH + rb"\r")
_KEEP_ALIVE = b"\nconnection: keep-alive\r"
_UNUSUAL = frozenset(
    {b"content-encoding", b"proxy-connection", b"sec-websocket-key1", b"trailer", b"transfer-encoding", b"upgrade"}
)
"""Header fields that change how a response is read."""


class PlainHeaders(Mapping[str, str]):
    """The header fields of a plain response. They are found when asked for, since most are never read."""

    __slots__ = ("_content_type", "_head", "length")

    def __init__(self, head: bytes, length: int, content_type: str | None = None) -> None:
        self._head = head
        self._content_type = content_type
        self.length = length
        """The Content-Length."""

    def __getitem__(self, name: str) -> str:
        if name == "Content-Type" and self._content_type is not None:
            return self._content_type
        return self._find(name)

    def get(self, name: str, default: object = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As of every mapping. Each result asks for its Content-Type, which was found mostly."""
        if name == "Content-Type" and self._content_type is not None:
            return self._content_type
        return super().get(name, default)

    def _find(self, name: str) -> str:
        # No two fields have the same name, and a name never holds a colon.
        prefix = f"\n{name.lower()}:"
        start = self._head.lower().find(prefix.encode()) + len(prefix)
        if start < len(prefix) or ":" in name:
            raise KeyError(name)
        return self._head[start : self._head.index(b"\r", start)].strip(b" \t").decode("ascii")

    def __iter__(self) -> Iterator[str]:
        lines = self._head.decode("ascii").splitlines()[1:-1]
        return (line.partition(":")[0] for line in lines)

    def __len__(self) -> int:
        return self._head.count(b"\n") - 2


class Recogniser:
    """Recognises the plain responses of one origin.

    Args:
        shape: What it has learned of them.
    """

    __slots__ = ("_shape",)

    def __init__(self, shape: Shape | None = None) -> None:
        self._shape = shape or Shape()

    def __call__(self, data: bytes) -> Response | None:
        """The response, if the bytes are exactly one plain response; otherwise None."""
        pattern = self._shape.pattern
        match = None if pattern is None else pattern.match(data, 0, _MAX_HEAD)
        if match is not None:
            end = match.end()
            digits, content_type = match.group("length", "type")
            length = int(digits)
            if length != len(data) - end:
                return None
            return Response(200, PlainHeaders(data[:end], length, _decoded(content_type)), data[end:])
        end = data.find(b"\r\n\r\n", 0, _MAX_HEAD) + 4
        head = data[:end]
        headers = _plain(head)
        if headers is None or headers.length != len(data) - end:
            return None
        self._shape.learn(head)
        return Response(200, headers, data[end:])


@lru_cache(maxsize=64)
def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.strip(b" \t").decode("ascii")


def _plain(head: bytes) -> PlainHeaders | None:
    """The slow check, which knows nothing of the server."""
    if _HEAD.fullmatch(head) is None:
        return None
    lower = head.lower()
    names: list[bytes] = _NAME.findall(lower)
    unique = set(names)
    if len(unique) != len(names) or not _UNUSUAL.isdisjoint(unique):
        return None
    if b"connection" in unique and _KEEP_ALIVE not in lower:
        return None
    length = _LENGTH.search(lower)
    return None if length is None else PlainHeaders(head, int(length["length"]))

"""Recognise a plain response: status 200, a Content-Length, no unusual field, and all its bytes in one piece.

aiohttp's parser reads every other response. The recogniser may refuse a response that the parser reads. It must never
accept one that the parser refuses or reads differently. ``tests/core/transport/test_recognise.py`` compares both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache

from dispatchkit.core.command import Response

__all__ = ["PlainHeaders", "recognise"]

_MAX_HEAD = 8190
"""Maximum bytes of a plain head. A longer one is a case for the parser, which has limits per line."""

# Possessive quantifiers: a head that does not match costs one pass.
_STATUS = rb"HTTP/1\.1 200 [\t -~]*+\r\n"
_HEAD = re.compile(_STATUS + rb"(?:[A-Za-z0-9_-]++:[\t -~]*+\r\n){1,100}+\r\n")
_NAME = re.compile(rb"\n([a-z0-9_-]+):")
_LENGTH = re.compile(rb"\ncontent-length: ?(0|[1-9][0-9]{0,5})\r")
_KEEP_ALIVE = b"\nconnection: keep-alive\r"
_UNUSUAL = frozenset(
    {b"content-encoding", b"proxy-connection", b"sec-websocket-key1", b"trailer", b"transfer-encoding", b"upgrade"}
)
"""Header fields that change how a response is read."""
_LEARN_AFTER = 32
"""How often a shape is seen before its pattern is compiled: that costs as much as reading 200 responses."""
_SHAPES = 16
"""Number of patterns, and of shapes that are counted, that are kept."""


class PlainHeaders(Mapping[str, str]):
    """The header fields of a plain response. They are found when asked for, since most are never read."""

    __slots__ = ("_found", "_head", "length")

    def __init__(self, head: bytes, length: int, content_type: str | None = None) -> None:
        self._head = head
        self._found: dict[str, str] = {} if content_type is None else {"Content-Type": content_type}
        self.length = length
        """The Content-Length."""

    def __getitem__(self, name: str) -> str:
        value = self._found.get(name)
        if value is None:
            value = self._found[name] = self._find(name)
        return value

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


_shapes: list[re.Pattern[bytes]] = []
"""The patterns of the shapes that were seen most often, the latest match first."""
_seen: Counter[bytes] = Counter()
"""How often other shapes were seen."""


def recognise(data: bytes) -> Response | None:
    """The response, if the bytes are exactly one plain response; otherwise None.

    The responses of a server have few shapes: the same fields in the same order, with other values. So a shape that is
    seen often gets a pattern of its own. It matches less than `_plain`, in a third of the time.
    """
    for shape in _shapes:
        match = shape.match(data, 0, _MAX_HEAD)
        if match is not None:
            if shape is not _shapes[0]:
                _shapes.remove(shape)
                _shapes.insert(0, shape)
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
    _learn(head)
    return Response(200, headers, data[end:])


@lru_cache(maxsize=64)
def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.strip(b" \t").decode("ascii")


def _plain(head: bytes) -> PlainHeaders | None:
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
    if length is None:
        return None
    return PlainHeaders(head, int(length[1]))


def _learn(head: bytes) -> None:
    """Count the shape of a plain head, and make its pattern once it is seen often."""
    lines = head.split(b"\r\n")[1:-2]
    shape = b"".join(map(_pattern_of, lines))
    _seen[shape] += 1
    if _seen[shape] >= _LEARN_AFTER:
        del _seen[shape]
        # A shape without a Content-Type has the group, too, which then matches nothing.
        absent = b"" if b"(?P<type>" in shape else b"(?P<type>(?!))?"
        _shapes.insert(0, re.compile(_STATUS + shape + absent + rb"\r\n"))
        del _shapes[_SHAPES:]
    elif len(_seen) > _SHAPES:
        del _seen[min(_seen, key=_seen.__getitem__)]


def _pattern_of(line: bytes) -> bytes:
    """The pattern of a field of the same name. Its value may be any that `_plain` accepts."""
    name = line[: line.index(b":")]
    match name.lower():
        case b"content-length":
            value = rb" ?(?P<length>0|[1-9][0-9]{0,5})"
        case b"content-type":
            value = rb"(?P<type>[\t -~]*+)"
        case b"connection":
            value = re.escape(line[len(name) + 1 :])
        case _:
            value = rb"[\t -~]*+"
    return re.escape(name) + b":" + value + rb"\r\n"

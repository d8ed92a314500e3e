"""The shape of a server's plain responses: which header fields there are, and in which order.

A server writes its fields in one order, and leaves some out. `Shape` learns that order from responses which the slow
check has accepted, and makes one pattern of it. The pattern accepts no response that the slow check refuses.
"""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter

__all__ = ["ANY_VALUE", "LENGTH", "STATUS_LINE", "Shape"]

# The range comes first: a class is searched in its order, so most bytes cost one comparison instead of two.
ANY_VALUE = rb"[ -~\t]*+"
STATUS_LINE = rb"HTTP/1\.1 200 " + ANY_VALUE + rb"\r\n"
LENGTH = rb" ?(?P<length>0|[1-9][0-9]{0,5})"
"""The value of a Content-Length."""
_KEEP_ALIVE = rb" (?i:keep-alive)"

FIRST = 32
"""The number of responses before the first pattern. It takes about a millisecond to compile."""
_LAST = 4096
"""The number of responses after which nothing more is learned: this server has no fixed order."""
_MAX_FIELDS = 64

_FIELD = re.compile(rb"\n([A-Za-z0-9_-]+):")


class Shape:
    """What one origin's plain responses have in common.

    Args:
        first: The number of responses before the first pattern. Further patterns follow after twice as many, and so on.
    """

    __slots__ = ("_due", "_edges", "_names", "_seen", "pattern")

    def __init__(self, first: int = FIRST) -> None:
        self.pattern: re.Pattern[bytes] | None = None
        """It matches the head of a plain response. Its groups are ``length`` and ``type``. None until it is learned."""
        self._seen = 0
        self._due = first
        self._names: dict[bytes, bytes] = {}
        """The field names as the server writes them, by their names in lower case."""
        self._edges: dict[bytes, set[bytes]] | None = {}
        """For each name, the names that came directly before it. None once nothing more is learned."""

    def learn(self, head: bytes) -> None:
        """Learn from a plain head that the pattern does not match."""
        edges = self._edges
        if edges is None:
            return
        before: bytes | None = None
        for name in _FIELD.findall(head):
            if self._names.setdefault(name.lower(), name) != name:
                self._edges = None  # one name in two spellings: a pattern might take both, which are a repeated field
                return
            known = edges.setdefault(name, set())
            if before is not None:
                known.add(before)
            before = name
        self._seen += 1
        if len(edges) > _MAX_FIELDS or self._seen > _LAST:
            self._edges = None
        elif self._seen >= self._due:
            self._due *= 2
            self._compile(edges)

    def _compile(self, edges: dict[bytes, set[bytes]]) -> None:
        try:
            order = [*TopologicalSorter(edges).static_order()]
        except CycleError:
            self._edges = None
            return
        fields = b"".join(map(_field, order))
        if b"content-type" not in self._names:
            fields += rb"(?P<type>(?!))?"  # a group that never matches
        self.pattern = re.compile(STATUS_LINE + fields + rb"\r\n")


def _field(name: bytes) -> bytes:
    """The pattern of a field that may be absent. Its value may be any that the slow check accepts."""
    match name.lower():
        case b"content-length":
            return re.escape(name) + b":" + LENGTH + rb"\r\n"
        case b"content-type":
            value = b"(?P<type>" + ANY_VALUE + b")"
        case b"connection":
            value = _KEEP_ALIVE
        case _:
            value = ANY_VALUE
    return b"(?:" + re.escape(name) + b":" + value + rb"\r\n)?+"

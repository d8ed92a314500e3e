"""The body of a request: parts, which several requests may share and which may be made as they are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias

__all__ = ["PIECE", "Body", "Part", "Parts", "as_parts", "join", "pieces"]

PIECE = 64 * 1024
"""Bytes of a piece, which is written at once."""


class Body(bytes):
    """The body of a request, which holds the token and contents of messages. The repr shows its size alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__


class Part(Protocol):
    """A part of a body that is made piece by piece. Its repr must not show its contents."""

    def __len__(self) -> int:
        """Its bytes, without making them."""
        ...

    def pieces(self) -> Iterator[memoryview]:
        """All its bytes, in pieces of at most `PIECE` bytes. Each takes less than a millisecond."""
        ...


Parts: TypeAlias = tuple[Body | Part, ...]


def pieces(parts: Parts) -> Iterator[memoryview]:
    """All bytes of a body, in pieces of at most `PIECE` bytes."""
    for part in parts:
        if isinstance(part, bytes):
            view = memoryview(part)
            for start in range(0, len(view), PIECE):
                yield view[start : start + PIECE]
        else:
            yield from part.pieces()


def join(parts: Parts) -> Body:
    """All bytes of a body."""
    first = parts[0] if len(parts) == 1 else None
    return first if isinstance(first, Body) else Body(b"".join(pieces(parts)))


def as_parts(body: bytes | Iterable[bytes | Part]) -> Parts:
    """The parts of a body. Plain bytes are a body of one part."""
    if isinstance(body, bytes):
        return (Body(body),)
    return tuple(Body(part) if isinstance(part, bytes) else part for part in body)

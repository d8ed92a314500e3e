"""The Base64 of a file, made piece by piece as requests send the file."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterator

from dispatchkit.core.body import PIECE, Body

__all__ = ["Base64Part"]

_SLICE = PIECE // 4 * 3
"""Bytes of the file whose Base64 is one piece."""


class Base64Part:
    """A `Part` of a body. If several requests send the file, the first one keeps each piece for the others.

    The Base64 for a single request is never whole in memory: it is larger than the file. No piece needs more than a
    fraction of a millisecond, so the event loop is never blocked. A second thread may at worst encode the same piece,
    too.
    """

    __slots__ = ("_data", "_pieces", "requests")

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._pieces: list[Body | None] = [None] * -(-len(data) // _SLICE)
        self.requests = 0
        """The number of requests that send the file."""

    def __len__(self) -> int:
        return -(-len(self._data) // 3) * 4

    def pieces(self) -> Iterator[memoryview]:
        """See `Part.pieces`."""
        for index, piece in enumerate(self._pieces):
            yield memoryview(piece or self._encode(index))

    def _encode(self, index: int) -> Body:
        data = self._data[index * _SLICE : (index + 1) * _SLICE]
        piece = Body(b2a_base64(data, newline=False))
        if self.requests > 1:
            self._pieces[index] = piece
        return piece

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

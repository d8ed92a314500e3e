"""JSON with long strings, such as the Base64 of files, without a call that holds the interpreter for long.

A call of a JSON library takes 50 ms for a file of 20 MiB, and no other thread runs meanwhile. So a short mark stands
for each long string while the library works, and pieces of the string are read and written apart. The results are those
of the library alone. A thread does this work; the event loop goes on between the pieces.
"""

from __future__ import annotations

import json
import re
import secrets
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterator
from functools import cached_property
from hashlib import sha256
from typing import cast

from dispatchkit.core.body import PIECE

__all__ = ["LONG", "Base64Text", "decode_base64", "encode_base64", "hash_json", "read_long", "write_long"]

LONG = 256 * 1024
"""Characters of a long string. Shorter ones take less than a millisecond."""
_SLICE = PIECE // 4 * 3
"""Bytes whose Base64 is one piece."""
_write = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_BETWEEN = ",:]} \t\n\r"
"""What may follow the end of a string. Base64 begins with none of it."""


class Base64Text(str):
    """A long text that JSON writes as it is."""

    __slots__ = ()


def encode_base64(data: bytes) -> str:
    """The Base64 of bytes, made in pieces."""
    if len(data) <= _SLICE:
        return b2a_base64(data, newline=False).decode()
    view = memoryview(data)
    pieces = (view[start : start + _SLICE] for start in range(0, len(data), _SLICE))
    return Base64Text("".join([b2a_base64(piece, newline=False).decode() for piece in pieces]))


def decode_base64(text: str) -> bytes:
    """The bytes of a Base64, made in pieces.

    Raises:
        ValueError: It is no Base64.
    """
    pieces = [a2b_base64(text[start : start + PIECE], strict_mode=True) for start in range(0, max(len(text), 1), PIECE)]
    if any(len(piece) != _SLICE for piece in pieces[:-1]):
        raise ValueError("Base64 ends before its text")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def write_long(value: object) -> str:
    """The JSON of a value with `Base64Text` in it, in ASCII.

    Python takes two bytes or more for each character of a text with any other, and decodes it slowly.
    """
    marks = _Marks()
    return "".join(marks.split(_write(marks.put(value))))


def read_long(text: str, read: Callable[[str], object]) -> object:
    """The value of a JSON text.

    Args:
        text: The JSON.
        read: Reads JSON.

    Raises:
        Exception: What ``read`` raises.
    """
    if len(text) < LONG:
        return read(text)
    marks = _Marks()
    return marks.take(read(marks.shorten(text)))


def hash_json(text: str, sort: Callable[[str], str]) -> str:
    """The SHA-256 of a JSON text with sorted keys, in hexadecimal digits.

    Args:
        text: The JSON.
        sort: Sorts the keys of a JSON text.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deep.
    """
    if len(text) < LONG:
        return sha256(sort(text).encode()).hexdigest()
    marks, digest = _Marks(), sha256()
    for part in marks.split(sort(marks.shorten(text))):
        for start in range(0, len(part), PIECE):
            digest.update(part[start : start + PIECE].encode())
    return digest.hexdigest()


class _Marks:
    """Marks that stand for long strings. No text has one by chance."""

    def __init__(self) -> None:
        self.strings: list[str] = []

    @cached_property
    def _prefix(self) -> str:
        return secrets.token_hex(16)

    def _add(self, string: str) -> str:
        self.strings.append(string)
        return f"{self._prefix}:{len(self.strings) - 1}:"

    def put(self, value: object) -> object:
        """A value with marks in the place of its `Base64Text`."""
        if isinstance(value, Base64Text):
            return self._add(str(value))
        if isinstance(value, dict):
            return {name: self.put(item) for name, item in cast("dict[object, object]", value).items()}
        if isinstance(value, (list, tuple)):
            return [self.put(item) for item in cast("list[object] | tuple[object, ...]", value)]
        return value

    def take(self, value: object) -> object:
        """A value with the strings in the place of their marks."""
        if isinstance(value, str):
            return self.strings[int(value.split(":")[1])] if value.startswith(self._prefix) else value
        if isinstance(value, dict):
            return {name: self.take(item) for name, item in cast("dict[object, object]", value).items()}
        if isinstance(value, list):
            return [self.take(item) for item in cast("list[object]", value)]
        return value

    def shorten(self, text: str) -> str:
        """A JSON text with marks in the place of the long strings that have no escapes. Names of fields stay."""
        parts: list[str] = []
        done = 0
        start = text.find('"')
        while start >= 0:
            end = text.find('"', start + 1)
            if end - start > LONG and self._is_plain(text, start, end):
                parts += (text[done : start + 1], self._add(text[start + 1 : end]))
                done = end
            start = end
        return "".join([*parts, text[done:]])

    def _is_plain(self, text: str, start: int, end: int) -> bool:
        """Whether two quotes, which have none between them, are the ends of such a string."""
        return (
            text[start + 1] not in _BETWEEN
            and text[start - 1 : start] != "\\"
            and text[end + 1 : end + 2] != ":"
            and text.find("\\", start, end) < 0
        )

    def split(self, text: str) -> Iterator[str]:
        """The parts of a text with marks, with the strings in the place of the marks."""
        for place, part in enumerate(re.split(f"{self._prefix}:([0-9]+):", text)):
            yield self.strings[int(part)] if place % 2 else part

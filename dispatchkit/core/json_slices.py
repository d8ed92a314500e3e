"""Parse a large JSON object item by item, so that an event loop is never blocked for long.

The result is that of `read_json`: the same values, the same strictness. Only the items of one array are converted as
they come. So memory never holds all of them as parsed JSON.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Generator

from dispatchkit.core import charset
from dispatchkit.core.command import UnexpectedResponseError
from dispatchkit.core.decode import json_decoder

__all__ = ["read_json_slices"]

_CHUNK = 64 * 1024
_MAX_VALUE = 1024 * 1024
"""Characters of one value, such as an item, or of the blanks before it: more would block the event loop."""
_MAX_EXPONENT = 3
"""Characters after a part of a number, such as ``e+``, that are no number alone."""
_BLANKS = re.compile(r"[ \t\n\r]*")


def read_json_slices(
    body: bytes, content_type: str, array: str, convert: Callable[[object], object]
) -> Generator[None, None, object]:
    """Parse a JSON object. The generator yields after every field and every item of one array.

    Args:
        body: The object.
        content_type: Its Content-Type.
        array: The name of the array.
        convert: Converts each item of the array.

    Returns:
        The object.

    Raises:
        UnexpectedResponseError: See `read_json`; or a value, or the blanks before one, have more than a million
            characters, or ``convert`` raised it.
    """
    try:
        return (yield from _Parser(body, content_type).parse(array, convert))
    except (ValueError, RecursionError):
        pass  # raised below, outside the handler: the decoder's exception would hold the text as its context
    raise UnexpectedResponseError(f"not JSON ({len(body)} bytes)")


class _Parser:
    """A text that is decoded as it is needed, and a position in it."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self._body = memoryview(body)
        self._decoder = codecs.getincrementaldecoder(charset.charset_of(body, content_type))()
        self._read = 0
        self._text = ""
        self._at = 0

    def parse(self, array: str, convert: Callable[[object], object]) -> Generator[None, None, object]:
        if self._char() != "{":
            return self._end(self._value())
        self._at += 1
        fields: dict[str, object] = {}
        more = not self._skip("}")
        while more:
            name = self._value()
            if not isinstance(name, str) or name in fields or not self._skip(":"):
                raise ValueError
            if name == array and self._char() == "[":
                fields[name] = yield from self._items(convert)
            else:
                fields[name] = self._value()
                yield
            more = self._goes_on("}")
        return self._end(fields)

    def _items(self, convert: Callable[[object], object]) -> Generator[None, None, list[object]]:
        self._at += 1
        items: list[object] = []
        more = not self._skip("]")
        while more:
            items.append(convert(self._value()))
            more = self._goes_on("]")
            yield
        return items

    def _goes_on(self, end: str) -> bool:
        if self._skip(","):
            return True
        if self._skip(end):
            return False
        raise ValueError

    def _skip(self, char: str) -> bool:
        found = self._char() == char
        self._at += found
        return found

    def _char(self) -> str:
        """The next character that is no blank; empty at the end."""
        skipped = 0
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            assert blanks is not None  # noqa: S101 - it matches nothing, too
            skipped += blanks.end() - self._at
            if skipped > _MAX_VALUE:
                raise ValueError
            self._at = blanks.end()
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _value(self) -> object:
        self._char()
        while True:
            try:
                value, end = json_decoder.raw_decode(self._text, self._at)
            except ValueError:
                if not self._more():
                    raise
                continue
            # A number may go on after the text so far: 1 may be 12, and 1.5e may be 1.5e+3.
            if len(self._text) - end > _MAX_EXPONENT or type(value) not in {int, float} or not self._more():
                self._at = end
                return value

    def _end(self, value: object) -> object:
        if self._char():
            raise ValueError
        return value

    def _more(self) -> bool:
        """Decode more of the body; false at its end. What is parsed again doubles each time."""
        rest = len(self._text) - self._at
        if rest > _MAX_VALUE:
            raise ValueError
        start, size = self._read, max(_CHUNK, rest)
        if start >= len(self._body):
            return False
        self._read = min(len(self._body), start + size)
        added = self._decoder.decode(bytes(self._body[start : self._read]), final=self._read == len(self._body))
        self._text, self._at = self._text[self._at :] + added, 0
        return True

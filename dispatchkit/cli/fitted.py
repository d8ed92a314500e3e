"""Fit text to a terminal. Elsewhere a line stays one line, so that logs can be searched.

A terminal cuts a long line in the middle of a word. So prose is wrapped between words. A line to type is never wrapped,
since a copy of it must be one line: it begins on a line of its own.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from shutil import get_terminal_size
from typing import TextIO

__all__ = ["fit", "fitted"]

_TO_TYPE = re.compile(r"(?<=: )(?=dispatchkit [a-z])|(?<=  )(?=dispatchkit [a-z])")
"""Where a line to type begins: after a colon, or in the second column of a list."""
_COLUMN = re.compile(r"\s*\S+(?: \S+)?\s{2,}")
"""The name in front of a value, which later lines of the value are indented by."""
_MIN_WIDTH = 20


def fitted(stream: TextIO, text: str) -> str:
    """The text as it is, or fit to the terminal that the stream is."""
    return fit(text, get_terminal_size().columns) if stream.isatty() else text


def fit(text: str, width: int) -> str:
    """Wrap the lines that are longer than ``width``.

    Example:
        >>> print(fit("The run was recorded. To show it: dispatchkit ledger show friday", 40))
        The run was recorded. To show it:
        dispatchkit ledger show friday
    """
    if width < _MIN_WIDTH:
        return text
    return "\n".join(piece for line in text.split("\n") for piece in _pieces(line, width))


def _pieces(line: str, width: int) -> Iterator[str]:
    if len(line) <= width:
        yield line
        return
    column = _COLUMN.match(line)
    indent = len(column[0]) if column is not None and len(column[0]) <= width // 2 else 0
    for piece in _TO_TYPE.split(line):
        if piece.startswith("dispatchkit "):
            yield piece
        else:
            yield from textwrap.wrap(
                piece,
                width,
                subsequent_indent=" " * indent,
                drop_whitespace=True,
                break_long_words=False,
                break_on_hyphens=False,
            )

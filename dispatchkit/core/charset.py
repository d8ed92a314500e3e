"""Decode a body to text, by its byte order mark or the charset of its Content-Type."""

from __future__ import annotations

import codecs
import re
from functools import lru_cache

from dispatchkit.core.command import UnexpectedResponseError

__all__ = ["UTF_8", "charset_of", "known", "mark", "named", "text"]

UTF_8 = "utf-8"

_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^\s"';]+)""", re.IGNORECASE)
_LABEL = re.compile(r"[\w.:+-]{1,40}", re.ASCII)
# An allow-list: Python also has codecs that are no charsets, and charsets that are not supersets of ASCII.
_KNOWN = re.compile(
    r"utf-8(-sig)?|utf-(16|32)(-[bl]e)?|ascii|iso8859-\d+|cp\d+|koi8-[rtu]|kz1048|mac-\w+|gb\w+|big5\w*|shift_jis\w*|euc_\w+"
)
# The mark of UTF-16 is a prefix of that of UTF-32, so the longer marks come first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ANY_MARK = tuple(mark for mark, _ in _MARKS)


def text(body: bytes, content_type: str) -> str:
    """Decode a body. See `charset_of`.

    Raises:
        UnexpectedResponseError: The charset is unknown.
        UnicodeDecodeError: The bytes are not in the charset.
    """
    return body.decode(charset_of(body, content_type))


def charset_of(body: bytes, content_type: str) -> str:
    """Python's name for the charset of a body. A byte order mark outranks the Content-Type. The default is UTF-8.

    Raises:
        UnexpectedResponseError: The charset is unknown.
    """
    charset = named(content_type) if content_type else None
    if charset is None and not body.startswith(_ANY_MARK):
        return UTF_8
    return mark(body) or _in_order(charset or UTF_8, body)


def mark(body: bytes) -> str | None:
    """The charset of a byte order mark; None if there is no mark."""
    if not body.startswith(_ANY_MARK):
        return None
    return next(charset for start, charset in _MARKS if body.startswith(start))


@lru_cache(maxsize=64)
def named(content_type: str) -> str | None:
    """Python's name for the charset of a Content-Type; None if it names none.

    Raises:
        UnexpectedResponseError: The charset is unknown.
    """
    match = _CHARSET.search(content_type)
    return None if match is None else known(match[1])


def known(label: str) -> str:
    """Python's name for a charset.

    Raises:
        UnexpectedResponseError: The charset is unknown.
    """
    name = ""
    if _LABEL.fullmatch(label):
        try:
            name = codecs.lookup(label).name
        except (LookupError, ValueError):
            name = ""
    if not _KNOWN.fullmatch(name):
        raise UnexpectedResponseError("its charset is unknown")
    return name


def _in_order(charset: str, body: bytes) -> str:
    """The charset with its byte order. JSON and XML begin with ASCII, so the place of the zero byte tells the order."""
    if charset in {"utf-16", "utf-32"}:
        return f"{charset}-be" if body[:1] == b"\0" else f"{charset}-le"
    return charset

"""Bytes to text: byte order marks, ``--encoding``, and which encoding a file probably has."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from itertools import pairwise

from dispatchkit.cli.input.files import Bytes
from dispatchkit.cli.translate import _

__all__ = ["text_blocks"]

_BLOCK = 1 << 16
_MAX_LINE = 1 << 20
"""Characters of a line. A longer one is no row of ids."""

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMMON_CYRILLIC = frozenset("оеаинтсрвлкмдпуя")
_CANDIDATES = ("cp1251", "koi8-r", "cp866")


def text_blocks(source: Bytes, encoding: str | None, again: Callable[[str], str]) -> Iterator[str]:
    """The text in blocks of whole lines, each with its end. Only the last line may lack it.

    Args:
        source: The bytes.
        encoding: Their encoding; None: UTF-8, or what a byte order mark says.
        again: The command to type, with more options.

    Raises:
        ValueError: It is not text in this encoding, or no text at all.
    """
    name, label = source.name, "UTF-8"
    if encoding is not None:
        chosen = label = _checked(encoding)
    else:
        chosen = _of_mark(source.head) or "utf-8"
        label = "UTF-8" if chosen.startswith("utf-8") else chosen.upper()
        if chosen == "utf-8":
            _check_binary(source, again)
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(chosen)(), translate=True)
    line, rest, final = 1, "", False
    while not final:
        data = source.read(_BLOCK)
        final = not data
        try:
            text = rest + decoder.decode(data, final)
        except UnicodeDecodeError as error:
            before = error.object[: error.start]
            line += rest.count("\n") + before.decode(chosen, "replace").count("\n")
            named = _(". Name another one with --encoding, or leave the option out")
            reason = named if encoding is not None else _suggestion(error.object, chosen, again)
            raise ValueError(
                _("{name}, line {line}: this is not text in {label}{reason}").format(
                    name=name, line=line, label=label, reason=reason
                )
            ) from None
        except UnicodeError:  # such as that of UTF-16 without its mark
            raise ValueError(
                _("{name}: this is not text in {label}. Name its own with --encoding").format(name=name, label=label)
            ) from None
        if line == 1:
            text = text.removeprefix("\ufeff")
        if "\0" in text:
            line += text[: text.index("\0")].count("\n")
            raise ValueError(
                _("{name}, line {line}: it holds a NUL byte, so it is damaged or no text: get it again").format(
                    name=name, line=line
                )
            )
        end = len(text) if final else text.rfind("\n") + 1
        block, rest = text[:end], text[end:]
        if len(rest) > _MAX_LINE:
            line += block.count("\n")
            raise ValueError(
                _(
                    "{name}, line {line}: this line is longer than {most:,} characters: no list of ids. Name another "
                    "file"
                ).format(name=name, line=line, most=_MAX_LINE)
            )
        if block:
            yield block
            line += block.count("\n")


def _checked(encoding: str) -> str:
    try:
        "1\n".encode(encoding)
        b"1\n\0\0"[: 4 if "32" in encoding else 2].decode(encoding, "replace")
        codecs.getincrementaldecoder(encoding)
    except (LookupError, UnicodeError):
        raise ValueError(
            _("--encoding {encoding!r} is not known: give one such as cp1251, cp866, koi8-r, utf-16 or cp1252").format(
                encoding=encoding
            )
        ) from None
    return encoding


def _of_mark(head: bytes) -> str | None:
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)


def _check_binary(source: Bytes, again: Callable[[str], str]) -> None:
    """Refuse what is not text, before a message speaks of a line of it."""
    head = source.head[:4096]
    if b"\0" not in head:
        return
    even, odd = head[::2], head[1::2]
    for encoding, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros.count(0) > 0.4 * len(zeros) and not others.count(0):
            raise ValueError(
                _("{name} looks like text in UTF-16 without its mark: {line}").format(
                    name=source.name, line=again(f"--encoding {encoding}")
                )
            )
    raise ValueError(
        _("{name} is a binary file, not a list of ids: it holds NUL bytes. Save the list as CSV or .xlsx").format(
            name=source.name
        )
    )


def _suggestion(data: bytes, chosen: str, again: Callable[[str], str]) -> str:
    if not chosen.startswith("utf-8"):
        return _(". Name its own with --encoding")
    guess = _guess(data[:_BLOCK])
    return _(". It is probably {guess}; if so: {line}").format(guess=guess, line=again(f"--encoding {guess}"))


def _guess(data: bytes) -> str:
    """The probable single-byte encoding of a text."""
    runs = 0
    for first, second in pairwise(data):
        runs += first >= 0x80 and second >= 0x80
    if not runs and any(byte in b"abcdefghijklmnopqrstuvwxyz" for byte in data.lower()):
        return "cp1252"  # single letters with accents among Latin ones

    def score(encoding: str) -> int:
        characters = [char for char in data.decode(encoding, "replace") if not char.isascii()]
        return sum(2 if char in _COMMON_CYRILLIC else 0 if char.isalpha() else -1 for char in characters)

    return max(_CANDIDATES, key=score)

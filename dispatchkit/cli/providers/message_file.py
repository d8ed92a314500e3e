"""Read the messages of ``add-messages`` from a CSV or from JSON Lines, as a stream.

The file is read twice: the whole of it is checked before the first message is sent. Memory holds 16 bytes a message.
"""

from __future__ import annotations

import re
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import cast

import attrs

from dispatchkit import Message
from dispatchkit.cli.input.bad_rows import BadRows
from dispatchkit.cli.input.columns import field_name, is_sep, split_fields
from dispatchkit.cli.input.damage import EXCEL_ERROR
from dispatchkit.cli.input.encoding import text_blocks
from dispatchkit.cli.input.files import is_workbook, open_bytes
from dispatchkit.cli.input.json_lines import looks_like_json
from dispatchkit.cli.translate import _
from dispatchkit.core.command import UnexpectedResponseError
from dispatchkit.core.decode import fields_of, read_json

__all__ = ["MessageFile", "Row"]

Row = tuple[int, Message]
"""The number of a line, and its message."""

_DESTINATION = "destination"
_SUBSTITUTIONS = "substitutions"
_DELIMITERS = ",;\t"
_SHORTENED = re.compile(r"[+-]?\d+([.,]\d*)?[eE\u0415\u0435][+-]?\d+|\d+[.,]0*|=.*", re.DOTALL)
_DIGEST_BYTES = 8
_CUT = _(
    "the last line has no line end and is shorter than every other. The file may be cut short: get it again. If it is "
    "complete, add a line end"
)


@attrs.define
class MessageFile:
    """A file of messages.

    A CSV has a column ``destination``; each other column is a substitution of its name, as text. A line of JSON Lines
    is an object with ``destination`` and perhaps ``substitutions``.
    """

    path: str
    encoding: str | None
    again: Callable[[str], str]
    count: int = attrs.field(default=0, init=False)
    """Number of messages, once the file is checked."""
    variables: tuple[str, ...] = attrs.field(default=(), init=False)
    """The names of the first message's substitutions."""
    _version: tuple[int, int] = attrs.field(default=(0, 0), init=False)

    def check(self) -> None:
        """Read the whole file, and count its messages.

        Raises:
            UnusableFileError: A row is no message, or two have one destination. The text names the rows.
            ValueError: It is no regular file, no text, or holds no message.
            OSError: It cannot be read.
        """
        if self.path == "-" or not stat.S_ISREG(Path(self.path).stat().st_mode):
            raise ValueError(
                _(
                    "--from must name a regular file: it is read twice, to check it before anything is sent. Write it "
                    "to a file first"
                )
            )
        self._version = self._stat()
        bad, numbers, digests = BadRows(self.path), array("Q"), array("Q")
        for number, message in self._read(bad):
            if not numbers:
                self.variables = tuple(message.substitutions or ())
            numbers.append(number)
            digests.append(_digest(message))
        _refuse_repeats(numbers, digests, bad)
        bad.check()
        self.count = len(numbers)
        if not self.count:
            raise ValueError(_("{path} holds no messages: name another file").format(path=self.path))

    def batches(self, size: int, *, skip: int = 0) -> Iterator[list[Row]]:
        """The messages of a checked file, in batches.

        Args:
            size: The most messages of a batch.
            skip: The first messages, which are left out.

        Raises:
            ValueError: The file has changed since it was checked.
            OSError: It cannot be read.
        """
        bad = BadRows(self.path)
        rows = islice(self._read(bad), skip, None)
        while batch := list(islice(rows, size)):
            self._check_version(bad)
            yield batch
        self._check_version(bad)

    def _check_version(self, bad: BadRows) -> None:
        if bad.count or self._stat() != self._version:
            raise ValueError(
                _("{path} has changed since it was checked: leave it as it is until the command ends").format(
                    path=self.path
                )
            )

    def _stat(self) -> tuple[int, int]:
        status = Path(self.path).stat()
        return status.st_size, status.st_mtime_ns

    def _read(self, bad: BadRows) -> Iterator[Row]:
        with open_bytes(self.path) as source:
            if is_workbook(source):
                raise ValueError(_("{name} is a workbook: save it as CSV in UTF-8").format(name=source.name))
            blocks = text_blocks(source, self.encoding, self.again)
            first = next(blocks, "")
            lines = enumerate(_lines(chain([first], blocks)), 1)
            yield from _json_rows(lines, bad) if looks_like_json(first) else _table_rows(lines, bad)


def _lines(blocks: Iterable[str]) -> Iterator[str]:
    """Each line with its end. Only the last one may lack it."""
    for block in blocks:
        yield from (f"{line}\n" for line in block.split("\n")[:-1])
        if not block.endswith("\n") and (last := block.rpartition("\n")[2]):
            yield last


def _json_rows(lines: Iterator[tuple[int, str]], bad: BadRows) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            yield number, _of_object(line)
        except (TypeError, ValueError) as error:
            bad.add(number, str(error))


def _of_object(line: str) -> Message:
    try:
        fields = fields_of(read_json(line.encode()))
    except UnexpectedResponseError:
        fields = None
    if fields is None:
        raise ValueError(_("this is no JSON object, or it has a key twice"))
    if not fields.keys() <= {_DESTINATION, _SUBSTITUTIONS}:
        raise ValueError(
            _("an object has the keys {destination!r} and {substitutions!r} alone: put others into the last").format(
                destination=_DESTINATION, substitutions=_SUBSTITUTIONS
            )
        )
    substitutions = cast("dict[str, object] | None", fields.get(_SUBSTITUTIONS))
    return _message(cast("str", fields.get(_DESTINATION)), cast("dict[str, str] | None", substitutions))


def _table_rows(lines: Iterator[tuple[int, str]], bad: BadRows) -> Iterator[Row]:
    names, delimiter = _header(lines, bad.name)
    place = [*map(field_name, names)].index(_DESTINATION)
    shortest: int | None = None
    for number, whole in lines:
        line = whole.removesuffix("\n")
        if not line.strip(f"{delimiter} \t"):
            continue
        try:
            if line == whole and shortest is not None and len(line) < shortest:
                raise ValueError(_CUT)
            shortest = len(line) if shortest is None else min(shortest, len(line))
            fields = split_fields(line, delimiter)
            if len(fields) != len(names):
                raise ValueError(
                    _(
                        "this row has {count} fields of {expected}: put a value that holds the delimiter in quotes"
                    ).format(count=len(fields), expected=len(names))
                )
            others = {
                name: text for index, (name, text) in enumerate(zip(names, fields, strict=True)) if index != place
            }
            yield number, _message(fields[place].strip(), others or None)
        except (TypeError, ValueError) as error:
            bad.add(number, str(error))


def _header(lines: Iterator[tuple[int, str]], name: str) -> tuple[list[str], str]:
    """The names of the columns, and the delimiter.

    Raises:
        ValueError: No column is the destination, or two have one name.
    """
    for number, whole in lines:
        line = whole.removesuffix("\n")
        if not line.strip() or (number == 1 and is_sep(line)):
            continue
        for delimiter in _DELIMITERS:
            names = [text.strip(" \t\u00a0\ufeff") for text in split_fields(line, delimiter)]
            folded = [*map(field_name, names)]
            if _DESTINATION in folded:
                if len(set(folded)) < len(folded) or "" in folded:
                    raise ValueError(
                        _("{name}, line {number}: each column of the header must have a name of its own").format(
                            name=name, number=number
                        )
                    )
                return names, delimiter
        raise ValueError(
            _("{name}, line {number}: the header must name a column {column!r}").format(
                name=name, number=number, column=_DESTINATION
            )
        )
    raise ValueError(_("{name} holds no messages: the file is empty. Name another file").format(name=name))


def _message(destination: str, substitutions: dict[str, str] | None) -> Message:
    text = str(destination)
    if _SHORTENED.fullmatch(text) or EXCEL_ERROR.fullmatch(text):
        raise ValueError(_("a spreadsheet has damaged the destination: format the column as Text, and enter it again"))
    return Message(destination, substitutions)


def _digest(message: Message) -> int:
    return int.from_bytes(blake2b(message.destination.encode(), digest_size=_DIGEST_BYTES).digest(), "big")


def _refuse_repeats(numbers: array[int], digests: array[int], bad: BadRows) -> None:
    """Note each row whose destination stands in an earlier one."""
    before, repeated = -1, set[int]()
    for digest in sorted(digests):
        if digest == before:
            repeated.add(digest)
        before = digest
    if not repeated:
        return
    first: dict[int, int] = {}
    for number, digest in zip(numbers, digests, strict=True):
        if digest in repeated and first.setdefault(digest, number) != number:
            bad.add(
                number,
                _("this destination stands in line {number:,}, too: delete one of them").format(number=first[digest]),
            )

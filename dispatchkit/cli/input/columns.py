"""The header of a table: the column of the ids, the column of their states, and the delimiter."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import attrs

from dispatchkit.cli.input.damage import shown
from dispatchkit.cli.translate import _

__all__ = [
    "AmbiguousHeaderError",
    "Columns",
    "Header",
    "field_name",
    "find_columns",
    "find_header",
    "is_sep",
    "no_such_column",
    "split_fields",
]

_IDS = ("id", "target")
_STATES = ("outcome", "state")
_COMMAND = "command_type"
_DELIMITERS = ",;\t"
_OTHER_DELIMITERS = "|:~^"
_HEAD = 10
"""Rows among which the header is looked for: titles may stand above it."""
_MAX_NAMES = 12
_SEP = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


class AmbiguousHeaderError(ValueError):
    """A header names something more than once."""


@attrs.frozen
class Columns:
    """The positions of the columns in a row."""

    count: int
    """The number of columns with a name. Fields after them belong to no column."""
    width: int
    """How many fields the header has, the empty ones at its end included."""
    id: int
    state: int | None
    """The column that tells what came of an earlier launch; None: there is none."""
    command: int | None = None
    """The column that names the command of that launch."""


@attrs.frozen
class Header:
    """The header of a text file."""

    line: int
    """Its number. What stands above it are titles."""
    delimiter: str
    columns: Columns
    titles: int = 0
    """How many lines above it are neither empty nor `sep=`."""


def field_name(text: str) -> str:
    """A name in a header, as names are compared: without case and surrounding blanks."""
    return text.strip(" \t\u00a0\ufeff").casefold()


def split_fields(line: str, delimiter: str) -> list[str]:
    """The fields of one line of a CSV.

    Raises:
        ValueError: A quote is not closed on this line, or something follows one.
    """
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader((line,), delimiter=delimiter, strict=True), [""])
    except csv.Error as error:
        if line.count('"') % 2:
            raise ValueError(
                _("a quoted field goes on beyond its line: remove the line break in the cell, or close the quote")
            ) from None
        raise ValueError(_("this is not CSV: {error}").format(error=error)) from None


def find_columns(fields: Sequence[str], column: str | None) -> Columns | None:
    """The columns that a row of names tells of.

    Args:
        fields: The row.
        column: The name of the column with the ids. None: the row must name an id and a state, as dispatchkit writes.

    Returns:
        None if the row is no such header.

    Raises:
        AmbiguousHeaderError: It names the column, or the state, more than once.
    """
    names = [field_name(field) for field in fields]
    states = [name for name in names if name in _STATES]
    wanted = next((name for name in _IDS if name in names), None) if column is None else field_name(column)
    if wanted is None or wanted not in names or (column is None and not states):
        return None
    for name in (wanted, *states):
        if names.count(name) > 1:
            raise AmbiguousHeaderError(_("the header names {name!r} more than once").format(name=name))
    if len(states) > 1:
        raise AmbiguousHeaderError(_("the header names both 'outcome' and 'state': delete one of the columns"))
    count = len(names)
    while not names[count - 1]:
        count -= 1
    state = names.index(states[0]) if states else None
    command = names.index(_COMMAND) if states and names.count(_COMMAND) == 1 else None
    return Columns(count, len(names), names.index(wanted), state, command)


def is_sep(line: str) -> bool:
    """Whether a line tells Excel the delimiter, such as ``sep=;``."""
    return _SEP.fullmatch(line) is not None


def find_header(lines: Sequence[str], column: str | None) -> Header | None:
    """The header of a text file, from its first lines.

    Args:
        lines: The first lines, without their ends.
        column: See `find_columns`. Without it, only the first line that is not empty may be a header.

    Returns:
        None if none of the first lines is one.

    Raises:
        ValueError: See `find_columns`.
    """
    delimiters, titles, first = _DELIMITERS, 0, 0
    sep = _SEP.fullmatch(lines[0]) if lines else None
    if sep is not None:
        delimiters, first = sep[1], 1
    for number, line in enumerate(lines[first:], first + 1):
        if not line.strip():
            continue
        for delimiter in delimiters:
            try:
                columns = find_columns(split_fields(line, delimiter), column)
            except AmbiguousHeaderError as error:
                raise ValueError(_("line {number}: {error}").format(number=number, error=error)) from None
            except ValueError:
                continue  # no CSV with this delimiter
            if columns is not None:
                return Header(number, delimiter, columns, titles)
        titles += 1
        if titles == (1 if column is None else _HEAD):
            break
    return None


def no_such_column(rows: Iterable[Sequence[str]], column: str) -> str:
    """The error message for a file without a header in its first rows."""
    seen: dict[str, str] = {}
    first: list[str] | None = None
    for fields in rows:
        named = [field.strip() for field in fields if field.strip()]
        if named and first is None:
            first = named
        for field in named:
            seen.setdefault(field_name(field), field)
    close = get_close_matches(field_name(column), seen, n=1)
    names = first or []
    more = ", …" if len(names) > _MAX_NAMES else ""
    there = ", ".join(shown(name) for name in names[:_MAX_NAMES]) + more
    hint = _("; did you mean --column {name!r}?").format(name=seen[close[0]]) if close else ""
    if len(names) == 1 and not hint:
        hint = _hint_at_form(names[0], column)
    return _("the header names no column {column!r}: {names}{hint}").format(
        column=column, names=there or repr(""), hint=hint
    )


def _hint_at_form(line: str, column: str) -> str:
    """The advice for a first line of one field that is no header of this column."""
    if line.isdecimal():
        return _("; if the file has no header, leave --column out")
    for delimiter in _OTHER_DELIMITERS:
        if field_name(column) in map(field_name, line.split(delimiter)):
            return _("; it seems to separate its columns by {delimiter!r}: put a line sep={delimiter} above it").format(
                delimiter=delimiter
            )
    return ""

"""The rows of a text file: one id a line, or a CSV with a header.

A row whose fields do not match its header is never used. A delimiter within a value shifts the fields after it. A
truncated row may end in half an id. Both would be the id of another mailing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from dispatchkit.cli.input.bad_rows import BadRows
from dispatchkit.cli.input.columns import Columns, Header, split_fields
from dispatchkit.cli.input.damage import EXCEL_ERROR, describe, looks_damaged, shown
from dispatchkit.cli.input.ids import Collector, parse_id
from dispatchkit.cli.translate import _

__all__ = ["Row", "read_list", "read_table"]

Row = tuple[int, str, str | None, str | None]
"""A row: its number, the text of its id, its outcome and its command. The last two are None if the file has none."""

_BLANKS = " \t"
_PLAIN = re.compile(r"(?:[1-9][0-9]{0,17}+\n)++")
_COMMENT = re.compile(r"(?:^|(?<=[ \t]))#")
_QUOTED = re.compile(r'"([^"]*)"')
_THOUSANDS = re.compile(r"(?<![\d,])\d{1,3}(?:,\d{3}){2,}(?!\d)")
_SHORTENED = re.compile(r"\d,\d+[eE\u0435\u0415][+-]?\d+")
_CUT = _(
    "the last line has no line end and is shorter than every other. The file may be cut short: get it again. If it is "
    "complete, add a line end"
)


class _Ending:
    """Tells a last line that may have been cut short, by the shortest of the others."""

    def __init__(self, header: str | None = None) -> None:
        self._header = None if header is None else len(header)
        self._shortest: int | None = None
        self._shortest_id: int | None = None

    def saw(self, length: int, id_length: int) -> None:
        """Count a line that has its end."""
        if self._shortest is None or length < self._shortest:
            self._shortest = length
        if self._shortest_id is None or id_length < self._shortest_id:
            self._shortest_id = id_length

    def is_cut(self, length: int, id_length: int | None) -> bool:
        """Whether the last line may be cut.

        Args:
            length: Its length.
            id_length: That of its id, where that comes last.
        """
        shortest = self._header if self._shortest is None else self._shortest
        if shortest is not None and length < shortest:
            return True
        return id_length is not None and self._shortest_id is not None and id_length < self._shortest_id


def _lines(blocks: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Each line without its end, and whether it had one."""
    for block in blocks:
        lines = block.split("\n")
        last = lines.pop()
        for line in lines:
            yield line, True
        if last:
            yield last, False


def read_list(blocks: Iterable[str], skip: int, collector: Collector, bad: BadRows) -> None:
    """Read the ids of a file with one id per line.

    ``#`` starts a comment, at the start of a line or after a blank.

    Args:
        blocks: The text; see `text_blocks`.
        skip: The lines down to the header.
        collector: Takes the ids.
        bad: Takes the rows that are none.

    Raises:
        ValueError: The first line seems to be a header.
    """
    number, ending, begun = 0, _Ending(), skip > 0
    for block in blocks:
        if number >= skip and _PLAIN.fullmatch(block) is not None:
            texts = block.split()
            number, begun = number + len(texts), True
            shortest = min(map(len, texts))
            ending.saw(shortest, shortest)
            collector.add_all([*map(int, texts)])
            continue
        for line, has_end in _lines((block,)):
            number += 1
            if number == skip:
                ending = _Ending(line)
            if number <= skip:
                continue
            text = _entry(line)
            if text is None:
                continue
            if not has_end and ending.is_cut(len(text), len(text)):
                bad.add(number, f"{shown(text)}: {_CUT}")
                continue
            try:
                collector.add_all((parse_id(text),))
            except ValueError as error:
                if not begun and any(map(str.isalpha, text)) and not looks_damaged(text):
                    raise ValueError(
                        _(
                            "{name}, line {number}: {text} is not an id. If it is a header, name the column that "
                            "holds the ids: --column {column}"
                        ).format(name=bad.name, number=number, text=shown(text), column=_column_of_ids(text))
                    ) from None
                bad.add(number, str(error))
            ending.saw(len(text), len(text))
            begun = True


def _column_of_ids(header: str) -> str:
    """The name of the column with the ids, as ``--column`` takes it."""
    names = [field.strip(_BLANKS + '"') for field in re.split("[,;\t]", header)]
    return next((name for name in names if name.casefold() == "id"), "NAME")


def _entry(line: str) -> str | None:
    """The value of a line of one field, without comment, quotes and trailing empty fields; None if it is empty."""
    comment = _COMMENT.search(line)
    if comment is not None and EXCEL_ERROR.fullmatch(line[comment.start() :].strip(_BLANKS + ",;")) is None:
        line = line[: comment.start()]
    text = line.strip(_BLANKS)
    if not text:
        return None
    text = text.rstrip(",;\t ") or text
    quoted = _QUOTED.fullmatch(text)
    if quoted is not None:
        text = quoted[1].strip(_BLANKS)
    return None if set(text) <= set(",;\t ") else text


def read_table(blocks: Iterable[str], header: Header, bad: BadRows) -> Iterator[Row]:
    """The rows of a CSV of more than one column.

    Args:
        blocks: The text; see `text_blocks`.
        header: The header.
        bad: Takes the rows that do not match it.
    """
    columns, delimiter, skip = header.columns, header.delimiter, header.line
    place, state, command, width = columns.id, columns.state, columns.command, columns.width
    complete = columns.count == width
    ending = _Ending()
    for number, (line, has_end) in enumerate(_lines(blocks), 1):
        if number == skip:
            ending = _Ending(line)
        if number <= skip or not line.strip(f"{delimiter}{_BLANKS}"):
            continue
        try:
            fields = line.split(delimiter) if '"' not in line else split_fields(line, delimiter)
            if len(fields) != width or not complete:
                fields = _matching(fields, columns, line)
        except ValueError as error:
            bad.add(number, str(error))
            continue
        text = fields[place].strip(_BLANKS)
        if not has_end and ending.is_cut(len(line), len(text) if place == len(fields) - 1 else None):
            bad.add(number, f"{shown(line)}: {_CUT}")
            continue
        ending.saw(len(line), len(text))
        yield (
            number,
            text,
            None if state is None else fields[state].strip(_BLANKS),
            None if command is None else fields[command].strip(_BLANKS),
        )


def _matching(fields: list[str], columns: Columns, line: str) -> list[str]:
    """The fields of a row, without empty ones at its end that the header does not have either.

    Raises:
        ValueError: They do not match the header, or may be shifted.
    """
    found = len(fields)
    count = found
    while count > columns.count and not fields[count - 1].strip(_BLANKS):
        count -= 1
    if count != columns.count:
        raise ValueError(
            _("this row has {count} fields of {expected}: {why}").format(
                count=count, expected=columns.count, why=_why(line, cut=count < columns.count)
            )
        )
    if found > columns.width and _may_be_shifted(fields, columns.id):
        raise ValueError(
            _("this row has {count} fields of {expected}: {why}").format(
                count=found, expected=columns.width, why=_why(line, cut=False)
            )
        )
    return fields[:count]


def _may_be_shifted(fields: list[str], place: int) -> bool:
    """Whether a delimiter within a value may have moved the id, although what it moved beyond the header is empty."""
    follows = fields[place + 1].strip(_BLANKS) if place + 1 < len(fields) else ""
    precedes = fields[place - 1] if place else ""
    return follows.isdigit() or precedes[-1:].isdigit() or (place > 0 and fields[place][:1] in {" ", "\t"})


def _why(line: str, *, cut: bool) -> str:
    if match := _SHORTENED.search(line):
        return describe(match[0])
    if match := _THOUSANDS.search(line):
        return describe(match[0])
    if cut:
        return _("it may be cut short, or its end is missing")
    return _("a value holds the delimiter, which shifts the columns: put it in quotes, or save the table as .xlsx")

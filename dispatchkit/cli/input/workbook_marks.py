"""Marks of a sheet that a reader of values omits: hidden rows, errors of formulas, and number formats.

It reads the XML of the sheet once, as a stream.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING
from xml.parsers import expat

import attrs

from dispatchkit.cli.input.damage import shown
from dispatchkit.cli.translate import _

if TYPE_CHECKING:
    import zipfile

__all__ = ["SheetMarks", "column_letters", "sheet_marks"]

_CELL = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,30})?(?:[eE]-?[0-9]{1,2})?")
_INTEGER = re.compile(r"general|@|[#0?,\s]*[#0?]", re.IGNORECASE)
_TEXT = re.compile(r"general|@", re.IGNORECASE)
_CONDITION = re.compile(r"\[[<>=][^\]]*\]")
# Colours, languages without digits of their own, room, and a fill of blanks. Other marks add signs or other digits.
_DECORATION = re.compile(
    r"\[(?:black|blue|cyan|green|magenta|red|white|yellow|color ?[0-9]+|\$-(?:[0-9a-f]{1,4}|[a-z]{2}-[a-z]{2}))\]"
    r"|\[[<>=][^\]]*\]|_.|\* |\\(?= )",
    re.IGNORECASE,
)
_BUILT_IN = frozenset({0, 1, 3, 37, 38, 49})
"""The formats without a code of their own that show an integer as one."""
_TRUE = frozenset({"1", "true"})
_MAX_ROWS = 1 << 20
_MAX_TEXT = 60
_BLOCK = 1 << 16


@attrs.define
class SheetMarks:
    """The marks of one sheet."""

    hidden: set[int] = attrs.field(factory=set[int])
    """Rows that are hidden, from 1."""
    errors: dict[int, str] = attrs.field(factory=dict[int, str])
    """Rows with an error in a cell of the column, and the error."""
    error_rows: set[int] = attrs.field(factory=set[int])
    """Rows with an error, or a formula that was never calculated, in any cell."""
    odd_formats: dict[int, str] = attrs.field(factory=dict[int, str])
    """Rows whose cell in the column does not display the integer or the text that it holds, and the format."""
    merged: dict[int, str] = attrs.field(factory=dict[int, str])
    """Rows whose cell in the column is covered by a merged area, and the area."""


def column_letters(index: int) -> str:
    """The name of a column, from 0: A to Z, then AA."""
    letters = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


@cache
def column_index(letters: str) -> int:
    """The place of a column, from 0: the reverse of `column_letters`."""
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("A") + 1
    return index - 1


def sheet_marks(archive: zipfile.ZipFile, sheet: str, column: int) -> SheetMarks:
    """The marks of a sheet.

    Args:
        archive: The workbook.
        sheet: The name of the sheet.
        column: The column whose cells count, from 0.

    Raises:
        ValueError: The workbook is damaged, or the column is hidden.
    """
    try:
        part = _part_of(archive, sheet)
        scan = _Scan(column_letters(column), *_odd_styles(archive))
        with archive.open(part) as stream:
            parser = _parser()
            parser.StartElementHandler, parser.EndElementHandler = scan.start, scan.end
            parser.DefaultHandler = scan.text
            while block := stream.read(_BLOCK):
                parser.Parse(block)
            parser.Parse(b"", True)
    except (KeyError, expat.ExpatError, StopIteration, OverflowError) as error:
        raise ValueError(
            _(
                "the sheet {sheet!r} cannot be read: the workbook is damaged ({error}). Open it in Excel and save it"
            ).format(sheet=sheet, error=type(error).__name__)
        ) from None
    return scan.marks


class _Scan:
    """The handlers of one parse.

    The reader of values reads XML less exactly than Excel. What the two may read differently is refused.
    """

    def __init__(self, column: str, odd_numbers: Mapping[str, str], odd_texts: Mapping[str, str]) -> None:
        self.marks = SheetMarks()
        self._column = column
        self._index = column_index(column)
        self._odd = {"n": odd_numbers, "s": odd_texts, "str": odd_texts, "inlineStr": odd_texts}
        self._in_rows = False
        self._row = self._position = 0
        self._cell = ""
        self._type = ""
        self._style = ""
        self._value: list[str] | None = None
        self._has_value = self._has_formula = False
        self._width = math.inf

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        if self._value is not None:
            raise _unreadable(self._cell, self._row)
        if not self._in_rows:
            self._start_outside(tag, attributes)
        elif tag == "c":
            self._start_cell(attributes)
        elif tag == "row":
            self._start_row(attributes)
        elif tag == "v":
            if self._has_value:
                raise _unreadable(self._cell, self._row)
            self._value = []
        elif tag == "f":
            self._has_formula = True

    def _start_outside(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "sheetData":
            self._in_rows = True
            if self._width <= 0:
                raise ValueError(
                    _("the column {column} of the ids is hidden: show it, and look at the ids").format(
                        column=self._column
                    )
                )
        elif tag == "sheetFormatPr":
            self._width = _number(attributes, "defaultColWidth")
        elif tag == "col" and _number(attributes, "min") <= self._index + 1 <= _number(attributes, "max"):
            self._width = 0 if attributes.get("hidden") in _TRUE else _number(attributes, "width")
        elif tag == "mergeCell":
            self._note_merged(attributes["ref"])

    def _start_row(self, attributes: dict[str, str]) -> None:
        before, self._position = self._row, 0
        self._row = int(_number(attributes, "r")) if "r" in attributes else before + 1
        if not before < self._row <= _MAX_ROWS:
            raise ValueError(
                _("its rows are not in order (row {row} after {before})").format(row=self._row, before=before)
            )
        if _TRUE & {attributes.get("hidden"), attributes.get("zeroHeight")} or _number(attributes, "ht") <= 0:
            self.marks.hidden.add(self._row)

    def _start_cell(self, attributes: dict[str, str]) -> None:
        name = attributes.get("r")
        if name is None:  # it may be left out
            self._cell = column_letters(self._position)
        else:
            match = _CELL.fullmatch(name)
            if match is None or int(match[2]) != self._row or column_index(match[1]) < self._position:
                raise ValueError(
                    _("its cells are not in order ({name} in row {row})").format(name=shown(name), row=self._row)
                )
            self._cell = match[1]
        self._position = column_index(self._cell) + 1
        self._type, self._style = attributes.get("t", "n"), attributes.get("s", "0")
        self._has_value = self._has_formula = False

    def text(self, data: str) -> None:
        """Take what is no element, as it is written."""
        if self._value is None:
            return
        # The reader ends a number at the first of these.
        if self._type != "str" and data[0] in "&<":
            raise _unreadable(self._cell, self._row)
        if len(self._value) < _MAX_TEXT:
            self._value.append(data)

    def end(self, tag: str) -> None:
        tag = tag.rpartition(":")[2]
        if tag == "v":
            text, self._value = "".join(self._value or ())[:_MAX_TEXT], None
            self._has_value = bool(text)
            if self._type == "e":
                self._note_error(text)
        elif tag == "c":
            if self._has_formula and not self._has_value:
                self._note_error(_("a formula without a result: open the file in Excel and save it"))
            if self._cell == self._column and (odd := self._odd.get(self._type, {}).get(self._style)) is not None:
                self.marks.odd_formats[self._row] = odd
        elif tag == "sheetData":
            self._in_rows = False

    def _note_error(self, text: str) -> None:
        self.marks.error_rows.add(self._row)
        if self._cell == self._column:
            self.marks.errors[self._row] = text

    def _note_merged(self, area: str) -> None:
        first, _separator, last = area.partition(":")
        corner, end = _CELL.fullmatch(first), _CELL.fullmatch(last or first)
        if corner is None or end is None:
            raise ValueError(_("it merges no cells ({area})").format(area=shown(area)))
        left, top = column_index(corner[1]), int(corner[2])
        if left <= self._index <= column_index(end[1]):
            # Only the first cell of a merged area is displayed.
            covered = range(top + (left == self._index), min(int(end[2]), self._row) + 1)
            self.marks.merged.update(dict.fromkeys(covered, area))


def _unreadable(cell: str, row: int) -> ValueError:
    return ValueError(
        _("the value of the cell {cell}{row} is written in a way that Excel never does: save it in Excel").format(
            cell=cell, row=row
        )
    )


def _number(attributes: Mapping[str, str], name: str) -> float:
    """An attribute that is a number; infinite if it is left out."""
    text = attributes.get(name)
    if text is None:
        return math.inf
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(_("the workbook is damaged ({text} is no number)").format(text=shown(text)))
    return float(text)


def _parser() -> expat.XMLParserType:
    parser = expat.ParserCreate()

    def refuse(*_declaration: object) -> None:
        raise ValueError(_("the workbook declares XML entities, which Excel never writes"))

    parser.EntityDeclHandler = refuse
    parser.buffer_text = True
    return parser


def _elements(archive: zipfile.ZipFile, part: str) -> list[tuple[str, str, dict[str, str]]]:
    """Parent, name and attributes of each element of a small part."""
    found: list[tuple[str, str, dict[str, str]]] = []
    path = [""]
    parser = _parser()

    def start(tag: str, attributes: dict[str, str]) -> None:
        found.append((path[-1], tag.rpartition(":")[2], attributes))
        path.append(tag.rpartition(":")[2])

    def end(_: str) -> None:
        path.pop()

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.Parse(archive.read(part), True)
    return found


def _part_of(archive: zipfile.ZipFile, sheet: str) -> str:
    """The name of the part that holds a sheet."""
    attributes = next(
        found for _, tag, found in _elements(archive, "xl/workbook.xml") if tag == "sheet" and found["name"] == sheet
    )
    relation = next(value for key, value in attributes.items() if key.rpartition(":")[2] == "id")
    relations = _elements(archive, "xl/_rels/workbook.xml.rels")
    target = next(found["Target"] for _, tag, found in relations if tag == "Relationship" and found["Id"] == relation)
    return posixpath.normpath(posixpath.join("xl", target)).lstrip("/")


def _odd_styles(archive: zipfile.ZipFile) -> tuple[dict[str, str], dict[str, str]]:
    """The styles that display an integer, and those that display a text, as something else, and their formats."""
    if "xl/styles.xml" not in archive.namelist():
        return {}, {}
    elements = _elements(archive, "xl/styles.xml")
    codes = {found["numFmtId"]: found.get("formatCode", "") for _parent, tag, found in elements if tag == "numFmt"}
    styles = [found.get("numFmtId", "0") for parent, tag, found in elements if parent == "cellXfs" and tag == "xf"]
    numbers = {
        str(index): codes.get(number, _("a format with decimals, a percent sign, an exponent or a date"))
        for index, number in enumerate(styles)
        if not _shows_integers(number, codes.get(number))
    }
    texts = {str(index): codes[number] for index, number in enumerate(styles) if not _shows_text(codes.get(number))}
    return numbers, texts


def _shows_integers(number: str, code: str | None) -> bool:
    if code is None:
        return not number.isdecimal() or int(number) in _BUILT_IN
    sections = code.split(";")
    # Without conditions, the first section is that of positive numbers.
    judged = sections if _CONDITION.search(code) else sections[:1]
    return all(_INTEGER.fullmatch(_DECORATION.sub("", section).strip()) for section in judged)


def _shows_text(code: str | None) -> bool:
    sections = [] if code is None else code.split(";")
    return len(sections) < 4 or _TEXT.fullmatch(_DECORATION.sub("", sections[3]).strip()) is not None

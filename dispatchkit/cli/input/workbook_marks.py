"""What a reader of values does not tell of a sheet: hidden rows, errors of formulas, and how numbers are displayed.

It reads the XML of the sheet once, as a stream.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING
from xml.parsers import expat

import attrs

if TYPE_CHECKING:
    import zipfile

__all__ = ["SheetMarks", "column_letters", "sheet_marks"]

_CELL = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")
_INTEGER = re.compile(r"general|@|[#0?,\s]*[#0?]", re.IGNORECASE)
_DECORATION = re.compile(r"\[[^\]]*\]|_.|\*.|\\(?= )")
_BUILT_IN = frozenset({0, 1, 3, 37, 38, 49})
"""The formats without a code of their own that show an integer as one."""
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
    """Rows whose number in the column is displayed as something else than an integer, and the format."""


def column_letters(index: int) -> str:
    """The name of a column, from 0: A to Z, then AA."""
    letters = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


def sheet_marks(archive: zipfile.ZipFile, sheet: str, column: int) -> SheetMarks:
    """The marks of a sheet.

    Args:
        archive: The workbook.
        sheet: The name of the sheet.
        column: The column whose cells count, from 0.

    Raises:
        ValueError: The workbook is damaged.
    """
    try:
        part = _part_of(archive, sheet)
        scan = _Scan(column_letters(column), _odd_styles(archive))
        with archive.open(part) as stream:
            parser = _parser()
            parser.StartElementHandler, parser.EndElementHandler = scan.start, scan.end
            parser.CharacterDataHandler = scan.text
            while block := stream.read(_BLOCK):
                parser.Parse(block)
            parser.Parse(b"", True)
    except (KeyError, expat.ExpatError, StopIteration) as error:
        raise ValueError(
            f"the sheet {sheet!r} cannot be read: the workbook is damaged ({type(error).__name__})"
        ) from None
    return scan.marks


class _Scan:
    """The handlers of one parse."""

    def __init__(self, column: str, odd_styles: dict[str, str]) -> None:
        self.marks = SheetMarks()
        self._column = column
        self._odd_styles = odd_styles
        self._row = self._position = 0
        self._cell = ""
        self._type = ""
        self._style = ""
        self._value: list[str] | None = None
        self._has_value = self._has_formula = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        if tag == "c":
            match = _CELL.fullmatch(attributes.get("r", ""))
            self._cell = match[1] if match else column_letters(self._position)  # the name may be left out
            self._position += 1
            self._type, self._style = attributes.get("t", "n"), attributes.get("s", "0")
            self._has_value = self._has_formula = False
        elif tag == "row":
            self._position = 0
            self._row = int(attributes["r"]) if attributes.get("r", "").isdecimal() else self._row + 1
            if attributes.get("hidden") in {"1", "true"} or attributes.get("zeroHeight") in {"1", "true"}:
                self.marks.hidden.add(self._row)
        elif tag == "v":
            self._value = []
        elif tag == "f":
            self._has_formula = True

    def text(self, data: str) -> None:
        if self._value is not None and len(self._value) < _MAX_TEXT:
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
                self._note_error("a formula without a result: open the file in Excel and save it")
            if self._type == "n" and self._has_value and self._cell == self._column and self._style in self._odd_styles:
                self.marks.odd_formats[self._row] = self._odd_styles[self._style]

    def _note_error(self, text: str) -> None:
        self.marks.error_rows.add(self._row)
        if self._cell == self._column:
            self.marks.errors[self._row] = text


def _parser() -> expat.XMLParserType:
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise ValueError("the workbook declares XML entities, which Excel never writes")

    parser.EntityDeclHandler = refuse
    parser.buffer_text = True
    return parser


def _elements(archive: zipfile.ZipFile, part: str) -> list[tuple[str, str, dict[str, str]]]:
    """Of each element of a small part its parent, its name and its attributes."""
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


def _odd_styles(archive: zipfile.ZipFile) -> dict[str, str]:
    """The styles that show an integer as something else, and their formats."""
    if "xl/styles.xml" not in archive.namelist():
        return {}
    elements = _elements(archive, "xl/styles.xml")
    codes = {found["numFmtId"]: found.get("formatCode", "") for _, tag, found in elements if tag == "numFmt"}
    styles = [found.get("numFmtId", "0") for parent, tag, found in elements if parent == "cellXfs" and tag == "xf"]
    return {
        str(index): codes.get(number, "a format with decimals, a percent sign, an exponent or a date")
        for index, number in enumerate(styles)
        if not _shows_integers(number, codes.get(number))
    }


def _shows_integers(number: str, code: str | None) -> bool:
    if code is None:
        return not number.isdecimal() or int(number) in _BUILT_IN
    return _INTEGER.fullmatch(_DECORATION.sub("", code.split(";")[0]).strip()) is not None

"""Excel workbooks made for one test, cell by cell."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import openpyxl
from openpyxl.cell import Cell

__all__ = ["Formatted", "Formula", "raw", "workbook"]


class Formula(str):
    """The text of a formula's error."""

    __slots__ = ()


class Formatted:
    """A number and the format in which it is displayed."""

    def __init__(self, number: float, code: str) -> None:
        self.number, self.code = number, code


def workbook(
    rows: Iterable[Sequence[object]],
    *,
    title: str = "Sheet",
    more: Iterable[tuple[str, Sequence[Sequence[object]], str]] = (),
    hidden: Iterable[int] = (),
) -> bytes:
    """A workbook.

    Args:
        rows: Of its first sheet.
        title: Of its first sheet.
        more: Of each other sheet its title, rows and state.
        hidden: Rows of the first sheet that are hidden.
    """
    book = openpyxl.Workbook()
    sheets = [(title, rows, "visible"), *more]
    for position, (name, cells, state) in enumerate(sheets):
        sheet: Any = book.active if position == 0 else book.create_sheet()
        sheet.title, sheet.sheet_state = name, state
        for row, values in enumerate(cells, 1):
            for column, value in enumerate(values, 1):
                _fill(sheet.cell(row, column), value)
        if position == 0:
            for row in hidden:
                sheet.row_dimensions[row].hidden = True
    data = BytesIO()
    book.save(data)
    return data.getvalue()


_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def raw(cells: str, *, before: str = "", after: str = "", row: str = "", strings: str = "", styles: str = "") -> bytes:
    """A workbook of raw XML whose parts are not compressed.

    Args:
        cells: What is in its first row.
        before: What stands before the rows.
        after: What stands after them.
        row: The attributes of the first row.
        strings: The shared strings.
        styles: What is in the part of the styles.
    """
    sheets = {"worksheet": "worksheets/sheet1", "sharedStrings": "sharedStrings", "styles": "styles"}
    relations = "".join(
        f'<Relationship Id="r{number}" Type="{_OFFICE}/{kind}" Target="{target}.xml"/>'
        for number, (kind, target) in enumerate(sheets.items())
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="r" '
        f'Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {_MAIN} xmlns:r="{_OFFICE}"><sheets><sheet name="S" sheetId="1" r:id="r0"/>'
        "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">{relations}</Relationships>',
        "xl/sharedStrings.xml": f"<sst {_MAIN}>{strings}</sst>",
        "xl/styles.xml": f"<styleSheet {_MAIN}>{styles}</styleSheet>",
        "xl/worksheets/sheet1.xml": f"<worksheet {_MAIN}>{before}<sheetData><row {row}>{cells}</row></sheetData>"
        f"{after}</worksheet>",
    }
    data = BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return data.getvalue()


def _fill(cell: Cell, value: Any) -> None:
    if isinstance(value, Formula):
        cell.value, cell.data_type = str(value), "e"
    elif isinstance(value, Formatted):
        cell.value, cell.number_format = value.number, value.code
    else:
        cell.value = value

"""Excel workbooks made for one test, cell by cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO

import openpyxl
from openpyxl.cell import Cell

__all__ = ["Formatted", "Formula", "workbook"]


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
        sheet = book.active if position == 0 else book.create_sheet()
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


def _fill(cell: Cell, value: object) -> None:
    if isinstance(value, Formula):
        cell.value, cell.data_type = str(value), "e"
    elif isinstance(value, Formatted):
        cell.value, cell.number_format = value.number, value.code
    else:
        cell.value = value

"""The rows of an Excel workbook (.xlsx), cell by cell.

Excel stores every number as a float and rounds it at 15 digits. So only whole numbers of at most 15 digits are ids.
Excel must also display them as integers. Ids that Excel does not display are not launched. A hidden sheet is left out
unless it is named. An id in a hidden or filtered row, in a hidden column or under a merged area is refused.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import date, time, timedelta
from typing import TYPE_CHECKING

from dispatchkit.cli.input.bad_rows import BadRows
from dispatchkit.cli.input.columns import Columns, find_columns, no_such_column
from dispatchkit.cli.input.damage import describe, shown
from dispatchkit.cli.input.files import Bytes, read_workbook
from dispatchkit.cli.input.table import Row
from dispatchkit.cli.input.workbook_marks import SheetMarks, column_letters, sheet_marks
from dispatchkit.cli.translate import _, ngettext

if TYPE_CHECKING:
    from io import BytesIO

    from python_calamine import CalamineSheet, CalamineWorkbook

__all__ = ["Sheet", "open_sheet"]

_HEAD = 10
"""Rows among which the header is looked for: titles may stand above it."""
_EXACT = 10**15
"""Excel keeps 15 digits of a number, and writes zeros for the others."""

Cell = int | float | str | bool | date | time | timedelta


class Sheet:
    """One sheet, and where its ids are.

    Attributes:
        notes: What to say about it.
        place: What messages call a row.
    """

    def __init__(self, name: str, sheet: CalamineSheet, columns: Columns, header: int, marks: SheetMarks) -> None:
        self._sheet = sheet
        self._columns = columns
        self._header = header
        self._marks = marks
        self._start = 0 if sheet.start is None else sheet.start[1]
        self._name = name
        self.notes: list[str] = []

    @property
    def has_state(self) -> bool:
        """Whether the sheet has the outcomes of earlier launches."""
        return self._columns.state is not None

    def place(self, row: int) -> str:
        """The cell of a row's id, such as B7."""
        return _("sheet {name!r}, cell {letters}{row}").format(
            name=self._name, letters=self._letters(self._columns.id), row=row
        )

    def rows(self, bad: BadRows) -> Iterator[Row]:
        """The rows.

        Args:
            bad: Takes those that cannot be used.
        """
        columns, marks, number = self._columns, self._marks, 0
        for number, cells in enumerate(_rows(self._sheet, bad.name), 1):
            if number <= self._header:
                continue
            if all(_is_empty(cell) for cell in cells) and number not in marks.error_rows:
                continue
            try:
                beyond = [index for index, cell in enumerate(cells[columns.count :]) if not _is_empty(cell)]
                if beyond:
                    letters = self._letters(columns.count + beyond[0])
                    raise ValueError(
                        _("the cell {letters}{number} stands beyond the header: name its column, or clear it").format(
                            letters=letters, number=number
                        )
                    )
                text = self._text(number, cells[columns.id])
                state = None if columns.state is None else str(cells[columns.state]).strip(" \t")
            except ValueError as error:
                bad.add(number, str(error))
                continue
            command = None if columns.command is None else str(cells[columns.command]).strip(" \t")
            yield number, text, state, command
        # The reader of values does not know the rows after the last value.
        for after in sorted(row for row in marks.error_rows if row > number):
            bad.add(after, _describe_error(marks.errors.get(after, "")))

    def _text(self, number: int, cell: Cell) -> str:
        """The id of a row as text.

        Raises:
            ValueError: It is none, or stands in a hidden row.
        """
        if number in self._marks.hidden:
            raise ValueError(
                _("the row is hidden or filtered out: show all rows, or copy the visible ones to a new sheet")
            )
        if area := self._marks.merged.get(number):
            raise ValueError(
                _("the merged area {area} hides the cell: unmerge it, and look whether this is an id").format(area=area)
            )
        if error := self._marks.errors.get(number):
            raise ValueError(_describe_error(error))
        odd = self._marks.odd_formats.get(number)
        if isinstance(cell, str):
            if odd is not None and not _is_empty(cell):
                raise ValueError(
                    _("{cell} is displayed otherwise ({odd}): format the column as Text").format(
                        cell=shown(cell), odd=shown(odd)
                    )
                )
            return cell.strip(" \t")
        if isinstance(cell, bool):
            raise ValueError(  # noqa: TRY004 - a cell that a person filled
                _("{cell} is not an id: the cell holds a truth value").format(cell=str(cell).upper())
            )
        if not isinstance(cell, int | float):
            raise ValueError(  # noqa: TRY004 - a cell that a person filled
                _(
                    "{cell} is not an id: the cell holds a date or a time. Format the column as Number, and "
                    "enter the id again"
                ).format(cell=cell)
            )
        if cell != cell // 1:
            raise ValueError(_("{cell} is not an id: it is not a whole number").format(cell=cell))
        if abs(cell) >= _EXACT:
            raise ValueError(
                _(
                    "{cell} is not surely the id: Excel rounds numbers of more than 15 digits. Format the column "
                    "as Text, and then enter the ids again"
                ).format(cell=int(cell))
            )
        if odd is not None:
            raise ValueError(
                _(
                    "{cell} is displayed otherwise ({odd}): format the column as Number with 0 decimals, and "
                    "look whether these are ids"
                ).format(cell=int(cell), odd=shown(odd))
            )
        return str(int(cell))

    def _letters(self, index: int) -> str:
        return column_letters(self._start + index)


def open_sheet(source: Bytes, sheet: str | None, column: str | None) -> Sheet:
    """Find the sheet and the column of the ids.

    Args:
        source: The workbook.
        sheet: The name of the sheet; None: the only visible one that is not empty.
        column: The name of the column; None: the only one, or what dispatchkit has written.

    Raises:
        ValueError: There is no such sheet or column, or more than one that may be meant; or the workbook is damaged.
        ImportError: The reader of workbooks is not installed.
    """
    data, archive = read_workbook(source)
    name = source.name
    with archive:
        workbook = _open(data, name)
        chosen, notes = _choose(workbook, sheet, name)
        cells = _sheet(workbook, chosen, name)
        columns, header = _find(cells, column, name, _("{name}, sheet {chosen!r}").format(name=name, chosen=chosen))
        start = 0 if cells.start is None else cells.start[1]
        try:
            marks = sheet_marks(archive, chosen, start + columns.id)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    found = Sheet(chosen, cells, columns, header, marks)
    found.notes = notes
    return found


def _open(data: BytesIO, name: str) -> CalamineWorkbook:
    try:
        import python_calamine  # noqa: PLC0415 - heavy, and an extra
    except ImportError:
        raise ImportError(
            _(
                "{name} is an Excel workbook, which needs an extra: pip install 'dispatchkit[cli]'. Or save it as CSV"
            ).format(name=name)
        ) from None
    data.seek(0)
    with _refusing_damage(name):
        try:
            return python_calamine.CalamineWorkbook.from_filelike(data)
        except python_calamine.PasswordError:
            raise ValueError(_("{name} is protected by a password: save it without").format(name=name)) from None


@contextmanager
def _refusing_damage(name: str) -> Generator[None]:
    """Turn what the reader raises into one line.

    Raises:
        ValueError: The workbook is damaged.
    """
    from python_calamine import CalamineError  # noqa: PLC0415 - heavy, and an extra

    try:
        yield
    except CalamineError as error:
        raise ValueError(
            _("{name} is a damaged workbook: {error}. Open it in Excel and save it").format(name=name, error=error)
        ) from None


def _sheet(workbook: CalamineWorkbook, sheet: str, name: str) -> CalamineSheet:
    with _refusing_damage(name):
        return workbook.get_sheet_by_name(sheet)


def _rows(sheet: CalamineSheet, name: str) -> Iterator[list[Cell]]:
    rows = iter(sheet.iter_rows())
    while True:
        with _refusing_damage(name):
            row = next(rows, None)
        if row is None:
            return
        yield row


def _choose(workbook: CalamineWorkbook, sheet: str | None, name: str) -> tuple[str, list[str]]:
    """The sheet that is meant, and what to say about the others."""
    from python_calamine import SheetTypeEnum, SheetVisibleEnum  # noqa: PLC0415 - heavy, and an extra

    sheets = [each for each in workbook.sheets_metadata if each.typ == SheetTypeEnum.WorkSheet]
    names = ", ".join(repr(each.name) for each in sheets)
    if sheet is not None:
        named = [each.name for each in sheets if each.name == sheet] or [
            each.name for each in sheets if each.name.strip().casefold() == sheet.strip().casefold()
        ]
        if len(named) != 1:
            raise ValueError(
                _("{name} has no sheet {sheet!r}: it has {names}").format(name=name, sheet=sheet, names=names)
            )
        return named[0], []
    filled = [each for each in sheets if _sheet(workbook, each.name, name).height]
    visible = [each.name for each in filled if each.visible == SheetVisibleEnum.Visible]
    hidden = [each.name for each in filled if each.visible != SheetVisibleEnum.Visible]
    if len(visible) > 1:
        raise ValueError(
            ngettext(
                "{name} has {count} sheet that is not empty: {names}. Say which one holds the ids: --sheet {first!r}",
                "{name} has {count} sheets that are not empty: {names}. Say which one holds the ids: --sheet {first!r}",
                len(visible),
            ).format(name=name, count=len(visible), names=", ".join(map(repr, visible)), first=visible[0])
        )
    if not visible:
        hint = (
            _(" but the hidden {names}: --sheet {first!r} takes it").format(
                names=", ".join(map(repr, hidden)), first=hidden[0]
            )
            if hidden
            else ""
        )
        raise ValueError(_("{name} holds no ids: it has no sheet that is not empty{hint}").format(name=name, hint=hint))
    return visible[0], [_("Left out the hidden sheet {name!r}.").format(name=each) for each in hidden]


def _find(sheet: CalamineSheet, column: str | None, name: str, where: str) -> tuple[Columns, int]:
    """The columns of the sheet, and the row of its header; 0 if it has none."""
    head: list[list[str]] = []
    for number, cells in enumerate(_rows(sheet, name), 1):
        if all(map(_is_empty, cells)):
            continue
        texts = [_name(cell) for cell in cells]
        head.append(texts)
        try:
            columns = find_columns(texts, column)
        except ValueError as error:
            raise ValueError(
                _("{where}, row {number}: {error}").format(where=where, number=number, error=error)
            ) from None
        if columns is not None:
            return columns, number
        if len(head) == (1 if column is None else _HEAD):
            break
    if column is not None:
        raise ValueError(f"{where}: {no_such_column(head, column)}")
    if sheet.width > 1:
        raise ValueError(
            _("{where} has {width} columns: name the one that holds the ids: --column NAME").format(
                where=where, width=sheet.width
            )
        )
    first = head[0][0] if head else ""
    if any(map(str.isalpha, first)):
        raise ValueError(
            _("{where}: {first} is not an id; if it is a header: --column {name!r}").format(
                where=where, first=shown(first), name=first
            )
        )
    return Columns(1, 1, 0, None), 0


def _describe_error(error: str) -> str:
    return describe(error) if not error or error.startswith("#") else error


def _name(cell: Cell) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _is_empty(cell: Cell) -> bool:
    return isinstance(cell, str) and not cell.strip(" \t\u00a0")

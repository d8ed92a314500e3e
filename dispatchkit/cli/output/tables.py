"""Values on standard output: a table, JSON Lines or CSV. Half a million of them need no more memory than a few.

JSON and CSV are what `to_dict()` of the values gives. A table has cells of its own, for people.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from shutil import get_terminal_size
from typing import Literal

from dispatchkit.cli.text import escape_control, format_value, labelled, write
from dispatchkit.cli.translate import _
from dispatchkit.json_rows import Scalar
from dispatchkit.values import Value, as_json, columns

__all__ = ["Form", "PlainTable", "Rows", "as_csv", "cell_width", "form_of"]

Form = Literal["table", "json", "csv"]

_BATCH_SIZE = 512
_MIN_WIDTH = 6
"""Width of a column that is not shortened any more."""
_FORMULA = re.compile(r"'*(?:\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")
"""The start of a formula, also in full-width characters. It may have apostrophes, so that one can be removed again."""


def form_of(*, json: bool, csv: bool) -> Form:
    """The form that the options ask for.

    Raises:
        ValueError: They ask for two.
    """
    if json and csv:
        raise ValueError(_("give either --json or --csv, not both"))
    return "json" if json else "csv" if csv else "table"


class Rows:
    """Takes values one by one and writes them some hundreds at a time. A table is as wide as its first rows need.

    Args:
        form: What they are written as.
        cls: Their class, whose columns a CSV has.
        names: The columns of a table, as catalogues have them: in English.
        optional: See `PlainTable`, as for the next one.
        flexible: Default: none.
    """

    def __init__(
        self,
        form: Form,
        cls: type[Value],
        names: Sequence[str],
        *,
        optional: Sequence[str] = (),
        flexible: Sequence[str] = (),
    ) -> None:
        self._form = form
        self._cls = cls
        self._names = names
        self._values: list[Value] = []
        self._cells: list[Sequence[object]] = []
        self._table = PlainTable(names, optional=optional, flexible=flexible)
        self._headed = False
        self._open = True

    def add(self, value: Value, *cells: object) -> bool:
        """Take a value, and its cells in a table. Returns whether the output is still open."""
        self._values.append(value)
        self._cells.append(cells)
        if len(self._values) == _BATCH_SIZE:
            self.flush()
        return self._open

    def flush(self) -> None:
        """Write what waits; the names of the columns come first, also where no row follows."""
        values, self._values = self._values, []
        cells, self._cells = self._cells, []
        headed, self._headed = self._headed, True
        if self._form == "json":
            text = "".join(f"{as_json(value)}\n" for value in values)
        elif self._form == "csv":
            text = as_csv(None if headed else columns(self._cls), (value.to_dict(flat=True) for value in values))
        else:
            text = self._table.lines(cells if headed else [self._table.header, *cells])
        self._open = self._open and write(sys.stdout, text)


class PlainTable:
    """A table that is written some rows at a time, each column as wide as its first rows need.

    On a terminal, columns are left out and shortened until the table fits. A file gets all of it.

    Args:
        names: The columns, as catalogues have them: in English.
        optional: The columns that may be left out, in this order. Before them go those that hold nothing but 0 or -.
        flexible: The columns that may be shortened.
        width: The width to fit into. None: that of standard output, if it is a terminal.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        optional: Sequence[str] = (),
        flexible: Sequence[str] = (),
        width: int | None = None,
    ) -> None:
        self._names = names
        self._width = width
        self._optional = optional
        self._flexible = flexible
        self._widths: dict[int, int] = {}
        """The width of each shown column, by index."""

    @property
    def header(self) -> list[str]:
        """The names of the columns in the language of the user."""
        return [_(name) for name in self._names]

    def write(self, rows: Sequence[Sequence[object]]) -> bool:
        """Write rows to standard output, the names first. Returns whether there still is a reader."""
        return write(sys.stdout, self.lines(rows if self._widths else [self.header, *rows]))

    def lines(self, rows: Sequence[Sequence[object]]) -> str:
        """The lines of rows."""
        cells = [[_cell(value) for value in row] for row in rows]
        if not self._widths:
            self._widths = {
                place: max(map(cell_width, column)) for place, column in enumerate(zip(*cells, strict=True))
            }
            if self._width is not None or sys.stdout.isatty():
                self._fit(cells[1:], self._width or get_terminal_size().columns)
        lines: list[str] = []
        for line, row in zip(cells, rows, strict=True):
            parts: list[str] = []
            for place, width in self._widths.items():
                cell = _shortened(line[place], width) if self._names[place] in self._flexible else line[place]
                space = " " * (width - cell_width(cell))
                parts.append(f"{space}{cell}" if isinstance(row[place], int) else f"{cell}{space}")
            lines.append("  ".join(parts).rstrip() + "\n")
        return "".join(lines)

    def _fit(self, cells: Sequence[Sequence[str]], limit: int) -> None:
        """Leave out columns, then shorten others, until the table is no wider than the limit."""
        empty = [place for place in range(1, len(self._names)) if all(row[place] in {"0", "-"} for row in cells)]
        places = [*reversed(empty), *(self._names.index(name) for name in self._optional)]
        for place in places:
            if self._excess(limit) > 0:
                self._widths.pop(place, None)
        flexible = [place for name in self._flexible if (place := self._names.index(name)) in self._widths]
        while (excess := self._excess(limit)) > 0 and flexible:
            widest = max(flexible, key=lambda place: self._widths[place])
            room = self._widths[widest] - _MIN_WIDTH
            if room <= 0:
                break
            self._widths[widest] -= min(excess, max(1, room // 2))

    def _excess(self, limit: int) -> int:
        return sum(self._widths.values()) + 2 * (len(self._widths) - 1) - limit


def cell_width(text: str) -> int:
    """The columns that a printable text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - as below

    return cell_len(text)


def _shortened(cell: str, width: int) -> str:
    if cell_width(cell) <= width:
        return cell
    from rich.cells import set_cell_size  # noqa: PLC0415 - a launch without a terminal does not need Rich

    return set_cell_size(cell, width - 1).rstrip() + "\u2026"


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return labelled(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return escape_control(format_value(value)) or "-"


def as_csv(header: Sequence[str] | None, rows: Iterable[Mapping[str, Scalar]]) -> str:
    """Flat rows as CSV. A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if header is not None:
        writer.writerow(header)
    writer.writerows([*map(_no_formula, row.values())] for row in rows)
    return text.getvalue()


def _no_formula(value: Scalar) -> Scalar:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) is not None else value

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
from typing import Literal

from rich.cells import cell_len

from dispatchkit.cli.text import escape_control, format_value, utc, write
from dispatchkit.values import Scalar, Value, as_json, columns

__all__ = ["Form", "PlainTable", "Rows", "as_csv", "form_of"]

Form = Literal["table", "json", "csv"]

_BATCH_SIZE = 512
_FORMULA = re.compile(r"'*(?:\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")
"""The start of a formula, also in full-width characters. It may have apostrophes, so that one can be removed again."""


def form_of(*, json: bool, csv: bool) -> Form:
    """The form that the options ask for.

    Raises:
        ValueError: They ask for two.
    """
    if json and csv:
        raise ValueError("give either --json or --csv, not both")
    return "json" if json else "csv" if csv else "table"


class Rows:
    """Takes values one by one and writes them some hundreds at a time. A table is as wide as its first rows need.

    Args:
        form: What they are written as.
        cls: Their class, whose columns a CSV has.
        names: The columns of a table.
    """

    def __init__(self, form: Form, cls: type[Value], names: Sequence[str]) -> None:
        self._form = form
        self._cls = cls
        self._names = names
        self._values: list[Value] = []
        self._cells: list[Sequence[object]] = []
        self._table = PlainTable(names)
        self._headed = False
        self._open = True

    def add(self, value: Value, *cells: object) -> bool:
        """Take a value, and its cells in a table. Returns whether there still is somebody who reads."""
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
            text = self._table.lines(cells if headed else [self._names, *cells])
        self._open = self._open and write(sys.stdout, text)


class PlainTable:
    """A table that is written some rows at a time, each column as wide as its first rows need.

    Args:
        names: The columns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._widths: list[int] | None = None

    def write(self, rows: Sequence[Sequence[object]]) -> bool:
        """Write rows to standard output, the names first. Returns whether there still is a reader."""
        return write(sys.stdout, self.lines([self._names, *rows] if self._widths is None else rows))

    def lines(self, rows: Sequence[Sequence[object]]) -> str:
        """The lines of rows."""
        cells = [[_cell(value) for value in row] for row in rows]
        if self._widths is None:
            self._widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
        widths = self._widths
        return "".join(
            "  ".join(
                f"{space}{cell}" if isinstance(value, int) else f"{cell}{space}"
                for cell, value, space in (
                    (cell, value, " " * (width - cell_len(cell)))
                    for cell, value, width in zip(line, row, widths, strict=True)
                )
            ).rstrip()
            + "\n"
            for line, row in zip(cells, rows, strict=True)
        )


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return utc(value) or ""
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

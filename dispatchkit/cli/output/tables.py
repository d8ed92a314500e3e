"""Values on standard output: a table, JSON Lines or CSV. Half a million of them need no more memory than a few.

JSON and CSV are what `to_dict()` of the values gives. A table has cells of its own, for people.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal

from rich.cells import cell_len

from dispatchkit.cli.text import escape_control, format_value, utc, write
from dispatchkit.values import Scalar, Value, as_json, columns

__all__ = ["Form", "Rows", "as_csv", "form_of"]

Form = Literal["table", "json", "csv"]

_BATCH_SIZE = 512


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
        self._widths: list[int] | None = None
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
            text = self._as_table(cells if headed else [self._names, *cells])
        self._open = self._open and write(sys.stdout, text)

    def _as_table(self, rows: Sequence[Sequence[object]]) -> str:
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
    """Flat rows as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if header is not None:
        writer.writerow(header)
    writer.writerows(row.values() for row in rows)
    return text.getvalue()

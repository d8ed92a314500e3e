"""Rows on standard output: a table, JSON Lines or CSV. Half a million of them need no more memory than a few."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from rich.cells import cell_len

from dispatchkit.cli.text import escape_control, format_value, utc, write

__all__ = ["Form", "Rows", "form_of"]

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
    """Takes rows one by one and writes them some hundreds at a time. A table is as wide as its first ones need.

    Args:
        form: What they are written as.
        names: What the fields are called.
    """

    def __init__(self, form: Form, names: Sequence[str]) -> None:
        self._form = form
        self._names = names
        self._waiting: list[Sequence[object]] = []
        self._widths: list[int] | None = None
        self._headed = form == "json"
        self._open = True

    def add(self, *values: object) -> bool:
        """Take a row. Returns whether there still is somebody who reads."""
        self._waiting.append(values)
        if len(self._waiting) == _BATCH_SIZE:
            self.flush()
        return self._open

    def flush(self) -> None:
        """Write what waits; the names of the fields come first, also where no row follows."""
        rows, self._waiting = self._waiting, []
        if self._form == "json":
            text = "".join(f"{json.dumps(dict(zip(self._names, map(_plain, row), strict=True)))}\n" for row in rows)
        else:
            lines: list[Sequence[object]] = rows if self._headed else [self._names, *rows]
            self._headed = True
            text = _as_csv(lines) if self._form == "csv" else self._as_table(lines)
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


def _as_csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([_plain(value) for value in row] for row in rows)
    return text.getvalue()


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value

"""Targets of a ledger as JSON or CSV, as their `to_dict` gives them, without an object for each.

An export has a million lines. Most commands of a run differ in one number, so the rest of their text is made once.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal, Never

from dispatchkit.cli.output.tables import as_csv
from dispatchkit.core.command import Command
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.codec import decode, numbered
from dispatchkit.ledger.target import Target, TargetRow
from dispatchkit.ledger.template import Template
from dispatchkit.values import as_json, columns

__all__ = ["TargetLines"]

_dumps = json.dumps
_text = json.encoder.encode_basestring_ascii
_is_plain = re.compile("[0-9A-Za-z][0-9A-Za-z-]*").fullmatch
"""Whether a request id needs no quotes, and is no formula."""
_CELLS = 4096
"""Maximum cells of texts that are kept. The summaries of a million failures are mostly the same."""


class TargetLines:
    """Makes the lines of targets.

    Args:
        form: JSON Lines or CSV.
    """

    def __init__(self, form: Literal["json", "csv"]) -> None:
        self._lines = self._json_lines if form == "json" else self._csv_lines
        self._any_line = _any_json_line if form == "json" else _any_csv_line
        self.header = as_csv(columns(Target), ()) if form == "csv" else ""
        """What comes before the first line."""
        self._template: Template | None = None
        self._type = ""
        self._before = self._after = ""

    def of(self, rows: Sequence[TargetRow]) -> str:
        """The lines of some targets."""
        numbers = None if self._template is None else self._template.numbers([row[1] for row in rows])
        return "".join(map(self._line, rows) if numbers is None else self._lines(rows, numbers))

    def _line(self, row: TargetRow) -> str:
        number = self._number(row[1])
        return self._any_line(Target.of_row(row)) if number is None else "".join(self._lines([row], [number]))

    def _number(self, text: str) -> int | None:
        """The number in which a command differs from those before it; None if it differs in more."""
        if self._template is not None and (number := self._template.number(text)) is not None:
            return number
        try:
            command = decode(text, partial=True)
        except LedgerError:
            return None
        found = numbered(text)
        return found[1] if found is not None and self._learn(command, *found) else None

    def _learn(self, command: Command[Never, object], template: Template, number: int) -> bool:
        """Keep what the commands of a template share. Returns False if more than one of their values differs."""
        text = _dumps(command.to_dict())
        before, marker, after = text.partition(f": {number}")
        if command.target != number or after[:1] not in {",", "}"} or f": {number}" in after:
            return False
        self._template, self._type = template, type(command).__name__
        self._before, self._after = f"{before}: ", after
        return bool(marker)

    def _json_lines(self, rows: Iterable[TargetRow], numbers: Iterable[object]) -> Iterable[str]:
        before, after = self._before, self._after
        return [
            f'{{"index": {index}, "command": {before}{number}{after}, "state": "{state}", '
            f'"summary": {_text(summary)}, "code": {"null" if code is None else _dumps(code)}, '
            f'"request_id": {"null" if request_id is None else _text(request_id)}, "attempts": {attempts}, '
            f'"at": {"null" if at is None else _text(_moment(at))}, '
            f'"is_final": {"true" if is_final else "false"}, "target": {number}}}\n'
            for (index, _, state, summary, code, request_id, attempts, at, is_final), number in zip(
                rows, numbers, strict=True
            )
        ]

    def _csv_lines(self, rows: Iterable[TargetRow], numbers: Iterable[object]) -> Iterable[str]:
        name = self._type
        return [
            f"{index},{name},{state},{summary and _cell(summary)},"
            f"{'' if code is None else code if type(code) is int else _cell(str(code))},"
            f"{(request_id if _is_plain(request_id) else _cell(request_id)) if request_id else ''},{attempts},"
            f"{_moment(at) if at else ''},{'True' if is_final else 'False'},{number}\n"
            for (index, _, state, summary, code, request_id, attempts, at, is_final), number in zip(
                rows, numbers, strict=True
            )
        ]


def _any_json_line(target: Target) -> str:
    return f"{as_json(target)}\n"


def _any_csv_line(target: Target) -> str:
    return as_csv(None, [target.to_dict(flat=True)])


@functools.lru_cache(_CELLS)
def _cell(text: str) -> str:
    """A text in the middle of a line of CSV."""
    return as_csv(None, [{"text": text, "next": None}]).removesuffix(",\n")


def _moment(at: str) -> str:
    """A stored time, as `to_dict` gives it: ledgers have all times in UTC, and leave out microseconds of zero."""
    if at[26:] == "+00:00":
        return f"{at[:26]}Z"
    return f"{datetime.fromisoformat(at).astimezone(UTC).isoformat(timespec='microseconds')[:26]}Z"

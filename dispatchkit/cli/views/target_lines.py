"""Targets of a ledger as JSON or CSV, as their `to_dict` gives them, without a dict for each.

An export has a million lines. Most commands of a run differ in one number, so the rest of their text is made once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC
from typing import Literal, Never

from dispatchkit.cli.output.tables import as_csv
from dispatchkit.core.command import Command
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.codec import decode, numbered
from dispatchkit.ledger.store import Target
from dispatchkit.ledger.template import Template
from dispatchkit.values import as_json, columns

__all__ = ["TargetLines"]

_dumps = json.dumps
_text = json.encoder.encode_basestring_ascii


class TargetLines:
    """Makes the lines of targets.

    Args:
        form: JSON Lines or CSV.
    """

    def __init__(self, form: Literal["json", "csv"]) -> None:
        self._line_of = self._json_line if form == "json" else self._csv_line
        self.header = as_csv(columns(Target), ()) if form == "csv" else ""
        """What comes before the first line."""
        self._template: Template | None = None
        self._type = ""
        self._before = self._after = ""

    def of(self, targets: Sequence[Target]) -> str:
        """The lines of some targets."""
        return "".join(map(self._line_of, targets))

    def _number(self, target: Target) -> int | None:
        """The number in which the command differs from those before it; None if it differs in more."""
        if self._template is not None and (number := self._template.number(target.command)) is not None:
            return number
        try:
            command = decode(target.command, partial=True)
        except LedgerError:
            return None
        found = numbered(target.command)
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

    def _json_line(self, target: Target) -> str:
        number = self._number(target)
        if number is None:
            return f"{as_json(target)}\n"
        at, code = _moment(target), target.code
        return (
            f'{{"index": {target.index}, "command": {self._before}{number}{self._after}, "state": "{target.state}", '
            f'"summary": {_text(target.summary)}, "code": {"null" if code is None else _dumps(code)}, '
            f'"request_id": {"null" if target.request_id is None else _text(target.request_id)}, '
            f'"attempts": {target.attempts}, "at": {"null" if at is None else _text(at)}, '
            f'"is_final": {"true" if target.is_final else "false"}, "target": {number}}}\n'
        )

    def _csv_line(self, target: Target) -> str:
        number, code, request_id = self._number(target), target.code, target.request_id
        if number is None or target.summary or isinstance(code, str) or (request_id and not _is_plain(request_id)):
            return as_csv(None, [target.to_dict(flat=True)])
        return (
            f"{target.index},{self._type},{target.state},,{'' if code is None else code},{request_id or ''},"
            f"{target.attempts},{_moment(target) or ''},{target.is_final},{number}\n"
        )


def _is_plain(request_id: str) -> bool:
    """Whether a request id needs no quotes, and is no formula."""
    return request_id.isascii() and request_id[:1].isalnum() and request_id.replace("-", "").isalnum()


def _moment(target: Target) -> str | None:
    """The time of a target, as `to_dict` gives it: ledgers have all times in UTC."""
    at = target.at
    if at is None:
        return None
    if at.tzinfo is UTC and at.microsecond:
        return f"{at.isoformat()[:-6]}Z"
    return f"{at.astimezone(UTC).isoformat(timespec='microseconds')[:-6]}Z"

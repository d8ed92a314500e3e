"""How values, failures and outcomes are written.

What a provider wrote is shown to a person at a terminal: nothing in it may move the cursor, colour the screen or be
read as markup.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Never, cast

import attrs

from dispatchkit.cli.streams import ignore_broken_pipe, write
from dispatchkit.errors import RejectedError

if TYPE_CHECKING:
    from dispatchkit import Outcome
    from dispatchkit.core.command import Command

__all__ = [
    "as_json",
    "counted",
    "escape_control",
    "format_failure",
    "format_value",
    "ignore_broken_pipe",
    "number_of",
    "redact_urls",
    "utc",
    "write",
]

_PASSWORD = re.compile(r"(\w+://[^:/@\s]*:)[^@\s]*(?=@)|([?&]password=)[^&\s]*")


def escape_control(text: str) -> str:
    """The text with everything that does not print written as an escape: controls, line ends, direction marks."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def redact_urls(text: str) -> str:
    """The text without the passwords of the URLs in it."""
    return _PASSWORD.sub(lambda match: f"{match[1] or match[2]}***", text)


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun, in the right number: ``1 id``, ``1,000 ids``.

    Args:
        count: How many.
        one: The noun for one.
        many: The noun for any other count; None adds an s.
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def format_value(value: object) -> str:
    """A value as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def utc(moment: datetime | None) -> str | None:
    """A moment as a table shows it. Which zone is meant by one without, only its provider knows."""
    if moment is not None and moment.tzinfo is None:
        return moment.isoformat(" ", "seconds")
    try:
        return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "seconds")
    except OverflowError:  # in the year 1 or 9999
        return str(moment)


def number_of(command: Command[Never, object]) -> int:
    """The id that a command acts on. Every command names it in its first field."""
    cls = cast("type[attrs.AttrsInstance]", type(command))
    number: int = getattr(command, attrs.fields(cls)[0].name)
    return number


def format_failure(outcome: Outcome[object]) -> str:
    """A failure in one line: which id, which outcome, why."""
    why = "" if outcome.error is None else outcome.error.summary
    return escape_control(f"{number_of(outcome.command)}: {outcome.state.value.replace('_', ' ')}: {why}")


def as_json(outcome: Outcome[object]) -> str:
    """An outcome as one line of JSON, in ASCII."""
    error = outcome.error
    refusal = error if isinstance(error, RejectedError) else None
    result = outcome.result
    fields = {
        "index": outcome.index,
        "id": number_of(outcome.command),
        "command": type(outcome.command).__name__,
        "state": outcome.state.value,
        "result": attrs.asdict(result) if attrs.has(type(result)) else result,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        "error": error
        and {
            "type": type(error).__name__,
            "message": error.summary if refusal is None else refusal.message,
            "status": refusal and refusal.status,
            "code": refusal and refusal.code,
            "hint": error.hint,
        },
        "attempts": [
            {
                "number": attempt.number,
                "started": attempt.started.isoformat(),
                "duration": round(attempt.duration, 6),
                "result": attempt.result,
                "sent": attempt.sent,
            }
            for attempt in outcome.attempts
        ],
        "request_id": outcome.request_id,
    }
    return json.dumps(fields)

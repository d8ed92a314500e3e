"""JSON types, and the columns of a flat row that they become.

See `values` for the rules. Nothing here knows the class of a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeAlias, cast

__all__ = [
    "ERROR_KEYS",
    "Json",
    "Scalar",
    "dumps",
    "flat_attempts",
    "flat_command",
    "flat_outcome",
    "flat_settings",
    "flat_value",
    "prefixed",
]

Scalar: TypeAlias = str | int | float | bool | None
"""What a flat row holds."""
Json: TypeAlias = Scalar | list["Json"] | dict[str, "Json"]
"""What `Value.to_dict` is made of."""

ERROR_KEYS = ("type", "summary", "message", "hint", "status", "code", "retry_after", "retry_at", "is_final")
"""Keys of an error inside an outcome, which has the others itself."""
_RESULT = ("settled", "replayed", "repeated")
"""Keys of a result that the flat row of an outcome has."""


def dumps(fields: dict[str, Json]) -> str:
    """One line of JSON, in ASCII."""
    import json  # noqa: PLC0415 - a program that only catches an error does not need it

    return json.dumps(fields, allow_nan=False)


def flat_settings(value: Json) -> dict[str, Scalar]:
    """The settings of a client: those of all providers, and in one text those that only some have."""
    settings = value if isinstance(value, dict) else {}
    own = {name: settings.get(name) for name in ("provider", "base_url")}
    others = "; ".join(f"{name}={each}" for name, each in settings.items() if name not in own)
    return {f"settings_{name}": flat_value(each) for name, each in (*own.items(), ("other", others or None))}


def flat_outcome(fields: Mapping[str, Json]) -> dict[str, Scalar]:
    """The row of an outcome, with the same columns for all four."""
    row: dict[str, Scalar] = {}
    for key in ("index", "target", "command", "state", "result", "error", "attempts", "request_id"):
        value = fields.get(key)
        if key == "command":
            row |= flat_command(value)
        elif key == "attempts":
            row |= flat_attempts(value if isinstance(value, list) else [])
        elif key in {"result", "error"}:
            nested = value if isinstance(value, dict) else {}
            names = _RESULT if key == "result" else ERROR_KEYS
            row |= prefixed(key, {name: flat_value(nested.get(name)) for name in names})
        else:
            row[key] = flat_value(value)
    return row


def flat_command(command: Json) -> dict[str, Scalar]:
    """The column of a command."""
    return {"command_type": flat_value(command.get("type")) if isinstance(command, dict) else None}


def flat_attempts(attempts: Sequence[Json]) -> dict[str, Scalar]:
    """The columns of the attempts of a call."""
    if not attempts:
        return {"attempts": 0, "started": None, "duration": None}
    first, last = cast("dict[str, str]", attempts[0])["started"], cast("dict[str, str]", attempts[-1])["started"]
    before = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
    duration = cast("dict[str, float | None]", attempts[-1])["duration"]
    return {
        "attempts": len(attempts),
        "started": first,
        "duration": None if duration is None else round(before + duration, 6),
    }


def prefixed(key: str, row: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The columns of a nested object."""
    return {f"{key}_{name}": value for name, value in row.items()}


def flat_value(value: Json) -> Scalar:
    """One column of any value."""
    if isinstance(value, dict):
        return dumps(value)
    if isinstance(value, list):
        return len(value) if any(isinstance(each, dict) for each in value) else ", ".join(map(str, value))
    return value

"""Checks that find the caller's mistake before anything is sent: they name field, value and what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence, Sized
from datetime import UTC, datetime
from operator import index
from typing import SupportsIndex, TypeVar

import attrs

from dispatchkit.core.masking import is_field_name

__all__ = [
    "MAX_LABEL",
    "MAX_SECONDS",
    "JsonValue",
    "a_kind",
    "as_int",
    "as_int_or_none",
    "async_iterable",
    "brief",
    "flag",
    "int_in_range",
    "json_object",
    "label",
    "moment",
    "non_empty",
    "non_negative",
    "positive_id",
    "seconds",
    "shown",
    "true_or_false",
]

T = TypeVar("T")

JsonValue = str | int | float | bool | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None

MAX_LABEL = 200
"""Characters of a name of a run or an account."""
MAX_SECONDS = 1e9
"""Seconds of any setting: 31 years. What is longer overflows one clock or another."""
_MAX_ID = 2**63 - 1
_MAX_SHOWN = 100
_MAX_DEPTH = 100
_SURROGATE = re.compile("[\ud800-\udfff]")


def brief(value: object) -> str:
    """A value for a message: in one line, and not without end."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - such as that of an integer of 5,000 digits
        return "one that cannot be shown"
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def shown(value: object) -> str:
    """Type and value, for a message."""
    return f"{type(value).__name__} {brief(value)}"


def a_kind(name: str, value: object, kind: type[T], allowed: str) -> T:
    """A value of a class.

    Raises:
        TypeError: It is of another.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {allowed}, not {shown(value)}")
    return value


def async_iterable(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterable[T] | None:
    """The iterable itself if only ``async for`` iterates it, else None.

    What has a length and a plain iterator is read as a list is: a QuerySet of Django is both.
    """
    if not isinstance(items, AsyncIterable) or (isinstance(items, Sized) and isinstance(items, Iterable)):
        return None
    return items


def true_or_false(name: str, value: object) -> bool:
    """A flag.

    Raises:
        TypeError: It is neither True nor False.
    """
    return a_kind(name, value, bool, "True or False")


def as_int(value: SupportsIndex) -> int:
    """An attrs converter: the plain integer of whatever has ``__index__``, such as a NumPy integer or an `IntEnum`.

    Anything else, and a bool, stays as it is, for the validator to refuse.
    """
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return value
    try:
        return index(value)  # an enum would stand in a path with its name
    except TypeError:
        return value  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


def as_int_or_none(value: SupportsIndex | None) -> int | None:
    """An attrs converter: None, or see `as_int`."""
    return None if value is None else as_int(value)


def _integer(name: str, value: object, allowed: str) -> int:
    if type(value) is not int:  # no bool
        raise TypeError(f"{name} must be {allowed}, not {shown(value)}")
    return value


def positive_id(instance: object, attribute: attrs.Attribute[int], value: object) -> None:
    """An attrs validator: a positive integer of at most 63 bits; no bool, no text."""
    del instance
    if type(value) is int and 0 < value <= _MAX_ID:
        return
    allowed = "a positive integer"
    _integer(attribute.name, value, allowed)
    raise ValueError(f"{attribute.name} must be {allowed} of at most 63 bits, not {brief(value)}")


def non_negative(instance: object, attribute: attrs.Attribute[int | None], value: object) -> None:
    """An attrs validator: None, or an integer from 0 up."""
    del instance
    allowed = "an integer from 0 up"
    if value is not None and _integer(attribute.name, value, allowed) < 0:
        raise ValueError(f"{attribute.name} must be {allowed}, not {value!r}")


def flag(instance: object, attribute: attrs.Attribute[bool | None], value: object) -> None:
    """An attrs validator: None, True or False."""
    del instance
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be True or False, not {type(value).__name__} {value!r}")


def non_empty(instance: object, attribute: attrs.Attribute[str | None], value: object) -> None:
    """An attrs validator: None, or a text of at least one character that UTF-8 can say."""
    del instance
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be text, not {type(value).__name__} {value!r}")
    if not _text(attribute.name, value):
        raise ValueError(f"{attribute.name} must not be empty: leave it out instead")


def moment(instance: object, attribute: attrs.Attribute[datetime | None], value: object) -> None:
    """An attrs validator: None, or a time that says its zone, so that UTC can be told."""
    del instance
    if value is None:
        return
    if not isinstance(value, datetime):
        raise TypeError(f"{attribute.name} must be a datetime, not {type(value).__name__} {value!r}")
    if value.utcoffset() is None:
        raise ValueError(f"{attribute.name} must say its zone, such as datetime(2026, 1, 1, tzinfo=UTC), not {value!r}")
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{attribute.name} must be a time that UTC can say, not {value!r}") from None


def seconds(name: str, value: float) -> float:
    """A positive, finite number of seconds.

    Raises:
        TypeError: It is not a number.
        ValueError: It is not positive, not finite, or longer than 31 years.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {shown(value)}")
    if not 0 < value <= MAX_SECONDS:
        raise ValueError(
            f"{name} must be a positive, finite number of seconds, at most {MAX_SECONDS:,.0f}, not {shown(value)}"
        )
    return float(value)


def label(name: str, value: str) -> str:
    """A name that a person gave: printable text of 1 to 200 characters.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, too long, or does not print.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {shown(value)}")
    if not value or not value.isprintable():
        raise ValueError(f"{name} must be a name such as 'black-friday', not {value!r}")
    if len(value) > MAX_LABEL:
        raise ValueError(f"{name} must be a name of at most {MAX_LABEL} characters, not of {len(value):,}")
    return value


def json_object(name: str, value: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A copy of a JSON object, so that a later change by the caller cannot change what a repeat sends.

    Raises:
        TypeError: It is not a mapping, or holds something that JSON has no word for.
        ValueError: It holds NaN or an infinity, or is nested too deeply.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a JSON object (a dict with string keys), not {type(value).__name__}")
    return _object(name, value, _MAX_DEPTH)


def _object(path: str, value: Mapping[str, JsonValue], depth: int) -> dict[str, JsonValue]:
    copied: dict[str, JsonValue] = {}
    for position, (key, item) in enumerate(value.items(), 1):
        if not isinstance(key, str):
            raise TypeError(f"{path} must have string keys only, not {type(key).__name__} (key {position})")
        name = key if is_field_name(key) else f"<key {position}>"
        copied[_text(path, key)] = _value(f"{path}.{name}", item, depth - 1)
    return copied


def _value(path: str, value: JsonValue, depth: int) -> JsonValue:
    if depth <= 0:
        raise ValueError(f"{path.partition('.')[0]} must be nested at most {_MAX_DEPTH} deep (does it hold itself?)")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(path, value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} must be a number that JSON can say, not {value!r}")
        return float(value)
    if isinstance(value, Mapping):
        return _object(path, value, depth)
    if isinstance(value, list | tuple):
        return [_value(f"{path}[{index}]", item, depth - 1) for index, item in enumerate(value)]
    raise TypeError(f"{path} must be a JSON value, not {type(value).__name__}")


def _text(path: str, value: str) -> str:
    if _SURROGATE.search(value):
        raise ValueError(f"{path} must be text that UTF-8 can say: it holds half of a surrogate pair")
    return str.__str__(value)  # an enum's own text, not its name


def int_in_range(name: str, value: object, *, minimum: int, maximum: int | None = None) -> None:
    """Check a number of things.

    Raises:
        TypeError: It is no integer.
        ValueError: It is too small or too large.
    """
    allowed = f"{name} must be an integer from {minimum} {'up' if maximum is None else f'to {maximum}'}"
    if type(value) is not int:
        raise TypeError(f"{allowed}, not {shown(value)}")
    if value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"{allowed}, not {brief(value)}")

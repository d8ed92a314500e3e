"""`to_dict()`: values and errors as JSON types, or as one flat row, and the JSON Schema of both.

The rules:

- An attrs field is a key of its own name. A datetime is ISO 8601 text in UTC, an enum its value, a float that is not
  finite None.
- No secret and no content is shown. Bytes become their number, a mapping the list of its keys. What the repr of a class
  hides, its `to_dict()` leaves out, unless the field is marked with `SHOWN` or `shown_as`.
- A flat row has scalars only, and the columns of a class are always the same. A nested object becomes columns with its
  key as prefix (``counts_done``). A list of objects becomes their number, and a list of texts one text (``"a, b"``).
  An object with free keys becomes JSON text. Of a command, only ``command_type`` stays. Attempts become ``attempts``
  (their number), ``started`` (of the first) and ``duration`` (seconds from there to the end of the last).
- The row of an outcome has the same columns for all four. Of the result it has ``result_settled``,
  ``result_replayed`` and ``result_repeated``. Of the error it has all keys.

cattrs finds the conversion of a type. Functions import it, json and pydantic, so that a program that only catches an
error does not pay for them.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args, get_origin, get_type_hints, overload

import attrs

from dispatchkit.json_rows import (
    ERROR_KEYS,
    Json,
    Scalar,
    dumps,
    flat_attempts,
    flat_command,
    flat_outcome,
    flat_settings,
    flat_value,
    prefixed,
)

if TYPE_CHECKING:
    from cattrs import Converter
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = [
    "HIDDEN",
    "SHOWN",
    "OutcomeValue",
    "TypedValue",
    "Value",
    "as_json",
    "columns",
    "json_schema",
    "shown_as",
    "target_of",
    "to_json",
]

_MARK = "dispatchkit.to_dict"
HIDDEN: Mapping[str, object] = {_MARK: False}
"""Metadata of an attrs field that no `Value.to_dict` shows."""
SHOWN: Mapping[str, object] = {_MARK: True}
"""Metadata of an attrs field that the repr leaves out and `Value.to_dict` shows."""


@attrs.frozen
class _ShownAs:
    key: str
    read: Callable[[object], object]


def shown_as(key: str, read: Callable[..., object]) -> Mapping[str, object]:
    """Metadata of an attrs field that `Value.to_dict` shows under another name, or only in part.

    Args:
        key: The name.
        read: Makes of the field's value what is shown.
    """
    return {_MARK: _ShownAs(key, read)}


class Value:
    """Base of the values and errors that have a `to_dict`."""

    __slots__ = ()

    __to_dict_also__: ClassVar[tuple[str, ...]] = ()
    """Properties that are keys too."""
    __schema_name__: ClassVar[str | None] = None
    """The definition in ``schema.json`` for a class and its subclasses; None takes the one of the class's own name."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from dispatchkit.pydantic_schema import value_schema  # noqa: PLC0415 - see above

        definitions = cast("dict[str, Json]", json_schema()["$defs"])
        return value_schema(cls, to_json, _schema_name(cls, definitions), definitions)

    @overload
    def to_dict(self, *, flat: Literal[False] = False) -> dict[str, Json]: ...

    @overload
    def to_dict(self, *, flat: Literal[True]) -> dict[str, Scalar]: ...

    @overload
    def to_dict(self, *, flat: bool) -> dict[str, Json] | dict[str, Scalar]: ...

    def to_dict(self, *, flat: bool = False) -> dict[str, Json] | dict[str, Scalar]:
        """The value as JSON types: ``json.dumps`` takes it as it is. It holds no secret and no content.

        `dispatchkit.json_schema` describes every key.

        Args:
            flat: One row of scalars for a CSV or a data frame, whose columns are always the same. A nested object
                becomes columns such as ``error_code``, a list of objects becomes their number.

        >>> from dispatchkit import Report
        >>> Report(done=2, unknown=1).to_dict()["failed"]
        1
        """
        fields = cast("dict[str, Json]", _converter().unstructure(self))
        return _flat(type(self), fields) if flat else fields


class TypedValue(Value):
    """A value whose first key, ``type``, is the name of its class: a command, an error."""

    __slots__ = ()


class OutcomeValue(Value):
    """The outcome of a command. All outcomes have the same keys, whatever their class is."""

    __slots__ = ()
    __schema_name__ = "Outcome"


def to_json(value: object) -> dict[str, Json]:
    """What ``json.dumps`` calls for a value that it does not know: ``json.dumps(values, default=to_json)``.

    orjson takes it in the same way. It returns the `Value.to_dict` of a value or an error of dispatchkit.

    Raises:
        TypeError: The value is not one of dispatchkit's.

    >>> import json
    >>> from dispatchkit import Report
    >>> json.dumps([Report(done=2)], default=to_json)[:27]
    '[{"done": 2, "rejected": 0,'
    """
    if isinstance(value, Value):
        return value.to_dict()
    raise TypeError(f"{type(value).__name__} is no value of dispatchkit, so to_json does not know its JSON")


def as_json(value: Value) -> str:
    """The `Value.to_dict` of a value as one line of JSON, in ASCII."""
    return dumps(value.to_dict())


def target_of(command: object) -> int | None:
    """The ``target`` of a command; None where there is no command, or it has no id."""
    target: object = getattr(command, "target", None)
    return target if isinstance(target, int) else None


def columns(cls: type[Value]) -> tuple[str, ...]:
    """The columns of the flat rows of an attrs class, also where there is no row.

    >>> from dispatchkit import Counts
    >>> columns(Counts)[:3]
    ('planned', 'sending', 'done')
    """
    return tuple(_flat(cls, None))


def json_schema() -> dict[str, Json]:
    """The JSON Schema (draft 2020-12) of every `Value.to_dict`, as it ships with the package.

    ``$defs`` has a schema for each class, by its name, and for the flat rows: ``OutcomeRow``, for example. To validate
    against one of them, refer to it:

    >>> schema = {**json_schema(), "$ref": "#/$defs/Outcome"}
    >>> schema["$schema"]
    'https://json-schema.org/draft/2020-12/schema'
    """
    import json  # noqa: PLC0415 - see above
    from importlib.resources import files  # noqa: PLC0415 - see above

    text = files("dispatchkit").joinpath("schema.json").read_text(encoding="utf-8")
    return cast("dict[str, Json]", json.loads(text))


def _schema_name(cls: type[Value], definitions: Mapping[str, object]) -> str | None:
    """The definition of a class in ``schema.json``; None for a class of another package that has none."""
    for base in cls.__mro__:
        name: str = vars(base).get("__schema_name__") or base.__name__
        if name in definitions and base.__module__.startswith("dispatchkit."):
            return name
    return None


@attrs.frozen
class _Entry:
    """One key of a class."""

    key: str
    read: Callable[[object], object]
    convert: Callable[[object], object] | None = None
    """Makes JSON of what is read; None where that depends on its type."""
    nested: type[Value] | None = None
    """The attrs class of what is read, if its field is declared with one."""
    counted: bool = False
    """Whether a flat row has the number of what is read."""


@functools.cache
def _entries(cls: type[object]) -> tuple[_Entry, ...]:
    """The keys of a class, in their order."""
    entries: list[_Entry] = []
    if _is_a(cls, TypedValue):
        entries.append(_Entry("type", lambda value: type(value).__name__))
    if attrs.has(cls):
        hints: dict[str, object] = {}
        with suppress(NameError):  # a name that is imported for type checkers only
            hints = get_type_hints(cls)
        for field in attrs.fields(cls):
            mark = field.metadata.get(_MARK)
            if isinstance(mark, _ShownAs):
                entries.append(_Entry(mark.key, _shown(field.name, mark.read), convert=_same))
            elif mark is True or (mark is None and field.repr is True):
                entries.append(_Entry(field.name, attrgetter(field.name), None, *_declared(hints.get(field.name))))
    also = cast("tuple[str, ...]", getattr(cls, "__to_dict_also__", ()))
    entries += [_Entry(name, functools.partial(_attribute, name), convert=_property) for name in also]
    return tuple(entries)


def _shown(name: str, read: Callable[[object], object]) -> Callable[[object], object]:
    return lambda value: read(getattr(value, name))


def _attribute(name: str, value: object) -> object:
    return getattr(value, name, None)


def _same(value: object) -> object:
    return value


def _property(value: object) -> object:
    """JSON of a property. A class that names one vouches for the values of a mapping."""
    plain = _converter().unstructure
    if not isinstance(value, Mapping):
        return plain(value)
    return {str(key): plain(each) for key, each in cast("Mapping[object, object]", value).items()}


def _declared(annotation: object) -> tuple[type[Value] | None, bool]:
    """What the type of a field means for a flat row: see `_Entry.nested` and `_Entry.counted`."""
    if get_origin(annotation) in {tuple, Sequence, list}:
        return None, get_args(annotation)[0] is not str
    for part in get_args(annotation) or (annotation,):
        cls: object = get_origin(part) or part
        if isinstance(cls, type) and _is_a(cls, Value):
            return cast("type[Value]", cls), False
    return None, False


@functools.cache
def _converter() -> Converter:
    from cattrs import Converter  # noqa: PLC0415 - see above

    converter = Converter(unstructure_fallback_factory=lambda _: _other)
    plain = converter.unstructure

    def listed(values: Sequence[object]) -> list[object]:
        return [plain(value) for value in values]

    def fields_of(cls: type) -> Callable[[object], dict[str, object]]:
        entries = [(entry.key, entry.read, entry.convert or plain) for entry in _entries(cls)]
        return lambda value: {key: convert(read(value)) for key, read, convert in entries}

    def outcome(value: object) -> dict[str, object]:
        error = plain(getattr(value, "error", None))
        command: object = getattr(value, "command", None)
        return {
            "index": getattr(value, "index", None),
            "target": target_of(command),
            "command": plain(command),
            "state": plain(getattr(value, "state", None)),
            "result": plain(getattr(value, "result", None)),
            "error": error and {key: error[key] for key in ERROR_KEYS},
            "attempts": plain(getattr(value, "attempts", ())),
            "request_id": getattr(value, "request_id", None),
        }

    for cls in (list, tuple, set, frozenset):
        converter.register_unstructure_hook(cls, listed)
    converter.register_unstructure_hook(Mapping, lambda mapping: [str(key) for key in mapping])
    converter.register_unstructure_hook(bytes, len)
    converter.register_unstructure_hook(bytearray, len)
    converter.register_unstructure_hook(memoryview, lambda view: view.nbytes)
    converter.register_unstructure_hook(datetime, _moment)
    converter.register_unstructure_hook(date, date.isoformat)
    converter.register_unstructure_hook(float, lambda number: float(number) if math.isfinite(number) else None)
    converter.register_unstructure_hook(
        str, lambda text: plain(text.value) if isinstance(text, enum.Enum) else str(text)
    )
    converter.register_unstructure_hook(int, lambda number: number if isinstance(number, bool) else int(number))
    converter.register_unstructure_hook(enum.Enum, lambda member: plain(member.value))
    converter.register_unstructure_hook_factory(attrs.has, fields_of)
    converter.register_unstructure_hook_factory(lambda cls: _is_a(cls, Value), fields_of)
    converter.register_unstructure_hook_func(lambda cls: _is_a(cls, OutcomeValue), outcome)
    return converter


def _is_a(cls: object, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base)


def _other(value: object) -> str | None:
    """Show only the type of a value of unknown type: the value may hold anything."""
    return None if value is None else type(value).__name__


def _moment(moment: datetime) -> str:
    """ISO 8601 with microseconds, so that all are as long; in UTC, unless it has no zone."""
    if moment.tzinfo is None:
        return moment.isoformat(timespec="microseconds")
    try:
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    except OverflowError:  # in the year 1 or 9999
        return moment.isoformat(timespec="microseconds")


def _flat(cls: type[Value], fields: Mapping[str, Json] | None) -> dict[str, Scalar]:
    """The flat row of a class from its keys, or with None in each column."""
    if issubclass(cls, OutcomeValue):
        return flat_outcome({} if fields is None else fields)
    row: dict[str, Scalar] = {}
    for entry in _entries(cast("Hashable", cls)):
        value = None if fields is None else fields[entry.key]
        if entry.nested is not None:
            row |= prefixed(entry.key, _flat(entry.nested, value if isinstance(value, dict) else None))
        elif entry.key == "command":
            row |= flat_command(value)
        elif entry.key == "settings":
            row |= flat_settings(value)
        elif entry.key == "attempts" and isinstance(value, list):
            row |= flat_attempts(value)
        elif entry.counted:
            row[entry.key] = len(value) if isinstance(value, list) else None
        else:
            row[entry.key] = flat_value(value)
    return row

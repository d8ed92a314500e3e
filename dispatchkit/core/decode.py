"""Parse bytes into typed values, without coercion.

A value of another type than documented, such as ``"3"`` for an integer, makes the answer unreadable. An unreadable
answer must not count as success.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NoReturn, TypeVar

import attrs
import cattrs

from dispatchkit.core.charset import charset_of
from dispatchkit.core.command import UnexpectedResponseError

__all__ = ["fields_of", "json_decoder", "read_json", "register_lenient", "strict_converter", "structure"]

T = TypeVar("T")


_WHITE_SPACE = " \t\n\r"


def fields_of(value: object) -> dict[str, object] | None:
    """The fields of a parsed object; None for anything else."""
    # A call to `cast` costs as much as the rest.
    return value if isinstance(value, dict) else None  # pyright: ignore[reportUnknownVariableType]


def read_json(body: bytes, content_type: str = "") -> object:
    """Parse JSON: in UTF-8, unless a byte order mark or the Content-Type says otherwise.

    Raises:
        UnexpectedResponseError: The text is no JSON, uses constants such as ``NaN``, or has a duplicate key; or the
            charset is unknown.
    """
    parsed: object = UnexpectedResponseError
    try:
        document = body.decode(charset_of(body, content_type)).strip(_WHITE_SPACE)
        parsed, end = json_decoder.raw_decode(document)  # in half of the time that decode() takes for a short text
        if end != len(document):
            parsed = UnexpectedResponseError
    except (ValueError, RecursionError):
        # Raised below, outside the handler: the decoder's exception would hold the whole text as its context.
        parsed = UnexpectedResponseError
    if parsed is UnexpectedResponseError:
        raise UnexpectedResponseError(f"not JSON ({len(body)} bytes)")
    return parsed


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("duplicate key")  # the two values may be a refusal and a success
    return fields


json_decoder = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_once)
"""Built once: json.loads builds a decoder for every call with options."""


def strict_converter(*, forbid_extra_keys: bool = False) -> cattrs.Converter:
    """A cattrs converter that accepts only values of the exact type.

    Args:
        forbid_extra_keys: Whether a field that the class does not have is an error; by default, it is ignored.
    """
    converter = cattrs.Converter(detailed_validation=False, forbid_extra_keys=forbid_extra_keys)
    for cls in (int, float, bool, str):
        converter.register_structure_hook(cls, _exactly)
    converter.register_structure_hook(datetime, lambda value, _: _moment(converter.structure(value, str)))
    return converter


def _exactly(value: object, cls: type[T]) -> T:
    if type(value) is cls:
        return value
    raise TypeError(f"{cls.__name__} expected")


def _moment(text: str) -> datetime:
    """Parse an RFC 3339 time. One without a zone is UTC."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def register_lenient(converter: cattrs.Converter, cls: type[attrs.AttrsInstance]) -> None:
    """Register an attrs class that a provider may extend.

    The wire's names are in camelCase. Fields without a default are required and must have the right type. An optional
    value of another type goes into the field ``extra``, together with unknown fields.
    """
    attrs.resolve_types(cls)
    hooks = [
        (_camel(field.name), field, converter.get_structure_hook(field.type))
        for field in attrs.fields(cls)
        if field.name != "extra"
    ]

    def read(value: object, _: type[object]) -> object:
        fields = fields_of(value)
        if fields is None:
            raise TypeError("an object expected")
        extra = dict(fields)
        known: dict[str, object] = {}
        for name, field, hook in hooks:
            if name not in extra and field.default is not attrs.NOTHING:
                continue
            try:
                known[field.name] = hook(extra[name], field.type)
            except Exception:  # a hook may raise anything; each means a wrong type
                if field.default is attrs.NOTHING:
                    raise
            else:
                del extra[name]
        known["extra"] = extra or {}  # the garbage collector looks through no new, empty dict
        return cls(**known)

    converter.register_structure_hook(cls, read)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def structure(converter: cattrs.Converter, value: object, cls: type[T], what: str) -> T:
    """Convert a parsed value to an attrs class.

    Raises:
        UnexpectedResponseError: A required field is missing, or a field has another type.
    """
    result: T | None = None
    if isinstance(value, dict):
        try:
            result = converter.structure(value, cls)
        except Exception:  # noqa: BLE001 - cattrs raises what its hooks raise; each means a wrong type
            result = None
    if result is None:
        raise UnexpectedResponseError(f"not {what}")
    return result

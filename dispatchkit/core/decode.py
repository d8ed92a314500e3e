"""From bytes to typed values, coercing nothing.

An answer that is nearly right is not right: ``"3"`` where an integer belongs means that we do not understand the
answer, and what we do not understand must not count as success.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NoReturn, TypeVar, cast

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from dispatchkit.core.charset import text
from dispatchkit.core.command import UnexpectedResponseError

__all__ = ["fields_of", "read_json", "register_lenient", "rename", "strict_converter", "structure"]

T = TypeVar("T")


def fields_of(value: object) -> dict[str, object] | None:
    """The fields of a parsed object; None for anything else."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def read_json(body: bytes, content_type: str = "") -> object:
    """Parse JSON: in UTF-8, unless a byte order mark or the Content-Type says otherwise.

    Raises:
        UnexpectedResponseError: It is no JSON, uses words that JSON does not have, or says one field twice; or its
            charset is unknown.
    """
    try:
        parsed: object = _decode(text(body, content_type))
    except (ValueError, RecursionError):
        # Outside the handler: the decoder's own exception holds the whole text.
        parsed = UnexpectedResponseError
    if parsed is UnexpectedResponseError:
        raise UnexpectedResponseError(f"not JSON ({len(body)} bytes)")
    return parsed


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("one field, two values")  # such as a refusal and a success
    return fields


# Built once: json.loads builds a decoder for every call that asks for anything special.
_decode = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_once).decode


def strict_converter(*, forbid_extra_keys: bool = False) -> cattrs.Converter:
    """A cattrs converter that takes a value only if it already has the right type.

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
    """RFC 3339, or the same without a zone, which means UTC."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def rename(converter: cattrs.Converter, cls: type[object], **names: str) -> None:
    """Tell the converter under which names the wire carries the fields of an attrs class."""
    overrides = {field: override(rename=name) for field, name in names.items()}
    # cattrs types its keyword settings and the overrides of fields as one.
    converter.register_structure_hook(cls, make_dict_structure_fn(cls, converter, **overrides))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def register_lenient(converter: cattrs.Converter, cls: type[attrs.AttrsInstance]) -> None:
    """Tell the converter to read an attrs class that a provider may extend or fill with what it likes.

    The wire carries the fields in camelCase. Those without a default must be there, with the right type. What any other
    holds that is not of its type is left out, and kept with the unknown fields in the field ``extra``.
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
            except Exception:  # a hook raises whatever it likes; any of it means the same
                if field.default is attrs.NOTHING:
                    raise
            else:
                del extra[name]
        known["extra"] = extra
        return cls(**known)

    converter.register_structure_hook(cls, read)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def structure(converter: cattrs.Converter, value: object, cls: type[T], what: str) -> T:
    """Read a parsed value as an attrs class.

    Raises:
        UnexpectedResponseError: A required field is missing, or a field has another type.
    """
    result: T | None = None
    if isinstance(value, dict):
        try:
            result = converter.structure(value, cls)
        except Exception:  # noqa: BLE001 - cattrs raises whatever a hook raises; any of it means the same
            result = None
    if result is None:
        raise UnexpectedResponseError(f"not {what}")
    return result

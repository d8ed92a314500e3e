"""Read an object whose fields are known in part. Unknown fields are kept, and the case of a key does not count."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TypeVar

import attrs
from cattrs import Converter

from dispatchkit.core.command import UnexpectedResponseError
from dispatchkit.core.decode import fields_of

__all__ = ["read_lenient"]

T = TypeVar("T", bound=attrs.AttrsInstance)


def read_lenient(
    converter: Converter, value: object, cls: type[T], what: str, *, names: Mapping[str, str] | None = None
) -> T:
    """Read an attrs class that has a field ``extra``.

    Some copies of the platform's pages spell keys with capitals, such as ``Id`` and ``Groups``. So a key is found
    without its case and its underscores, unless one of the exact name is there.

    Args:
        converter: Reads the values; see `Codec.converter`.
        value: The parsed object.
        cls: The class. Its fields without a default are required.
        what: The object in an error.
        names: The platform's names of fields that have another one here.

    Raises:
        UnexpectedResponseError: It is no object, or a required field is missing or of another type.
    """
    fields = fields_of(value)
    if fields is None:
        raise UnexpectedResponseError(f"not {what}")
    spelt = {_plain(key): key for key in fields}
    extra, known = dict(fields), dict[str, object]()
    for field in _fields(cls):
        name = field.name if names is None else names.get(field.name, field.name)
        key = name if name in fields else spelt.get(_plain(name))
        is_required = field.default is attrs.NOTHING
        if key is None and not is_required:
            continue
        try:
            known[field.name] = converter.structure(None if key is None else fields[key], field.type or object)
        except Exception:  # noqa: BLE001 - cattrs raises what its hooks raise; each means a wrong type
            if is_required:
                raise UnexpectedResponseError(f"not {what}") from None
        else:
            if key is not None:
                del extra[key]
    known["extra"] = extra
    try:
        return cls(**known)
    except (TypeError, ValueError):
        raise UnexpectedResponseError(f"not {what}") from None


@cache
def _fields(cls: type[attrs.AttrsInstance]) -> tuple[attrs.Attribute[object], ...]:
    attrs.resolve_types(cls)
    fields: tuple[attrs.Attribute[object], ...] = attrs.fields(cls)
    return tuple(field for field in fields if field.name != "extra")


def _plain(key: str) -> str:
    return key.replace("_", "").casefold()

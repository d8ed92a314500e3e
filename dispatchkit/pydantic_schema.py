"""The schemas by which pydantic and FastAPI take the values of dispatchkit, made of ``schema.json``.

`Value` imports this module when pydantic asks for a schema, so pydantic is no dependency. A value is validated by its
type and serialised by its `to_dict`. In JSON Schema, a class is a reference to its definition in ``schema.json``. Each
such definition becomes a component of its own, so an OpenAPI document has ``Outcome`` and ``Report``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, cast

from pydantic_core import PydanticSerializationUnexpectedValue, core_schema

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

__all__ = ["enum_schema", "value_schema"]

_PREFIX = "#/$defs/"


def value_schema(
    cls: type[object], to_dict: Callable[[object], object], name: str | None, definitions: Mapping[str, object]
) -> core_schema.CoreSchema:
    """The core schema of a class: takes its instances only, and serialises them.

    Args:
        cls: The class.
        to_dict: Makes JSON types of an instance.
        name: The definition of the class in ``schema.json``; None describes it as any object.
        definitions: All definitions.
    """

    def serialise(value: object) -> object:
        if not isinstance(value, cls):  # in a union, the next type is tried
            raise PydanticSerializationUnexpectedValue(f"expected a {cls.__name__} of dispatchkit")
        return to_dict(value)

    def described(_: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "object"} if name is None else _reference(name, definitions, handler)

    return core_schema.custom_error_schema(
        core_schema.is_instance_schema(cls),
        custom_error_type="dispatchkit_value",
        custom_error_message=(
            f"a {cls.__name__} of dispatchkit is expected: it can be returned as JSON, and is not built from JSON"
        ),
        metadata=_described_by(described),
        serialization=core_schema.plain_serializer_function_ser_schema(serialise),
    )


def enum_schema(cls: type[StrEnum], definitions: Mapping[str, object]) -> core_schema.CoreSchema:
    """The core schema of an enum with a definition of its own name: takes members and their texts.

    Pydantic's own schema would be a second component of the same name, and both would get longer names.

    Args:
        cls: The enum.
        definitions: All definitions.
    """

    def described(_: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return _reference(cls.__name__, definitions, handler)

    return core_schema.enum_schema(cls, list(cls), sub_type="str", metadata=_described_by(described))


def _described_by(
    describe: Callable[[core_schema.CoreSchema, GetJsonSchemaHandler], JsonSchemaValue],
) -> dict[str, object]:
    # The key of `pydantic.WithJsonSchema`. The functions of the documented `__get_pydantic_json_schema__` cannot return
    # a reference. Pydantic would put a copy of the definition in its place.
    return {"pydantic_js_annotation_functions": [describe]}


def _reference(name: str, definitions: Mapping[str, object], handler: GetJsonSchemaHandler) -> JsonSchemaValue:
    """A reference to a definition of ``schema.json``, which is added to the components of the document."""

    def described(_: core_schema.CoreSchema, inner: GetJsonSchemaHandler) -> JsonSchemaValue:
        return cast("JsonSchemaValue", _relocated(definitions[name], definitions, inner))

    named = core_schema.any_schema(ref=f"dispatchkit.{name}:schema", metadata=_described_by(described))
    # pydantic adds the definitions of a nested schema only.
    items: JsonSchemaValue = handler(core_schema.list_schema(named))["items"]
    return items


def _relocated(schema: object, definitions: Mapping[str, object], handler: GetJsonSchemaHandler) -> object:
    """The same schema with its references resolved by pydantic."""
    if isinstance(schema, list):
        return [_relocated(part, definitions, handler) for part in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    parts = {key: _relocated(part, definitions, handler) for key, part in cast("dict[str, object]", schema).items()}
    target = parts.get("$ref")
    if isinstance(target, str) and target.startswith(_PREFIX):
        parts |= _reference(target.removeprefix(_PREFIX), definitions, handler)
    return parts

"""The JSON Schema that ships with the package, for tests of what must fit it."""

from __future__ import annotations

import functools
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from dispatchkit import DispatchkitError, LedgerError, json_schema
from dispatchkit.values import OutcomeValue, Value

SCHEMA: dict[str, Any] = json_schema()


@functools.cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{name}"}, format_checker=FormatChecker())


def fits(fields: object, name: str) -> None:
    """Fail unless this is what the schema of this name describes."""
    errors = [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(fields)]
    assert not errors, (name, errors, fields)


def schema_name(cls: type[Value]) -> str:
    """The schema of a class: that of its kind, or the one of its name."""
    for base, name in ((OutcomeValue, "Outcome"), (DispatchkitError, "Error"), (LedgerError, "LedgerError")):
        if issubclass(cls, base):
            return name
    return cls.__name__

"""The messages about wrong usage: in words of our own, and without passwords. They quote what was typed."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from typer.core import TyperGroup

from dispatchkit.cli.translate import _
from dispatchkit.redaction import redact_typed

__all__ = ["RedactingGroup"]

_OF_NUMBERS = frozenset(
    {
        "int_parsing", "int_parsing_size", "int_type", "int_from_float", "float_parsing", "float_type",
        "finite_number", "greater_than", "greater_than_equal", "less_than", "less_than_equal",
    }
)  # fmt: skip
"""pydantic's errors about numbers."""


class RedactingGroup(TyperGroup):
    """A group whose usage errors show no password: an address may stand where none is expected."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """See `click.Command.make_context`."""
        with _redacted():
            return super().make_context(*args, **kwargs)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        """See `click.Group.invoke`."""
        with _redacted():
            return super().invoke(*args, **kwargs)


@contextmanager
def _redacted() -> Generator[None]:
    try:
        yield
    except Exception as error:
        message = getattr(error, "message", None)  # of click's errors
        if isinstance(message, str):
            vars(error)["message"] = redact_typed(_number_wanted(error) or message)
        raise


def _number_wanted(error: Exception) -> str | None:
    """What an option takes that was given no number of its range; None of another error.

    Typer from 0.25 on checks numbers with pydantic, whose messages name no option's bounds.
    """
    found = _found(error.__cause__)
    parameter = getattr(error, "param", None)
    info = getattr(getattr(parameter, "type_descriptor", None), "parameter_info", None)
    if found is None or info is None:
        return None
    kind, value = found
    is_integer = not (kind.startswith("float") or isinstance(info.min, float) or isinstance(info.max, float))
    if info.min is None and info.max is None:
        must = (
            _("{name} must be an integer, not {value!r}") if is_integer else _("{name} must be a number, not {value!r}")
        )
    elif info.max is None:
        must = (
            _("{name} must be an integer from {min:,} up, not {value!r}")
            if is_integer
            else _("{name} must be a number from {min:,} up, not {value!r}")
        )
    elif info.min is None:
        must = (
            _("{name} must be an integer to {max:,}, not {value!r}")
            if is_integer
            else _("{name} must be a number to {max:,}, not {value!r}")
        )
    else:
        must = (
            _("{name} must be an integer from {min:,} to {max:,}, not {value!r}")
            if is_integer
            else _("{name} must be a number from {min:,} to {max:,}, not {value!r}")
        )
    name = getattr(parameter, "metavar", None) or _("it")
    return must.format(name=name, min=info.min, max=info.max, value=value)


def _found(cause: BaseException | None) -> tuple[str, str] | None:
    """The kind of a pydantic error about a number, and the value."""
    errors = getattr(cause, "errors", None)
    if not callable(errors):
        return None
    listed = cast("Sequence[Mapping[str, object]]", errors())
    if not listed:
        return None
    kind, value = str(listed[0].get("type", "")), str(listed[0].get("input"))
    return (kind, value) if kind in _OF_NUMBERS else None

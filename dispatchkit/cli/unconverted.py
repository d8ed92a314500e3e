"""Take the values of options as they are, where nothing is to be converted.

Typer imports pydantic to convert any value, also a text to a text, and None. That is a third of the time of a dry run.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter
from types import MappingProxyType
from typing import Any, get_args

__all__ = ["leave_texts"]

_TEXT = (str, str | None)
_TEXTS = (list[str], list[str] | None)
_NONE: Mapping[str, Parameter] = MappingProxyType({})


def leave_texts(options: list[Any], parameters: Mapping[str, Parameter] = _NONE) -> list[Any]:
    """Let options take None as it is, and those for texts their texts.

    Args:
        options: The options and arguments of a command, as Typer makes them.
        parameters: The parameters of its function, by name, with types in `typing.Annotated`. Default: none is known.

    Returns:
        The options.
    """
    for option in options:
        known = parameters.get(option.name)
        if not option.required and not isinstance(option.process_value, _Leaving):
            option.process_value = _Leaving(option, None if known is None else get_args(known.annotation)[:1])
    return options


class _Leaving:
    """The method `process_value` of an option."""

    def __init__(self, option: Any, kind: object) -> None:
        self._option = option
        self._process = option.process_value
        self._is_text = kind in [(each,) for each in _TEXT]
        self._is_texts = kind in [(each,) for each in _TEXTS]
        self._is_one = option.nargs == 1 and not getattr(option, "multiple", False)

    def __call__(self, ctx: Any, value: Any) -> Any:
        left: object
        if (self._is_one and value is None) or (self._is_text and isinstance(value, str)):
            left = value
        elif self._is_texts and not isinstance(value, str) and all(isinstance(each, str) for each in value or ()):
            left = [*(value or ())]
        else:
            return self._process(ctx, value)
        return left if self._option.callback is None else self._option.callback(ctx, self._option, left)

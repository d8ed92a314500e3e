"""Options: keyword arguments that several functions take, documented once as the fields of a `TypedDict`.

A function takes them as ``**options: Unpack[SomeOptions]``, which type checkers understand. `takes_options` shows them
in ``help()`` with their defaults; `check_options` refuses an unknown one before anything else is done.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

__all__ = ["check_options", "takes_options"]

F = TypeVar("F", bound=Callable[..., object])


def takes_options(source: Callable[..., object]) -> Callable[[F], F]:
    """Show the keyword-only parameters of another function in place of ``**options``.

    The decorated function stays as it is; only its signature for ``help()`` and `inspect` changes.

    Args:
        source: The function or class that the options are passed on to. It alone has their defaults.

    >>> def send(*, timeout: float = 240.0) -> None: ...
    >>> @takes_options(send)
    ... def launch(number, **options): ...
    >>> list(inspect.signature(launch).parameters)
    ['number', 'timeout']
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        shared = [
            each
            for each in inspect.signature(source).parameters.values()
            if each.kind is each.KEYWORD_ONLY and each.name not in signature.parameters
        ]
        vars(function)["__signature__"] = signature.replace(parameters=[*own, *shared])
        return function

    return decorate


def check_options(function: Callable[..., object], options: Mapping[str, object]) -> None:
    """Refuse an option that a function does not take.

    Args:
        function: The function, or the class, that was called. Its signature has all its options.
        options: The options that it was given: its own ``**options``.

    Raises:
        TypeError: One of them is unknown. The message names it, and the option that looks most like it.
    """
    known = _parameters(function)
    unknown = next((name for name in options if name not in known), None)
    if unknown is None:
        return
    cast("dict[str, object]", options).clear()  # a traceback shows locals: ``tokn=`` holds a token
    similar = difflib.get_close_matches(unknown, known, 1)
    hint = f". Did you mean {similar[0]!r}?" if similar else ""
    raise TypeError(f"{function.__qualname__}() got an unexpected keyword argument {unknown!r}{hint}")


@functools.cache
def _parameters(function: Callable[..., object]) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(function).parameters if name != "self")

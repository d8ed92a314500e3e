"""Wait strategies: how long a call waits before a retry.

A strategy is one of tenacity, such as ``tenacity.wait_exponential_jitter(initial=1, max=20)``, or a callable from
tenacity's ``RetryCallState`` to seconds. It is the user's code, so its results are checked.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import cast

from tenacity import AsyncRetrying, Future, RetryCallState
from tenacity.wait import wait_base, wait_exponential, wait_random_exponential

from dispatchkit.core.validators import MAX_SECONDS, shown

__all__ = ["FULL_JITTER", "THROTTLED_JITTER", "WaitStrategy", "a_strategy", "describe", "identity", "seconds_of"]

WaitStrategy = wait_base | Callable[[RetryCallState], float]
"""From the state of a call to the seconds until its next attempt."""

FULL_JITTER: WaitStrategy = wait_random_exponential(multiplier=0.5, max=30)
THROTTLED_JITTER: WaitStrategy = wait_random_exponential(multiplier=2, max=30)

_RETRYING = AsyncRetrying()
"""What a `RetryCallState` belongs to. It makes no attempts."""


def a_strategy(name: str, value: object) -> None:
    """Check a setting that is a wait strategy.

    Raises:
        TypeError: It is no callable, or a class, or calling it makes a coroutine.
    """
    if not callable(value) or isinstance(value, type) or _makes_coroutine(value):
        raise TypeError(f"{name} must be a wait strategy such as tenacity.wait_fixed(2), not {shown(value)}")


def _makes_coroutine(value: object) -> bool:
    while isinstance(value, functools.partial):
        value = cast("functools.partial[object]", value).func
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__)


def seconds_of(
    strategy: WaitStrategy,
    number: int,
    *,
    drawn: float,
    error: BaseException | None = None,
    elapsed: float = 0.0,
    waited: float = 0.0,
) -> float:
    """The seconds that a strategy gives, at most 31 years.

    Args:
        strategy: The strategy.
        number: The number of the latest attempt, from 1.
        drawn: A random number in ``[0, 1)``. ``tenacity.wait_random_exponential`` takes it in place of its own.
        error: The error of the latest attempt.
        elapsed: Seconds since the call began.
        waited: Seconds of these that it waited for retries.

    Raises:
        Exception: Whatever the strategy raises.
        TypeError: It returned something that is not a number.
        ValueError: It returned a negative or infinite number.
    """
    state = RetryCallState(_RETRYING, None, (), {})
    state.attempt_number, state.idle_for = number, waited
    state.start_time, state.outcome_timestamp = 0.0, elapsed
    state.outcome = Future(number)
    state.outcome.set_exception(error)
    # A subclass may mean something else.
    if isinstance(strategy, wait_random_exponential) and type(strategy) is wait_random_exponential:
        longest = wait_exponential.__call__(strategy, state)
        return _checked(strategy.min + drawn * (longest - strategy.min))
    return _checked(strategy(state))


def _checked(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a wait strategy must return seconds, not {shown(value)}")
    if not 0 <= value < math.inf:
        raise ValueError(f"a wait strategy must return seconds from 0 up, not {shown(value)}")
    return float(min(value, MAX_SECONDS))  # a longer wait overflows one clock or another


def identity(value: object) -> object:
    """What makes two strategies equal: those of tenacity are compared by type and settings."""
    if isinstance(value, tuple | list):
        return tuple(identity(item) for item in cast("Iterable[object]", value))
    if isinstance(value, wait_base) and type(value).__eq__ is object.__eq__:
        return type(value), tuple((name, identity(setting)) for name, setting in sorted(vars(value).items()))
    return value


def describe(value: object) -> str:
    """A strategy as text: its type and settings."""
    if isinstance(value, tuple | list):
        return f"({', '.join(describe(item) for item in cast('Iterable[object]', value))})"
    if isinstance(value, wait_base):
        settings = ", ".join(f"{name}={describe(setting)}" for name, setting in vars(value).items())
        return f"{type(value).__name__}({settings})"
    if isinstance(value, int | float | str):
        return repr(value)
    name = getattr(value, "__qualname__", None)
    return name if isinstance(name, str) else type(value).__name__

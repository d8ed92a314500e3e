"""How fast an account may be used: the settings, and what can be seen of them at work. `Pacer` does the work."""

from __future__ import annotations

import attrs

from dispatchkit.core.pacing.adaptive_limit import Auto
from dispatchkit.core.pacing.breaker import BreakerState
from dispatchkit.core.validators import MAX_SECONDS, seconds, shown
from dispatchkit.values import Value

__all__ = ["DEFAULT_PACE", "Pace", "PaceStatistics"]


_MAX_RATE = 1e9


def _rate(instance: object, attribute: attrs.Attribute[float | None], value: float | None) -> None:
    del instance
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{attribute.name} must be launches a second, not {shown(value)}")
    if not 1 / MAX_SECONDS <= value <= _MAX_RATE:
        raise ValueError(
            f"{attribute.name} must be positive and finite, one in {MAX_SECONDS:,.0f} s to {_MAX_RATE:,.0f} a second, "
            f"not {shown(value)}"
        )


def _concurrency(instance: object, attribute: attrs.Attribute[int | Auto], value: object) -> None:
    del instance
    if value == "auto":
        return
    if type(value) is not int:
        raise TypeError(f"{attribute.name} must be an integer from 1 up, or 'auto', not {shown(value)}")
    if value < 1:
        raise ValueError(f"{attribute.name} must be an integer from 1 up, or 'auto', not {shown(value)}")


def _share(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    del instance
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{attribute.name} must be a number over 0 and at most 1, not {shown(value)}")
    if not 0 < value <= 1:
        raise ValueError(f"{attribute.name} must be over 0 and at most 1, not {shown(value)}")


def _duration(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    del instance
    seconds(attribute.name, value)


@attrs.frozen(kw_only=True)
class Pace(Value):
    """How fast an account may be used.

    Raises:
        TypeError: A setting is of another type.
        ValueError: A setting is out of range.

    Example:
        >>> Pace(rate=50, concurrency="auto").rate
        50
        >>> Pace(rate=0)
        Traceback (most recent call last):
        ValueError: ...
    """

    rate: float | None = attrs.field(default=None, validator=_rate)
    """Launches a second, evenly spaced; None sets no rate."""
    concurrency: int | Auto = attrs.field(default=1024, validator=_concurrency)
    """How many attempts may be in flight; ``"auto"`` finds out."""
    failure_threshold: float = attrs.field(default=0.5, validator=_share)
    """The share of attempts without an answer, of the latest 64, that opens the breaker. 1 never does."""
    reset_timeout: float = attrs.field(default=5.0, validator=_duration)
    """Seconds until an open breaker tries again; doubled each time that fails, up to a minute."""
    max_pause: float = attrs.field(default=3600.0, validator=_duration)
    """Seconds: the longest pause of the account that a ``Retry-After`` begins. One that asks for more is logged as a
    warning. The error of the call that was throttled keeps the provider's own date."""


DEFAULT_PACE = Pace()
"""The pace of an account for which none was set."""


@attrs.frozen
class PaceStatistics(Value):
    """What a `Pacer` is doing."""

    started: int
    """Attempts so far."""
    in_flight: int
    concurrency_limit: int
    """How many may be in flight now."""
    waiting: int
    """How many wait for leave to start."""
    paused_for: float
    """Seconds until the pause is over; 0 when nothing pauses."""
    throttled: int
    """Answers 429 so far."""
    pauses: int
    """Pauses so far, by a 429 or by the breaker. All the 429 of one volley are one pause."""
    breaker: BreakerState

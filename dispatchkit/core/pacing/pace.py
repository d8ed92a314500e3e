"""`Pace` and `PaceStatistics`: the settings and the statistics of a `Pacer`."""

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
    """The rate, concurrency and breaker settings of an account.

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
    """Launches a second, evenly spaced; None sets no limit."""
    concurrency: int | Auto = attrs.field(default=1024, validator=_concurrency)
    """Maximum number of attempts in flight; ``"auto"`` adapts it to the provider's latency."""
    failure_threshold: float = attrs.field(default=0.5, validator=_share)
    """Share of unanswered attempts, among the latest 64, that opens the breaker. 1 disables the breaker."""
    reset_timeout: float = attrs.field(default=5.0, validator=_duration)
    """Seconds until an open breaker allows one attempt. Each failure doubles it, up to 60 s."""
    max_pause: float = attrs.field(default=3600.0, validator=_duration)
    """Seconds: maximum pause of the account after a ``Retry-After``.

    A longer Retry-After is logged as a warning. The throttled call's error keeps the provider's own date.
    """


DEFAULT_PACE = Pace()
"""The default pace of an account."""


@attrs.frozen
class PaceStatistics(Value):
    """The state of a `Pacer` at one moment."""

    started: int
    """Attempts so far."""
    in_flight: int
    concurrency_limit: int
    """Maximum number of attempts in flight now."""
    waiting: int
    """Attempts that wait for a permit."""
    paused_for: float
    """Seconds until the pause ends; 0 without a pause."""
    throttled: int
    """HTTP 429 answers so far."""
    pauses: int
    """Pauses so far, by a 429 or by the breaker. The 429s of requests sent before a pause count as the same one."""
    breaker: BreakerState

"""The axes of a chart: from values to places, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

import attrs

__all__ = ["Axis", "Tick", "duration", "number", "numbers", "seconds", "times"]

_TIME_STEPS = (
    *(10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200),
    *(86400, 172800, 604800, 1209600, 2592000, 7776000, 31536000),
)
_DAY = 86400
_DURATIONS = (0.001, 0.01, 0.1, 1, 10, 60, 600, 3600)
"""Marks of a logarithmic axis, in seconds."""
_LOG_RANGE = 50.0
"""Ratio of the largest to the smallest value beyond which an axis of times is logarithmic."""


@attrs.frozen
class Tick:
    """A mark of an axis."""

    place: float
    """From 0 to 1."""
    label: str


@attrs.frozen
class Axis:
    """An axis."""

    place: Callable[[float], float]
    """The place of a value, from 0 to 1."""
    ticks: tuple[Tick, ...]
    label: str


def numbers(top: float, label: str, *, is_whole: bool = False) -> Axis:
    """An axis from 0 to a round number that is at least ``top``."""
    step = _round_step(top or 1.0, 4)
    if is_whole:
        step = max(1.0, step)
    count = max(1, math.ceil((top or 1.0) / step - 1e-9))
    end = step * count
    ticks = tuple(Tick(place / count, number(round(place * step, 9))) for place in range(count + 1))
    return Axis(lambda value: value / end, ticks, label)


def seconds(low: float, high: float, label: str) -> Axis:
    """An axis of durations. It is logarithmic if they differ much."""
    if high / low <= _LOG_RANGE:
        axis = numbers(high, label)
        return attrs.evolve(axis, ticks=tuple(attrs.evolve(tick, label=f"{tick.label} s") for tick in axis.ticks))
    begin = max((mark for mark in _DURATIONS if mark <= low), default=low)
    end = min((mark for mark in _DURATIONS if mark >= high), default=high)
    range_ = math.log(end / begin)
    ticks = (Tick(math.log(mark / begin) / range_, duration(mark)) for mark in _DURATIONS if begin <= mark <= end)
    return Axis(lambda value: math.log(value / begin) / range_, tuple(ticks), f"{label}, logarithmic")


def times(begin: datetime, end: datetime) -> Axis:
    """An axis of time, UTC."""
    first, last = begin.timestamp(), end.timestamp()
    span = last - first
    step = next((step for step in _TIME_STEPS if span / step <= 6), _TIME_STEPS[-1])
    marks = range(math.ceil(first / step) * step, math.floor(last) + 1, step)
    dates = begin.astimezone(UTC).date(), end.astimezone(UTC).date()
    form = "%d %b" if step >= _DAY else "%H:%M" if step >= 60 else "%H:%M:%S"
    if step < _DAY < span:
        form = "%d %b %H:%M"
    ticks = tuple(Tick((mark - first) / span, datetime.fromtimestamp(mark, UTC).strftime(form)) for mark in marks)
    days = f"{dates[0]}" if dates[0] == dates[1] else f"{dates[0]} to {dates[1]}"
    return Axis(lambda value: (value - first) / span, ticks, f"time (UTC), {days}")


def number(value: float) -> str:
    """A number for people.

    >>> number(12000), number(0.25), number(1234.5)
    ('12,000', '0.25', '1,234')
    """
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def duration(value: float) -> str:
    """A duration for people.

    >>> duration(0.25), duration(2), duration(90), duration(3600)
    ('250 ms', '2 s', '1.5 min', '1 h')
    """
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1000:.3g} ms"


def _round_step(top: float, count: int) -> float:
    """The step that divides the range into about this many parts: 1, 2 or 5 times a power of ten."""
    rough = top / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))

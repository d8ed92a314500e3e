"""Lengths of time, as people read them, and the moments at their ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["in_words", "moment_after", "seconds_left"]

_LAST_MOMENT = datetime(9999, 12, 31, tzinfo=UTC)
"""The latest date that can be formatted."""


def seconds_left(now: datetime) -> float:
    """Seconds from now on that a date can name."""
    return (_LAST_MOMENT - now).total_seconds()


def moment_after(now: datetime, seconds: float) -> datetime:
    """The moment in so many seconds, or the last one that a date can name.

    Example:
        >>> moment_after(datetime(2026, 3, 1, tzinfo=UTC), 1e300)
        datetime.datetime(9999, 12, 31, 0, 0, tzinfo=datetime.timezone.utc)
    """
    return now + timedelta(seconds=min(seconds, seconds_left(now)))


def in_words(seconds: float) -> str:
    """A length of time with its largest two units.

    Example:
        >>> in_words(0.2), in_words(45), in_words(600), in_words(200), in_words(7500)
        ('0.2 s', '45 s', '10 min', '3 min 20 s', '2 h 5 min')
    """
    if seconds < 1:
        return f"{max(0.0, round(seconds, 1)):g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    size, unit, smaller = (60, "min", "s") if whole < 3600 else (3600, "h", "min")
    rest = whole % size * 60 // size
    return f"{whole // size:,} {unit}{f' {rest} {smaller}' if rest else ''}"

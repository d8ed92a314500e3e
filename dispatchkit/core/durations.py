"""Lengths of time, as people read them."""

from __future__ import annotations

__all__ = ["in_words"]


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

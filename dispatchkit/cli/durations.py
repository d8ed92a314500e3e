"""Times on the command line, such as 90s, 15m or 1h."""

from __future__ import annotations

import math
import re

from dispatchkit.cli.translate import _
from dispatchkit.core.durations import in_words as lengths_in_words
from dispatchkit.core.validators import MAX_SECONDS

__all__ = [
    "ALWAYS",
    "HOUR",
    "above_zero",
    "canary_seconds",
    "duration",
    "every_seconds",
    "give_up_seconds",
    "in_words",
    "repeat_seconds",
    "time_seconds",
]

HOUR = 3600.0
ALWAYS = MAX_SECONDS
"""The longest window: all that a ledger remembers."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smh])", re.ASCII)
_SECONDS = {"h": 3600, "m": 60, "s": 1}


def give_up_seconds(text: str | None) -> float | None:
    """The seconds of ``--give-up-after``, an hour if it was not given; None means never.

    Raises:
        ValueError: It is no duration.
    """
    return _seconds("--give-up-after", "1h" if text is None else text)


def every_seconds(text: str | None) -> float:
    """The seconds of ``--every``, five if it was not given.

    Raises:
        ValueError: It is no duration.
    """
    seconds = _seconds("--every", "5s" if text is None else text, word="")
    assert seconds is not None  # noqa: S101 - without a word for it, there is a bound
    return seconds


def canary_seconds(text: str | None) -> float:
    """The seconds of ``--canary-timeout``, ten minutes if it was not given.

    Raises:
        ValueError: It is no duration.
    """
    seconds = _seconds("--canary-timeout", "10m" if text is None else text, word="")
    assert seconds is not None  # noqa: S101 - without a word for it, there is a bound
    return seconds


def repeat_seconds(text: str | None, *, default: float | None) -> float | None:
    """The seconds of ``--repeat-window``; None means that repeats are launched.

    Raises:
        ValueError: It is no duration.
    """
    if text is None:
        return default
    if text == "never":
        raise ValueError(_("--repeat-window takes a time, such as 1h, or always. To launch repeats: --again"))
    return ALWAYS if text == "always" else _seconds("--repeat-window", text, word="always")


def time_seconds(option: str, text: str | None, *, default: float | None = None) -> float | None:
    """The seconds of an option that takes a time.

    Raises:
        ValueError: It is no duration.
    """
    return default if text is None else _seconds(option, text)


def _seconds(option: str, text: str, *, word: str = "never") -> float | None:
    if word and text == "never":
        return None
    found = _DURATION.fullmatch(text)
    value = 0.0 if found is None else float(found[1]) * _SECONDS[found[2]]
    if not 0 < value < math.inf:
        must = (
            _("{option} must be a time such as 90s, 15m or 1h, or {word}, not {text!r}")
            if word
            else _("{option} must be a time such as 90s, 15m or 1h, not {text!r}")
        )
        raise ValueError(must.format(option=option, word=word, text=text))
    return value


def above_zero(option: str, value: float, *, such_as: str) -> float:
    """The value of an option that takes a number above 0.

    Raises:
        ValueError: It is 0 or less, not finite, or too large or small to be meant.
    """
    if not 1 / MAX_SECONDS <= value <= MAX_SECONDS:
        text = _("{option} must be a number above 0, such as {example}, not {value:g}")
        raise ValueError(text.format(option=option, example=such_as, value=value))
    return value


def duration(seconds: float) -> str:
    """Seconds as ``--give-up-after`` takes them."""
    if seconds >= ALWAYS:
        return "always"
    unit = next((unit for unit, size in _SECONDS.items() if seconds % size == 0), "s")
    return f"{seconds / _SECONDS[unit]:g}{unit}"


def in_words(seconds: float) -> str:
    """A length of time as `dispatchkit.core.durations.in_words` gives it, in the language of the user."""
    return re.sub("[a-z]+", lambda unit: _(unit[0]), lengths_in_words(seconds))

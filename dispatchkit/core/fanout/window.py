"""The hours of a run: nothing starts before a window opens, or after it ends."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import attrs

from dispatchkit.core.validators import moment
from dispatchkit.values import Value

__all__ = ["Window", "in_words"]


@attrs.frozen(kw_only=True)
class Window(Value):
    """The hours in which a run may start launches.

    Times must have a zone. A local time that a change of the clocks skips is refused. Of one that occurs twice,
    ``fold`` tells which is meant, as everywhere in Python: the first by default.

    Raises:
        TypeError: A bound is no datetime.
        ValueError: A bound has no zone, or does not exist there. Or there is no bound, or nothing between the bounds.

    Example:
        >>> from datetime import UTC, datetime, timedelta
        >>> from dispatchkit import Window
        >>> window = Window(not_after=datetime.now(UTC) + timedelta(hours=3))
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     (await direct.start_many(range(1, 101), window=window).finish()).done
        100
    """

    not_before: datetime | None = attrs.field(default=None, validator=moment)
    """Nothing starts before this time; the run waits. None: it starts at once."""
    not_after: datetime | None = attrs.field(default=None, validator=moment)
    """Nothing starts from this time on; the run stops. None: it has no end."""

    def __attrs_post_init__(self) -> None:
        if self.not_before is None and self.not_after is None:
            raise ValueError("a Window needs not_before=, not_after= or both")
        for name, value in (("not_before", self.not_before), ("not_after", self.not_after)):
            if value is not None and _is_skipped(value):
                raise ValueError(f"{name}={value} does not exist in its zone: a change of the clocks skips it")
        if self.not_before is not None and self.not_after is not None and _utc(self.not_before) >= _utc(self.not_after):
            raise ValueError(
                f"not_after must be later than not_before, not {in_words(self.not_after)} and "
                f"{in_words(self.not_before)}"
            )

    def opens_in(self, now: datetime) -> float:
        """Seconds until the window opens; 0 or less if it is open or over."""
        return -math.inf if self.not_before is None else (self.not_before - now).total_seconds()

    def ends_in(self, now: datetime) -> float:
        """Seconds until the window ends; 0 or less if it is over."""
        return math.inf if self.not_after is None else (self.not_after - now).total_seconds()


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _is_skipped(value: datetime) -> bool:
    """Whether a local time does not exist: UTC and back gives another one."""
    return _utc(value).astimezone(value.tzinfo).replace(tzinfo=None, fold=0) != value.replace(tzinfo=None, fold=0)


def in_words(value: datetime) -> str:
    """A time in UTC, and in its own zone: ``2026-01-31 18:00:00 UTC (21:00:00 Europe/Moscow)``."""
    utc = _utc(value)
    text = f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    if not value.utcoffset():
        return text
    zone = getattr(value.tzinfo, "key", None) or f"{value:%z}"
    day = "" if value.date() == utc.date() else f"{value:%Y-%m-%d} "
    return f"{text} ({day}{value:%H:%M:%S} {zone})"

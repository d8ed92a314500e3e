"""``--not-before`` and ``--not-after``: the hours of a launch, in a zone.

A time of day means today, in the zone of ``--zone``. It is never taken for tomorrow: a launch that waits a day by
mistake looks like one that hangs. A time that a change of the clocks skips or repeats is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Protocol

from dispatchkit.cli.translate import _
from dispatchkit.core.fanout.window import Window, in_words

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = ["parse_window", "past_hours"]

_TIME_OF_DAY = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", re.ASCII)


class HourOptions(Protocol):
    """The options about hours."""

    @property
    def not_before(self) -> str | None:
        """The start."""

    @property
    def not_after(self) -> str | None:
        """The end."""

    @property
    def zone(self) -> str | None:
        """The zone of both."""


def parse_window(options: HourOptions, now: datetime) -> Window | None:
    """The hours of a launch; None if there are none.

    Args:
        options: What was typed.
        now: The time, UTC.

    Raises:
        ValueError: A time cannot be read, is past, or does not tell its zone.
    """
    if options.not_before is None and options.not_after is None:
        if options.zone is not None:
            raise ValueError(_("--zone is the zone of --not-before and --not-after: give one of them"))
        return None
    zone = None if options.zone is None else _zone(options.zone)
    not_before = _moment("--not-before", options.not_before, zone, now)
    not_after = _moment("--not-after", options.not_after, zone, now)
    if not_after is not None and not_after <= now:
        raise ValueError(_past("--not-after", options.not_after, not_after, now))
    if not_before is not None and not_before <= now and _is_time_of_day(options.not_before):
        raise ValueError(
            _("{past}. To start now, leave it out").format(
                past=_past("--not-before", options.not_before, not_before, now)
            )
        )
    if not_before is not None and not_after is not None and not_before.astimezone(UTC) >= not_after.astimezone(UTC):
        raise ValueError(
            _(
                "--not-after must be later than --not-before, not {end} and {start}. A time of day "
                "means today: for another day, give a date, such as 2026-01-31T06:00"
            ).format(end=in_words(not_after), start=in_words(not_before))
        )
    return Window(not_before=not_before, not_after=not_after)


def past_hours(given: Mapping[str, str], now: datetime) -> set[str]:
    """The options about hours that a line to type next must lack, since their times are past.

    Args:
        given: The values of ``not_before``, ``not_after`` and ``zone``, as far as they were given.
        now: The time, UTC.
    """
    past: set[str] = set()
    for name in ("not_before", "not_after"):
        with suppress(ValueError):
            zone = _zone(given["zone"]) if "zone" in given else None
            moment = _moment(name, given.get(name), zone, now)
            if moment is not None and moment <= now:
                past.add(name)
    return {*past, "zone"} if past and not given.keys() & {"not_before", "not_after"} - past else past


def _zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, available_timezones  # noqa: PLC0415 - most launches have no hours

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        known = available_timezones()
        missing = "" if known else _(". This system has no time zones: pip install tzdata")
        meant = sorted(each for each in known if each.rpartition("/")[2].casefold() == name.casefold())
        if meant:
            missing = _(". Did you mean {name}?").format(name=_(" or ").join(meant))
        raise ValueError(
            _("--zone must be a time zone such as Europe/Moscow or UTC, not {name!r}{missing}").format(
                name=name, missing=missing
            )
        ) from None


def _is_time_of_day(text: str | None) -> bool:
    return text is not None and _TIME_OF_DAY.fullmatch(text) is not None


def _past(option: str, text: str | None, moment: datetime, now: datetime) -> str:
    past = (
        _(
            "{option} {text} is past today: it was {moment}, and now it is {now:%Y-%m-%d %H:%M:%S} UTC. "
            "Nothing was sent. For another day, give a date, such as 2026-01-31T21:00"
        )
        if _is_time_of_day(text)
        else _(
            "{option} {text} is past: it was {moment}, and now it is {now:%Y-%m-%d %H:%M:%S} UTC. "
            "Nothing was sent. Give a later time, or leave the option out"
        )
    )
    return past.format(option=option, text=text, moment=in_words(moment), now=now)


def _moment(option: str, text: str | None, zone: ZoneInfo | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    found = _TIME_OF_DAY.fullmatch(text)
    if found is not None:
        if zone is None:
            raise ValueError(
                _("{option} {text} needs --zone, such as --zone Europe/Moscow").format(option=option, text=text)
            )
        day = now.astimezone(zone).date()
        return _local(option, text, datetime.combine(day, time(int(found[1]), int(found[2]))), zone)
    try:
        moment = datetime.fromisoformat(text) if ":" in text else None
    except ValueError:
        moment = None
    if moment is None:
        raise ValueError(
            _("{option} must be a time such as 21:00, 2026-01-31T21:00 or 2026-01-31T21:00+03:00, not {text!r}").format(
                option=option, text=text
            )
        )
    if moment.tzinfo is not None:
        return moment if zone is None else moment.astimezone(zone)
    if zone is None:
        raise ValueError(
            _("{option} {text} needs its offset, such as {text}+03:00, or --zone, such as Europe/Moscow").format(
                option=option, text=text
            )
        )
    return _local(option, text, moment, zone)


def _local(option: str, text: str, local: datetime, zone: ZoneInfo) -> datetime:
    """A local time with its zone.

    Raises:
        ValueError: It does not exist there, or occurs twice.
    """
    first, second = local.replace(tzinfo=zone, fold=0), local.replace(tzinfo=zone, fold=1)
    if first.utcoffset() == second.utcoffset():
        return first
    if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
        raise ValueError(
            _("{option} {text} does not exist in {zone} on {day:%Y-%m-%d}: the clocks skip it").format(
                option=option, text=text, zone=zone.key, day=local
            )
        )
    times = _(" or ").join(each.isoformat(timespec="minutes") for each in (first, second))
    raise ValueError(
        _("{option} {text} occurs twice in {zone} on {day:%Y-%m-%d}: give {times}").format(
            option=option, text=text, zone=zone.key, day=local, times=times
        )
    )

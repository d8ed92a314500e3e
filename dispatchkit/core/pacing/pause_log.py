"""Log a provider's pauses: one record per pause, with its end."""

from __future__ import annotations

import logging
import math
from datetime import datetime

from dispatchkit.core.clock import Clock
from dispatchkit.core.durations import moment_after
from dispatchkit.core.log import log

__all__ = ["PauseLog"]

logger = logging.getLogger("dispatchkit.pace")

_UNLOGGED = 1.0
"""Seconds: a shorter pause, or a shorter extension of one, is not logged."""


class PauseLog:
    """Logs the pauses of one account."""

    __slots__ = ("_clock", "_until")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = -math.inf
        """End of the last logged pause, on the clock's ``monotonic``."""

    def pause(self, left: float, *, asked: float, most: float, by: str) -> None:
        """Log a pause, unless it was logged. Call it without a lock: a log handler may read the statistics.

        Args:
            left: Seconds until the pause ends.
            asked: Seconds that the provider asked for.
            most: Maximum pause (`Pace.max_pause`).
            by: What asked for the pause.
        """
        until = self._clock.monotonic() + left
        if left < _UNLOGGED or until < self._until + _UNLOGGED:
            return
        self._until = until
        now = self._clock.now()
        text = _utc(now, left)
        if asked > most:
            wanted = _utc(now, asked)
            log(
                logger,
                logging.WARNING,
                "the account is paused until %s (by %s): max_pause (%.0f s) ends before the provider's pause at %s",
                text,
                by,
                most,
                wanted,
            )
        else:
            log(logger, logging.INFO, "the account is paused until %s (by %s)", text, by)

    def lift(self, until: float) -> None:
        """Log that the pause was lifted and ends at ``until``."""
        self._until = until
        log(logger, logging.INFO, "the pause of the account was lifted")


def _utc(now: datetime, seconds: float) -> str:
    """The moment in so many seconds, without the date if it is today."""
    moment = moment_after(now, seconds)
    return f"{moment:%H:%M:%S} UTC" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S} UTC"

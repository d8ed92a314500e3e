"""The log of the pauses that a provider asks for: one line for each, with its end."""

from __future__ import annotations

import logging
import math
from datetime import datetime, timedelta

from dispatchkit.core.clock import Clock
from dispatchkit.core.log import log

__all__ = ["PauseLog"]

logger = logging.getLogger("dispatchkit.pace")

_UNLOGGED = 1.0
"""Seconds: a shorter pause, or one that grew by less, is not worth a line in a log."""


class PauseLog:
    """Logs the pauses of one account."""

    __slots__ = ("_clock", "_until")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = -math.inf
        """On the clock's ``monotonic``: the end of the pause that was logged last."""

    def pause(self, left: float, *, asked: float, most: float, by: str) -> None:
        """Log a pause, unless it is known. Never under a lock: a handler may read the statistics.

        Args:
            left: Seconds until it is over.
            asked: Seconds that the provider asked for.
            most: The longest pause that is kept (`Pace.max_pause`).
            by: How the provider asked.
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
                "the account is paused until %s (by %s), for max_pause (%.0f s) and no longer: "
                "the provider asked for a pause until %s",
                text,
                by,
                most,
                wanted,
            )
        else:
            log(logger, logging.INFO, "the account is paused until %s (by %s)", text, by)

    def lift(self, until: float) -> None:
        """Log that the pause was lifted, and ends at ``until``."""
        self._until = until
        log(logger, logging.INFO, "the pause of the account was lifted")


def _utc(now: datetime, seconds: float) -> str:
    """The moment in so many seconds, without its date if that is today's."""
    moment = now + timedelta(seconds=seconds)
    return f"{moment:%H:%M:%S} UTC" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S} UTC"

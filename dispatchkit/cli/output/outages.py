"""The times in which a provider answered nothing, and what they cost a run.

A run looks a few times a second. An outage is a breaker that is not closed. A run that tries and has no answer for
`LEAST` seconds is an outage, too. Answers are those to attempts and to state reads. An outage began with the last
answer, and ends with the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta

import attrs

from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.core.durations import in_words

__all__ = ["LEAST", "Outage", "Outages"]

LEAST = 35.0
"""Seconds of silence that count. A call waits up to 30 s between two state reads."""


@attrs.frozen
class Outage:
    """One time without an answer."""

    since: datetime
    """UTC: the last answer, or the first attempt."""
    seconds: float

    def __str__(self) -> str:
        return f"no answer since {self.since:%H:%M:%S} UTC; {in_words(self.seconds)} lost"


class Outages:
    """Finds the outages of a run.

    Args:
        answered_at: Gives the time of the provider's last answer, on the clock's ``monotonic``.
        clock: The clock.
    """

    def __init__(self, answered_at: Callable[[], float], *, clock: Clock = SYSTEM) -> None:
        self._answered_at = answered_at
        self._clock = clock
        self._trying_since: float | None = None
        self._began: float | None = None
        """The start of the present outage."""
        self._past: list[Outage] = []

    def look(self, *, is_trying: bool, breaker: str) -> Outage | None:
        """See how it is now. Returns the outage of this moment.

        Args:
            is_trying: Whether the run waits for the provider, and not for a pause that the provider asked for.
            breaker: The state of the account's breaker.
        """
        now, answered = self._clock.monotonic(), self._answered_at()
        if breaker == "closed" and not is_trying:
            self._trying_since = None
        elif self._trying_since is None:
            self._trying_since = now
        if self._began is not None:
            if answered <= self._began and (breaker != "closed" or self._trying_since is not None):
                return self._outage(self._began, now)
            self._past.append(self._outage(self._began, answered if answered > self._began else now))
            self._began = None
        if self._trying_since is None:
            return None
        # With an open breaker, the silence began with the last answer. Otherwise the run may have been idle in between.
        began = self._trying_since if answered == -math.inf else max(answered, self._trying_since)
        if breaker != "closed" and answered > -math.inf:
            began = answered
        if breaker == "closed" and now - began < LEAST:
            return None
        self._began = began
        return self._outage(began, now)

    def _outage(self, began: float, ended: float) -> Outage:
        at = self._clock.now() - timedelta(seconds=self._clock.monotonic() - began)
        return Outage(at, max(0.0, ended - began))

    def summary(self) -> str:
        """What the outages cost, for the end of the run; empty without one."""
        found = self._past
        if self._began is not None:
            found = [*found, self._outage(self._began, self._clock.monotonic())]
        if not found:
            return ""
        lost = in_words(sum(outage.seconds for outage in found))
        if len(found) > 1:
            return f"The provider fell silent {len(found)} times, first at {found[0].since:%H:%M:%S} UTC; {lost} lost."
        ended = found[0].since + timedelta(seconds=found[0].seconds)
        return f"No answer from {found[0].since:%H:%M:%S} to {ended:%H:%M:%S} UTC; {lost} lost."

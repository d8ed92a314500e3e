"""The circuit breaker: it sees when a provider no longer answers, and when it does again."""

from __future__ import annotations

from typing import Literal

__all__ = ["Breaker", "BreakerState"]

BreakerState = Literal["closed", "open", "half-open"]

_SEEN = 64
_MASK = (1 << _SEEN) - 1
_LONGEST_COOLDOWN = 60.0


class Breaker:
    """Counts the latest 64 attempts. Closed, it lets all pass; open, none; half-open, a single one that decides.

    It only judges. Who waits, and until when, is for the `Pacer` to say.
    """

    __slots__ = ("_count", "_failures", "_first_cooldown", "_share", "cooldown", "state")

    def __init__(self, share: float, cooldown: float) -> None:
        self.state: BreakerState = "closed"
        self._failures = 0  # one bit an attempt, the latest lowest
        self._count = 0
        self._share = share
        self._first_cooldown = self.cooldown = cooldown

    def set(self, share: float, cooldown: float) -> None:
        """Change the settings. A cooldown that was doubled stays so until the provider answers."""
        self._share = share
        if self.state == "closed" or cooldown > self.cooldown:
            self.cooldown = cooldown
        self._first_cooldown = cooldown

    def record(self, *, answered: bool) -> bool:
        """Take note of an attempt. True: it opens, for `cooldown` seconds."""
        if self.state != "closed":
            if not answered:
                self.cooldown = max(self._first_cooldown, min(self.cooldown * 2, _LONGEST_COOLDOWN))
                self.state = "open"
                return True
            self.state = "closed"
            self.cooldown = self._first_cooldown
        if answered and not self._failures:
            self._count += 1
            return False  # by far the most frequent
        self._failures = (self._failures << 1 | (not answered)) & _MASK
        self._count += 1
        if answered or self._share >= 1 or self._count < _SEEN or self._failures.bit_count() < _SEEN * self._share:
            return False
        self.state = "open"
        self._failures = self._count = 0
        return True

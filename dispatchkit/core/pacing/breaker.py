"""The circuit breaker: it detects that a provider stops answering, and that it recovers."""

from __future__ import annotations

from typing import Literal

__all__ = ["Breaker", "BreakerState"]

BreakerState = Literal["closed", "open", "half-open"]

_SEEN = 64
_MASK = (1 << _SEEN) - 1
_MAX_RESET_TIMEOUT = 60.0


class Breaker:
    """Counts failures among the latest 64 attempts.

    Closed, all attempts may start. Open, none may. Half-open, a single attempt decides. The `Pacer` enforces the state
    and schedules the attempts.
    """

    __slots__ = ("_count", "_failure_threshold", "_failures", "_first_reset_timeout", "reset_timeout", "state")

    def __init__(self, failure_threshold: float, reset_timeout: float) -> None:
        self.state: BreakerState = "closed"
        self._failures = 0  # one bit an attempt, the latest lowest
        self._count = 0
        self._failure_threshold = failure_threshold
        self._first_reset_timeout = self.reset_timeout = reset_timeout

    def set(self, failure_threshold: float, reset_timeout: float) -> None:
        """Change the settings. A doubled `reset_timeout` stays until the provider answers."""
        self._failure_threshold = failure_threshold
        if self.state == "closed" or reset_timeout > self.reset_timeout:
            self.reset_timeout = reset_timeout
        self._first_reset_timeout = reset_timeout

    def record(self, *, answered: bool) -> bool:
        """Record an attempt. Returns True if the breaker opens, for `reset_timeout` seconds."""
        if self.state != "closed":
            if not answered:
                self.reset_timeout = max(self._first_reset_timeout, min(self.reset_timeout * 2, _MAX_RESET_TIMEOUT))
                self.state = "open"
                return True
            self.state = "closed"
            self.reset_timeout = self._first_reset_timeout
        if answered and not self._failures:
            self._count += 1
            return False  # the common case, without further work
        self._failures = (self._failures << 1 | (not answered)) & _MASK
        self._count += 1
        if (
            answered
            or self._failure_threshold >= 1
            or self._count < _SEEN
            or self._failures.bit_count() < _SEEN * self._failure_threshold
        ):
            return False
        self.state = "open"
        self._failures = self._count = 0
        return True

"""How old a claim is: a ledger's permission to send one request, which expires.

Another process may take a run over while this one is suspended, or waits for a slow database, a blocked event loop, a
connection or a TLS handshake. So a claim permits a request only for `CLAIM_AGE` after it was requested, and the
transport checks that in front of the system call that sends. The takeover waits for longer than that.
"""

from __future__ import annotations

import enum

from dispatchkit.core.clock import Clock

__all__ = ["CLAIM_AGE", "ClaimAge", "ClaimExpiredError", "ClaimResult"]

CLAIM_AGE = 5.0
"""Seconds after it was requested for which a claim permits a request."""

_STEP = 0.25
"""Seconds by which wall clock and boot clock may differ over the age of a claim. More is a step of the wall clock."""


class ClaimExpiredError(Exception):
    """The claim of a request expired before the request had left. No whole request was sent."""


class ClaimAge:
    """The age of one claim, from the moment of its request.

    It is measured on two clocks. The boot clock counts while the machine sleeps. The wall clock also counts while a
    virtual machine is paused; a step of it makes the age uncertain, so the claim counts as expired.
    """

    __slots__ = ("_boot", "_clock", "_wall", "boottime", "expires_at")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._boot = clock.boottime()
        self._wall = clock.now()
        self.boottime = clock.boottime
        """The boot clock, and below the time on it at which the claim expires: for the check in front of a write."""
        self.expires_at = self._boot + CLAIM_AGE

    def seconds(self) -> float:
        """The age in seconds, on the clock that counted more."""
        return max(self._elapsed())

    def is_expired(self, *, margin: float = 0.0) -> bool:
        """Whether the claim permits nothing any more, or will not in ``margin`` seconds."""
        boot, wall = self._elapsed()
        return max(boot, wall) + margin >= CLAIM_AGE or abs(wall - boot) > _STEP

    def was_stepped(self) -> bool:
        """Whether the wall clock was set since the request."""
        boot, wall = self._elapsed()
        return abs(wall - boot) > _STEP

    def _elapsed(self) -> tuple[float, float]:
        """Seconds since the request, on the boot clock and on the wall clock."""
        wall = (self._clock.now() - self._wall).total_seconds()
        return self._clock.boottime() - self._boot, wall


class ClaimResult(enum.Enum):
    """What a journal answers to somebody who wants to send."""

    GRANTED = "granted"
    """It is on disk that the request is about to leave: go."""
    DEFERRED = "deferred"
    """Not now: the account is paused elsewhere. The pacer has been told; ask again when it gives leave."""
    TAKEN = "taken"
    """Somebody else has it, or it has come to its outcome: leave it alone."""
    STOPPED = "stopped"
    """The run was stopped, or another process has taken it over: start nothing any more."""

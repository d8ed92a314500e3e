"""A claim: a ledger's permission to send one request, and its expiry.

Another process may take over a run while this one is suspended, or waits for a database or a connection. So a claim
permits a request only for `CLAIM_AGE` after it was requested. The transport checks the age directly before the system
call that sends. A takeover waits longer than `CLAIM_AGE`.
"""

from __future__ import annotations

import enum

from dispatchkit.core.clock import Clock

__all__ = ["CLAIM_AGE", "ClaimAge", "ClaimExpiredError", "ClaimResult"]

CLAIM_AGE = 5.0
"""Seconds for which a claim permits a request, from the moment it was requested."""

_STEP = 0.25
"""Maximum difference, in seconds, of a claim's age on the two clocks. More is a step of the wall clock."""


class ClaimExpiredError(Exception):
    """The claim expired before the whole request had left."""


class ClaimAge:
    """The age of one claim since its request.

    Two clocks measure it. The boot clock counts while the machine sleeps. The wall clock also counts while a virtual
    machine is paused. A step of the wall clock makes the age uncertain, so the claim counts as expired.
    """

    __slots__ = ("_boot", "_clock", "_wall", "boottime", "expires_at")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.boottime = boottime = clock.boottime
        """The boot clock, for the check directly before a write."""
        self._boot = boot = boottime()
        self._wall = clock.now()
        self.expires_at = boot + CLAIM_AGE
        """The expiry on the boot clock."""

    def seconds(self) -> float:
        """The age in seconds, on the clock that advanced more."""
        return max(self._elapsed())

    def is_expired(self, *, margin: float = 0.0) -> bool:
        """Whether the claim is expired, or will be in ``margin`` seconds."""
        # Each launch asks this, so it is written out: `_elapsed`.
        boot = self.boottime() - self._boot
        wall = (self._clock.now() - self._wall).total_seconds()
        return boot + margin >= CLAIM_AGE or wall + margin >= CLAIM_AGE or not -_STEP <= wall - boot <= _STEP

    def was_stepped(self) -> bool:
        """Whether the wall clock was set since the request."""
        boot, wall = self._elapsed()
        return abs(wall - boot) > _STEP

    def _elapsed(self) -> tuple[float, float]:
        """Seconds since the request, on the boot clock and on the wall clock."""
        wall = (self._clock.now() - self._wall).total_seconds()
        return self._clock.boottime() - self._boot, wall


class ClaimResult(enum.Enum):
    """A journal's answer to a claim."""

    GRANTED = "granted"
    """The claim is durable: send the request."""
    DEFERRED = "deferred"
    """Another process has paused the account. The pacer has the pause; claim again with a new permit."""
    TAKEN = "taken"
    """Another process has the target, or it has an outcome already: skip it."""
    STOPPED = "stopped"
    """The run was stopped, or another process has taken it over: start nothing more."""

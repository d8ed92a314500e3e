"""The time limits of a run, in seconds: the product's own at scale 1, shorter ones for a quick run."""

from __future__ import annotations

import dataclasses

__all__ = ["Times"]


@dataclasses.dataclass(frozen=True)
class Times:
    """Every number that the promise rests on."""

    lease: float
    """A holder that was not seen for so long may be taken over."""
    heartbeat: float
    claim: float
    """A claim expires so long after it was requested."""
    lag: float
    """The provider's state may be so late. The raw provider never acts later than this after a request arrived."""
    attempt: float
    """The most that one attempt may take."""
    longest: float
    """The longest suspension without a takeover."""

    @classmethod
    def of(cls, scale: float) -> Times:
        """The product's times, scaled, but never so short that a busy machine alone would break them."""
        return cls(
            lease=max(4.0, 30 * scale),
            heartbeat=max(0.5, min(1.0, scale)),
            claim=max(1.0, 5 * scale),
            lag=max(3.0, 60 * scale),
            attempt=max(4.0, 70 * scale),
            longest=max(2.5, 45 * scale),
        )

    @property
    def timeout(self) -> float:
        """How long one process may take to end a run that was left in any state."""
        return 30 + 2 * self.lease + 3 * self.lag + self.attempt + 5 * self.claim

    def constants(self) -> dict[str, float]:
        """What `process` is to put in the place of the product's own constants, by its keys."""
        found = {
            "lease": self.lease,
            "heartbeat": self.heartbeat,
            "claim": self.claim,
            "lag": self.lag,
            "attempt": self.attempt,
        }
        if self.lease < 30:
            # How long it waits before it looks, or connects, again; the longest statement, and the longest connect.
            found |= {"look": 0.5, "avoid": 3.0, "again": 0.3, "longest": 0.5}
            found |= {"answer": self.lease, "connect": max(1.5, self.lease / 3)}
        return found

"""The age of a claim: on the boot clock, on the wall clock, and where the two disagree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from dispatchkit.core.claim import CLAIM_AGE, ClaimAge
from dispatchkit.core.clock import SYSTEM


@attrs.define
class Clocks:
    """A machine's clocks, each of which is set by the test."""

    boot: float = 100.0
    wall: float = 0.0

    def monotonic(self) -> float:
        return 0.0

    def boottime(self) -> float:
        return self.boot

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.wall)

    async def sleep(self, seconds: float) -> None:
        raise AssertionError

    def random(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("boot", "wall", "expired"),
    [
        (0, 0, False),
        (4.99, 4.99, False),
        (5, 5, True),
        (4.9, 5.0, True),  # a virtual machine was paused for a moment: only the wall clock counted
        (5.0, 4.9, True),
        (60, 60, True),  # the machine slept
        (1, 7201, True),  # the wall clock was set forward
        (1, -7199, True),  # and back
        (1, 1.3, True),
        (1, 0.7, True),
        (1, 1.2, False),  # it is slewed
    ],
)
def test_either_clock_expires_claim(boot: float, wall: float, expired: bool) -> None:
    clocks = Clocks()
    claim = ClaimAge(clocks)
    clocks.boot += boot
    clocks.wall += wall
    assert claim.is_expired() is expired


def test_margin_precedes_claim_expiry() -> None:
    clocks = Clocks()
    claim = ClaimAge(clocks)
    clocks.boot = clocks.boot + CLAIM_AGE - 2
    clocks.wall += CLAIM_AGE - 2
    assert not claim.is_expired()
    assert not claim.is_expired(margin=1.9)
    assert claim.is_expired(margin=2.1)
    assert claim.seconds() == CLAIM_AGE - 2


def test_system_clock_counts_boot_time() -> None:
    assert 0 <= SYSTEM.boottime() - SYSTEM.boottime() + 1 <= 1
    assert not ClaimAge(SYSTEM).is_expired()

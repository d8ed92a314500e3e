"""The circuit breaker of an account, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dispatchkit import Pace
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.testing import FakeClock
from tests.harness import acquire


class Provider:
    """One that can be down, behind a pacer."""

    def __init__(self, **pace: Any) -> None:
        self.clock = FakeClock()
        self.pacer = Pacer(Pace(**pace), self.clock)
        self.starts: list[float] = []

    async def ask(self, *, answers: bool | None, takes: float = 0.0, pause: float | None = None) -> None:
        permit = self.pacer.try_acquire() or await acquire(self.pacer)
        self.starts.append(self.clock.time)
        if takes:
            await self.clock.sleep(takes)
        self.pacer.release(permit, answered=answers, elapsed=takes, pause=pause)

    async def fail(self, count: int) -> None:
        for _ in range(count):
            await self.ask(answers=False)

    @property
    def breaker(self) -> str:
        return self.pacer.statistics().breaker


@pytest.mark.parametrize(("share", "failures"), [(0.5, 32), (0.25, 16), (0.75, 48)])
async def test_opens_at_failure_share(share: float, failures: int) -> None:
    play = Provider(failure_threshold=share)
    for _ in range(64 - failures):
        await play.ask(answers=True)
    await play.fail(failures - 1)
    assert play.breaker == "closed"
    await play.fail(1)
    assert play.breaker == "open"
    assert play.pacer.statistics().paused_for == 5.0


async def test_old_failures_do_not_open() -> None:
    play = Provider()
    await play.fail(31)
    for _ in range(64):
        await play.ask(answers=True)
    await play.fail(31)
    assert play.breaker == "closed"
    assert play.clock.time == 0.0


async def test_refusal_counts_as_response() -> None:
    play = Provider()
    for _ in range(200):
        await play.ask(answers=None)
    assert play.breaker == "closed"
    await play.fail(63)
    assert play.breaker == "closed"


async def test_full_share_never_opens() -> None:
    play = Provider(failure_threshold=1)
    await play.fail(500)
    assert play.breaker == "closed"


async def test_half_open_admits_one_probe() -> None:
    play = Provider(reset_timeout=3.0)
    await play.fail(64)
    play.starts.clear()
    await asyncio.gather(*(play.ask(answers=True, takes=1.0) for _ in range(7)))
    assert play.starts == [3.0, 4.0, 4.0, 5.0, 5.0, 5.0, 5.0]
    assert play.breaker == "closed"


async def test_failed_probe_doubles_cooldown() -> None:
    play = Provider(reset_timeout=5.0)
    await play.fail(64)
    play.starts.clear()
    await play.fail(6)
    waits = [after - before for before, after in zip([0.0, *play.starts], play.starts, strict=False)]
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    await play.ask(answers=True)
    await play.fail(63)
    assert play.pacer.statistics().paused_for == 5.0, "an answer brings the first cooldown back"


async def test_cancelled_probe_frees_its_place() -> None:
    play = Provider()
    await play.fail(64)
    await play.ask(answers=None)
    assert play.breaker == "half-open"
    await play.ask(answers=True)
    assert play.breaker == "closed"


async def test_throttled_probe_counts_as_response() -> None:
    play = Provider()
    await play.fail(64)
    await play.ask(answers=True, pause=2.0)
    assert play.breaker == "closed"
    assert play.pacer.statistics().paused_for == 2.0


async def test_earlier_attempts_decide_nothing() -> None:
    play = Provider()
    late = [asyncio.ensure_future(play.ask(answers=answers, takes=4.0)) for answers in (True, False) * 40]
    await asyncio.sleep(0)
    await play.fail(64)
    assert play.breaker == "open"
    await asyncio.gather(*late)
    assert play.breaker == "open"
    assert play.pacer.statistics().paused_for == 1.0
    assert play.pacer.statistics().pauses == 1

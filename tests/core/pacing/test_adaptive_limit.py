"""``concurrency="auto"`` against providers of different size, in virtual time; and two accounts side by side."""

from __future__ import annotations

import asyncio
import random
from statistics import mean

import pytest

from dispatchkit import Pace
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.testing import FakeClock
from tests.harness import acquire


class Provider:
    """Answers in ``base`` seconds; with more than ``capacity`` in flight, each takes longer in proportion."""

    def __init__(self, clock: FakeClock, capacity: float, *, base: float = 0.1, noise: float = 0.0) -> None:
        self.clock = clock
        self.capacity = capacity
        self.base = base
        self.noise = noise
        self.refuses_over = 10**9
        self.random = random.Random(5)
        self.pacer = Pacer(Pace(concurrency="auto"), clock)
        self.in_flight = 0
        self.answered = 0
        self.refused = 0
        self.limits: list[int] = []
        self.wanted = 0
        self.enough = asyncio.Event()

    async def work(self, until: float) -> None:
        while self.clock.time < until:
            permit = self.pacer.try_acquire() or await acquire(self.pacer)
            self.in_flight += 1
            refused = self.in_flight > self.refuses_over
            noise = 1 + self.noise * self.random.random()
            elapsed = 0.01 if refused else self.base * noise * max(1.0, self.in_flight / self.capacity)
            try:
                await self.clock.sleep(elapsed)
            except asyncio.CancelledError:
                self.pacer.release(permit, answered=None, elapsed=0.0)
                raise
            finally:
                self.in_flight -= 1
            self.answered += not refused
            self.refused += refused
            self.pacer.release(permit, answered=True, elapsed=elapsed, pause=0.5 if refused else None)
            self.limits.append(self.pacer.statistics().concurrency_limit)
            if len(self.limits) == self.wanted:
                self.enough.set()

    async def run(self, answers: int, *, workers: int) -> list[int]:
        """The limits over the latter half of so many answers."""
        tasks = [asyncio.create_task(self.work(1e9)) for _ in range(workers)]
        self.limits.clear()
        self.wanted = answers
        self.enough.clear()
        await self.enough.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return self.limits[len(self.limits) // 2 :]


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize(
    ("capacity", "answers"), [(4, 1000), (16, 3000), pytest.param(64, 12000, marks=pytest.mark.second_stage)]
)
async def test_slow_provider_limit_converges(capacity: int, answers: int, noise: float) -> None:
    provider = Provider(FakeClock(), capacity, noise=noise)
    limits = await provider.run(answers, workers=200)
    assert capacity / 2 <= mean(limits) <= capacity * 1.6
    assert max(limits) <= capacity * 2
    assert sum(limit >= capacity / 2 for limit in limits) >= 0.95 * len(limits), "but for the rounds that measure"
    busy = provider.answered * provider.base * (1 + noise / 2) / provider.clock.time
    assert busy >= 0.8 * capacity, "and it is put to use"


async def test_a_fast_provider_is_used() -> None:
    provider = Provider(FakeClock(), 10_000)
    limits = await provider.run(6000, workers=400)
    assert max(limits) > 200
    assert provider.clock.time < 6000 * 0.1 / 200


async def test_unused_limit_does_not_grow() -> None:
    provider = Provider(FakeClock(), 10_000)
    assert max(await provider.run(1000, workers=10)) <= 12


async def test_slowing_provider_lowers_limit() -> None:
    provider = Provider(FakeClock(), 64)
    await provider.run(4000, workers=200)
    provider.capacity = 8
    limits = await provider.run(4000, workers=200)
    assert mean(limits) <= 16


async def test_constant_latency_keeps_limit() -> None:
    provider = Provider(FakeClock(), 64)
    await provider.run(4000, workers=200)
    provider.base = 0.4
    limits = await provider.run(8000, workers=200)
    assert mean(limits) >= 24


async def test_throttling_makes_it_back_off() -> None:
    provider = Provider(FakeClock(), 10_000)
    provider.refuses_over = 32
    limits = await provider.run(8000, workers=200)
    assert max(limits) <= 34
    assert provider.refused < 0.05 * provider.answered


@pytest.mark.parametrize("slow", [0.5, 30.0])
async def test_slow_account_delays_no_other(slow: float) -> None:
    async def takes(*bases: float) -> float:
        clock = FakeClock()
        first, *others = (Provider(clock, 8, base=base) for base in bases)
        tasks = [asyncio.create_task(other.work(1e9)) for other in others for _ in range(20)]
        await first.run(1500, workers=20)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return clock.time

    alone, beside = await takes(0.05), await takes(0.05, slow)
    assert beside <= alone * 1.05

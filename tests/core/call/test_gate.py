"""The gate without a ledger: the pacer's permit, its deadline, and a stop."""

from __future__ import annotations

import asyncio
import math

import pytest

from dispatchkit import Pace
from dispatchkit.core.call.gate import PacedGate
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.stop import Interruptible, StopSignal
from dispatchkit.testing.clock import FakeClock
from tests.harness import turns


class Scene:
    def __init__(self, pace: Pace) -> None:
        self.clock = FakeClock(jumps=False)
        self.pacer = Pacer(pace, self.clock)
        self.stop, self.closed = StopSignal(), StopSignal()
        self.gate = PacedGate(self.pacer, stop=self.stop, closed=self.closed)


async def test_free_pacer_permits_at_once() -> None:
    scene = Scene(Pace(concurrency=1))
    permit = await scene.gate.acquire(math.inf)
    assert permit
    assert scene.pacer.statistics().in_flight == 1
    assert (scene.gate.claim, await scene.gate.renew(), scene.gate.obstacle()) == (None, None, "")


class _CountedStop(StopSignal):
    """Counts the blocks that were asked for."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def interruptible(self, *others: StopSignal) -> Interruptible:
        self.asked += 1
        return super().interruptible(*others)


async def test_permits_need_one_block() -> None:
    clock, stop = FakeClock(jumps=False), _CountedStop()
    pacer = Pacer(Pace(concurrency=1), clock)
    gate = PacedGate(pacer, stop=stop, closed=StopSignal())
    permit = await gate.acquire(clock.monotonic())
    assert (permit > 0, stop.asked) == (True, 0)
    for _ in range(2):  # both waits share one block
        waiting = asyncio.ensure_future(gate.acquire(math.inf))
        await turns(5)
        pacer.release(permit, answered=True, elapsed=0.1)
        permit = await waiting
    assert stop.asked == 1


async def test_gate_refuses_other_attributes() -> None:
    gate = Scene(Pace()).gate
    assert not hasattr(gate, "__dict__")


async def test_busy_pacer_permits_nothing_now() -> None:
    scene = Scene(Pace(concurrency=1))
    assert scene.gate.try_acquire()
    assert scene.gate.try_acquire() == 0
    assert scene.pacer.statistics().in_flight == 1


async def test_passed_deadline_permits_nothing() -> None:
    scene = Scene(Pace())
    assert await scene.gate.acquire(scene.clock.monotonic() - 1.0) == 0
    assert scene.pacer.statistics().in_flight == 0


async def test_bound_pacer_permits() -> None:
    scene = Scene(Pace(concurrency=1))
    other = Pacer(Pace(concurrency=1), scene.clock)
    scene.gate.bind(other)
    assert scene.gate.try_acquire()
    assert (scene.pacer.statistics().in_flight, other.statistics().in_flight) == (0, 1)


@pytest.mark.parametrize("which", ["stop", "closed"])
async def test_stop_refuses_free_permit(which: str) -> None:
    scene = Scene(Pace(concurrency=1))
    getattr(scene, which).set()
    assert await scene.gate.acquire(math.inf) == 0
    assert scene.pacer.statistics().in_flight == 0


async def test_waiter_gets_released_permit() -> None:
    scene = Scene(Pace(concurrency=1))
    permit = await scene.gate.acquire(math.inf)
    waiting = asyncio.ensure_future(scene.gate.acquire(math.inf))
    await turns(5)
    assert not waiting.done()
    scene.pacer.release(permit, answered=True, elapsed=0.1)
    assert await waiting


@pytest.mark.parametrize("which", ["stop", "closed"])
async def test_stop_ends_wait_without_permit(which: str) -> None:
    scene = Scene(Pace(concurrency=1))
    await scene.gate.acquire(math.inf)
    waiting = asyncio.ensure_future(scene.gate.acquire(math.inf))
    await turns(5)
    getattr(scene, which).set()
    async with asyncio.timeout(5):
        assert await waiting == 0
    seen = scene.pacer.statistics()
    assert (seen.in_flight, seen.waiting) == (1, 0)


@pytest.mark.parametrize("which", ["stop", "closed"])
async def test_stop_ends_later_wait(which: str) -> None:
    scene = Scene(Pace(concurrency=1))
    permit = await scene.gate.acquire(math.inf)
    for _ in range(3):
        waiting = asyncio.ensure_future(scene.gate.acquire(math.inf))
        await turns(5)
        scene.pacer.release(permit, answered=True, elapsed=0.1)
        permit = await waiting
        assert permit
    waiting = asyncio.ensure_future(scene.gate.acquire(math.inf))
    await turns(5)
    getattr(scene, which).set()
    async with asyncio.timeout(5):
        assert await waiting == 0
    assert scene.pacer.statistics().waiting == 0


async def test_waiters_share_no_block() -> None:
    scene = Scene(Pace(concurrency=1))
    permit = await scene.gate.acquire(math.inf)
    waiting = [asyncio.ensure_future(scene.gate.acquire(math.inf)) for _ in range(3)]
    await turns(5)
    assert scene.stop.waiting == set(waiting)
    scene.pacer.release(permit, answered=True, elapsed=0.1)
    await waiting[0]
    assert scene.stop.waiting == set(waiting[1:])
    scene.stop.set()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting[1:]) == [0, 0]

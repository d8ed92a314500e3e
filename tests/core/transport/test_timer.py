"""One timer for many limits: whose time is over is cancelled, and a foreign cancellation is never hidden."""

from __future__ import annotations

import asyncio
import random

import pytest

from dispatchkit.core.transport.timer import AttemptTimer, AttemptTimers


async def attempt(timers: AttemptTimers, seconds: float, takes: float) -> str:
    timer = AttemptTimer()
    timers.start(timer, seconds)
    try:
        await asyncio.sleep(takes)
    except asyncio.CancelledError:
        if not timers.stop(timer):
            raise
        return "over time"
    return "over time, unheard" if timers.stop(timer) else "in time"


async def test_timers_end_individually() -> None:
    timers = AttemptTimers(asyncio.get_running_loop())
    rng = random.Random(1)
    plan = [rng.choice([(0.02, 30.0), (0.05, 30.0), (0.08, 30.0), (30.0, 0.0)]) for _ in range(200)]
    loop = asyncio.get_running_loop()
    began = loop.time()
    results = await asyncio.gather(*(attempt(timers, seconds, takes) for seconds, takes in plan))
    assert results == ["in time" if takes == 0 else "over time" for _, takes in plan]
    assert loop.time() - began >= 0.075
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_shorter_later_timer_is_kept() -> None:
    timers = AttemptTimers(asyncio.get_running_loop())
    long = asyncio.create_task(attempt(timers, 30, 30))
    await asyncio.sleep(0)
    assert await attempt(timers, 0.01, 30) == "over time"
    assert not long.done()
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long


async def test_task_continues_after_timer() -> None:
    timers = AttemptTimers(asyncio.get_running_loop())
    assert [await attempt(timers, 0.01, 30) for _ in range(3)] == ["over time"] * 3
    assert await attempt(timers, 30, 0) == "in time"
    await asyncio.sleep(0.02)  # nothing is left that would ring


@pytest.mark.parametrize("first", ["limit", "other"])
async def test_external_cancellation_passes_through(first: str) -> None:
    timers = AttemptTimers(asyncio.get_running_loop())
    task = asyncio.create_task(attempt(timers, 0.0, 30))
    await asyncio.sleep(0)
    if first == "other":
        task.cancel()
    timers._fire()
    if first == "limit":
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_outer_timeout_is_respected() -> None:
    timers = AttemptTimers(asyncio.get_running_loop())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await attempt(timers, 30, 30)
    async with asyncio.timeout(30):
        assert await attempt(timers, 0.01, 30) == "over time"


async def test_close_ends_all_timers() -> None:
    timers = AttemptTimers(asyncio.get_running_loop())
    tasks = [asyncio.create_task(attempt(timers, limit, 30)) for limit in (10, 20)]
    await asyncio.sleep(0)
    timers.close()
    assert await asyncio.gather(*tasks) == ["over time", "over time"]


async def test_a_limit_ends_once() -> None:
    timers = AttemptTimers(asyncio.get_running_loop())
    timer = AttemptTimer()
    timers.start(timer, 0.0)
    timers._fire()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(1)
    assert timers.stop(timer)
    assert not timers.stop(timer)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


def test_timerless_loop_has_no_limit() -> None:
    loop = asyncio.new_event_loop()
    timers = AttemptTimers(loop)

    async def begin() -> None:
        loop.call_at = None  # type: ignore[method-assign, assignment]
        with pytest.raises(TypeError):
            timers.start(AttemptTimer(), 1)

    loop.run_until_complete(begin())
    loop.close()
    assert timers._live == set()
    assert timers._timer is None

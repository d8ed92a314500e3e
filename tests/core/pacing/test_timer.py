"""The timer of a pacer: how often it fires, how it catches up, and which event loop runs it."""

from __future__ import annotations

import asyncio
import threading
from unittest.mock import Mock, call

import pytest

from dispatchkit import Pace
from dispatchkit.core.clock import SYSTEM, timer_seconds
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.wakeup import call_later
from dispatchkit.testing.clock import FakeClock, stillness
from tests.harness import acquire


class Counting(FakeClock):
    """A clock that counts the sleeps."""

    sleeps = 0

    async def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        await super().sleep(seconds)


class Queue:
    """Attempts that wait for one pacer."""

    def __init__(self, clock: FakeClock, count: int, **pace: float) -> None:
        self.clock = clock
        self.pacer = Pacer(Pace(**pace), clock)  # type: ignore[arg-type]
        assert self.pacer.try_acquire()
        self.tasks = [asyncio.ensure_future(acquire(self.pacer, until=1e6)) for _ in range(count)]

    async def pass_time(self, seconds: float) -> int:
        """Let time pass in one step. Returns how many have started by then."""
        await stillness()
        self.clock.advance(seconds)
        await stillness()
        return sum(task.done() for task in self.tasks)

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await stillness()


@pytest.mark.parametrize(
    ("seconds", "timer"), [(0.0, 0.001), (-1.0, 0.001), (0.0002, 0.001), (0.001, 0.001), (0.0014, 0.002), (2.0, 2.0)]
)
def test_timers_are_whole_milliseconds(seconds: float, timer: float) -> None:
    assert timer_seconds(seconds) == timer


async def test_short_sleeps_take_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, slept = Mock(), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await SYSTEM.sleep(0.0001)
    call_later(loop, SYSTEM, 0.0001, print)
    assert slept == [0.001]
    assert loop.call_later.mock_calls == [call(0.001, print, loop, None)]


async def test_coarse_timers_keep_high_rate() -> None:
    class Coarse(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(timer_seconds(seconds))

    clock = Coarse()
    pacer = Pacer(Pace(rate=2000), clock)
    for permit in await asyncio.gather(*(acquire(pacer) for _ in range(121))):
        pacer.release(permit, answered=True, elapsed=0.0)
    assert 0.06 <= clock.time < 0.0611, "a timer of a millisecond does not halve the rate"


async def test_one_timer_serves_all_waiters() -> None:
    queue = Queue(clock := Counting(jumps=False), 1, rate=10)
    for _ in range(30):
        await stillness()
        queue.tasks.append(asyncio.ensure_future(acquire(queue.pacer, until=1e6)))
    for expected in range(1, 21):
        assert await queue.pass_time(0.1) == expected
    assert clock.sleeps == 21
    await queue.end()


async def test_late_timer_catches_up() -> None:
    queue = Queue(FakeClock(jumps=False), 40, rate=5000)
    assert [await queue.pass_time(0.001 + 1e-9) for _ in range(6)] == [5, 10, 15, 20, 25, 30]
    await queue.end()


async def test_backlog_is_bounded() -> None:
    queue = Queue(FakeClock(jumps=False), 100, rate=5000)
    assert await queue.pass_time(0.1) in {25, 26}, "5 ms of the rate"
    await queue.end()


async def test_rest_of_backlog_starts_unqueued() -> None:
    queue = Queue(FakeClock(jumps=False), 2, rate=5000)
    assert await queue.pass_time(0.00101) == 2
    assert [bool(queue.pacer.try_acquire()) for _ in range(5)] == [True, True, True, False, False]


async def test_idle_time_is_no_backlog() -> None:
    queue = Queue(FakeClock(jumps=False), 2, rate=5000)
    assert await queue.pass_time(0.00101) == 2
    queue.clock.advance(1.0)
    assert [bool(queue.pacer.try_acquire()) for _ in range(2)] == [True, False]


async def test_pause_expires_rated_waiters() -> None:
    pacer = Pacer(Pace(rate=1), FakeClock(jumps=False))
    permit = pacer.try_acquire()
    waiting = asyncio.ensure_future(acquire(pacer, until=5.0))
    await stillness()
    pacer.release(permit, answered=True, elapsed=0.0, pause=20.0)
    await stillness()
    assert not waiting.result()


async def test_earlier_deadline_moves_timer() -> None:
    queue = Queue(FakeClock(jumps=False), 1, concurrency=1)
    await stillness()
    early = asyncio.ensure_future(acquire(queue.pacer, until=3.0))
    assert await queue.pass_time(3.1) == 0
    assert early.result() == 0
    await queue.end()


async def test_clock_error_ends_every_wait() -> None:
    class Broken(FakeClock):
        async def sleep(self, seconds: float) -> None:
            raise KeyError("clock")

    pacer = Pacer(Pace(rate=1), Broken())
    assert pacer.try_acquire()
    waiting = [asyncio.ensure_future(acquire(pacer)) for _ in range(3)]
    ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert [type(error) for error in ended] == [KeyError] * 3
    assert pacer.statistics().waiting == 0


async def test_last_waiter_stops_timer() -> None:
    queue = Queue(clock := FakeClock(jumps=False), 3, rate=0.1)
    await stillness()
    await queue.end()
    assert all(future.done() for _, _, future in clock._sleepers)


def test_timer_moves_off_closed_loop() -> None:
    pacer = Pacer(Pace(rate=20), SYSTEM)
    assert pacer.try_acquire()
    loop = asyncio.new_event_loop()
    lost = loop.create_task(acquire(pacer))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def acquires() -> list[int]:
        async with asyncio.timeout(5):
            return await asyncio.gather(*(acquire(pacer) for _ in range(3)))

    assert asyncio.run(acquires()) == [1, 1, 1]
    lost.get_coro().close()  # type: ignore[union-attr]
    lost._log_destroy_pending = False  # type: ignore[attr-defined]


def test_closed_loop_keeps_no_waiter() -> None:
    pacer = Pacer(Pace(concurrency=1), SYSTEM)
    assert pacer.try_acquire()
    loops = [asyncio.new_event_loop() for _ in range(2)]
    waiting, lost = (loop.create_task(acquire(pacer)) for loop in loops)
    for loop in loops:
        loop.run_until_complete(asyncio.sleep(0))
    loops[1].close()
    assert pacer.statistics().waiting == 2
    waiting.cancel()
    loops[0].run_until_complete(asyncio.wait([waiting]))
    loops[0].close()
    assert pacer.statistics().waiting == 0
    lost.get_coro().close()  # type: ignore[union-attr]
    lost._log_destroy_pending = False  # type: ignore[attr-defined]


def test_foreign_release_moves_timer() -> None:
    pacer = Pacer(Pace(concurrency=1, rate=50), SYSTEM)
    permit = pacer.try_acquire()

    async def acquires() -> int:
        async with asyncio.timeout(5):
            return await acquire(pacer)

    thread = threading.Thread(target=lambda: permits.append(asyncio.run(acquires())))
    permits: list[int] = []
    thread.start()
    while not pacer.statistics().waiting:
        threading.Event().wait(0.001)
    pacer.release(permit, answered=True, elapsed=0.0)  # no event loop runs in this thread
    thread.join()
    assert permits == [1]

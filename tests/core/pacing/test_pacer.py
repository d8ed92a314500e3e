"""Rate, concurrency and the shared pause of an account, in virtual time."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from dispatchkit import DirectClient, Pace
from dispatchkit.core.clock import SYSTEM
from dispatchkit.core.pacing.pace import PaceStatistics
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.pacing.pacers import get_pacer
from dispatchkit.testing import FakeClock
from tests.harness import acquire


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Users:
    """Many that use one pacer, and when each of them started."""

    def __init__(self, pacer: Pacer, clock: FakeClock) -> None:
        self.pacer = pacer
        self.clock = clock
        self.starts: list[float] = []
        self.in_flight = self.most = 0

    async def one(self, *, takes: float = 0.1, until: float = math.inf, **outcome: Any) -> bool:
        permit = self.pacer.try_acquire() or await acquire(self.pacer, until=until)
        if not permit:
            return False
        self.starts.append(self.clock.time)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        await self.clock.sleep(takes)
        self.in_flight -= 1
        self.pacer.release(permit, **({"answered": True, "elapsed": takes} | outcome))
        return True

    async def many(self, count: int, **settings: Any) -> None:
        await asyncio.gather(*(self.one(**settings) for _ in range(count)))


def users(clock: FakeClock, **pace: Any) -> Users:
    return Users(Pacer(Pace(**pace), clock), clock)


def gaps(starts: Iterable[float]) -> list[float]:
    ordered = sorted(starts)
    return [after - before for before, after in itertools.pairwise(ordered)]


@pytest.mark.parametrize("rate", [0.5, 3, 10, 250])
async def test_launches_start_one_interval_apart(clock: FakeClock, rate: float) -> None:
    play = users(clock, rate=rate)
    await play.many(50)
    assert gaps(play.starts) == pytest.approx([1 / rate] * 49)


async def test_several_users_share_the_rate(clock: FakeClock) -> None:
    play = users(clock, rate=10)
    await asyncio.gather(*(play.many(10, takes=takes) for takes in (0.01, 0.5, 3)))
    assert gaps(play.starts) == pytest.approx([0.1] * 29)


async def test_unused_rate_is_not_saved(clock: FakeClock) -> None:
    play = users(clock, rate=10)
    await play.many(3)
    await clock.sleep(60)
    began = clock.time
    await play.many(20)
    assert play.starts[3] == began
    assert min(gaps(play.starts)) >= 0.1 - 1e-9


async def test_slot_wait_causes_no_burst(clock: FakeClock) -> None:
    play = users(clock, rate=100, concurrency=3)
    await play.many(40, takes=0.0473)
    assert min(gaps(play.starts)) >= 0.01 - 1e-9
    assert play.most == 3


@pytest.mark.parametrize("concurrency", [1, 2, 7, 100])
async def test_fixed_concurrency_is_reached(clock: FakeClock, concurrency: int) -> None:
    play = users(clock, concurrency=concurrency)
    await play.many(150)
    assert play.most == concurrency
    assert clock.time == pytest.approx(0.1 * math.ceil(150 / concurrency))


async def test_waiters_are_served_first(clock: FakeClock) -> None:
    pacer = Pacer(Pace(concurrency=1), clock)
    permit = pacer.try_acquire()
    waiting = asyncio.ensure_future(acquire(pacer))
    await asyncio.sleep(0)
    pacer.release(permit, answered=True, elapsed=0.1)
    assert not pacer.try_acquire(), "the slot belongs to the one that waits"
    assert await waiting


async def test_rate_slot_goes_to_waiter() -> None:
    clock = FakeClock(jumps=False)
    pacer = Pacer(Pace(rate=1), clock)
    assert pacer.try_acquire()
    waiting = asyncio.ensure_future(acquire(pacer))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock.advance(1.0)
    assert not pacer.try_acquire(), "its time has come, though it has not woken yet"
    assert await waiting


async def test_busy_fan_out_starves_none(clock: FakeClock) -> None:
    play = users(clock, concurrency=4)
    order: list[str] = []

    async def greedy(name: str) -> None:
        for _ in range(50):
            await play.one()
            order.append(name)

    await asyncio.gather(*(greedy("a") for _ in range(8)), *(greedy("b") for _ in range(8)))
    half = order[: len(order) // 2]
    assert half.count("a") == pytest.approx(half.count("b"), rel=0.1)


@pytest.mark.parametrize("rate", [None, 20])
async def test_429_pauses_every_user(clock: FakeClock, rate: float | None) -> None:
    play = users(clock, rate=rate, concurrency=8)
    refused = asyncio.ensure_future(play.one(takes=1.5, pause=7.25))
    await asyncio.gather(refused, *(play.one(takes=0.7) for _ in range(60)))
    assert not [at for at in play.starts if 1.5 <= at < 8.75]
    assert 8.75 in play.starts
    statistics = play.pacer.statistics()
    assert (statistics.throttled, statistics.pauses, statistics.in_flight, statistics.waiting) == (1, 1, 0, 0)


async def test_pause_ends_with_slow_start(clock: FakeClock) -> None:
    play = users(clock, concurrency=16)
    await play.one(takes=0.0, pause=5.0)
    await play.many(31, takes=1.0)
    counts = [play.starts[1:].count(5.0 + step) for step in range(5)]
    assert counts == [1, 2, 4, 8, 16]


async def test_429_burst_is_one_pause(clock: FakeClock) -> None:
    play = users(clock, concurrency=8)
    volley = [play.one(takes=0.1 * (n + 1), pause=pause) for n, pause in enumerate([1.0, 0.1, 3.0, 0.0])]
    await asyncio.gather(*volley, play.one(takes=6.0, pause=0.5))
    statistics = play.pacer.statistics()
    assert (statistics.throttled, statistics.pauses) == (5, 1)
    assert statistics.paused_for == pytest.approx(0.5), "a late one of the volley still makes it longer"
    await play.one()
    assert play.starts[-1] == 6.5


async def test_hanging_attempt_allows_slow_start(clock: FakeClock) -> None:
    play = users(clock, concurrency=8)
    hangs = asyncio.ensure_future(play.one(takes=70))
    await play.one(takes=1, pause=2)
    await play.many(20, takes=0.1)
    assert clock.time < 4
    await hangs


async def test_pause_revokes_permit(clock: FakeClock) -> None:
    pacer = Pacer(Pace(concurrency=2), clock)
    first, second = pacer.try_acquire(), pacer.try_acquire()
    waiting = asyncio.ensure_future(acquire(pacer))
    await asyncio.sleep(0)
    pacer.release(first, answered=True, elapsed=0.1)  # it has leave, and has not woken yet
    pacer.release(second, answered=True, elapsed=0.1, pause=3.0)
    assert await waiting
    assert clock.time == 3.0
    assert pacer.statistics().in_flight == 1


async def test_429_without_wait_starts_slowly(clock: FakeClock) -> None:
    play = users(clock, concurrency=8)
    await play.one(takes=0.0, pause=0.0)
    await play.many(3, takes=1.0)
    assert play.starts[1:] == [0.0, 1.0, 1.0]


async def test_impossible_deadline_fails_at_once(clock: FakeClock) -> None:
    play = users(clock, rate=1, concurrency=4)
    await play.one(takes=0.0)
    results = await asyncio.gather(*(play.one(until=2.5, takes=0.0) for _ in range(5)))
    assert results == [True, True, False, False, False]
    assert clock.time == 2.0
    assert not await acquire(play.pacer, until=1.0), "that is past"


async def test_pause_cancels_short_deadlines(clock: FakeClock) -> None:
    pacer = Pacer(Pace(concurrency=1), clock)
    permit = pacer.try_acquire()
    waiting = [asyncio.ensure_future(acquire(pacer, until=until)) for until in (5.0, 50.0)]
    await asyncio.sleep(0)
    pacer.release(permit, answered=True, elapsed=0.0, pause=20.0)
    assert not await waiting[0]
    assert clock.time == 0.0
    assert await waiting[1]
    assert clock.time == 20.0


async def test_waiter_gives_up_at_deadline(clock: FakeClock) -> None:
    pacer = Pacer(Pace(concurrency=1), clock)
    assert pacer.try_acquire()
    assert not await acquire(pacer, until=3.0)
    assert clock.time == pytest.approx(3.0)
    assert pacer.statistics().waiting == 0


@pytest.mark.parametrize("pace", [{"rate": 1.0}, {"concurrency": 1}])
@pytest.mark.parametrize("victim", [0, 1, 2, 3])
async def test_cancelled_waiter_leaks_no_slot(clock: FakeClock, pace: dict[str, Any], victim: int) -> None:
    play = users(clock, **pace)
    tasks = [asyncio.ensure_future(play.one(takes=1.0)) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[victim + 1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert play.starts == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert play.pacer.statistics().in_flight == play.pacer.statistics().waiting == 0


async def test_cancelled_admission_is_passed_on(clock: FakeClock) -> None:
    pacer = Pacer(Pace(concurrency=1, rate=10), clock)
    permit = pacer.try_acquire()
    await clock.sleep(1.0)
    first, second = (asyncio.ensure_future(acquire(pacer)) for _ in range(2))
    await asyncio.sleep(0)
    pacer.release(permit, answered=True, elapsed=0.0)
    first.cancel()
    assert await second
    assert clock.time == 1.0, "nor is the slot of the rate lost"
    assert pacer.statistics() == PaceStatistics(2, 1, 1, 0, 0.0, 0, 0, "closed")


async def test_cancelled_permit_never_started(clock: FakeClock) -> None:
    pacer = Pacer(Pace(concurrency=1), clock)
    waiting = asyncio.ensure_future(Users(pacer, clock).one())
    permit = pacer.try_acquire()
    await asyncio.sleep(0)
    pacer.cancel(permit)
    assert await waiting
    assert pacer.statistics().started == 1


async def test_later_settings_apply_to_all(clock: FakeClock) -> None:
    play = users(clock, rate=0.01)
    run = asyncio.ensure_future(play.many(4))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    play.pacer.set(Pace(rate=10, concurrency=2))
    await run
    assert play.starts == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert play.pacer.pace == Pace(rate=10, concurrency=2)
    play.most = 0
    play.pacer.set(Pace(concurrency=2))
    await play.many(10)
    assert play.most == 2
    play.pacer.set(Pace(concurrency=5))
    await play.many(10)
    assert play.most == 5


async def test_settings_end_no_pause(clock: FakeClock) -> None:
    play = users(clock, concurrency=8)
    await play.one(takes=0.0, pause=10.0)
    play.pacer.set(Pace(concurrency=4, reset_timeout=1.0))
    await play.many(3, takes=1.0)
    assert play.starts[1:] == [10.0, 11.0, 11.0]


async def test_statistics_say_what_goes_on(clock: FakeClock) -> None:
    play = users(clock, concurrency=2)
    run = asyncio.ensure_future(play.many(5))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert play.pacer.statistics() == PaceStatistics(2, 2, 2, 3, 0.0, 0, 0, "closed")
    await run
    assert play.pacer.statistics() == PaceStatistics(5, 0, 2, 0, 0.0, 0, 0, "closed")
    await play.one(takes=0.0, pause=4.5)
    assert play.pacer.statistics() == PaceStatistics(6, 0, 1, 0, 4.5, 1, 1, "closed")


def client(token: Any = "t", url: str = "https://one.example", **settings: Any) -> DirectClient:
    return DirectClient(token, base_url=url, **settings)


def test_account_clients_share_pacer() -> None:
    class Mine(DirectClient):
        pass

    first = client()
    assert client()._pacer is first._pacer
    assert Mine("t", base_url="https://one.example:443")._pacer is first._pacer
    assert client("u")._pacer is not first._pacer
    assert client(url="https://two.example")._pacer is not first._pacer
    assert client(clock=FakeClock())._pacer is not first._pacer
    pace = Pace(rate=3)
    assert client(pace=pace)._pacer.pace is pace
    assert first._pacer.pace is pace
    client()
    assert first._pacer.pace is pace, "no pace leaves it as it is"


def test_unused_account_is_forgotten(clock: FakeClock) -> None:
    pacer = get_pacer(("gone",), Pace(rate=3), clock)
    assert get_pacer(("gone",), None, clock) is pacer
    del pacer
    gc.collect()
    assert get_pacer(("gone",), None, clock).pace == Pace()


def test_threads_share_one_pace() -> None:
    pacer = get_pacer(("threads",), Pace(concurrency=3, rate=2000), SYSTEM)
    lock = threading.Lock()
    in_flight = most = done = 0

    async def work() -> None:
        nonlocal in_flight, most, done
        for _ in range(10):
            permit = pacer.try_acquire() or await acquire(pacer)
            with lock:
                in_flight += 1
                most = max(most, in_flight)
            await asyncio.sleep(0.0005)
            with lock:
                in_flight -= 1
                done += 1
            pacer.release(permit, answered=True, elapsed=0.0005)

    async def many() -> None:
        async with asyncio.timeout(10):
            await asyncio.gather(*(work() for _ in range(8)))

    threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == 160
    assert most <= 3
    assert pacer.statistics().in_flight == pacer.statistics().waiting == 0


def test_dead_loop_waiter_blocks_none() -> None:
    pacer = Pacer(Pace(concurrency=1), SYSTEM)
    loop = asyncio.new_event_loop()
    permit = pacer.try_acquire()
    lost = loop.create_task(acquire(pacer))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def next_one() -> int:
        waiting = asyncio.ensure_future(acquire(pacer))
        await asyncio.sleep(0)
        pacer.release(permit, answered=True, elapsed=0.0)
        async with asyncio.timeout(1):
            return await waiting

    assert asyncio.run(next_one())
    lost.get_coro().close()  # type: ignore[union-attr]
    lost._log_destroy_pending = False  # type: ignore[attr-defined]


class CollectingClock(type(SYSTEM)):  # type: ignore[misc]
    """Each look at the clock collects garbage, as any allocation may."""

    collects = False

    def monotonic(self) -> float:
        if self.collects:
            gc.collect()
        return float(super().monotonic())


@pytest.mark.parametrize("in_flight", [False, True])
def test_collected_call_does_not_deadlock(in_flight: bool) -> None:
    """The garbage collector ends coroutines of a dead loop in any thread, also while it holds the lock."""
    clock = CollectingClock()
    pacer = Pacer(Pace(concurrency=2), clock)

    async def call() -> None:
        permit = await acquire(pacer)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            pacer.release(permit, answered=None, elapsed=0.0)

    def dead_loop() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        tasks = [loop.create_task(call()) for _ in range(5 if not in_flight else 2)]
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        del tasks

    def go_on() -> None:
        async def acquire_often() -> None:
            for _ in range(4):
                permits.append(await acquire(pacer))
                pacer.release(permits[-1], answered=True, elapsed=0.1)

        asyncio.run(acquire_often())

    gc.collect()
    gc.freeze()  # or each of its collections looks through all that the suite holds
    gc.disable()
    try:
        dead_loop()
        clock.collects = True
        permits: list[int] = []
        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        thread.join(10)
    finally:
        gc.enable()
    assert permits == [1, 1, 1, 1]
    assert (pacer.in_flight, pacer.statistics().waiting) == (0, 0)


async def test_forked_child_starts_empty(clock: FakeClock) -> None:
    pacer = Pacer(Pace(concurrency=1), clock)
    assert pacer.try_acquire()
    pacer._lock.acquire()  # a thread of the parent's, which is not here to give it back
    pacer.reset_after_fork()
    assert pacer.try_acquire()
    assert pacer.statistics().in_flight == 1


async def test_expired_waiters_use_no_memory(clock: FakeClock) -> None:
    play = users(clock, concurrency=1)
    for _ in range(20):
        await play.many(20, takes=0.1, until=clock.time + 1e6)
    assert len(play.pacer._waiters.deadlines) < 200


@pytest.mark.parametrize("bad", [0, -1, True, "5", math.inf, math.nan])
def test_rate_is_positive_and_finite(bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="rate must be "):
        Pace(rate=bad)


@pytest.mark.parametrize("bad", [0, -1, True, "many", 1.5, None])
def test_concurrency_is_integer_or_auto(bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="concurrency must be "):
        Pace(concurrency=bad)


@pytest.mark.parametrize(
    "bad", [{"failure_threshold": 0}, {"failure_threshold": 1.1}, {"reset_timeout": 0}, {"reset_timeout": "5"}]
)
def test_breaker_has_valid_settings(bad: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(bad))} must be "):
        Pace(**bad)

"""A run on an idle account starts with one attempt: the limit of the account, in virtual time."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from dispatchkit import Pace
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.testing import FakeClock
from tests.harness import acquire


class Run:
    """A run as the pacer sees it."""


class Play:
    """Attempts through one pacer, and when each of them started."""

    def __init__(self, **pace: Any) -> None:
        self.clock = FakeClock()
        self.pacer = Pacer(Pace(**pace), self.clock)
        self.starts: list[float] = []

    async def one(self, *, takes: float = 1.0, **outcome: Any) -> None:
        permit = self.pacer.try_acquire() or await acquire(self.pacer)
        self.starts.append(self.clock.time)
        await self.clock.sleep(takes)
        self.pacer.release(permit, **({"answered": True, "elapsed": takes} | outcome))

    async def many(self, count: int, **settings: Any) -> None:
        await asyncio.gather(*(self.one(**settings) for _ in range(count)))

    def counts(self, *moments: float) -> list[int]:
        return [self.starts.count(moment) for moment in moments]

    @property
    def limit(self) -> int:
        return self.pacer.statistics().concurrency_limit


@pytest.mark.parametrize("pace", [{}, {"concurrency": 16}, {"concurrency": "auto"}])
async def test_limit_doubles_with_each_round(pace: dict[str, Any]) -> None:
    play = Play(**pace)
    play.pacer.begin_run(Run(), ramp=True)
    await play.many(31)
    assert play.counts(0, 1, 2, 3, 4) == [1, 2, 4, 8, 16]


async def test_ramp_keeps_rate() -> None:
    play = Play(rate=2)
    play.pacer.begin_run(Run(), ramp=True)
    await play.many(7, takes=1.0)
    assert play.starts == [0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]


async def test_silence_admits_one_more() -> None:
    play = Play()
    play.pacer.begin_run(Run(), ramp=True)
    await play.many(10, takes=70.0)
    assert play.starts == [2.0 * number for number in range(10)]


async def test_hanging_attempt_blocks_no_ramp() -> None:
    play = Play()
    play.pacer.begin_run(Run(), ramp=True)
    hangs = asyncio.ensure_future(play.one(takes=1000.0))
    await asyncio.sleep(0)
    await play.many(31, takes=1.0)
    assert play.clock.time < 10
    hangs.cancel()


async def test_half_open_breaker_blocks_ramp() -> None:
    play = Play(reset_timeout=5.0)
    run = Run()
    play.pacer.begin_run(run, ramp=True)
    await play.many(64, takes=0.0, answered=False)
    play.starts.clear()
    await play.many(3, takes=20.0, answered=False)
    assert play.starts == [5.0, 35.0, 75.0], "one attempt decides, however long it takes"


@pytest.mark.parametrize("outcome", [{"grows": False}, {"answered": False}, {"answered": None}])
async def test_ramp_needs_target_responses(outcome: dict[str, Any]) -> None:
    play = Play(failure_threshold=1)
    play.pacer.begin_run(Run(), ramp=True)
    await play.many(5, **outcome)
    assert play.starts == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert play.limit == 1


async def test_target_refusals_allow_ramp() -> None:
    play = Play()
    play.pacer.begin_run(Run(), ramp=True)
    await play.many(7, grows=True)
    assert play.counts(0, 1, 2) == [1, 2, 4]


async def test_busy_account_keeps_its_limit() -> None:
    play = Play(concurrency=16)
    call = asyncio.ensure_future(play.one(takes=1.0))
    await asyncio.sleep(0)
    play.pacer.begin_run(Run(), ramp=True)
    await play.many(15)
    assert play.starts == [0.0] * 16
    await call


async def test_known_run_starts_fully() -> None:
    play = Play(concurrency=16)
    play.pacer.begin_run(Run(), ramp=False)
    await play.many(16)
    assert play.starts == [0.0] * 16


@pytest.mark.parametrize(("pace", "limit"), [({"concurrency": 16}, 16), ({"concurrency": "auto"}, 4)])
async def test_later_calls_do_not_ramp(pace: dict[str, Any], limit: int) -> None:
    play, run = Play(**pace), Run()
    play.pacer.begin_run(run, ramp=True)
    await play.one()
    waiting = [asyncio.ensure_future(play.one()) for _ in range(16)]
    await asyncio.sleep(0)
    assert play.limit == 2
    play.pacer.end_run(run)
    assert play.limit == limit
    await asyncio.gather(*waiting)
    assert play.starts[1:].count(1.0) == limit


async def test_last_run_ends_ramp() -> None:
    play, first, second = Play(), Run(), Run()
    play.pacer.begin_run(first, ramp=True)
    play.pacer.begin_run(second, ramp=True)
    play.pacer.end_run(first)
    assert play.limit == 1
    del second
    gc.collect()
    play.pacer.end_run(first)
    assert play.limit == 1024, "a run that was dropped counts no more"


async def test_ramp_pause_outlasts_run() -> None:
    play, run = Play(concurrency=8), Run()
    play.pacer.begin_run(run, ramp=True)
    await play.one(pause=3.0)
    play.pacer.end_run(run)
    assert play.limit == 1
    await play.many(7)
    assert play.starts[1:] == [4.0, 5.0, 5.0, 6.0, 6.0, 6.0, 6.0]


async def test_steady_state_is_reached() -> None:
    play = Play(concurrency=64)
    play.pacer.begin_run(Run(), ramp=True)
    assert not play.pacer._adaptive_limit.is_fixed
    await play.many(63)
    assert play.pacer._adaptive_limit.is_fixed
    await play.many(128)
    assert max(play.starts.count(moment) for moment in play.starts) == 64


async def test_changed_setting_continues_ramp() -> None:
    play, run = Play(concurrency=64), Run()
    play.pacer.begin_run(run, ramp=True)
    play.pacer.set(Pace(concurrency=8))
    assert play.limit == 1
    await play.many(3)
    assert play.counts(0, 1) == [1, 2]
    play.pacer.end_run(run)
    assert play.limit == 8

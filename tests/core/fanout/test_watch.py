"""A run can be watched: the watch looks now and then, starts and delays nothing, and ends with the run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import FanOut, Ledger, Pace, RetryPolicy, Snapshot
from dispatchkit.core.fanout.snapshot import RateMeter, time_left
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.testing.clock import FakeClock
from tests.fake_transport import FakeTransport, throttled
from tests.harness import hide_state, played, turns, until


async def watched(run: FanOut[Any], every: float = 1.0) -> list[Snapshot]:
    return [snapshot async for snapshot in run.watch(every)]


async def test_watch_ends_with_run() -> None:
    client, _ = played(pace=Pace(rate=10))
    run = client.start_many(range(1, 51))
    watching = [asyncio.create_task(watched(run)) for _ in range(2)]
    assert not run.is_over
    await run.finish()
    assert run.is_over
    for task in watching:
        first, *between, last = await task
        assert (first.report.done, first.rate, first.is_over, first.time_left) == (0, None, False, None)
        assert [round(snapshot.report.done, -1) for snapshot in between] == [10, 20, 30, 40]
        assert between[-1].rate == pytest.approx(10, rel=0.1)
        assert between[1].time_left == pytest.approx(3, abs=0.3)
        assert (last.report.done, last.in_flight, last.time_left, last.is_over) == (50, 0, 0.0, True)


async def test_end_wakes_watch() -> None:
    clock = FakeClock()
    client, _ = played(clock)
    run = client.start_many([1, 2])
    watching = asyncio.create_task(watched(run, 1000.0))
    await run.finish()
    first, last = await watching
    assert not first.is_over
    assert last.is_over
    assert clock.time < 1000


async def test_over_run_is_seen_once() -> None:
    client, _ = played()
    run = client.start_many([1])
    await run.finish()
    (only,) = await watched(run)
    assert (only.report.done, only.rate, only.is_over) == (1, None, True)


async def test_untaken_outcomes_may_wait() -> None:
    client, _ = played()
    run = client.start_many([1, 2, 3])
    assert (await anext(run)).error is None
    await until(lambda: run.is_over)
    assert len(await run.batch()) == 2


async def test_stopped_run_is_over() -> None:
    client, _ = played()
    run = client.start_many(range(1, 100), concurrency=2)
    run.stop()
    assert run.is_over
    assert [snapshot.is_over for snapshot in await watched(run)] == [True]


async def test_failed_opening_ends_watch(tmp_path: Path) -> None:
    clock = FakeClock(jumps=False)
    client, _ = played(clock)
    async with Ledger(tmp_path / "launch.db", clock=clock) as ledger:
        run = FanOut(client, None, ledger=ledger, run="none")
        watching = asyncio.create_task(watched(run, 1e6))
        with pytest.raises(Exception, match="holds no run"):
            await run.finish()
        assert (await watching)[-1].is_over


async def test_watch_sees_pause_and_settling() -> None:
    def says(transport: FakeTransport, number: int) -> Any:
        if number == 1:
            return TransportFailure("no answer", sent=True)
        return throttled(60.0) if number == 2 and transport.clock.time < 10 else None

    client, transport = played(says=says, retry=RetryPolicy())
    hide_state(transport)
    run = client.start_many([1, 2], timeout=100.0)
    watching, began = asyncio.create_task(watched(run)), transport.clock.now()
    await run.finish()
    seen = await watching
    assert max(snapshot.settling or 0 for snapshot in seen) == 1
    times = {snapshot.believed_from for snapshot in seen if snapshot.settling}
    (believed_from,) = {time.replace(microsecond=0) for time in times if time is not None}
    assert None not in times
    assert 60 <= (believed_from - began).total_seconds() <= 66
    assert max(snapshot.paused_for or 0 for snapshot in seen) > 50
    assert (seen[-1].settling, seen[-1].believed_from, seen[-1].report.unknown) == (0, None, 1)


async def test_watch_keeps_nothing_alive() -> None:
    client, transport = played()
    run = client.start_many(range(1, 100))
    watching: AsyncIterator[Snapshot] = run.watch()
    await anext(watching)
    await turns()
    assert transport.seen == []
    await run.close()
    assert (await anext(watching)).is_over
    with pytest.raises(StopAsyncIteration):
        await anext(watching)


@pytest.mark.parametrize("every", [0, -1, float("nan"), "1", True])
async def test_interval_is_checked(every: Any) -> None:
    client, _ = played()
    with pytest.raises((TypeError, ValueError), match="every must be"):
        client.start_many([1]).watch(every)


def test_rate_covers_half_a_minute() -> None:
    meter = RateMeter()
    rates = [meter.rate(float(now), count) for now, count in [(0, 0), (0, 0), (1, 100), (31, 100), (61, 160)]]
    assert rates == [None, None, 100.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("left", "rate", "paused_for", "expected"),
    [(10, 5.0, 3.0, 5.0), (10, 0.0, 0.0, None), (10, None, 0.0, None), (None, 5.0, 0.0, None), (0, 0.0, 2.0, 2.0)],
)
def test_time_left_is_estimated(
    left: int | None, rate: float | None, paused_for: float, expected: float | None
) -> None:
    assert time_left(left, rate, paused_for) == expected

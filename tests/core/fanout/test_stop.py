"""The stop button: nothing new within a moment, wherever the workers wait, and a report that is complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dispatchkit import DirectClient, FanOut, Pace, Report, RetryPolicy, StartDispatch
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.sandbox import Sandbox
from dispatchkit.testing import FakeClock
from tests.fake_transport import throttled
from tests.harness import hide_state, played, starts, turns, until

N = 100


async def stopped_in_time(run: FanOut[Any], *, length: int | None = N) -> Report:
    """Stop it, and see that it ends without its waits and that its report adds up."""
    run.stop()
    report = await asyncio.wait_for(run.finish(), 5)
    if length is not None:
        assert report.not_started is not None
        assert report.total + report.not_started == length
    assert run.in_flight == 0
    return report


@pytest.mark.parametrize("pace", [Pace(rate=0.001), Pace(concurrency=1)])
async def test_waiting_workers_start_nothing(pace: Pace) -> None:
    client, transport = played(FakeClock(jumps=False), pace=pace)
    run = FanOut(client, list(starts(range(1, N + 1))), concurrency=8, grace_period=0.01)
    waiting = asyncio.ensure_future(run.finish())
    await until(lambda: client._pacer.statistics().waiting == 7)
    report = await stopped_in_time(run)
    assert report == Report(unknown=1, not_started=N - 1)
    assert len(transport.seen) == 1
    assert (client._pacer.statistics().waiting, client._pacer.statistics().in_flight) == (0, 0)
    await waiting


@pytest.mark.usefixtures("no_ramp")
@pytest.mark.parametrize("sent", [False, True])
async def test_waiting_repeats_give_up(sent: bool) -> None:
    clock = FakeClock(jumps=False)
    client, transport = played(
        clock,
        takes=lambda _: 0.1,
        says=lambda *_: throttled(60) if sent else TransportFailure("no connection", sent=False),
        pace=Pace(failure_threshold=1),
    )
    run = FanOut(client, list(starts(range(1, N + 1))), concurrency=8)
    waiting = asyncio.ensure_future(run.finish())
    await until(lambda: transport.in_flight == 8)
    clock.advance(0.1)
    await turns()
    report = await stopped_in_time(run)
    assert report == (Report(rejected=8, not_started=N - 8) if sent else Report(not_sent=8, not_started=N - 8))
    await waiting


@pytest.mark.usefixtures("no_ramp")
async def test_settling_calls_become_unknown() -> None:
    clock = FakeClock(jumps=False)
    client, transport = played(clock, says=lambda *_: TransportFailure("reset", sent=True))
    hide_state(transport)
    run = FanOut(client, list(starts(range(1, N + 1))), concurrency=4)
    waiting = asyncio.ensure_future(run.finish())
    await until(lambda: transport.in_flight == 4)
    clock.advance(0.1)
    await turns()
    assert await stopped_in_time(run) == Report(unknown=4, not_started=N - 4)
    await waiting


async def test_blocked_source_does_not_delay() -> None:
    closed = False

    async def source() -> AsyncIterator[StartDispatch]:
        nonlocal closed
        try:
            yield StartDispatch(1)
            await asyncio.Event().wait()
        finally:
            closed = True

    client, transport = played()
    run = FanOut(client, source(), concurrency=8)
    assert (await anext(run)).state == "done"
    await turns()
    assert await stopped_in_time(run, length=None) == Report(done=1)
    assert closed
    assert len(transport.seen) == 1


async def test_idle_consumer_does_not_delay() -> None:
    client, _ = played()
    run = FanOut(client, list(starts(range(1, N + 1))), concurrency=4)
    await anext(run)
    await client._context.clock.sleep(5)
    run.stop()
    outcomes = [outcome async for outcome in run]
    assert 1 + len(outcomes) == run.report.total
    assert run.report.total + (run.report.not_started or 0) == N


@pytest.mark.usefixtures("no_ramp")
async def test_calls_in_flight_are_awaited() -> None:
    client, transport = played(takes=lambda _: 3.0)
    run = FanOut(client, list(starts(range(1, N + 1))), concurrency=4)
    waiting = asyncio.ensure_future(run.finish())
    await until(lambda: transport.in_flight == 4)
    run.stop()
    run.stop()
    assert await waiting == Report(done=4, not_started=N - 4)


@pytest.mark.usefixtures("no_ramp")
async def test_grace_period_ends_as_unknown() -> None:
    client, transport = played(FakeClock(jumps=False))
    run = FanOut(client, list(starts(range(1, N + 1))), concurrency=4, grace_period=0.02)
    waiting = asyncio.ensure_future(run.finish())
    await until(lambda: transport.in_flight == 4)
    assert await stopped_in_time(run) == Report(unknown=4, not_started=N - 4)
    await waiting
    assert transport.in_flight == 0


@pytest.mark.usefixtures("no_ramp")
async def test_cancelled_worker_leaves_outcome() -> None:
    client, transport = played(FakeClock(jumps=False))
    run = FanOut(client, list(starts(range(1, N + 1))), concurrency=2, grace_period=0.01)
    waiting = asyncio.ensure_future(run.finish())
    await until(lambda: transport.in_flight == 2)
    assert run._pool.workers is not None
    next(iter(run._pool.workers)).cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        await waiting
    assert run.report == Report(unknown=2, not_started=N - 2)


async def test_closed_unstarted_run_is_over() -> None:
    client, transport = played()
    run = FanOut(client, list(starts(range(1, N + 1))), concurrency=2)
    waiting = asyncio.ensure_future(run.finish())
    await turns(1)
    async with asyncio.timeout(1):
        await run.close()
        assert await waiting == Report(not_started=N)
    assert transport.seen == []


async def test_unstarted_cancelled_workers_leave_remainder() -> None:
    client, transport = played()
    run = FanOut(client, list(starts(range(1, N + 1))), concurrency=2)
    waiting = asyncio.ensure_future(run.finish())
    await turns(1)
    for worker in run._pool.workers or ():
        worker.cancel()
    async with asyncio.timeout(1):
        with pytest.raises(RuntimeError, match="cancelled"):
            await waiting
    assert run.report == Report(not_started=N)
    assert transport.seen == []


async def test_source_can_stop_run() -> None:
    client, transport = played()

    def source() -> Iterator[StartDispatch]:
        for number in range(1, N + 1):
            if number == 5:
                run.stop()
            yield StartDispatch(number)

    run = FanOut(client, source(), concurrency=2)
    assert (await run.finish()).done == 4
    assert len(transport.seen) == 4


async def test_nothing_is_sent_after_stop() -> None:
    async with Sandbox(latency=0.02) as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        run = direct.start_many(range(1, 10_001), concurrency=16)
        async for _ in run:
            if run.report.done >= 40:
                break
        run.stop()
        arrived = sandbox.requests + 16
        report = await run.finish()
        assert sandbox.requests <= arrived
        assert report.total == report.done == sum(sandbox.launches.values())
        assert report.not_started == 10_000 - report.total


async def test_stopped_settings_leave_neighbours_alone() -> None:
    client, _ = played(pace=Pace(concurrency=2), retry=RetryPolicy(attempts=1))
    first = FanOut(client, list(starts(range(1, N + 1))), concurrency=4)
    second = FanOut(client, list(starts(range(1, N + 1))), concurrency=4)
    both = asyncio.gather(first.finish(), second.finish())
    await until(lambda: first.report.done >= 3)
    first.stop()
    assert (await both)[1] == Report(done=N, not_started=0)


async def test_close_passes_cancellation_on() -> None:
    client, _ = played(FakeClock())

    async def leave_early() -> bool:
        async with FanOut(client, starts([1])) as run:
            async for _ in run:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                break
        return True

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(leave_early())

"""What ends a run by itself, what is refused before it begins, and what two runs of one account share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tenacity import wait_none

from dispatchkit import AuthenticationError, DirectClient, FanOut, Pace, Report, RetryPolicy, StartDispatch
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.sandbox import Fault, Sandbox
from tests.fake_transport import throttled
from tests.harness import played, refusal, starts, turns, until


async def aiterate(ids: Iterable[int]) -> AsyncIterator[StartDispatch]:
    for number in ids:
        await asyncio.sleep(0)
        yield StartDispatch(number)


@given(
    length=st.integers(0, 30),
    most=st.integers(1, 35),
    concurrency=st.integers(1, 12),
    asynchronous=st.booleans(),
    refused=st.sets(st.integers(1, 30)),
)
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
async def test_max_launches_is_never_passed(
    length: int, most: int, concurrency: int, asynchronous: bool, refused: set[int]
) -> None:
    client, transport = played(says=lambda _, number: refusal(4031) if number in refused else None)
    source: Any = aiterate(range(1, length + 1)) if asynchronous else list(starts(range(1, length + 1)))
    run = FanOut(client, source, concurrency=concurrency, max_launches=most)
    report = await run.finish()
    launched = min(length, most)
    assert sorted(number for _, number in transport.seen) == list(range(1, launched + 1))
    assert report.total == launched
    assert report.not_started == (None if asynchronous else length - launched)


async def test_max_launches_stops_reading_source() -> None:
    async def source() -> AsyncIterator[StartDispatch]:
        yield StartDispatch(1)
        await asyncio.Event().wait()

    client, _ = played()
    async with asyncio.timeout(1):
        assert await FanOut(client, source(), concurrency=8, max_launches=1).finish() == Report(done=1)


async def test_max_launches_ends_silent_source() -> None:
    """The other workers already wait for a command when the last permitted one comes."""
    ids: asyncio.Queue[int] = asyncio.Queue()

    async def source() -> AsyncIterator[StartDispatch]:
        while True:
            yield StartDispatch(await ids.get())

    client, _ = played()
    run = FanOut(client, source(), concurrency=4, max_launches=2)
    finishing = asyncio.create_task(run.finish())
    for number in (1, 2):
        await turns()
        ids.put_nowait(number)
    async with asyncio.timeout(1):
        assert await finishing == Report(done=2)
    assert run.stop_reason is not None
    assert run.stop_reason.kind == "max_launches"


@pytest.mark.parametrize("length", [0, 4, 6])
@pytest.mark.parametrize("kind", [list, iter])
async def test_unexpected_length_is_refused_first(length: int, kind: Any) -> None:
    client, transport = played()
    with pytest.raises(ValueError, match=f"there are {length} commands, but expected=5: nothing was started"):
        FanOut(client, kind(list(starts(range(1, length + 1)))), expected=5)
    assert transport.seen == []
    assert await FanOut(client, kind(list(starts(range(1, 6)))), expected=5).finish() == Report(done=5, not_started=0)


async def test_uncountable_source_has_no_expectation() -> None:
    client, _ = played()
    with pytest.raises(TypeError, match="expected= needs commands that can be counted"):
        FanOut(client, aiterate([1]), expected=1)


@pytest.mark.parametrize("failures", [1, 3, 10])
async def test_max_failures_ends_run(failures: int) -> None:
    client, transport = played(says=lambda _, number: refusal(4031) if number % 2 else None)
    run = FanOut(client, list(starts(range(1, 1001))), concurrency=4, stop_after_failures=failures)
    report = await run.finish()
    assert failures <= report.rejected <= failures + 4
    assert report.total + (report.not_started or 0) == 1000
    assert len(transport.seen) == report.total


@pytest.mark.parametrize("name", ["max_launches", "stop_after_failures", "expected"])
@pytest.mark.parametrize("bad", [-1, True, "5", 1.5])
def test_a_guard_is_an_integer(name: str, bad: Any) -> None:
    client, _ = played()
    with pytest.raises((TypeError, ValueError), match=f"{name} must be an integer from "):
        FanOut(client, [], **{name: bad})


@pytest.mark.parametrize("iterating", [False, True])
async def test_wrong_token_ends_run_once(iterating: bool) -> None:
    async with Sandbox() as sandbox, DirectClient("d3Jvbmc6d3Jvbmc=", base_url=sandbox.url) as direct:
        run = direct.start_many(range(1, 10_001), concurrency=8)
        outcomes = []
        with pytest.raises(AuthenticationError) as caught:  # noqa: PT012
            if iterating:
                async for outcome in run:
                    outcomes.append(outcome)  # noqa: PERF401 - what came before the error is kept
            else:
                await run.finish()
        assert "d3Jvbmc" not in str(caught.value)
        assert 1 <= sandbox.requests <= 8
        assert run.report == Report(rejected=sandbox.requests, not_started=10_000 - sandbox.requests)
        assert len(outcomes) == (sandbox.requests if iterating else 0)
        assert await run.finish() == run.report, "it is said once"


async def test_runs_share_account_limits() -> None:
    pace = Pace(rate=20, concurrency=3)
    one, first = played(pace=pace)
    other, second = played(one._context.clock)  # type: ignore[arg-type]
    other._context.transport = first  # type: ignore[assignment]
    del second
    runs = [FanOut(client, starts(range(1, 41)), concurrency=8) for client in (one, other)]
    reports = await asyncio.gather(*(run.finish() for run in runs))
    assert reports == [Report(done=40)] * 2
    times = [at for at, _ in first.seen]
    assert all(after - before >= 0.05 - 1e-9 for before, after in pairwise(times))
    assert times[-1] == pytest.approx(80 * 0.05), "the second start waits for the first answer"
    assert first.most <= 3
    assert one.statistics().pace.started == 80


@pytest.mark.usefixtures("no_ramp")
async def test_one_429_pauses_all_workers() -> None:
    client, transport = played(
        pace=Pace(concurrency=8), takes=lambda s: 1.0, says=lambda s, _: throttled(30) if len(s.seen) == 8 else None
    )
    runs = [FanOut(client, starts(range(n, n + 40)), concurrency=6) for n in (1, 100)]
    assert await asyncio.gather(*(run.finish() for run in runs)) == [Report(done=40)] * 2
    times = [at for at, _ in transport.seen]
    assert times[:8] == [0.0] * 8
    assert min(times[8:]) >= 31.0
    assert client.statistics().pace.pauses == 1


async def test_real_429_pauses_all_workers() -> None:
    loop = asyncio.get_running_loop()
    async with (
        Sandbox(latency=0.002) as sandbox,
        DirectClient(
            sandbox.direct_token, base_url=sandbox.url, retry=RetryPolicy(throttled_wait=wait_none())
        ) as direct,
    ):
        run = direct.start_many(range(1, 201), concurrency=16)
        task = asyncio.ensure_future(run.finish())
        await until(lambda: run.report.done >= 50)
        sandbox.order(Fault.throttled(retry_after=0.08))
        await until(lambda: direct.statistics().pace.throttled > 0)
        processed, arrived, in_flight = loop.time(), sandbox.requests, direct.statistics().pace.in_flight
        while loop.time() < processed + 0.075:
            await asyncio.sleep(0.005)
            assert sandbox.requests <= arrived + in_flight, "what had left before; nothing new"
        report = await task
        assert report == Report(done=200, not_started=0)
        assert direct.statistics().pace.pauses == 1


async def test_paused_call_sends_no_probe() -> None:
    client, transport = played(
        takes=lambda s: 0.5 * len(s.seen),
        says=lambda _, number: TransportFailure("reset", sent=True) if number == 2 else throttled(20),
    )
    asked: list[float] = []
    real = transport.send

    async def send(request: Any, tracker: Any, **settings: Any) -> Any:
        if request.method == "GET":
            asked.append(transport.clock.time)
            return refusal(4030)
        return await real(request, tracker, **settings)

    transport.send = send  # type: ignore[method-assign]
    await asyncio.gather(client.start(1), client.start(2), return_exceptions=True)
    assert asked
    assert min(asked) >= 20.5


async def test_unsendable_command_uses_no_rate() -> None:
    client, transport = played(pace=Pace(rate=1))
    run = client.start_many([1, 0, -5, 2])
    assert await run.finish() == Report(done=2, not_sent=2, not_started=0)
    assert [at for at, _ in transport.seen] == [0.0, 1.0]

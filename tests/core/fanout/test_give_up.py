"""A run whose provider stays away ends, and each run that ends early says why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_fixed

from dispatchkit import DirectClient, FanOut, Ledger, Pace, Report, RetryPolicy, StartDispatch
from dispatchkit.core.command import Response
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.testing.clock import START
from tests.fake_transport import FakeTransport, throttled
from tests.harness import played, refusal, starts, until
from tests.wire import Listener, http

N = 1000
ONCE = RetryPolicy(attempts=1)


def away(*_: object) -> TransportFailure:
    return TransportFailure("no connection", sent=False)


def commands() -> list[StartDispatch]:
    return list(starts(range(1, N + 1)))


def since(seconds: float) -> Any:
    return pytest.approx(START + timedelta(seconds=seconds), abs=timedelta(seconds=1))


async def test_open_breaker_ends_run() -> None:
    client, transport = played(says=away)
    run = FanOut(client, commands(), concurrency=64, give_up_after=900)
    report = await run.finish()
    assert client.statistics().pace.breaker != "closed"
    assert 900 <= transport.clock.time <= 902
    assert report.done == report.rejected == report.unknown == 0
    assert report.not_started
    assert report.not_sent + report.not_started == N
    reason = run.stop_reason
    assert reason is not None
    assert (reason.kind, reason.silent_since) == ("gave_up", START)
    assert str(reason) == "the provider has answered nothing since 2026-01-01 00:00:00 UTC (give_up_after=900)"


@pytest.mark.parametrize(
    "response",
    [
        Response(503, {}, b""),
        TransportFailure("no answer within 70 s", sent=True),
        TransportFailure("reset", sent=True),
    ],
)
async def test_provider_failures_are_no_responses(response: Response | TransportFailure) -> None:
    client, transport = played(takes=lambda _: 5.0, says=lambda *_: response, retry=ONCE, timeout=60)
    run = FanOut(client, commands(), concurrency=4, give_up_after=300)
    report = await run.finish()
    assert run.stop_reason is not None
    assert run.stop_reason.kind == "gave_up"
    assert report.unknown
    assert report.not_started
    assert 300 <= transport.clock.time <= 360


async def test_probe_response_resets_silence() -> None:
    client, transport = played(takes=lambda _: 5.0, says=lambda *_: Response(503, {}, b""), retry=ONCE, timeout=60)
    real = transport.send

    async def send(request: Any, tracker: Any, **settings: Any) -> Any:
        if request.method == "GET":
            return Response(200, {}, b'{"total": 0, "items": []}')
        return await real(request, tracker, **settings)

    transport.send = send  # type: ignore[method-assign]
    run = client.start_many([1, 2], give_up_after=30)
    assert (await run.finish()).unknown == 2
    assert run.stop_reason is None


@pytest.mark.parametrize("response", [None, refusal(4031), throttled(1.0)])
async def test_silence_starts_at_last_response(response: Response | None) -> None:
    def says(transport: FakeTransport, _: int) -> Response | TransportFailure | None:
        return response if transport.clock.time < 500 else away()

    client, transport = played(takes=lambda _: 10.0, says=says, pace=Pace(concurrency=1))
    run = FanOut(client, commands(), concurrency=8, give_up_after=100)
    await run.finish()
    assert run.stop_reason is not None
    assert run.stop_reason.kind == "gave_up"
    last = run.stop_reason.silent_since
    assert last is not None
    assert 480 <= (last - START).total_seconds() <= 500
    assert 100 <= (START + timedelta(seconds=transport.clock.time) - last).total_seconds() <= 120


async def test_provider_pause_is_no_silence() -> None:
    client, transport = played(
        says=lambda transport, _: throttled(3600) if len(transport.seen) == 1 else None, timeout=7200
    )
    run = FanOut(client, commands(), concurrency=8, give_up_after=60)
    assert await run.finish() == Report(done=N, not_started=0)
    assert transport.clock.time > 3600
    assert run.stop_reason is None


async def test_slow_rate_is_no_silence() -> None:
    client, transport = played(pace=Pace(rate=0.01))
    run = FanOut(client, list(starts(range(1, 6))), concurrency=8, give_up_after=60)
    assert await run.finish() == Report(done=5, not_started=0)
    assert transport.clock.time > 400


async def test_slow_source_is_no_silence() -> None:
    client, transport = played()

    async def source() -> AsyncIterator[StartDispatch]:
        for number in range(1, 5):
            await transport.clock.sleep(500)
            yield StartDispatch(number)

    run = FanOut(client, source(), concurrency=8, give_up_after=60)
    assert await run.finish() == Report(done=4)


async def test_slow_responses_are_awaited() -> None:
    client, _ = played(takes=lambda _: 50.0)
    run = FanOut(client, list(starts(range(1, 9))), concurrency=2, give_up_after=60)
    assert await run.finish() == Report(done=8, not_started=0)


async def test_grace_period_bounds_last_call() -> None:
    client, transport = played()

    async def send(_: object, tracker: Any, **__: object) -> Any:
        tracker.sent = True
        await asyncio.Event().wait()

    transport.send = send  # type: ignore[assignment]
    run = FanOut(client, commands(), concurrency=2, give_up_after=10, grace_period=0.01)
    finishing = asyncio.ensure_future(run.finish())
    await until(lambda: run.stop_reason is not None)
    report = await asyncio.wait_for(finishing, 5)
    assert report == Report(unknown=2, not_started=N - 2)
    assert transport.clock.time <= 12
    assert len(asyncio.all_tasks()) <= 2


async def test_watch_ends_with_the_run() -> None:
    client, _ = played()
    for ending in ("finish", "close"):
        run = FanOut(client, list(starts(range(1, 9))), concurrency=2, give_up_after=10)
        await anext(run)
        await getattr(run, ending)()
        assert run._tasks
        assert all(task.done() for task in run._tasks)


async def test_abandoned_run_is_resumed(tmp_path: Path) -> None:
    async with (
        Listener(http(503), None) as server,
        DirectClient("key", base_url=server.url, retry=ONCE, timeout=0.5) as client,
        Ledger(tmp_path / "a.db") as ledger,
    ):
        settings: Any = {"ledger": ledger, "run": "a", "concurrency": 4}
        run = client.start_many(range(1, 101), give_up_after=0.3, **settings)
        report = await run.finish()
        assert run.stop_reason is not None
        assert run.stop_reason.kind == "gave_up"
        assert report.done == 0
        assert report.not_started is not None
        assert report.unknown + report.not_sent + report.not_started == 100
        counts = await ledger.counts("a")
        assert (counts.planned, counts.sending) == (report.not_started, 0)
        server.answers = [
            http(200, {"total": 1, "items": [{"dispatchId": number, "status": "sending"} for number in range(1, 101)]})
        ]
        assert (await client.start_many(range(1, 101), max_launches=1, **settings).finish()).total >= 1


@pytest.mark.parametrize(("bad", "error"), [(0, ValueError), (-1.0, ValueError), ("1h", TypeError), (True, TypeError)])
def test_give_up_after_takes_seconds(bad: Any, error: type[Exception]) -> None:
    client, _ = played()
    with pytest.raises(error, match="give_up_after"):
        FanOut(client, [], give_up_after=bad)


async def test_max_failures_is_stop_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dispatchkit")
    client, transport = played(
        takes=lambda transport: 10.0 if len(transport.seen) > 3 else 1.0,
        says=lambda _, number: refusal(4031) if number <= 3 else None,
    )
    run = FanOut(client, commands(), concurrency=8, stop_after_failures=3)
    report = await run.finish()
    assert report.rejected == 3
    assert report.total == len(transport.seen)
    reason = run.stop_reason
    assert reason is not None
    assert (reason.kind, str(reason)) == ("stop_after_failures", "3 failures (stop_after_failures=3)")
    assert reason.in_flight == report.done
    assert f"the run ends early: 3 failures (stop_after_failures=3); {report.done} in flight" in caplog.messages


@pytest.mark.usefixtures("no_ramp")
async def test_waiting_repeat_counts_as_idle() -> None:
    def says(_: object, number: int) -> Any:
        return away() if number == 1 else refusal(4031) if number == 2 else None

    client, _ = played(
        says=says, takes=lambda transport: float(len(transport.seen)), retry=RetryPolicy(wait=wait_fixed(50))
    )
    run = FanOut(client, list(starts(range(1, 4))), concurrency=3, stop_after_failures=1)
    assert await run.finish() == Report(done=1, rejected=1, not_sent=1, not_started=0)
    assert run.stop_reason is not None
    assert run.stop_reason.in_flight == 1


async def test_max_launches_is_stop_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dispatchkit")
    client, _ = played()
    run = FanOut(client, commands(), max_launches=7)
    assert (await run.finish()).done == 7
    assert run.stop_reason is not None
    assert (run.stop_reason.kind, str(run.stop_reason)) == ("max_launches", "7 launches (max_launches=7)")
    assert [text for text in caplog.messages if "7 launches (max_launches=7)" in text]


async def test_whole_run_has_no_reason() -> None:
    client, _ = played()
    async with FanOut(client, list(starts(range(1, 8))), max_launches=7, stop_after_failures=1) as run:
        assert (await run.finish()).done == 7
        assert run.stop_reason is None
    assert run.stop_reason is None


async def test_stop_is_a_reason() -> None:
    client, _ = played()
    run = FanOut(client, commands(), concurrency=2)
    await anext(run)
    run.stop()
    await run.finish()
    assert run.stop_reason is not None
    assert run.stop_reason.kind == "stopped"


async def test_iterator_error_is_stop_reason() -> None:
    client, _ = played()

    def source() -> Iterator[StartDispatch]:
        yield StartDispatch(1)
        raise KeyError("private")

    run = FanOut(client, source(), concurrency=2)
    with pytest.raises(KeyError):
        await run.finish()
    assert run.stop_reason is not None
    assert (run.stop_reason.kind, str(run.stop_reason)) == ("failed", "KeyError was raised")


async def test_external_stop_is_stop_reason(tmp_path: Path) -> None:
    async with (
        Listener(http(200, {"dispatchId": 1}), None) as server,
        DirectClient("key", base_url=server.url) as client,
        Ledger(tmp_path / "a.db") as ledger,
    ):
        commands = list(starts(range(1, 33)))
        run = FanOut(client, commands, ledger=ledger, run="a", concurrency=2, grace_period=0.1)
        finishing = asyncio.ensure_future(run.finish())
        await server.arrived.wait()
        await ledger.stop("a")
        await asyncio.wait_for(finishing, 10)
        assert run.stop_reason is not None
        assert run.stop_reason.kind == "stopped_elsewhere"

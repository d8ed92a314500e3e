"""The pause that a provider asks for: bounded, logged, kept by all calls, and lifted by a person."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import threading
from typing import Any

import pytest

from dispatchkit import DirectClient, OutcomeUnknownError, Pace, State, ThrottledError, sync
from dispatchkit.core.command import Request, Response
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.testing import FakeClock
from dispatchkit.testing.clock import START as MIDNIGHT
from tests.core.call.test_settling import LOST, NOON, START, STARTED, play, response, status
from tests.fake_transport import FakeTransport
from tests.harness import acquire


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "dispatchkit.pace")
    return caplog


class Readable(FakeTransport):
    """It answers a state read, too: the dispatch is sending."""

    reads = 0

    async def send(self, request: Request, tracker: object, **settings: object) -> Response | TransportFailure:
        if request.method != "GET":
            return await super().send(request, tracker, **settings)
        self.reads += 1
        return status("sending")


def client_of(transport: FakeTransport, pace: Pace | None = None) -> DirectClient:
    client = DirectClient("key", clock=transport.clock, pace=pace)
    client._context.transport = transport  # type: ignore[assignment]
    return client


def throttles_once(retry_after: float | str) -> Any:
    return lambda played, _: Response(429, {"Retry-After": str(retry_after)}, b"") if len(played.seen) == 1 else None


def lines(log: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in log.records if record.name == "dispatchkit.pace"]


@pytest.mark.parametrize("text", ["1767225600", "1e300", "inf", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT", "86400"])
async def test_max_pause_bounds_retry_after(clock: FakeClock, log: pytest.LogCaptureFixture, text: str) -> None:
    transport = FakeTransport(clock, says=throttles_once(text))
    client = client_of(transport)
    with pytest.raises(ThrottledError) as caught:
        await client.start(1)
    assert caught.value.retry_after is not None
    assert caught.value.retry_at is not None
    assert caught.value.retry_after >= 86400
    assert client.statistics().pace.paused_for == 3600
    report = await client.start_many([2, 3]).finish()
    assert report.done == 2
    assert transport.seen[1] == (pytest.approx(3600.1), 2)
    ((level, message),) = lines(log)
    assert level == "WARNING"
    assert message.startswith("the account is paused until 01:00:00 UTC (by Retry-After): max_pause (3600 s) ends ")
    assert message.endswith(f" before the provider's pause at {caught.value.retry_at:%Y-%m-%d %H:%M:%S} UTC")


def test_endless_pause_is_logged(clock: FakeClock, log: pytest.LogCaptureFixture) -> None:
    Pacer(Pace(), clock).throttle(math.inf)
    ((_, message),) = lines(log)
    assert message.endswith(" before the provider's pause at 9999-12-31 00:00:00 UTC")


async def test_pause_is_logged_once(clock: FakeClock, log: pytest.LogCaptureFixture) -> None:
    pacer = Pacer(Pace(), clock)
    for pause in (90.0, 90.5, 60.0, 0.0):
        pacer.throttle(pause)
    pacer.throttle(86_000.0)
    assert lines(log)[0] == ("INFO", "the account is paused until 00:01:30 UTC (by Retry-After)")
    assert [level for level, _ in lines(log)] == ["INFO", "WARNING"]
    await clock.sleep(86_390)
    pacer.throttle(30.0, by="HTTP 429")
    assert lines(log)[-1] == ("INFO", "the account is paused until 2026-01-02 00:00:20 UTC (by HTTP 429)")


async def test_short_pause_is_not_logged(clock: FakeClock, log: pytest.LogCaptureFixture) -> None:
    Pacer(Pace(), clock).throttle(0.9)
    assert lines(log) == []


async def test_log_handler_reads_statistics(clock: FakeClock) -> None:
    pacer = Pacer(Pace(), clock)
    seen: list[float] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(pacer.statistics().paused_for)

    logger, handler = logging.getLogger("dispatchkit.pace"), Handler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        permit = pacer.try_acquire()
        pacer.release(permit, answered=True, elapsed=0.1, pause=30.0)
        pacer.lift()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert seen == [30.0, 0.0]


@pytest.mark.parametrize("bad", [0, -1.0, math.inf, math.nan, "1", True, None])
def test_max_pause_takes_seconds(bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^max_pause must be"):
        Pace(max_pause=bad)


async def test_smaller_max_pause_shortens_pause(clock: FakeClock) -> None:
    pacer = Pacer(Pace(), clock)
    pacer.throttle(3000.0)
    pacer.set(Pace(max_pause=60.0))
    assert (pacer.paused_for(), pacer.throttled_for()) == (60.0, 60.0)
    pacer.set(Pace(max_pause=600.0))
    assert pacer.paused_for() == 60.0


BUSY = response(503, None, Retry_After="20")


async def test_server_error_honours_retry_after() -> None:
    told = await play(START, [BUSY, STARTED], [status("initiated")])
    assert (told.state, told.launches) == (State.DONE, 2)
    assert told.transport.read[0][0] >= 21
    told = await play(START, [BUSY, STARTED], [status("sending")])
    assert (told.state, told.launches) == (State.DONE, 1)


async def test_failed_probe_honours_retry_after() -> None:
    for busy in (BUSY, response(429, None, Retry_After="20")):
        told = await play(START, [LOST, STARTED], [busy, busy, status("sending")])
        assert (told.state, told.launches) == (State.DONE, 1)
        times = [at for at, _ in told.transport.read]
        assert all(later - earlier >= 21 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize(
    "busy", [response(503, None, Retry_After="1767225600"), response(502, None, Retry_After="241")]
)
async def test_overlong_pause_ends_call(busy: Response) -> None:
    told = await play(START, [busy], [status("sending")])
    assert isinstance(told.error, OutcomeUnknownError)
    assert told.elapsed == 1
    assert "the account is paused until 2026-03-01 1" in str(told.error)
    assert told.transport.read == []


async def test_server_pause_is_not_429(clock: FakeClock) -> None:
    busy = Response(503, {"Retry-After": "1767225600"}, b"")
    transport = FakeTransport(clock, says=lambda played, _: busy if len(played.seen) == 1 else None)
    client = client_of(transport)
    with pytest.raises(OutcomeUnknownError):
        await client.start(1)
    pace = client.statistics().pace
    assert (pace.paused_for, pace.throttled, pace.pauses) == (3600, 0, 1)
    with pytest.raises(Exception, match=f"paused until {MIDNIGHT:%Y-%m-%d} 01:00:00 UTC, beyond the deadline"):
        await client.start(2)


async def test_zero_retry_after_pauses_nothing(clock: FakeClock) -> None:
    transport = FakeTransport(clock, says=throttles_once("0"))
    client = client_of(transport)
    await client.start(1)
    assert [at for at, _ in transport.seen] == [0.0, pytest.approx(1.1)]
    assert client.statistics().pace.throttled == 1
    busy = Response(503, {"Retry-After": "0"}, b"")
    client = client_of(Readable(clock, says=lambda *_: busy))
    before = client.statistics().pace.pauses
    assert (await client.start(7)).settled
    assert client.statistics().pace.pauses == before


async def test_repeat_keeps_own_retry_after(clock: FakeClock) -> None:
    transport = FakeTransport(clock, says=throttles_once(7200))
    client = client_of(transport)
    await client.start(1, timeout=8000)
    assert [at for at, _ in transport.seen] == [0.0, pytest.approx(7200.1, abs=2.5)]


async def _settled(task: asyncio.Future[Any]) -> Any:
    for _ in range(50):
        await asyncio.sleep(0)
    assert task.done()
    return task.result()


async def test_lift_wakes_all_that_wait(log: pytest.LogCaptureFixture) -> None:
    clock = FakeClock(jumps=False)
    says = throttles_once(200)
    transport = Readable(clock, takes=lambda _: 0.0, says=says)
    client = client_of(transport)
    repeating = asyncio.ensure_future(client.start(1))
    while not client.statistics().pace.paused_for:
        clock.advance(0)
        await asyncio.sleep(0)
    queued = asyncio.ensure_future(client.start(2))
    orphan = client._call(START, unclear_since=NOON)
    asking = asyncio.ensure_future(orphan.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert (len(transport.seen), transport.reads) == (1, 0)
    assert orphan.context.stop.waiting
    assert client.lift_pause()
    for _ in range(100):
        clock.advance(0)
        await asyncio.sleep(0)
    assert clock.time == 0
    assert (await repeating).dispatch_id == 1
    assert (await queued).dispatch_id == 2
    assert (await asking).settled  # type: ignore[attr-defined]
    assert (len(transport.seen), transport.reads) == (3, 1)
    assert not client.lift_pause()
    assert lines(log)[-1] == ("INFO", "the pause of the account was lifted")


async def test_lift_keeps_local_hold(clock: FakeClock) -> None:
    pacer = Pacer(Pace(), clock)
    pacer.throttle(100.0)
    pacer.hold(5.0)
    assert pacer.lift()
    assert (pacer.paused_for(), pacer.throttled_for()) == (5.0, 0.0)
    assert not pacer.lift()
    pacer.throttle(100.0)
    assert pacer.lift(20.0)
    assert not pacer.lift(30.0)
    assert (pacer.paused_for(), pacer.throttled_for()) == (20.0, 20.0)


async def test_lift_wakes_call_across_threads() -> None:
    clock = FakeClock(jumps=False)
    pacer = Pacer(Pace(), clock)
    pacer.throttle(100.0)
    waiting = [asyncio.ensure_future(pacer.sleep(100.0)), asyncio.ensure_future(acquire(pacer))]
    await asyncio.sleep(0)
    thread = threading.Thread(target=pacer.lift)
    thread.start()
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    thread.join()


async def test_close_ends_pause_wait() -> None:
    clock = FakeClock(jumps=False)
    client = client_of(FakeTransport(clock, takes=lambda _: 0.0))
    client._pacer.throttle(100.0)
    call = client._call(START, unclear_since=NOON)
    asking = asyncio.ensure_future(call.run())
    other = asyncio.ensure_future(client._pacer.sleep(50.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(OutcomeUnknownError, match="told to stop"):
        await _settled(asking)
    assert clock.time == 0
    assert not other.done(), "another call of the account"
    other.cancel()


def test_blocking_client_lifts_the_pause() -> None:
    with sync.DirectClient("key", base_url="https://lift.test") as client:
        assert not client.lift_pause()
        client._async_client._pacer.throttle(100.0)
        assert client.lift_pause()
        assert client._async_client.statistics().pace.paused_for == 0

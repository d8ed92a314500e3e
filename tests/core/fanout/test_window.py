"""Nothing starts outside of the hours of a run, and what has begun ends in good order."""

from __future__ import annotations

import asyncio
import itertools
import logging
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tenacity import wait_fixed

from dispatchkit import DirectClient, FanOut, Ledger, Pace, Report, RetryPolicy, StartDispatch, State, Window, sync
from dispatchkit.core.call.gate import PacedGate, Permit
from dispatchkit.core.claim import ClaimAge
from dispatchkit.core.command import Response
from dispatchkit.core.fanout.window import in_words
from dispatchkit.core.fanout.window_gate import WindowClaim, WindowGate
from dispatchkit.core.stop import StopSignal
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.sandbox import Fault, Sandbox
from dispatchkit.testing import FakeClock
from dispatchkit.testing.clock import START
from tests.core.fanout.test_journal import with_journal
from tests.harness import played, starts, until

MOSCOW, BERLIN = ZoneInfo("Europe/Moscow"), ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)


def until_hour(hours: float) -> Window:
    return Window(not_after=START + hours * HOUR)


def kind(run: FanOut[Any]) -> str:
    assert run.stop_reason is not None
    return run.stop_reason.kind


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "a Window needs not_before=, not_after= or both"),
        ({"not_after": datetime(2026, 1, 1)}, "not_after must say its zone"),
        ({"not_before": START, "not_after": START}, "not_after must be later than not_before"),
        ({"not_before": START, "not_after": START - HOUR}, "not_after must be later than not_before"),
        ({"not_after": datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN)}, "does not exist in its zone"),
    ],
)
def test_bad_window_is_refused(bounds: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Window(**bounds)


def test_window_takes_datetimes_only() -> None:
    with pytest.raises(TypeError, match="not_after must be a datetime"):
        Window(not_after="21:00")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client, _ = played()
    with pytest.raises(TypeError, match="window must be a Window"):
        FanOut(client, [], window=START)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_fold_tells_which_hour() -> None:
    first, second = (datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=BERLIN) for fold in (0, 1))
    now = datetime(2026, 10, 25, tzinfo=UTC)
    assert Window(not_after=first).ends_in(now) == 1800
    assert Window(not_after=second).ends_in(now) == 5400


def test_window_pickles() -> None:
    window = Window(not_after=datetime(2026, 1, 1, 21, tzinfo=MOSCOW))
    assert pickle.loads(pickle.dumps(window)) == window


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 31, 21, tzinfo=MOSCOW), "2026-01-31 18:00:00 UTC (21:00:00 Europe/Moscow)"),
        (datetime(2026, 1, 31, 1, tzinfo=MOSCOW), "2026-01-30 22:00:00 UTC (2026-01-31 01:00:00 Europe/Moscow)"),
        (datetime.fromisoformat("2026-01-31T21:00+05:00"), "2026-01-31 16:00:00 UTC (21:00:00 +0500)"),
        (START, "2026-01-01 00:00:00 UTC"),
    ],
)
def test_time_is_told_twice(moment: datetime, text: str) -> None:
    assert in_words(moment) == text


@pytest.mark.second_stage
async def test_run_waits_for_opening(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dispatchkit.guards")
    clock = FakeClock()
    client, transport = played(clock)
    begun: list[datetime] = []
    transport.says = lambda *_: begun.append(clock.now())
    opening = (START + 9 * HOUR).astimezone(MOSCOW)
    run = client.start_many(range(1, 20), window=Window(not_before=opening))
    assert await run.finish() == Report(done=19, not_started=0)
    assert min(begun) >= opening
    assert "window: nothing starts until 2026-01-01 09:00:00 UTC (12:00:00 Europe/Moscow)" in caplog.messages


async def test_stop_ends_wait_for_opening() -> None:
    client, transport = played()
    run = client.start_many(range(1, 20), window=Window(not_before=datetime.now(UTC) + HOUR))
    finishing = asyncio.create_task(run.finish())
    await until(lambda: len(run._tasks) == 1 and run._pool._queued > 0)
    run.stop()
    async with asyncio.timeout(1):
        assert await finishing == Report(not_started=19)
    assert transport.seen == []


async def test_closed_window_starts_nothing() -> None:
    client, transport = played(FakeClock())
    run = client.start_many(range(1, 20), window=Window(not_after=START - HOUR))
    assert await run.finish() == Report(not_started=19)
    assert kind(run) == "window"
    assert str(run.stop_reason) == "the window ended at 2025-12-31 23:00:00 UTC"
    assert transport.seen == []


@pytest.mark.parametrize("has_ledger", [False, True])
async def test_window_ends_run(has_ledger: bool) -> None:
    clock = FakeClock()
    window = Window(not_after=START + timedelta(seconds=10.5))
    pace = Pace(rate=1)
    if has_ledger:
        client, journal = with_journal(clock=clock, pace=pace)
        run = FanOut(client, starts(range(1, 101)), ledger=journal, run="a", window=window, concurrency=4)
        transport = journal.transport
    else:
        client, transport = played(clock, pace=pace)
        run = FanOut(client, list(starts(range(1, 101))), window=window, concurrency=4)
    report = await run.finish()
    assert 9 <= report.done <= 12
    assert report.not_started == 100 - report.done
    assert len(transport.seen) == report.done
    assert kind(run) == "window"


async def test_call_in_flight_ends() -> None:
    clock = FakeClock(jumps=False)
    client, transport = played(clock)
    answer = asyncio.Event()
    send = transport.send

    async def held(*arguments: Any, **settings: Any) -> Response | TransportFailure:
        reply = await send(*arguments, **settings)
        await answer.wait()
        return reply

    transport.send = held  # type: ignore[method-assign]
    run = client.start_many(range(1, 20), window=until_hour(1), concurrency=2, grace_period=0.01)
    finishing = asyncio.create_task(run.finish())
    await until(lambda: run.in_flight == 1)
    clock.advance(3601)
    await until(lambda: run.stop_reason is not None)
    await asyncio.sleep(0.05)  # the grace period is no limit here
    assert not finishing.done()
    answer.set()
    assert await finishing == Report(done=1, not_started=18)
    assert kind(run) == "window"


async def test_stop_cuts_call_in_flight() -> None:
    clock = FakeClock(jumps=False)
    client, transport = played(clock)

    async def silent(*_: Any, **__: Any) -> Response | TransportFailure:
        await asyncio.Event().wait()
        raise AssertionError

    transport.send = silent  # type: ignore[method-assign]
    run = client.start_many(range(1, 20), window=until_hour(1), concurrency=2, grace_period=0.01)
    finishing = asyncio.create_task(run.finish())
    await until(lambda: run.in_flight == 1)
    clock.advance(3601)
    await until(lambda: run.stop_reason is not None)
    run.stop()
    async with asyncio.timeout(2):
        report = await finishing
    assert report.total == 1
    assert kind(run) == "window"


async def test_retry_is_a_start() -> None:
    clock = FakeClock()
    client, transport = played(clock, retry=RetryPolicy(wait=wait_fixed(60)))
    transport.says = lambda *_: TransportFailure("connection refused", sent=False)
    run = client.start_many([1, 2], window=Window(not_after=START + timedelta(seconds=30)), concurrency=1)
    outcomes = [outcome async for outcome in run]
    assert [outcome.state for outcome in outcomes] == [State.NOT_SENT]
    assert "its window ended at 2026-01-01 00:00:30 UTC" in str(outcomes[0].error)
    assert len(transport.seen) == 1
    assert kind(run) == "window"


async def finished(run: FanOut[Any], client: DirectClient, clock: FakeClock) -> Report:
    """The report of a run. Time passes only between its attempts: a clock that jumps does not see sockets."""
    running = asyncio.create_task(run.finish())
    while not running.done():
        await asyncio.sleep(0.001)
        pace = client.statistics().pace
        if pace.started and not pace.in_flight:
            clock.advance(1.0)
    return await running


async def test_settling_goes_on() -> None:
    clock = FakeClock(jumps=False)
    async with Sandbox(clock=clock.timestamp, read_lag=20) as sandbox:
        client = DirectClient(sandbox.direct_token, base_url=sandbox.url, clock=clock)
        sandbox.order(Fault.lost_answer())
        run = client.start_many([1, 2], window=Window(not_after=START + timedelta(seconds=5)), concurrency=1)
        assert await finished(run, client, clock) == Report(done=1, not_started=1)
        assert kind(run) == "window"
        assert client.statistics().state_reads >= 1
        assert sandbox.launches == {1: 1}
        await client.close()


async def test_claim_ends_with_window() -> None:
    """The machine slept between the permit and the first byte."""
    clock = FakeClock(jumps=False)
    claim = WindowClaim(clock, until_hour(1), None)
    clock.set_wall(3600)
    assert claim.is_expired()
    begun = WindowClaim(clock, until_hour(2), ClaimAge(clock))
    assert not begun.is_expired()
    assert begun.expires_at <= clock.boottime() + 5
    clock.set_wall(3600.1)
    assert not begun.was_stepped()
    clock.advance(7200)
    assert begun.is_expired()


async def test_sleep_before_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """A permit was granted inside of the window, and its first byte would leave outside."""
    clock, claims = FakeClock(jumps=False), itertools.count()
    make: Any = vars(WindowGate)["claim"].fget

    def slept(gate: WindowGate) -> ClaimAge | None:
        claim: ClaimAge | None = make(gate)
        if next(claims) == 1:
            clock.set_wall(3601)
        return claim

    monkeypatch.setattr(WindowGate, "claim", property(slept))
    async with Sandbox(clock=clock.timestamp) as sandbox:
        client = DirectClient(sandbox.direct_token, base_url=sandbox.url, clock=clock)
        run = client.start_many(range(1, 10), window=until_hour(1), concurrency=1)
        report = await run.finish()
        assert sandbox.launches == {1: 1}
        assert (report.done, report.not_sent, report.not_started) == (1, 1, 7)
        assert kind(run) == "window"
        await client.close()


async def test_resumed_run_has_no_window(tmp_path: Path) -> None:
    async with (
        Sandbox() as sandbox,
        DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct,
        Ledger(tmp_path / "l.db") as ledger,
    ):
        past = Window(not_after=datetime.now(UTC) - HOUR)
        run = direct.start_many(range(1, 20), ledger=ledger, run="a", window=past)
        assert await run.finish() == Report(not_started=19)
        assert kind(run) == "window"
        assert (await ledger.counts("a")).planned == 19
        assert (await direct.start_many(range(1, 20), ledger=ledger, run="a").finish()).done == 19


async def test_window_ends_wait_for_canary() -> None:
    clock = FakeClock(jumps=False)
    async with Sandbox(clock=clock.timestamp) as sandbox:
        sandbox.direct.stuck[1] = "initiated"
        client = DirectClient(sandbox.direct_token, base_url=sandbox.url, clock=clock)
        run = client.start_many(range(1, 20), canary=1, window=Window(not_after=START + timedelta(seconds=90)))
        assert await finished(run, client, clock) == Report(done=1, not_started=18)
        assert kind(run) == "window"
        assert clock.time < 120
        await client.close()


def test_blocking_run_has_window() -> None:
    with Sandbox() as sandbox, sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        run = direct.start_many(range(1, 20), window=Window(not_after=datetime.now(UTC) - HOUR))
        assert run.finish() == Report(not_started=19)
        assert run.stop_reason is not None
        assert run.stop_reason.kind == "window"
        open_now = Window(not_before=datetime.now(UTC), not_after=datetime.now(UTC) + HOUR)
        commands = map(StartDispatch, range(1, 20))
        assert sync.FanOut(direct, commands, window=open_now).finish().done == 19


class StubGate(PacedGate):
    """A gate that permits everything, after a wait."""

    __slots__ = ("asked", "clock", "expirations", "wait")

    def __init__(self, clock: FakeClock, wait: float) -> None:
        self.clock, self.wait, self.asked, self.expirations = clock, wait, 0, 0
        self.claim = self.refusal = None

    def try_acquire(self) -> Permit:
        return 7

    async def acquire(self, until: float) -> Permit:
        self.asked += 1
        self.clock.time += self.wait
        return 7

    def expired(self) -> None:
        self.expirations += 1


class Gated:
    """A gate with a window of one hour."""

    def __init__(self, *, wait: float = 0.0) -> None:
        self.clock = FakeClock()
        self.inner = StubGate(self.clock, wait)
        self.cancelled: list[Permit] = []
        self.ends = 0
        self.gate = WindowGate(
            self.inner,
            until_hour(1),
            self.clock,
            stop=StopSignal(),
            closed=StopSignal(),
            cancel=self.cancelled.append,
            end=self._end,
        )

    def _end(self) -> None:
        self.ends += 1


async def test_open_gate_permits() -> None:
    gated = Gated()
    assert (gated.gate.try_acquire(), await gated.gate.acquire(9.0), gated.ends) == (7, 7, 0)
    gated.gate.expired()
    assert (gated.inner.expirations, gated.gate.obstacle()) == (1, "")


async def test_closed_gate_permits_nothing() -> None:
    gated = Gated()
    gated.clock.time = 3600
    assert (gated.gate.try_acquire(), await gated.gate.acquire(9.0)) == (0, 0)
    assert (gated.inner.asked, gated.ends) == (0, 1)
    gated.gate.expired()
    assert gated.inner.expirations == 0, "the ledger's claim is not what expired"


async def test_late_permit_is_given_back() -> None:
    gated = Gated(wait=3600)
    assert await gated.gate.acquire(9.0) == 0
    assert (gated.inner.asked, gated.cancelled, gated.ends) == (1, [7], 1)

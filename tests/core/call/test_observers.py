"""Observers see each step of a call, a run and a pause, and change none of them."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from dispatchkit import (
    AltcraftClient,
    AttemptEnded,
    AuthenticationError,
    BreakerOpened,
    CallEnded,
    CallEvent,
    CallStarted,
    DirectClient,
    Event,
    FanOut,
    Ledger,
    NotFoundError,
    OutcomeUnknownError,
    Pace,
    Paused,
    RetryPolicy,
    RunEnded,
    RunStarted,
    State,
    StateRead,
    Waiting,
    sync,
    to_json,
)
from dispatchkit.core.call.pending import PendingCall
from dispatchkit.core.command import Response
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.direct.commands import ReadDispatches
from dispatchkit.sandbox import Fault, Sandbox
from tests.harness import played
from tests.schema import fits

QUICK = RetryPolicy.for_tests()


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def only(events: list[Event], event_type: type[Event]) -> Any:
    (event,) = [event for event in events if type(event) is event_type]
    return event


async def test_a_success_has_three_events(sandbox: Sandbox) -> None:
    events: list[Event] = []
    async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[events.append]) as direct:
        await direct.start(7)
    started, attempt, ended = events
    assert isinstance(started, CallStarted)
    assert isinstance(attempt, AttemptEnded)
    assert isinstance(ended, CallEnded)
    assert (started.command_type, started.target, started.index, started.run) == ("StartDispatch", 7, None, None)
    assert (started.method, started.url) == ("POST", f"{sandbox.url}/api/v1/dispatch/7/start")
    assert (attempt.number, attempt.status, attempt.outcome, attempt.sent) == (1, 200, State.DONE, True)
    assert (ended.outcome, ended.attempts, ended.state_reads, ended.error) == (State.DONE, 1, 0, None)
    assert 0 < attempt.duration <= ended.duration
    assert started.at <= attempt.at - timedelta(seconds=attempt.duration) <= ended.at
    assert {event.call for event in (started, attempt, ended)} == {started.call}
    assert abs(datetime.now(UTC) - ended.at) < timedelta(seconds=30)


async def test_every_step_is_told(sandbox: Sandbox) -> None:
    events: list[Event] = []
    sandbox.order(Fault.dropped())
    async with DirectClient(
        sandbox.direct_token, base_url=sandbox.url, observers=[events.append], retry=QUICK
    ) as direct:
        await direct.start(7)
        statistics = direct.statistics()
    assert names(events)[:3] == ["CallStarted", "AttemptEnded", "StateRead"]
    assert names(events)[-2:] == ["AttemptEnded", "CallEnded"]
    attempts = [event for event in events if isinstance(event, AttemptEnded)]
    assert [(event.number, event.outcome, event.status) for event in attempts] == [
        (1, State.UNKNOWN, None),
        (2, State.DONE, 200),
    ]
    reads = [event for event in events if isinstance(event, StateRead)]
    assert {(event.method, event.evidence, event.status) for event in reads} == {("GET", "not_applied", 200)}
    assert {event.url for event in reads} == {f"{sandbox.url}/api/v1/dispatch"}
    assert only(events, CallEnded).state_reads == len(reads) == statistics.state_reads
    assert {event.attempts for event in events if isinstance(event, Waiting)} == {1}
    for event in events:
        fits(event.to_dict(), type(event).__name__)
        json.dumps(event, default=to_json)


async def test_a_refusal_and_its_error(sandbox: Sandbox) -> None:
    events: list[Event] = []
    async with DirectClient("wrong", base_url=sandbox.url, observers=[events.append]) as direct:
        with pytest.raises(AuthenticationError):
            await direct.start(7)
    assert only(events, AttemptEnded).outcome is State.REJECTED
    ended = only(events, CallEnded)
    assert (ended.outcome, ended.error) == (State.REJECTED, "BadCredentialsError")


async def test_cancelled_call_has_end(sandbox: Sandbox) -> None:
    events: list[Event] = []
    sandbox.order(Fault.silent())
    async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[events.append]) as direct:
        call = asyncio.create_task(direct.start(7))
        while not sandbox.launches:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    attempt, ended = only(events, AttemptEnded), only(events, CallEnded)
    assert (attempt.result, attempt.outcome, attempt.status) == ("cancelled", State.UNKNOWN, None)
    assert (ended.outcome, ended.error, ended.attempts) == (State.UNKNOWN, "CancelledError", 1)


async def test_broken_codec_has_end() -> None:
    events: list[Event] = []
    client, transport = played(observers=[events.append])
    command = ReadDispatches()
    transport.send = lambda *_, **__: _answer()  # type: ignore[method-assign, assignment]
    type(command).result, real = _raise, type(command).result  # type: ignore[method-assign, assignment]
    try:
        with pytest.raises(OutcomeUnknownError):
            await client.perform(command)
    finally:
        type(command).result = real  # type: ignore[method-assign]
    assert names(events) == ["CallStarted", "AttemptEnded", "CallEnded"]
    assert only(events, AttemptEnded).outcome is State.UNKNOWN


async def _answer() -> Response:
    return Response(200, {}, b"{}")


def _raise(*_: object) -> None:
    raise ZeroDivisionError


async def test_run_has_name_and_index(sandbox: Sandbox, tmp_path: Path) -> None:
    events: list[Event] = []
    async with (
        Ledger(tmp_path / "launch.db") as ledger,
        DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[events.append]) as direct,
    ):
        await direct.start_many(range(1, 6), ledger=ledger, run="friday", max_launches=2).finish()
        started, ended = only(events, RunStarted), only(events, RunEnded)
        assert (started.run, started.total, started.previously_finished) == ("friday", 5, 0)
        assert (ended.done, ended.not_started, ended.stop_reason) == (2, 3, "max_launches")
        events.clear()
        await direct.start_many(range(1, 6), ledger=ledger, run="friday").finish()
        assert only(events, RunStarted).previously_finished == 2
        assert only(events, RunEnded).done == 5
    calls = [event for event in events if isinstance(event, CallEvent)]
    assert {(event.run, event.index, event.target) for event in calls} == {("friday", i, i + 1) for i in (2, 3, 4)}
    assert names(events)[0] == "RunStarted"
    assert names(events)[-1] == "RunEnded"


async def test_a_closed_run_ends_once(sandbox: Sandbox) -> None:
    events: list[Event] = []
    direct = DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[events.append])
    async with direct, direct.start_many(range(1, 100)) as run:
        async for _ in run:
            break
    counts = Counter(names(events))
    assert (counts["RunStarted"], counts["RunEnded"]) == (1, 1)
    assert counts["CallStarted"] == counts["CallEnded"] == counts["AttemptEnded"]
    assert only(events, RunEnded).stop_reason == "stopped"


async def test_pauses_come_once() -> None:
    events: list[Event] = []
    first, _ = played(
        observers=[events.append],
        says=lambda played, _: Response(429, {"Retry-After": "5"}, b"") if len(played.seen) == 1 else None,
    )
    second = DirectClient("t", clock=first._clock, observers=[events.append])
    assert second._pacer is first._pacer
    await first.start(7)
    paused = only(events, Paused)
    assert (paused.seconds, paused.by, paused.provider) == (5.0, "Retry-After", "direct")
    assert "Waiting" in names(events)
    await second.close()


async def test_a_closed_client_hears_nothing() -> None:
    events: list[Event] = []
    client, _ = played(observers=[events.append])
    await client.close()
    client._pacer.throttle(5)
    assert events == []


async def test_an_opened_breaker_is_told() -> None:
    events: list[Event] = []
    client, _ = played(
        observers=[events.append],
        says=lambda *_: TransportFailure("cut", sent=False),
        pace=Pace(reset_timeout=7),
    )
    await client.start_many(range(100), timeout=5).finish()
    opened = [event for event in events if isinstance(event, BreakerOpened)]
    assert opened[0].seconds == 7
    assert len(opened) <= client.statistics().pace.pauses
    assert not [event for event in events if isinstance(event, Paused)]


class Broken:
    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.count = 0

    def __call__(self, event: Event) -> None:
        self.count += 1
        raise self.error


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError(), GeneratorExit()], ids=repr)
async def test_broken_observer_is_logged_once(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    events: list[Event] = []
    broken = Broken(error)
    async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[broken, events.append]) as direct:
        report = await direct.start_many([1, 2, 3]).finish()
    assert report.done == 3
    assert len(events) == broken.count == 11
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == (
        f"the observer Broken raised on RunStarted {type(error).__name__}: its further exceptions are not logged"
    )


class Strange:
    """An observer whose every comparison raises, and also the look for a tracer."""

    def __call__(self, event: Event) -> None:
        raise ZeroDivisionError

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __hash__(self) -> int:
        raise ZeroDivisionError

    @property
    def trace_headers(self) -> object:
        raise ZeroDivisionError


async def test_strange_observers_change_nothing(sandbox: Sandbox) -> None:
    events: list[Event] = []
    observers: list[Any] = [Strange(), Strange(), Mock(side_effect=ZeroDivisionError), events.append]
    sandbox.order(Fault.throttled(retry_after=0.05))
    async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=observers, retry=QUICK) as direct:
        assert await direct.start(7)
    assert only(events, Paused)
    assert sandbox.launches[7] == 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError(), GeneratorExit()], ids=repr)
async def test_broken_tracer_changes_nothing(sandbox: Sandbox, error: BaseException) -> None:
    tracer = Mock(trace_headers=Mock(side_effect=error))
    async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[tracer]) as direct:
        assert await direct.start(7)


async def test_an_interrupt_frees_the_permit(sandbox: Sandbox) -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        pacer = direct._pacer
        watched = DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[interrupt])
        permit = watched._pacer.try_acquire()
        coroutine = watched._call(ReadDispatches()).run(permit=permit)
        with pytest.raises(KeyboardInterrupt):
            coroutine.send(None)
        assert pacer.in_flight == 0
        await watched.close()


async def test_failing_clock_costs_events(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[events.append]) as direct:
        monkeypatch.setattr(type(direct._pacer.watchers), "_made", _raise)
        direct._pacer.throttle(1.0)
        direct.lift_pause()
        await direct.start(7)
    assert names(events) == ["CallStarted", "AttemptEnded", "CallEnded"]


async def test_no_secret_and_no_content(sandbox: Sandbox) -> None:
    events: list[Event] = []
    async with AltcraftClient(sandbox.url, sandbox.altcraft_token, observers=[events.append]) as altcraft:
        await altcraft.activate(82, content={"field": "hunter2"})
    async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[events.append]) as direct:
        await direct.dispatches(status="hunter2")
        with pytest.raises(NotFoundError):
            await direct.start(100001)
    assert only(events[:3], CallStarted).request_id
    for shown in (repr(events), json.dumps(events, default=to_json)):
        assert "hunter2" not in shown
        assert sandbox.altcraft_token not in shown
        assert sandbox.direct_token not in shown


def test_blocking_clients_have_observers(sandbox: Sandbox) -> None:
    events: list[Event] = []
    with sync.DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[events.append]) as direct:
        direct.start(7)
        direct.start_many([8, 9]).finish()
    assert Counter(names(events)) == {
        "CallStarted": 3,
        "AttemptEnded": 3,
        "CallEnded": 3,
        "RunStarted": 1,
        "RunEnded": 1,
    }


async def test_no_observers_make_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = played()
    monkeypatch.setattr(Event, "__init__", _raise)
    call = client._call(ReadDispatches())
    assert type(call) is PendingCall
    await FanOut(client, [ReadDispatches()]).finish()
    gc.collect()

"""State from a cache is not believed: it may show what was true before the call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import attrs
import pytest
from multidict import CIMultiDict

from dispatchkit import AltcraftClient, DirectClient, DispatchkitError, State
from dispatchkit.core.command import Command, Request, Response
from dispatchkit.core.transport.transport import SendTracker, TransportFailure
from tests.core.call.test_settling import (
    ABORT,
    ACTIVATE,
    BROKEN,
    DEACTIVATE,
    LOST,
    NOON,
    START,
    STARTED,
    STOP,
    STOPPED,
    UNSENT,
    YES,
    Clock,
    active,
    client_of,
    response,
    status,
)
from tests.wire import Listener, http, once

Reply = Response | TransportFailure
Read = Callable[[float], Response]
"""What a question gets that is asked so many seconds after noon."""
DONE, UNKNOWN = State.DONE, State.UNKNOWN
HOUR = 3600.0


def date(at: float) -> str:
    return format_datetime(NOON + timedelta(seconds=at // 1), usegmt=True)


def with_headers(reply: Response, **headers: str) -> Response:
    return attrs.evolve(reply, headers=CIMultiDict(headers))


def aged(reply: Response, age: str) -> Read:
    return lambda at: with_headers(reply, Age=age)


def made(reply: Response, when: Callable[[float], float]) -> Read:
    return lambda at: with_headers(reply, Date=date(when(at)))


@attrs.define
class Provider:
    """A transport whose answers to questions depend on when they are asked."""

    clock: Clock
    acts: list[Reply]
    read: Read
    sent: list[float] = attrs.field(factory=list)

    async def send(self, request: Request, tracker: SendTracker, *, timeout: float) -> Reply:
        del timeout
        asked = self.clock.time
        self.clock.time += 1
        await asyncio.sleep(0)
        if request.method == "GET" or request.target.endswith(("get_status", "log_v2")):
            assert request.headers["Cache-Control"] == "no-cache"
            return self.read(asked)
        assert "Cache-Control" not in request.headers
        self.sent.append(asked)
        reply = self.acts.pop(0)
        tracker.sent = not isinstance(reply, TransportFailure) or reply.sent
        return reply

    async def close(self) -> None:
        """Nothing is open."""


async def play(command: Command[Any, object], acts: list[Reply], read: Read) -> tuple[State, list[float]]:
    clock = Clock()
    provider = Provider(clock, list(acts), read)
    client = client_of(command, clock, provider)
    try:
        await client.perform(command)  # type: ignore[arg-type]
    except DispatchkitError as error:
        return error.state, provider.sent
    return State.DONE, provider.sent


@pytest.mark.parametrize(
    "read",
    [
        aged(status("initiated"), "3600"),
        aged(status("initiated"), "0, 3600"),
        aged(status("initiated"), "99999999999"),
        aged(status("initiated"), "-1"),
        aged(status("initiated"), "soon"),
        made(status("initiated"), lambda at: -HOUR),
        made(status("initiated"), lambda at: -HOUR + at),
        made(status("initiated"), lambda at: 1),
        made(status("initiated"), lambda at: min(at, 30)),
    ],
    ids=["age", "two ages", "long age", "negative age", "no age", "old", "always an hour old", "kept", "kept later"],
)
@pytest.mark.parametrize("command", [START, STOP], ids=["start", "stop"])
async def test_stale_denial_allows_no_repeat(command: Command[Any, object], read: Read) -> None:
    assert await play(command, [LOST], read) == (UNKNOWN, [0])


async def test_undated_failure_keeps_state_stale() -> None:
    kept = made(active(True), lambda at: -HOUR)
    assert await play(ACTIVATE, [BROKEN], kept) == (UNKNOWN, [0])


async def test_earlier_state_is_not_ours() -> None:
    read = made(active(True), lambda at: 1)
    assert await play(ACTIVATE, [UNSENT, LOST], read) == (UNKNOWN, [0, 1.25])


@pytest.mark.parametrize("flag", [False, True])
async def test_stale_activity_allows_no_repeat(flag: bool) -> None:
    command = DEACTIVATE if flag else ACTIVATE
    assert await play(command, [LOST], aged(active(flag), "3600")) == (UNKNOWN, [0])
    assert await play(command, [LOST, YES], aged(active(flag), "0")) == (DONE, [0, pytest.approx(62, abs=1)])


@pytest.mark.parametrize(
    ("read", "earliest"),
    [
        (aged(status("initiated"), "0"), 62),
        (aged(status("initiated"), "10"), 72),
        (made(status("initiated"), lambda at: at), 62),
        (made(status("initiated"), lambda at: at - 10), 72),
        (made(status("initiated"), lambda at: at + HOUR), 62),
        (lambda at: with_headers(status("initiated"), Date=date(at), Age="20"), 82),
        (lambda at: with_headers(status("initiated"), Date="yesterday"), 62),
        # A cache that keeps an answer for 45 s.
        (made(status("initiated"), lambda at: at // 45 * 45), 92),
    ],
)
async def test_response_age_is_subtracted(read: Read, earliest: float) -> None:
    outcome, sent = await play(START, [LOST, STARTED], read)
    assert outcome is DONE
    assert earliest <= sent[1] <= earliest + 34


@pytest.mark.parametrize("ahead", [-HOUR, HOUR])
async def test_provider_clock_comes_from_responses(ahead: float) -> None:
    broken = with_headers(BROKEN, Date=date(1 + ahead))
    outcome, sent = await play(START, [broken, STARTED], made(status("initiated"), lambda at: at + ahead))
    assert (outcome, sent) == (DONE, [0, pytest.approx(63, abs=2)])
    for when in (lambda at: ahead - 100, lambda at: ahead + at - 1000, lambda at: ahead):
        assert await play(START, [broken], made(status("initiated"), when)) == (UNKNOWN, [0])


async def test_fast_clock_prevents_early_repeat() -> None:
    assert await play(START, [LOST], made(status("initiated"), lambda at: at - HOUR)) == (UNKNOWN, [0])


@pytest.mark.parametrize("word", ["scheduled", "sending", "awaiting", "paused", "stopped", "done"])
async def test_stale_status_confirms_start(word: str) -> None:
    assert await play(START, [LOST], aged(status(word), "3600")) == (DONE, [0])


async def test_stale_status_confirms_stop() -> None:
    assert await play(STOP, [LOST], aged(status("stopped"), "3600")) == (DONE, [0])
    assert await play(STOP, [LOST], aged(status("sending"), "3600")) == (UNKNOWN, [0])
    assert await play(STOP, [LOST, STOPPED], aged(status("sending"), "0")) == (DONE, [0, pytest.approx(62, abs=1)])


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        ("0", DONE),
        # The first question is asked a second after the attempt began, the next ones later.
        ("1", DONE),
        ("30", DONE),
        ("3600", UNKNOWN),
        ("soon", UNKNOWN),
    ],
)
@pytest.mark.parametrize("flag", [True, False])
async def test_earlier_activity_proves_nothing(read: str, outcome: State, flag: bool) -> None:
    command = ACTIVATE if flag else DEACTIVATE
    assert await play(command, [LOST], aged(active(flag), read)) == (outcome, [0])


async def test_earlier_response_is_probed_again() -> None:
    asked: list[float] = []

    def read(at: float) -> Response:
        asked.append(at)
        return with_headers(active(True), Date=date(min(at, -5) if len(asked) < 4 else at))

    assert await play(ACTIVATE, [LOST], read) == (DONE, [0])
    assert len(asked) == 4


async def test_stale_evidence_shows_its_age() -> None:
    clock = Clock()
    client = DirectClient("key", clock=clock)
    for age, words in (("3600", "that is 3600 s old"), ("soon", "of unknown age")):
        client._context.transport = Provider(clock, [LOST], aged(status("initiated"), age))  # type: ignore[assignment]
        with pytest.raises(DispatchkitError, match=rf"reads 'initiated' in an answer .*{words}, and the dead"):
            await client.start(7)


@pytest.mark.parametrize("command", [ACTIVATE, DEACTIVATE, ABORT])
async def test_replayed_response_is_no_state(command: Command[Any, object]) -> None:
    for name in ("Duplicate-Request", "X-Duplicate-Request"):
        replayed = with_headers(active(command is ACTIVATE), **{name: "true"})
        assert await play(command, [LOST], lambda at, replayed=replayed: replayed) == (UNKNOWN, [0])  # type: ignore[misc]


def listed(total: object, *items: tuple[int, str]) -> Response:
    rows = [{"dispatchId": number, "status": word} for number, word in items]
    return response(200, {"total": total, "items": rows} if total is not ... else {"items": rows})


OURS, OTHER = (7, "sending"), (8, "initiated")


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (listed(1, OURS), DONE),
        (listed(..., OURS), DONE),
        (listed(None, OURS), DONE),
        (listed("1", OURS), DONE),
        # The server passed over the filter.
        (listed(3, OTHER, OURS, (9, "done")), DONE),
        (listed(1), UNKNOWN),
        (listed(0), UNKNOWN),
        (listed(0, OURS), UNKNOWN),
        (listed(1, OURS, OURS), UNKNOWN),
        (listed(1, OURS, OTHER), UNKNOWN),
        (listed(2, OURS), UNKNOWN),
        (listed(500, OURS, OTHER), UNKNOWN),
    ],
    ids=repr,
)
@pytest.mark.parametrize("word", ["sending", "initiated"])
async def test_contradicting_count_is_inconclusive(reply: Response, outcome: State, word: str) -> None:
    body = reply.body.replace(b'7, "status": "sending"', f'7, "status": "{word}"'.encode())
    state, sent = await play(START, [LOST, STARTED], lambda at: attrs.evolve(reply, body=body))
    assert state is outcome
    assert len(sent) == (2 if outcome is DONE and word == "initiated" else 1)


async def test_every_reading_goes_past_caches() -> None:
    listing = http(200, {"total": 1, "items": [{"dispatchId": 7, "status": "sending"}]})
    async with Listener(listing) as listener, DirectClient("k", base_url=listener.url, **once()) as direct:
        await direct.dispatch(7)
        await direct.dispatches()
    assert [request.headers["Cache-Control"] for request in listener.requests] == ["no-cache"] * 2
    said = http(200, {"error": 0, "data": {"is_active": True}})
    async with Listener(said) as listener, AltcraftClient(listener.url, "t", **once()) as altcraft:
        await altcraft.status(7)
        await altcraft.launch_broadcast(7)
    assert [request.headers.get("Cache-Control") for request in listener.requests] == ["no-cache", None]

"""When a call is repeated, with what, and what it says afterwards: the default policy, in virtual time."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from dispatchkit import (
    DispatchkitError,
    InappropriateStatusError,
    NotSentError,
    OutcomeUnknownError,
    RetryPolicy,
    State,
    ThrottledError,
)
from dispatchkit.core.call.budget import RetryBudget
from dispatchkit.core.call.retry import DEFAULT_RETRY
from dispatchkit.sandbox import Call, DirectProvider, Reply
from tests.faults.actions import ACTIONS, ACTIVATE, DEACTIVATE, LAUNCH, RUN_NOW, START, STOP, Action, AnyClient
from tests.faults.cases import raw
from tests.faults.hostile_server import READS, Hostile, Stage, Strike
from tests.faults.simulated import VirtualClock

ALTCRAFT = [action for action in ACTIONS if action.has_request_id]


class Setup:
    """A server and a client that share a virtual clock, and when each request came."""

    def __init__(self, server: Hostile, client: AnyClient, clock: VirtualClock) -> None:
        self.server = server
        self.client = client
        self.clock = clock
        self.acting_at: list[float] = []
        self.reading_at: list[float] = []
        server.on_request = self._note

    def _note(self, call: Call) -> None:
        (self.reading_at if call.path in READS else self.acting_at).append(self.clock.time)


@asynccontextmanager
async def scene(
    action: Action, *strikes: Strike, provider: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Setup]:
    clock = VirtualClock(random.Random(1))
    played = action.provider(clock=clock.timestamp, **(provider or {}))
    settings = action.vouched | settings
    async with Hostile(played) as server, action.client(server.url, clock=clock, **settings) as client:
        server.order(*strikes)
        yield Setup(server, client, clock)


def loses(*, acts: bool) -> Strike:
    async def play(stage: Stage) -> None:
        if acts:
            stage.act()

    return Strike(play)


def says(data: bytes) -> Strike:
    async def play(stage: Stage) -> bool:
        await stage.peer.send(data)
        return True

    return Strike(play)


def throttles(*headers: str) -> Strike:
    return says(raw("429 Too Many Requests", b"", *headers))


@pytest.mark.parametrize("action", ALTCRAFT, ids=lambda action: action.name)
async def test_repeat_sends_same_bytes(action: Action) -> None:
    async with scene(action, throttles(), loses(acts=False), throttles()) as play:
        await play.client.perform(action.command)

    first, *others = play.server.acting
    assert len(others) == 3
    for other in others:
        assert (other.path, list(other.headers.items()), other.body) == (
            first.path,
            list(first.headers.items()),
            first.body,
        )
    assert first.headers["Request-ID"] == first.headers["X-Request-ID"]


@pytest.mark.parametrize("action", ALTCRAFT, ids=lambda action: action.name)
async def test_calls_have_different_ids(action: Action) -> None:
    async with scene(action) as play:
        await play.client.perform(action.command)
        await play.client.perform(action.command)

    assert len({call.headers["Request-ID"] for call in play.server.acting}) == 2


@pytest.mark.parametrize("action", [START, STOP], ids=lambda action: action.name)
async def test_denial_needs_state_lag(action: Action) -> None:
    async with scene(action, loses(acts=False), provider={"sending": 900.0}) as play:
        await play.client.perform(action.command)

    first, second = play.acting_at
    assert second - first >= DEFAULT_RETRY.state_lag
    assert action.acts(play.server.provider) == 1


@pytest.mark.parametrize("action", [START, STOP], ids=lambda action: action.name)
async def test_short_deadline_leaves_unknown(action: Action) -> None:
    async with scene(action, loses(acts=False), provider={"sending": 900.0}, timeout=50.0) as play:
        with pytest.raises(OutcomeUnknownError):
            await play.client.perform(action.command)

    assert len(play.acting_at) == 1
    assert play.clock.time <= 50.0


@pytest.mark.parametrize("action", [START, STOP], ids=lambda action: action.name)
@pytest.mark.parametrize("lag", [0.0, 1.0, 30.0, 59.0])
async def test_lagging_state_prevents_repeat(action: Action, lag: float) -> None:
    async with scene(action, loses(acts=True), provider={"read_lag": lag, "sending": 900.0}) as play:
        result = await play.client.perform(action.command)

    assert len(play.acting_at) == 1
    assert action.acts(play.server.provider) == 1
    assert play.clock.time >= lag
    if action is START:
        assert result.settled


@pytest.mark.parametrize("action", [LAUNCH, RUN_NOW], ids=lambda action: action.name)
@pytest.mark.parametrize("acts", [True, False])
async def test_undeduplicated_launch_is_not_repeated(action: Action, acts: bool) -> None:
    provider = {"deduplicates": False, "read_lag": 1000.0}
    async with scene(action, loses(acts=acts), provider=provider, deduplicates=False) as play:
        with pytest.raises(OutcomeUnknownError):
            await play.client.perform(action.command)

    assert len(play.acting_at) == 1
    assert play.clock.time <= 240.0


async def test_concurrently_stopped_repeat_is_done() -> None:
    async def late(stage: Stage) -> bool:
        stage.act()  # the first request, which was held up, is carried out just before the second
        refusal = stage.act()
        assert refusal.status == 403
        await stage.peer.send(refusal.raw())
        return True

    async with scene(STOP, loses(acts=False), Strike(late), provider={"sending": 900.0}) as play:
        await play.client.perform(STOP.command)

    assert len(play.acting_at) == 2
    assert STOP.acts(play.server.provider) == 1


async def test_refused_stop_repeat_is_rejected() -> None:
    async def finished(stage: Stage) -> bool:
        provider = stage.server.provider
        assert isinstance(provider, DirectProvider)
        provider.sending = provider.awaiting = 0.0
        await stage.peer.send(stage.act().raw())
        return True

    async with scene(STOP, loses(acts=False), Strike(finished), provider={"sending": 900.0}) as play:
        with pytest.raises(InappropriateStatusError) as caught:
            await play.client.perform(STOP.command)

    assert caught.value.code == 4031
    assert len(play.acting_at) == 2
    assert STOP.acts(play.server.provider) == 0


async def test_finished_dispatch_is_never_stopped() -> None:
    async with scene(STOP, loses(acts=False), provider={"sending": 0.0, "awaiting": 0.5}) as play:
        with pytest.raises(DispatchkitError) as caught:
            await play.client.perform(STOP.command)

    assert caught.value.state in {State.REJECTED, State.UNKNOWN}
    assert STOP.acts(play.server.provider) == 0


@pytest.mark.parametrize("action", [START, ACTIVATE, RUN_NOW, LAUNCH, DEACTIVATE], ids=lambda action: action.name)
async def test_result_shows_settled(action: Action) -> None:
    async with scene(action) as play:
        plain = await play.client.perform(action.command)
    async with scene(action, loses(acts=True), **dict.fromkeys(action.vouched, False)) as play:  # type: ignore[arg-type]
        settled = await play.client.perform(action.command)

    assert (plain.settled, settled.settled) == (False, True)


@pytest.mark.parametrize("action", [ACTIVATE, RUN_NOW, LAUNCH, DEACTIVATE], ids=lambda action: action.name)
@pytest.mark.parametrize("generation", ["newer", "older"])
async def test_result_shows_replayed(action: Action, generation: str) -> None:
    async with scene(action, loses(acts=True), provider={"replay_generation": generation}) as play:
        play.server.dark = lambda call: Reply.of_web_server(503)
        replayed = await play.client.perform(action.command)
    async with scene(action, provider={"replay_generation": generation}) as play:
        plain = await play.client.perform(action.command)

    assert (replayed.replayed, replayed.settled) == (True, False)
    assert (plain.replayed, plain.settled) == (False, False)


@pytest.mark.parametrize("action", [START, LAUNCH], ids=lambda action: action.name)
@pytest.mark.parametrize("wait", [0.25, 7.0, 30.0, 120.0])
async def test_retry_after_is_never_shortened(action: Action, wait: float) -> None:
    async with scene(action, throttles(f"Retry-After: {wait}")) as play:
        await play.client.perform(action.command)

    first, second = play.acting_at
    assert second - first >= wait
    assert action.acts(play.server.provider) == 1


@pytest.mark.parametrize("skew", [-3600, 0, 3600])
async def test_retry_date_uses_response_date(skew: int) -> None:
    async with scene(START) as play:
        theirs = play.clock.now() + timedelta(seconds=skew)
        until = theirs + timedelta(seconds=20)
        play.server.order(throttles(f"Date: {format_datetime(theirs)}", f"Retry-After: {format_datetime(until)}"))
        await play.client.perform(START.command)

    first, second = play.acting_at
    assert second - first >= 20


@pytest.mark.parametrize("text", ["240", "86400", "4294967", "9" * 400, "inf", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_overlong_retry_after_fails_early(text: str) -> None:
    async with scene(START, throttles(f"Retry-After: {text}")) as play:
        with pytest.raises(ThrottledError) as caught:
            await play.client.perform(START.command)

    assert play.clock.time == 0
    assert len(play.acting_at) == 1
    assert caught.value.retry_at is not None
    assert caught.value.retry_after is not None
    assert caught.value.retry_at >= play.clock.now() + timedelta(seconds=240)


@pytest.mark.parametrize("action", [START, LAUNCH], ids=lambda action: action.name)
async def test_policy_bounds_attempts(action: Action) -> None:
    for attempts in (1, 2, DEFAULT_RETRY.attempts):
        for strike in (throttles(), loses(acts=False)):
            retry = RetryPolicy(attempts=attempts)
            async with scene(action, retry=retry, timeout=5000.0) as play:
                play.server.forever = strike
                with pytest.raises(DispatchkitError) as caught:
                    await play.client.perform(action.command)
            # The repeat of a launch that is unclear too, before any replay was seen, is the last.
            most = min(attempts, 2) if action is LAUNCH and caught.value.state is State.UNKNOWN else attempts
            assert len(play.acting_at) == len(caught.value.attempts) == most


async def test_policy_excludes_retries() -> None:
    for strike in (throttles(), loses(acts=False)):
        async with scene(LAUNCH, strike, retry=RetryPolicy(retry_on=frozenset({"not_sent"}))) as play:
            with pytest.raises(DispatchkitError):
                await play.client.perform(LAUNCH.command)
        assert len(play.acting_at) == 1


@pytest.mark.parametrize(
    "action",
    [START, LAUNCH, *(pytest.param(action, marks=pytest.mark.second_stage) for action in (STOP, ACTIVATE))],
    ids=lambda action: action.name,
)
async def test_dead_provider_requests_are_bounded(action: Action) -> None:
    async with scene(action) as play:
        play.server.hangs_up = True
        calls = (play.client.perform(action.command, timeout=60) for _ in range(400))
        results = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(result) for result in results} == {OutcomeUnknownError}
    assert 400 <= play.server.connections <= 450 + RetryBudget.REFILL * 60


async def test_closed_port_connections_are_bounded() -> None:
    clock = VirtualClock(random.Random(1))
    attempts = 0
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, but not listening: the port stays refused
        async with START.client(f"http://127.0.0.1:{held.getsockname()[1]}", clock=clock) as client:
            calls = (client.perform(START.command, timeout=60) for _ in range(400))
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, NotSentError)
                attempts += len(error.attempts)
    assert 400 <= attempts <= 450 + RetryBudget.REFILL * 60

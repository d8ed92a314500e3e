"""Cancelled at any moment: it stops at once, sends nothing more, and knows whether anything had left."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import attrs
import pytest

from dispatchkit import DispatchkitError, State
from dispatchkit.core.call.pending import PendingCall
from dispatchkit.sandbox import Reply
from tests.faults.actions import LAUNCH, QUICK, START, Action
from tests.faults.cases import raw
from tests.faults.hostile_server import Hostile, Play, Stage, Strike


async def lose(stage: Stage) -> None:
    stage.act()


async def drop(stage: Stage) -> None:
    del stage


async def throttle(stage: Stage) -> bool:
    await stage.peer.send(raw("429 Too Many Requests", b"", "Retry-After: 0.005"))
    return True


async def hang(stage: Stage) -> None:
    stage.act()
    await stage.peer.hang()


STRIKES: dict[str, list[Play]] = {
    "honest": [],
    "loses": [lose],
    "drops": [drop] * 9,
    "throttles": [throttle] * 9,
    "hangs": [hang],
}


@attrs.frozen
class Ending:
    cancelled: bool
    outcome: State | None
    """None if the call was over before it could be cancelled and had a result."""
    saw: int
    acts: int
    call: PendingCall[Any, Any]
    sent_later: int


async def cancel(action: Action, kind: str, *, steps: int = 0, seconds: float = 0.0, warm: bool = False) -> Ending:
    """Cancel a call after so many turns of the loop, or so much time."""
    provider = action.provider()
    async with Hostile(provider) as server, action.client(server.url, timeout=5.0, retry=QUICK) as client:
        if warm:
            await client.perform(action.reads)
        server.order(*map(Strike, STRIKES[kind]))
        if kind == "drops":
            server.dark = lambda call: Reply.of_web_server(503)
        call = client._call(action.command)
        task = asyncio.ensure_future(call.run())
        for _ in range(steps):
            await asyncio.sleep(0)
        if seconds:
            await asyncio.sleep(seconds)
        task.cancel()
        outcome: State | None = None
        cancelled = False
        try:
            await task
        except asyncio.CancelledError:
            cancelled, outcome = True, call.known_outcome().state
        except DispatchkitError as error:
            outcome = error.state
        attempts = call.attempts
        await asyncio.sleep(0.01)  # what had left arrives
        seen = len(server.acting) + len(server.reading), server.bytes_seen, server.connections
        await asyncio.sleep(0.05)  # longer than any pause of the policy
        later = len(server.acting) + len(server.reading), server.bytes_seen, server.connections
        assert call.attempts == attempts
        return Ending(cancelled, outcome, server.bytes_seen, action.acts(provider), call, sum(later) - sum(seen))


def judge(ending: Ending, where: str, *, answered: bool) -> None:
    """``answered``: attempts before the last may have got an answer that said that nothing was done."""
    assert ending.acts <= 1, where
    assert ending.sent_later == 0, where
    if not ending.cancelled:
        return
    if ending.outcome is not State.UNKNOWN:
        assert ending.acts == 0, where
    if ending.outcome is State.NOT_SENT:
        assert not ending.saw, where
    if not answered:
        assert (ending.outcome is State.UNKNOWN) == bool(ending.saw), where
    if ending.saw:
        assert ending.call.attempts, where


@pytest.mark.second_stage
@pytest.mark.parametrize("kind", STRIKES)
@pytest.mark.parametrize("action", [START, LAUNCH], ids=lambda action: action.name)
async def test_cancel_after_any_loop_turn(action: Action, kind: str) -> None:
    before = asyncio.all_tasks()

    plays = [(steps, False) for steps in range(61)] + [(steps, True) for steps in range(0, 61, 2)]
    endings = await asyncio.gather(*(cancel(action, kind, steps=steps, warm=warm) for steps, warm in plays))

    for (steps, warm), ending in zip(plays, endings, strict=True):
        judge(ending, f"{kind}, {steps} turns, warm {warm}", answered=kind == "throttles")
    outcomes = Counter(ending.outcome for ending in endings if ending.cancelled)
    assert outcomes[State.NOT_SENT] > 0
    assert outcomes[State.UNKNOWN] > 0 or kind == "throttles"
    assert asyncio.all_tasks() == before


@pytest.mark.second_stage
@pytest.mark.parametrize("kind", ["loses", "drops", "throttles", "hangs"])
@pytest.mark.parametrize("action", [START, LAUNCH], ids=lambda action: action.name)
async def test_cancel_during_recovery(action: Action, kind: str) -> None:
    endings = await asyncio.gather(*(cancel(action, kind, seconds=moment / 1000) for moment in range(1, 90, 2)))

    for number, ending in enumerate(endings):
        judge(ending, f"{kind}, {number * 2 + 1} ms", answered=kind == "throttles")


async def cancelled_in_flight() -> asyncio.CancelledError:
    """Cancel a start that the server does not answer."""
    async with Hostile(START.provider()) as server, START.client(server.url) as client:
        server.order(Strike(hang))
        task = asyncio.ensure_future(client.perform(START.command))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert task.cancelled()
    return caught.value


async def test_cancellation_reports_known_state() -> None:
    notes = "\n".join((await cancelled_in_flight()).__notes__)
    assert "unknown" in notes
    assert str(START.command) in notes


@pytest.mark.parametrize("action", [START, LAUNCH], ids=lambda action: action.name)
async def test_outer_deadline_is_cancellation(action: Action) -> None:
    async with Hostile(action.provider()) as server, action.client(server.url) as client:
        server.order(Strike(hang))
        call = client._call(action.command)
        deadline = asyncio.timeout(None)
        server.on_request = lambda _: deadline.reschedule(asyncio.get_running_loop().time())

        async def bounded() -> None:
            async with deadline:
                await call.run()

        with pytest.raises(TimeoutError):
            await bounded()

    assert call.known_outcome().state is State.UNKNOWN

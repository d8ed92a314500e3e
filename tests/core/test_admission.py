"""What a call that is not admitted gives back: its place, its ticket, its claim."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

from dispatchkit import NotSentError, StartDispatch, State
from dispatchkit.core.call.call import Call
from dispatchkit.core.fanout.admission import Admission
from dispatchkit.core.fanout.journal import Entry, Leave
from dispatchkit.core.fanout.outcome import Outcome
from tests.stage import played, turns


@attrs.define
class Claims:
    """A journal that answers each claim as it is told."""

    answers: list[Any]
    recorded: list[Outcome[Any]] = attrs.field(factory=list)
    gate: asyncio.Event | None = None

    async def claim(self, entry: Entry[Any, Any], request_id: str | None) -> Leave:
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def record(self, entry: Entry[Any, Any], outcome: Outcome[Any]) -> None:
        self.recorded.append(outcome)


class Scene:
    """An admission with one place."""

    def __init__(self, *answers: Any, **settings: Any) -> None:
        self.client, self.transport = played(**settings)
        self.claims = Claims(list(answers))
        self.admission = Admission(
            1,
            pacer=self.client.pacer,
            journal=self.claims,  # type: ignore[arg-type]
            clock=self.client.clock,
            idly=lambda waiting: waiting,  # type: ignore[arg-type, return-value]
        )
        self.entry = Entry(0, StartDispatch(7))

    def call(self) -> Call[Any, Any]:
        return self.client.call(StartDispatch(7))

    def admit(self) -> asyncio.Future[int | Leave]:
        return asyncio.ensure_future(self.admission.admit(self.entry, self.call()))

    @property
    def free(self) -> int:
        return self.admission._places._value

    @property
    def in_flight(self) -> int:
        return self.client.statistics().pace.in_flight


@pytest.mark.parametrize("answer", [Leave.GONE, Leave.STOPPED])
async def test_a_refused_claim_gives_place_and_ticket_back(answer: Leave) -> None:
    scene = Scene(answer)
    assert await scene.admit() is answer
    assert (scene.free, scene.in_flight) == (1, 0)
    assert scene.claims.recorded == [], "nothing was claimed"


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
async def test_a_claim_that_raises_gives_place_and_ticket_back(kind: type[BaseException]) -> None:
    raised = kind("mine")
    scene = Scene(raised)
    with pytest.raises(kind):
        await scene.admission.admit(scene.entry, scene.call())
    assert (scene.free, scene.in_flight) == (1, 0)
    assert scene.claims.recorded == []


async def test_an_admitted_call_keeps_its_place_and_its_ticket() -> None:
    scene = Scene(Leave.GRANTED)
    assert await scene.admit() == 1
    assert (scene.free, scene.in_flight) == (0, 1)
    assert scene.claims.recorded == []


async def test_a_claim_that_is_granted_and_not_used_is_recorded_as_not_sent() -> None:
    """The claim is requested first where places are short, and the call is cancelled before it has one."""
    scene = Scene(Leave.GRANTED, Leave.GRANTED)
    await scene.admit()
    second = scene.admit()
    await turns()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert [outcome.state for outcome in scene.claims.recorded] == [State.NOT_SENT]
    assert isinstance(scene.claims.recorded[0].error, NotSentError)
    assert (scene.free, scene.in_flight) == (0, 1), "of the first"


async def test_whoever_is_cancelled_on_the_way_to_a_place_gives_none_back() -> None:
    scene = Scene(Leave.GRANTED, Leave.GRANTED, Leave.GRANTED)
    call = scene.call()
    await scene.admission.admit(scene.entry, call)
    waiting = [scene.admit() for _ in range(2)]
    await turns()
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert scene.free == 0
    scene.admission.release(call)
    assert scene.free == 1


async def test_a_journal_that_cannot_record_keeps_neither_place_nor_ticket() -> None:
    class Full(Claims):
        def record(self, *_: object) -> None:
            raise KeyError("disk")

    scene = Scene()
    scene.admission._journal = Full([Leave.GRANTED])  # type: ignore[assignment]
    scene.admission._pause = scene.admission._paused_until = 0.0
    task = asyncio.ensure_future(scene.admission.admit(scene.entry, call := scene.call()))
    scene.admission._journal.gate = asyncio.Event()  # type: ignore[attr-defined]
    await turns()
    scene.admission.stopped = True
    scene.admission._journal.gate.set()  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        await task
    assert call.attempts == ()
    assert (scene.free, scene.in_flight) == (1, 0)

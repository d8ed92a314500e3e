"""What a call that is not admitted gives back: its place, its ticket, its claim."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

from dispatchkit import NotSentError, StartDispatch, State
from dispatchkit.core.call.call import Call
from dispatchkit.core.claim import ClaimResult
from dispatchkit.core.fanout.admission import Admission
from dispatchkit.core.fanout.journal import WorkItem
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.core.stop import StopSignal
from tests.harness import played, turns


@attrs.define
class Claims:
    """A journal that answers each claim as it is told."""

    answers: list[Any]
    recorded: list[Outcome[Any]] = attrs.field(factory=list)
    gate: asyncio.Event | None = None

    async def claim(self, entry: WorkItem[Any, Any], request_id: str | None) -> ClaimResult:
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def record(self, entry: WorkItem[Any, Any], outcome: Outcome[Any]) -> None:
        self.recorded.append(outcome)


class Scene:
    """An admission with one place."""

    def __init__(self, *answers: Any, **settings: Any) -> None:
        self.client, self.transport = played(**settings)
        self.claims = Claims(list(answers))
        self.stop = StopSignal()
        self.admission = Admission(
            1,
            pacer=self.client.pacer,
            journal=self.claims,  # type: ignore[arg-type]
            clock=self.client.clock,
            stop=self.stop,
        )
        self.entry = WorkItem(0, StartDispatch(7))

    def call(self) -> Call[Any, Any]:
        return self.client.call(StartDispatch(7))

    def admit(self) -> asyncio.Future[int | ClaimResult]:
        return asyncio.ensure_future(self.admission.admit(self.entry, self.call()))

    @property
    def free(self) -> int:
        return self.admission._slots._value

    @property
    def in_flight(self) -> int:
        return self.client.statistics().pace.in_flight


@pytest.mark.parametrize("answer", [ClaimResult.TAKEN, ClaimResult.STOPPED])
async def test_refused_claim_releases_slot(answer: ClaimResult) -> None:
    transport = Scene(answer)
    assert await transport.admit() is answer
    assert (transport.free, transport.in_flight) == (1, 0)
    assert transport.claims.recorded == [], "nothing was claimed"


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
async def test_claim_error_releases_slot(kind: type[BaseException]) -> None:
    raised = kind("mine")
    transport = Scene(raised)
    with pytest.raises(kind):
        await transport.admission.admit(transport.entry, transport.call())
    assert (transport.free, transport.in_flight) == (1, 0)
    assert transport.claims.recorded == []


async def test_admitted_call_keeps_slot() -> None:
    transport = Scene(ClaimResult.GRANTED)
    assert await transport.admit() == 1
    assert (transport.free, transport.in_flight) == (0, 1)
    assert transport.claims.recorded == []


async def test_unused_claim_is_not_sent() -> None:
    """The claim is requested first where slots are short, and the call is cancelled before it has one."""
    transport = Scene(ClaimResult.GRANTED, ClaimResult.GRANTED)
    await transport.admit()
    second = transport.admit()
    await turns()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert [outcome.state for outcome in transport.claims.recorded] == [State.NOT_SENT]
    assert isinstance(transport.claims.recorded[0].error, NotSentError)
    assert (transport.free, transport.in_flight) == (0, 1), "of the first"


async def test_cancelled_waiter_releases_nothing() -> None:
    transport = Scene(ClaimResult.GRANTED, ClaimResult.GRANTED, ClaimResult.GRANTED)
    call = transport.call()
    await transport.admission.admit(transport.entry, call)
    waiting = [transport.admit() for _ in range(2)]
    await turns()
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert transport.free == 0
    transport.admission.release(call)
    assert transport.free == 1


async def test_journal_error_releases_slot() -> None:
    class Full(Claims):
        def record(self, *_: object) -> None:
            raise KeyError("disk")

    transport = Scene()
    transport.admission._journal = Full([ClaimResult.GRANTED])  # type: ignore[assignment]
    transport.admission._pause = transport.admission._paused_until = 0.0
    task = asyncio.ensure_future(transport.admission.admit(transport.entry, call := transport.call()))
    transport.admission._journal.gate = asyncio.Event()  # type: ignore[attr-defined]
    await turns()
    transport.stop.set()
    transport.admission._journal.gate.set()  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        await task
    assert call.attempts == ()
    assert (transport.free, transport.in_flight) == (1, 0)

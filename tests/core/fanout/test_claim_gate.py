"""The gate with a ledger: what a call that is not permitted gives back, and what each attempt needs."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import attrs
import pytest

from dispatchkit import LedgerError, NotSentError, StartDispatch, State
from dispatchkit.core.claim import ClaimResult
from dispatchkit.core.fanout.claim_gate import Admission, ClaimGate, Slots
from dispatchkit.core.fanout.journal import WorkItem
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.core.stop import StopSignal
from dispatchkit.testing.clock import FakeClock
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
    """The gates of calls that share one slot."""

    def __init__(self, *answers: Any, **settings: Any) -> None:
        self.client, self.transport = played(**settings)
        self.claims = Claims(list(answers))
        self.stop = StopSignal()
        self.errors: list[LedgerError] = []
        self.admission = Admission(
            1,
            pacer=self.client._pacer,
            journal=self.claims,  # type: ignore[arg-type]
            clock=self.client._clock,
            stop=self.stop,
            on_error=self.errors.append,
        )
        self.entry = WorkItem(0, StartDispatch(7))

    def gate(self) -> ClaimGate[Any, Any]:
        call = self.client._call(StartDispatch(7))
        call.stop = self.stop
        call.gate = gate = ClaimGate(self.admission, self.entry, call)
        return gate

    async def refused(self, gate: ClaimGate[Any, Any]) -> ClaimResult | None:
        try:
            assert await gate.acquire(math.inf) == 0
        finally:
            gate.close(has_outcome=False)
        return gate.refusal

    @property
    def free(self) -> int:
        return self.admission.slots.free

    @property
    def in_flight(self) -> int:
        return self.client.statistics().pace.in_flight


@pytest.mark.parametrize("answer", [ClaimResult.TAKEN, ClaimResult.STOPPED])
async def test_refused_claim_releases_slot(answer: ClaimResult) -> None:
    scene = Scene(answer)
    gate = scene.gate()
    assert await scene.refused(gate) is answer
    assert gate.obstacle() == "it was told to stop"
    assert (scene.free, scene.in_flight) == (1, 0)
    assert scene.claims.recorded == [], "nothing was claimed"


@pytest.mark.parametrize("error_type", [KeyError, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
async def test_claim_error_releases_slot(error_type: type[BaseException]) -> None:
    scene = Scene(error_type("mine"))
    with pytest.raises(error_type):
        await scene.refused(scene.gate())
    assert (scene.free, scene.in_flight) == (1, 0)
    assert scene.claims.recorded == []


async def test_ledger_error_ends_run() -> None:
    error = LedgerError("disk full")
    scene = Scene(error)
    assert await scene.refused(scene.gate()) is ClaimResult.STOPPED
    assert scene.errors == [error]
    assert (scene.free, scene.in_flight) == (1, 0)


async def test_permitted_call_keeps_slot() -> None:
    scene = Scene(ClaimResult.GRANTED)
    gate = scene.gate()
    assert await gate.acquire(math.inf) == 1
    assert gate.claim is not None
    assert (scene.free, scene.in_flight) == (0, 1)
    gate.close(has_outcome=True)
    gate.close(has_outcome=True)
    assert scene.free == 1
    assert scene.claims.recorded == [], "the call has an outcome of its own"


async def test_each_attempt_has_its_claim() -> None:
    scene = Scene(ClaimResult.GRANTED, ClaimResult.GRANTED)
    gate = scene.gate()
    for left in (1, 0):
        scene.client._pacer.cancel(await gate.acquire(math.inf))
        assert len(scene.claims.answers) == left
    assert scene.free == 0, "one slot for all attempts of the call"


async def test_unused_claim_is_not_sent() -> None:
    """The claim is requested first where slots are short, and the call is cancelled before it has one."""
    scene = Scene(ClaimResult.GRANTED, ClaimResult.GRANTED)
    await scene.gate().acquire(math.inf)
    second = asyncio.ensure_future(scene.refused(scene.gate()))
    await turns()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert [outcome.state for outcome in scene.claims.recorded] == [State.NOT_SENT]
    assert isinstance(scene.claims.recorded[0].error, NotSentError)
    assert (scene.free, scene.in_flight) == (0, 1), "of the first"


@pytest.mark.parametrize("ending", ["cancel", "stop"])
async def test_waiters_release_nothing(ending: str) -> None:
    scene = Scene(ClaimResult.GRANTED, ClaimResult.GRANTED, ClaimResult.GRANTED)
    first = scene.gate()
    await first.acquire(math.inf)
    waiting = [asyncio.ensure_future(scene.refused(scene.gate())) for _ in range(2)]
    await turns()
    if ending == "stop":
        scene.stop.set()
        assert await asyncio.gather(*waiting) == [None, None]
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert scene.free == 0
    first.close(has_outcome=True)
    assert scene.free == 1


async def test_journal_error_releases_slot() -> None:
    class Full(Claims):
        def record(self, *_: object) -> None:
            raise KeyError("disk")

    scene = Scene()
    journal = Full([ClaimResult.GRANTED], gate=asyncio.Event())
    scene.admission.journal = journal  # type: ignore[assignment]
    gate = scene.gate()
    task = asyncio.ensure_future(scene.refused(gate))
    await turns()
    scene.stop.set()
    assert journal.gate is not None
    journal.gate.set()
    with pytest.raises(KeyError):
        await task
    assert (scene.free, scene.in_flight) == (1, 0)


async def test_late_claim_permits_nothing() -> None:
    """The claim takes longer than the deadline of a repeat allows."""
    clock = FakeClock()

    class Slow(Claims):
        async def claim(self, entry: WorkItem[Any, Any], request_id: str | None) -> ClaimResult:
            await clock.sleep(2.0)
            return ClaimResult.GRANTED

    scene = Scene(clock=clock)
    scene.admission.journal = Slow([])  # type: ignore[assignment]
    assert await scene.gate().acquire(clock.monotonic() + 1.0) == 0
    assert scene.in_flight == 0


async def test_slots_pass_in_order() -> None:
    slots = Slots(1)
    assert slots.try_take()
    taken: list[int] = []

    async def take(number: int) -> None:
        await slots.take()
        taken.append(number)

    waiting = [asyncio.ensure_future(take(number)) for number in range(4)]
    await turns()
    waiting[1].cancel()
    slots.release()
    waiting[2].cancel()
    await turns()
    assert taken == [0]
    assert not slots.try_take()
    slots.release()
    await waiting[3]
    assert (taken, slots.free) == ([0, 3], 0)
    slots.release()
    assert slots.free == 1


async def test_cancelled_wait_returns_slot() -> None:
    """The slot and the cancellation come in the same iteration of the loop."""
    slots = Slots(1)
    assert slots.try_take()
    waiting = asyncio.ensure_future(slots.take())
    await turns()
    slots.release()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert slots.free == 1


async def test_claims_share_their_age() -> None:
    scene = Scene()
    clock = scene.client._clock
    assert isinstance(clock, FakeClock)
    first = scene.admission.claim_age()
    clock.advance(0.01)
    assert scene.admission.claim_age() is first
    clock.advance(0.02)
    second = scene.admission.claim_age()
    assert second is not first
    assert second.expires_at > first.expires_at
    scene.admission.count_expiry(1, "")
    assert scene.admission.claim_age() is not second, "the wall clock may have been set"


async def test_claim_granted_to_cancelled_call() -> None:
    """The answer and the cancellation come in the same iteration of the loop: the claim is known as unused."""
    answer: asyncio.Future[ClaimResult] = asyncio.get_running_loop().create_future()

    class Answering(Claims):
        def claim(self, entry: WorkItem[Any, Any], request_id: str | None) -> Any:
            return answer

    scene = Scene()
    journal: Any = Answering([], scene.claims.recorded)
    scene.admission.journal = journal
    waiting = asyncio.ensure_future(scene.refused(scene.gate()))
    await turns()
    answer.set_result(ClaimResult.GRANTED)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [outcome.state for outcome in scene.claims.recorded] == [State.NOT_SENT]
    assert (scene.free, scene.in_flight) == (1, 0)

"""Group commit: what is written together, and what a cancelled or stopped claim leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from dispatchkit import LedgerError, State
from dispatchkit.core.claim import ClaimResult
from dispatchkit.core.stop import StopSignal
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.group_commit import GroupCommit
from dispatchkit.testing.clock import FakeClock
from tests.harness import turns, until

AT = datetime(2026, 1, 31, 9, tzinfo=UTC)


@attrs.define
class FakeStore:
    """A store that grants each claim once its gate is open."""

    gate: asyncio.Event = attrs.field(factory=asyncio.Event)
    claimed: list[list[int]] = attrs.field(factory=list)
    recorded: list[list[int]] = attrs.field(factory=list)
    states: dict[int, State] = attrs.field(factory=dict)
    broken: bool = False
    slow: asyncio.Semaphore | None = None
    """What each write of outcomes waits for."""

    async def claim(self, claims: Sequence[Claim]) -> list[ClaimResult]:
        self.claimed.append([claim.index for claim in claims])
        await self.gate.wait()
        return [ClaimResult.GRANTED] * len(claims)

    async def record(self, records: Sequence[Record]) -> None:
        await asyncio.sleep(0)
        if self.slow is not None:
            await self.slow.acquire()
        if self.broken:
            raise LedgerError("the disk is full")
        self.recorded.append([record.index for record in records])
        self.states |= {record.index: record.state for record in records}


def claim(index: int) -> Claim:
    return Claim(1, 0, index, "token", None, AT)


def done(index: int) -> Record:
    return Record(1, 0, index, "token", State.DONE, "", None, None, 1, AT)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def stop() -> StopSignal:
    return StopSignal()


@pytest.fixture
async def commit(store: FakeStore, clock: FakeClock, stop: StopSignal) -> GroupCommit:
    any_store: Any = store
    return GroupCommit(any_store, clock, stop)


async def test_claims_wait_for_batch(store: FakeStore, commit: GroupCommit) -> None:
    answers = [commit.claim(claim(index), first_attempt=True) for index in range(2)]
    await turns()
    answers += [commit.claim(claim(index), first_attempt=True) for index in range(2, 5)]
    await turns()
    assert store.claimed == [[0, 1]], "one batch at a time"
    store.gate.set()
    assert await asyncio.gather(*answers) == [ClaimResult.GRANTED] * 5
    assert store.claimed == [[0, 1], [2, 3, 4]]


async def test_outcomes_are_gathered(store: FakeStore, commit: GroupCommit) -> None:
    for index in range(3):
        commit.record(done(index))
        await turns()
    assert store.recorded == [], "each waits for others"
    await commit.flush()
    assert store.recorded == [[0, 1, 2]]


async def test_gathered_outcomes_are_written(store: FakeStore, commit: GroupCommit) -> None:
    commit.record(done(0))
    await until(lambda: len(store.recorded) == 1)
    commit.record(done(1))
    await until(lambda: len(store.recorded) == 2)
    assert store.recorded == [[0], [1]]


async def test_failed_outcomes_are_kept(store: FakeStore, commit: GroupCommit) -> None:
    store.broken = True
    commit.record(done(0))
    with pytest.raises(LedgerError, match="the disk is full"):
        await commit.flush()
    with pytest.raises(LedgerError, match="the disk is full"):
        commit.claim(claim(1), first_attempt=True)
    store.broken = False
    commit.record(done(1))
    await commit.flush()
    assert store.recorded == [[0, 1]]


@pytest.mark.parametrize(("first_attempt", "states"), [(True, {0: State.NOT_SENT}), (False, {})])
async def test_cancelled_claim_is_unsent(
    store: FakeStore, commit: GroupCommit, first_attempt: bool, states: dict[int, State]
) -> None:
    cancelled = commit.claim(claim(0), first_attempt=first_attempt)
    waiting = commit.claim(claim(1), first_attempt=True)
    await turns()
    cancelled.cancel()
    store.gate.set()
    assert await waiting is ClaimResult.GRANTED
    await commit.flush()
    assert store.states == states


async def test_stop_ends_claims(store: FakeStore, commit: GroupCommit, stop: StopSignal) -> None:
    written = commit.claim(claim(0), first_attempt=True)
    await turns()
    pending = commit.claim(claim(1), first_attempt=True)
    stop.set()
    commit.end_waits()
    assert await written is await pending is ClaimResult.STOPPED
    assert await commit.claim(claim(2), first_attempt=True) is ClaimResult.STOPPED
    store.gate.set()
    await commit.flush()
    assert store.claimed == [[0]], "nothing more is claimed"
    assert store.states == {0: State.NOT_SENT}


async def test_flush_awaits_late_outcomes(
    store: FakeStore, commit: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatchkit.ledger.group_commit._GATHER_TIME", 0)
    store.slow = asyncio.Semaphore(0)
    commit.record(done(0))
    flushing = asyncio.create_task(commit.flush())
    await turns()
    commit.record(done(1))
    await turns()
    store.slow.release()
    await turns()
    assert not flushing.done()
    store.slow.release()
    await flushing
    assert store.recorded == [[0], [1]]


async def test_outcomes_gather_after_flush(store: FakeStore, commit: GroupCommit) -> None:
    commit.record(done(0))
    await commit.flush()
    commit.record(done(1))
    await until(lambda: len(store.recorded) == 2)
    assert store.recorded == [[0], [1]]


async def test_stalled_batch_ages_no_start(store: FakeStore, commit: GroupCommit, clock: FakeClock) -> None:
    stalled = commit.claim(claim(0), first_attempt=True)
    await turns()
    first = commit.since()
    assert commit.since() is first, "shared for a moment"
    clock.advance(60)
    began = clock.now()
    assert commit.since() == began
    store.gate.set()
    assert await stalled is ClaimResult.GRANTED

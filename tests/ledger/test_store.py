"""What every database must do to hold ledgers."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import State
from dispatchkit.core.journal import Leave
from dispatchkit.ledger.store import LEASE_TIMEOUT, Chunk, Claim, Counts, Holder, Record, Run, RunPlan, Store, Unsettled
from tests.ledger.stores import MAKERS
from tests.virtual import START, Manual

ROWS = [(bytes([number]) * 16, f'{{"dispatch_id":{number}}}') for number in range(10)]
ELSEWHERE = "another-host"
ATTEMPT = 70.0


@pytest.fixture
def clock() -> Manual:
    return Manual()


@pytest.fixture(params=sorted(MAKERS))
async def another(request: pytest.FixtureRequest, tmp_path: Path, clock: Manual) -> AsyncIterator[Callable[[], Any]]:
    """Opens one more store on the same database."""
    async with AsyncExitStack() as stack:

        async def make() -> Store:
            store = MAKERS[request.param](tmp_path, clock)
            await store.open()
            stack.push_async_callback(store.close)
            return store

        yield make


@pytest.fixture
async def store(another: Callable[[], Any]) -> Store:
    return await another()


def holder(token: str = "one", *, host: str = ELSEWHERE, pid: int = 1) -> Holder:
    return Holder(token, pid, host)


def run_plan(name: str, **more: Any) -> RunPlan:
    given = {"settings": "{}", "host": "h", "account": None, "fingerprint": "f", "attempt_timeout": ATTEMPT, **more}
    return RunPlan(name=name, **given)


async def held(store: Store, rows: Sequence[tuple[bytes, str]] = ROWS, token: str = "one") -> int:
    """A run of one chunk, planned and held."""
    run = await store.begin(run_plan("a"))
    await store.plan(run.number, rows)
    await store.planned(run.number)
    assert await store.hold(run.number, 0, holder(token), attempt_timeout=ATTEMPT) is None
    return run.number


def claim(run: int, index: int, token: str = "one", *, request_id: str | None = None, seconds: float = 0) -> Claim:
    return Claim(run, 0, index, token, request_id, START + timedelta(seconds=seconds))


def record(run: int, index: int, state: State, token: str = "one", **more: Any) -> Record:
    given = {"summary": "", "code": None, "request_id": None, "attempts": 1, "at": START, **more}
    return Record(run, 0, index, token, state, **given)


async def states(store: Store, run: int) -> list[str]:
    return [target.state async for target in store.targets(run)]


async def test_a_run_begins_once(store: Store) -> None:
    first = await store.begin(run_plan("a", settings='{"provider": "direct"}'))
    assert first == Run(first.number, "a", '{"provider": "direct"}', START, total=0, whole=False, stopped=False)
    assert await store.begin(run_plan("a")) == first, "its own settings"
    second = await store.begin(run_plan("b"))
    assert await store.runs() == [second, first]
    assert await store.run("a") == first
    assert await store.run("c") is None


async def test_targets_are_planned_once_each_in_the_order_in_which_they_come(store: Store) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, [*ROWS[:4], ROWS[1], *ROWS[4:6]])
    await store.plan(run, [ROWS[0], *ROWS[3:]])
    await store.plan(run, [])
    other = (await store.begin(run_plan("b"))).number
    await store.plan(other, ROWS[:2])
    found = [target async for target in store.targets(run)]
    assert [(target.index, target.command) for target in found] == [(n, text) for n, (_, text) in enumerate(ROWS)]
    assert {target.state for target in found} == {"planned"}
    runs = {each.name: each for each in await store.runs()}
    assert (runs["a"].total, runs["b"].total, runs["a"].whole) == (10, 2, False)


async def test_many_targets_keep_their_order(store: Store) -> None:
    rows = [(number.to_bytes(16, "big"), str(number)) for number in range(2500)]
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, [*rows, *rows[:1300]])
    assert [(target.index, target.command) async for target in store.targets(run)] == [
        (number, str(number)) for number in range(2500)
    ]


async def test_a_planned_run_is_whole_and_one_chunk(store: Store) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, ROWS[:4])
    assert await store.planned(run) == [Chunk(0, 0, 4)]
    assert (await store.runs())[0].whole
    await store.plan(run, ROWS)
    assert await store.planned(run) == [Chunk(0, 0, 10)], "what is new joins it"


async def test_a_run_is_divided_into_chunks(store: Store) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, ROWS[:7])
    first = [Chunk(0, 0, 3), Chunk(1, 3, 6), Chunk(2, 6, 7)]
    assert await store.planned(run, size=3) == first
    assert await store.planned(run, size=5) == first, "it keeps those it has"
    await store.plan(run, ROWS)
    assert await store.planned(run, size=2) == [*first, Chunk(3, 7, 9), Chunk(4, 9, 10)]


async def test_a_plan_of_nothing_is_whole(store: Store) -> None:
    run = (await store.begin(run_plan("a"))).number
    assert await store.planned(run) == []
    assert (await store.runs())[0].whole
    assert await store.chunks(run) == []
    assert await store.counts(run) == Counts()


async def test_chunks_are_those_that_hold_something_to_do(store: Store) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, ROWS[:6])
    await store.planned(run, size=2)
    for chunk in range(3):
        assert await store.hold(run, chunk, holder(), attempt_timeout=ATTEMPT) is None
    final = [State.DONE, State.REJECTED, State.DONE, State.NOT_SENT, State.DONE, State.UNKNOWN]
    await store.claim([Claim(run, index // 2, index, "one", None, START) for index in range(6)])
    await store.record(
        [Record(run, index // 2, index, "one", state, "", None, None, 1, START) for index, state in enumerate(final)]
    )
    assert [chunk.number for chunk in await store.chunks(run)] == [1, 2]
    assert await store.counts(run, chunk=1) == Counts(done=1, not_sent=1)
    assert await store.counts(run) == Counts(done=3, rejected=1, not_sent=1, unknown=1)


async def test_one_holds_a_chunk(store: Store, another: Callable[[], Any], clock: Manual) -> None:
    run = await held(store)
    other = await another()
    assert await other.hold(run, 0, holder("two"), attempt_timeout=ATTEMPT) == holder("one")
    assert await store.hold(run, 0, holder("one"), attempt_timeout=ATTEMPT) is None, "again"
    assert (await other.chunks(run))[0].holder == holder("one")
    await other.let_go(run, 0, "two")
    assert await other.hold(run, 0, holder("two"), attempt_timeout=ATTEMPT) == holder("one"), "only its own"
    await store.let_go(run, 0, "one")
    assert (await other.chunks(run))[0].holder is None
    assert await other.hold(run, 0, holder("two"), attempt_timeout=ATTEMPT) is None
    del clock


async def test_a_holder_that_is_not_seen_is_taken_for_dead(
    store: Store, another: Callable[[], Any], clock: Manual
) -> None:
    run = await held(store)
    other = await another()
    clock.advance(LEASE_TIMEOUT - 1)
    assert (await store.beat(run, 0, "one")).mine
    clock.advance(LEASE_TIMEOUT - 1)
    assert await other.hold(run, 0, holder("two"), attempt_timeout=ATTEMPT) == holder("one")
    clock.advance(2)
    assert (await other.chunks(run))[0].holder is None
    assert await other.hold(run, 0, holder("two"), attempt_timeout=ATTEMPT) is None
    pulse = await store.beat(run, 0, "one")
    assert not pulse.mine
    assert await other.hold(run, 0, holder("three"), attempt_timeout=ATTEMPT) == holder("two"), (
        "a sign of life of the other counts for nothing"
    )


async def test_a_holder_whose_process_is_gone_is_dead_at_once(store: Store) -> None:
    run = await held(store)
    await store.let_go(run, 0, "one")
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    here = socket.gethostname()
    assert await store.hold(run, 0, holder("two", host=here, pid=gone.pid), attempt_timeout=ATTEMPT) is None
    assert (await store.chunks(run))[0].holder is None
    alive = holder("three", host=here, pid=os.getpid())
    assert await store.hold(run, 0, alive, attempt_timeout=ATTEMPT) is None
    assert await store.hold(run, 0, holder("four"), attempt_timeout=ATTEMPT) == alive
    await store.let_go(run, 0, "three")
    elsewhere = holder("five", pid=gone.pid)
    assert await store.hold(run, 0, elsewhere, attempt_timeout=ATTEMPT) is None
    assert await store.hold(run, 0, holder("six"), attempt_timeout=ATTEMPT) == elsewhere, (
        "what another host's pids mean nobody here knows"
    )


async def test_a_claim_is_granted_once_to_who_holds_the_chunk(store: Store) -> None:
    run = await held(store)
    claims = [claim(run, 0), claim(run, 1, request_id="r"), claim(run, 2, token="two")]
    assert await store.claim(claims) == [Leave.GRANTED, Leave.GRANTED, Leave.STOPPED]
    assert await store.claim(claims) == [Leave.GRANTED, Leave.GRANTED, Leave.STOPPED], "an answer may have been lost"
    assert (await states(store, run))[:4] == ["sending", "sending", "planned", "planned"]
    found = [target async for target in store.targets(run, states=["sending"])]
    assert [(target.index, target.request_id, target.at) for target in found] == [(0, None, START), (1, "r", START)]
    await store.record([record(run, 0, State.DONE)])
    assert await store.claim([claim(run, 0)]) == [Leave.GONE]


async def test_what_was_asked_for_twice_counts_once(store: Store) -> None:
    run = await held(store)
    await store.claim([claim(run, 0)])
    await store.claim([claim(run, 0)])
    await store.record([record(run, 0, State.NOT_SENT)])
    assert (await states(store, run))[0] == "not_sent"


async def test_a_claim_after_not_sent_reads_as_sending(store: Store) -> None:
    run = await held(store)
    for _ in range(3):
        assert await store.claim([claim(run, 0)]) == [Leave.GRANTED]
        assert (await states(store, run))[0] == "sending"
        await store.record([record(run, 0, State.NOT_SENT)])
        assert (await states(store, run))[0] == "not_sent"
    assert await store.counts(run) == Counts(planned=9, not_sent=1)


async def test_a_stopped_run_grants_nothing(store: Store, another: Callable[[], Any]) -> None:
    run = await held(store)
    other = await another()
    await other.stop(run, stopped=True)
    assert (await store.runs())[0].stopped
    assert await store.claim([claim(run, 0)]) == [Leave.STOPPED]
    pulse = await store.beat(run, 0, "one")
    assert (pulse.mine, pulse.stopped) == (True, True)
    await other.stop(run, stopped=False)
    assert await store.claim([claim(run, 0)]) == [Leave.GRANTED]
    assert not (await store.beat(run, 0, "one")).stopped


async def test_who_was_taken_over_is_refused(store: Store, another: Callable[[], Any], clock: Manual) -> None:
    run = await held(store)
    assert await store.claim([claim(run, 0)]) == [Leave.GRANTED]
    clock.advance(LEASE_TIMEOUT + 1)
    other = await another()
    assert await other.hold(run, 0, holder("two"), attempt_timeout=ATTEMPT) is None
    assert await store.claim([claim(run, 0), claim(run, 1)]) == [Leave.STOPPED, Leave.STOPPED]
    assert await other.claim([claim(run, 0, "two")]) == [Leave.GRANTED]
    # Its late word that nothing was sent would deny the request that is now on its way.
    for state in (State.NOT_SENT, State.UNKNOWN, State.REJECTED):
        await store.record([record(run, 0, state)])
        assert (await states(store, run))[:2] == ["sending", "planned"]
    # But what is done is done.
    await store.record([record(run, 0, State.DONE)])
    await other.record([record(run, 0, State.REJECTED, "two")])
    assert (await states(store, run))[0] == "done"


async def test_an_unknown_outcome_gives_way_to_a_better_one_and_a_final_one_to_none(store: Store) -> None:
    run = await held(store)
    await store.claim([claim(run, 0), claim(run, 1)])
    await store.record([record(run, 0, State.UNKNOWN, summary="lost", attempts=3)])
    await store.record([record(run, 0, State.DONE, attempts=4)])
    await store.record([record(run, 0, State.UNKNOWN), record(run, 0, State.NOT_SENT)])
    await store.record([record(run, 1, State.REJECTED, summary="no", code=4031)])
    await store.record([record(run, 1, State.DONE)])
    first, second = [target async for target in store.targets(run)][:2]
    assert (first.state, first.summary, first.attempts) == ("done", "", 4)
    assert (second.state, second.summary, second.code, second.at) == ("rejected", "no", 4031, START)


@pytest.mark.parametrize("code", [None, 4031, 2**62, "E-7"])
async def test_a_code_keeps_its_type(store: Store, code: int | str | None) -> None:
    run = await held(store)
    await store.record([record(run, 3, State.REJECTED, code=code, summary="нет", request_id="r")])
    (found,) = [target async for target in store.targets(run, states=["rejected"])]
    assert (found.index, found.code, found.summary, found.request_id) == (3, code, "нет", "r")


async def test_what_is_unsettled_is_told_in_pages(store: Store) -> None:
    run = await held(store)
    await store.claim([claim(run, index, request_id=f"r{index}", seconds=index) for index in range(5)])
    await store.record([record(run, 0, State.DONE), record(run, 1, State.REJECTED), record(run, 2, State.NOT_SENT)])
    await store.record([record(run, 3, State.UNKNOWN, at=START + timedelta(hours=1))])
    texts = [text for _, text in ROWS]
    first = await store.unsettled(run, 0, after=-1, limit=3)
    assert first == [
        Unsettled(2, texts[2]),
        Unsettled(3, texts[3], "r3", START + timedelta(seconds=3)),
        Unsettled(4, texts[4], "r4", START + timedelta(seconds=4)),
    ]
    rest = await store.unsettled(run, 0, after=4, limit=100)
    assert rest == [Unsettled(index, texts[index]) for index in range(5, 10)]
    assert await store.unsettled(run, 0, after=9, limit=100) == []


async def test_what_is_unsettled_is_of_its_chunk(store: Store) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, ROWS)
    await store.planned(run, size=4)
    assert [each.index for each in await store.unsettled(run, 1, after=-1, limit=100)] == [4, 5, 6, 7]


async def test_targets_are_read_in_pages_and_by_state(store: Store) -> None:
    rows = [(number.to_bytes(16, "big"), "{}") for number in range(2100)]
    run = await held(store, rows)
    await store.claim([claim(run, index) for index in range(2100)])
    await store.record([record(run, index, State.DONE if index % 2 else State.UNKNOWN) for index in range(2100)])
    assert [each.index async for each in store.targets(run, states=["done"])] == list(range(1, 2100, 2))
    assert len([each async for each in store.targets(run, states=["done", "unknown"])]) == 2100
    assert [each async for each in store.targets(run, states=["planned"])] == []


async def test_what_was_written_is_there_for_the_next(store: Store, another: Callable[[], Any]) -> None:
    run = await held(store)
    await store.claim([claim(run, 0)])
    await store.close()
    await store.close()
    later = await another()
    assert await later.counts(run) == Counts(planned=9, sending=1)

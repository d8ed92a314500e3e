"""What every database must do to hold ledgers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any

import attrs
import pytest

from dispatchkit import State
from dispatchkit.core.claim import CLAIM_AGE, ClaimResult
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.chunk import LEASE_TIMEOUT, Chunk
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.run import Counts, Run, RunPlan
from dispatchkit.ledger.target import Unsettled
from dispatchkit.testing.clock import START, FakeClock
from tests.ledger.stores import BOOT, DATABASES, Database, holder

ROWS = [(bytes([number]) * 16, f'{{"dispatch_id":{number}}}') for number in range(10)]
ATTEMPT = 70.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(jumps=False)


@pytest.fixture(params=sorted(DATABASES))
def database(request: pytest.FixtureRequest, clock: FakeClock) -> Database:
    return DATABASES[request.param](request, clock)


@pytest.fixture
async def another(database: Database) -> AsyncIterator[Callable[[], Any]]:
    """Opens one more store on the same database."""
    async with database.stack:
        yield database.open


@pytest.fixture
async def store(another: Callable[[], Any]) -> Any:
    return await another()


def run_plan(name: str, **more: Any) -> RunPlan:
    given = {"settings": "{}", "host": "h", "account": None, "fingerprint": "f", "attempt_timeout": ATTEMPT, **more}
    return RunPlan(name=name, **given)


async def held(store: Any, rows: Sequence[tuple[bytes, str]] = ROWS, token: str = "one") -> int:
    """A run of one chunk, planned and held."""
    run = await store.begin(run_plan("a"))
    await store.plan(run.number, rows)
    await store.planned(run.number)
    assert await store.acquire(run.number, 0, holder(token), attempt_timeout=ATTEMPT) is None
    return run.number


def claim(run: int, index: int, token: str = "one", *, request_id: str | None = None, seconds: float = 0) -> Claim:
    return Claim(run, 0, index, token, request_id, START + timedelta(seconds=seconds))


def record(run: int, index: int, state: State, token: str = "one", **more: Any) -> Record:
    given = {"summary": "", "code": None, "request_id": None, "attempts": 1, "at": START, **more}
    return Record(run, 0, index, token, state, **given)


async def hold(store: Any, run: int, token: str, chunk: int = 0) -> Any:
    return await store.acquire(run, chunk, holder(token), attempt_timeout=ATTEMPT)


async def states(store: Any, run: int) -> list[str]:
    return [target.state async for target in store.targets(run)]


async def test_a_run_begins_once(store: Any) -> None:
    settings = '{"provider": "direct"}'
    first = await store.begin(run_plan("a", settings=settings, account="shop", fingerprint="f", attempt_timeout=9.0))
    assert first == Run(
        first.number,
        "a",
        settings,
        START,
        total=0,
        plan_complete=False,
        stopped=False,
        account="shop",
        fingerprint="f",
        attempt_timeout=9.0,
        restored=False,
    )
    assert await store.begin(run_plan("a", account="other", attempt_timeout=99.0)) == first, "its own settings"
    second = await store.begin(run_plan("b"))
    assert await store.runs() == [second, first]
    assert await store.run("a") == first
    assert await store.run("c") is None


async def test_run_keeps_its_canary(store: Any) -> None:
    assert (await store.begin(run_plan("a", canary=3))).canary == 3
    assert (await store.begin(run_plan("a", canary=5))).canary == 3
    assert (await store.begin(run_plan("b"))).canary is None
    assert {run.name: run.canary for run in await store.runs()} == {"a": 3, "b": None}


async def test_targets_tell_first_request(store: Any) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, ROWS[:3])
    await store.planned(run)
    await hold(store, run, "one")
    await store.claim([claim(run, 0, seconds=5), claim(run, 1, seconds=7)])
    await store.record([record(run, 0, State.DONE)])
    found = [target.since async for target in store.targets(run)]
    assert found == [START + timedelta(seconds=5), START + timedelta(seconds=7), None]


async def test_targets_are_planned_in_order(store: Any) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, [*ROWS[:4], ROWS[1], *ROWS[4:6]])
    await store.plan(run, [ROWS[0], *ROWS[3:]])
    await store.plan(run, [])
    other = (await store.begin(run_plan("b"))).number
    await store.plan(other, ROWS[:2])
    found = [target async for target in store.targets(run)]
    assert [(target.index, target.command) for target in found] == [(n, text) for n, (_, text) in enumerate(ROWS)]
    assert {target.state for target in found} == {"planned"}
    runs = {stored_run.name: stored_run for stored_run in await store.runs()}
    assert (runs["a"].total, runs["b"].total, runs["a"].plan_complete) == (10, 2, False)


async def test_many_targets_keep_their_order(store: Any) -> None:
    rows = [(number.to_bytes(16, "big"), str(number)) for number in range(2500)]
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, [*rows, *rows[:1300]])
    assert [(target.index, target.command) async for target in store.targets(run)] == [
        (number, str(number)) for number in range(2500)
    ]


async def test_planned_run_is_one_chunk(store: Any) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, ROWS[:4])
    assert await store.planned(run) == [Chunk(0, 0, 4)]
    assert (await store.runs())[0].plan_complete
    await store.plan(run, ROWS)
    assert await store.planned(run) == [Chunk(0, 0, 10)], "what is new joins it"


async def test_run_is_divided_into_chunks(store: Any) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, ROWS[:7])
    first = [Chunk(0, 0, 3), Chunk(1, 3, 6), Chunk(2, 6, 7)]
    assert await store.planned(run, size=3) == first
    assert await store.planned(run, size=5) == first, "it keeps those it has"
    await store.plan(run, ROWS)
    assert await store.planned(run, size=2) == [*first, Chunk(3, 7, 9), Chunk(4, 9, 10)]


async def test_empty_plan_is_complete(store: Any) -> None:
    run = (await store.begin(run_plan("a"))).number
    assert await store.planned(run) == []
    assert (await store.runs())[0].plan_complete
    assert await store.chunks(run) == []
    assert await store.counts(run) == Counts()


async def test_claimable_chunks_have_work(store: Any) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, ROWS[:6])
    await store.planned(run, size=2)
    for chunk in range(3):
        assert await store.acquire(run, chunk, holder(), attempt_timeout=ATTEMPT) is None
    final = [State.DONE, State.REJECTED, State.DONE, State.NOT_SENT, State.DONE, State.UNKNOWN]
    await store.claim([Claim(run, index // 2, index, "one", None, START) for index in range(6)])
    await store.record(
        [Record(run, index // 2, index, "one", state, "", None, None, 1, START) for index, state in enumerate(final)]
    )
    assert [chunk.number for chunk in await store.chunks(run)] == [1, 2]
    assert await store.counts(run, chunk=1) == Counts(done=1, not_sent=1)
    assert await store.counts(run) == Counts(done=3, rejected=1, not_sent=1, unknown=1)


async def test_one_holds_a_chunk(store: Any, another: Callable[[], Any]) -> None:
    run = await held(store)
    other = await another()
    assert await hold(other, run, "two") == holder("one")
    assert await hold(store, run, "two") == holder("one"), "within one process too"
    assert await hold(store, run, "one") is None, "again"
    assert (await other.chunks(run))[0].holder == holder("one")
    await other.release(run, 0, "two")
    assert await hold(other, run, "two") == holder("one"), "only its own"
    await store.release(run, 0, "one")
    assert (await other.chunks(run))[0].holder is None
    assert await hold(other, run, "two") is None
    with pytest.raises(LedgerError, match="no chunk 7"):
        await store.acquire(run, 7, holder("one"), attempt_timeout=ATTEMPT)


async def test_a_holder_is_described(store: Any, another: Callable[[], Any], database: Database) -> None:
    run = await held(store)
    await database.pass_time(10)
    found = await hold(await another(), run, "two")
    assert found is not None
    assert (found.pid, found.host) == (1, "another-host")
    assert (found.boot_id, found.process_started, found.pid_namespace) == (BOOT, 7, 9)
    assert 19 < found.lease_left <= 20
    assert found.exists == database.lock_decides
    assert found.since is not None


async def test_a_heartbeat_renews_the_lease(store: Any, another: Callable[[], Any], database: Database) -> None:
    run = await held(store)
    other = await another()
    await database.pass_time(LEASE_TIMEOUT - 1)
    assert (await store.heartbeat(run, 0, "one")).mine
    await database.pass_time(LEASE_TIMEOUT - 1)
    found = await hold(other, run, "two")
    assert found == holder("one")
    assert 0 < found.lease_left <= 1
    assert not (await other.heartbeat(run, 0, "two")).mine, "only the holder's"


async def test_lost_chunk_has_new_holder(store: Any, another: Callable[[], Any], database: Database) -> None:
    run = await held(store)
    other = await another()
    await database.lose(run)
    assert (await other.chunks(run))[0].holder is None
    assert await hold(other, run, "two") is None
    assert not (await store.heartbeat(run, 0, "one")).mine
    assert await hold(other, run, "three") == holder("two"), "a heartbeat of the other counts for nothing"
    await store.release(run, 0, "one")
    assert await hold(other, run, "three") == holder("two"), "and its release too"


async def test_a_hold_raises_the_timeout(store: Any) -> None:
    run = await held(store)
    for timeout in (ATTEMPT + 10, ATTEMPT):
        await store.release(run, 0, "one")
        assert await store.acquire(run, 0, holder("one"), attempt_timeout=timeout) is None
        assert (await store.run("a")).attempt_timeout == ATTEMPT + 10


async def test_refused_hold_keeps_timeout(store: Any, another: Callable[[], Any]) -> None:
    run = await held(store)
    assert await (await another()).acquire(run, 0, holder("two"), attempt_timeout=ATTEMPT + 10) is not None
    assert (await store.run("a")).attempt_timeout == ATTEMPT


async def test_an_account_may_change(store: Any) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.set_account(run, account="shop", fingerprint="g")
    found = await store.run("a")
    assert (found.account, found.fingerprint) == ("shop", "g")


async def test_holder_gets_claim_once(store: Any) -> None:
    run = await held(store)
    claims = [claim(run, 0), claim(run, 1, request_id="r"), claim(run, 2, token="two")]
    assert await store.claim(claims) == [ClaimResult.GRANTED, ClaimResult.GRANTED, ClaimResult.STOPPED]
    assert await store.claim(claims) == [ClaimResult.GRANTED, ClaimResult.GRANTED, ClaimResult.STOPPED], (
        "an answer may have been lost"
    )
    assert (await states(store, run))[:4] == ["sending", "sending", "planned", "planned"]
    found = [target async for target in store.targets(run, states=["sending"])]
    assert [(target.index, target.request_id, target.at) for target in found] == [(0, None, START), (1, "r", START)]
    await store.record([record(run, 0, State.DONE)])
    assert await store.claim([claim(run, 0)]) == [ClaimResult.TAKEN]


async def test_duplicate_claim_counts_once(store: Any) -> None:
    run = await held(store)
    await store.claim([claim(run, 0)])
    await store.claim([claim(run, 0)])
    await store.record([record(run, 0, State.NOT_SENT)])
    assert (await states(store, run))[0] == "not_sent"


async def test_reclaimed_target_reads_as_sending(store: Any) -> None:
    run = await held(store)
    for _ in range(3):
        assert await store.claim([claim(run, 0)]) == [ClaimResult.GRANTED]
        assert (await states(store, run))[0] == "sending"
        await store.record([record(run, 0, State.NOT_SENT)])
        assert (await states(store, run))[0] == "not_sent"
    assert await store.counts(run) == Counts(planned=9, not_sent=1)


async def test_a_stopped_run_grants_nothing(store: Any, another: Callable[[], Any]) -> None:
    run = await held(store)
    other = await another()
    await other.stop(run)
    assert (await store.runs())[0].stopped
    assert await store.claim([claim(run, 0)]) == [ClaimResult.STOPPED]
    pulse = await store.heartbeat(run, 0, "one")
    assert (pulse.mine, pulse.stopped) == (True, True)
    await other.clear_stop(run)
    assert await store.claim([claim(run, 0)]) == [ClaimResult.GRANTED]
    assert not (await store.heartbeat(run, 0, "one")).stopped


async def test_later_stop_is_kept(store: Any) -> None:
    run = await held(store)
    await store.stop(run)
    seen = await store.run("a")
    assert (seen.stopped, seen.stops) == (True, 1)
    await store.stop(run)
    assert not await store.clear_stop(run, stops=seen.stops)
    assert (await store.run("a")).stopped
    assert await store.clear_stop(run, stops=2)
    assert not (await store.run("a")).stopped


async def test_held_run_is_not_deleted(store: Any, another: Callable[[], Any]) -> None:
    run, other = await held(store, ROWS[:2]), await another()
    await other.stop(run)
    assert not await other.delete(run)
    assert len([target async for target in store.targets(run)]) == 2
    await store.clear_stop(run)
    await store.release(run, 0, "one")
    assert not await other.delete(run), "it is not stopped"
    await other.stop(run)
    assert await other.delete(run)
    assert await store.runs() == []
    assert not await other.delete(run)


async def test_deleted_run_grants_nothing(store: Any, another: Callable[[], Any], database: Database) -> None:
    run, other = await held(store), await another()
    assert await store.claim([claim(run, 0), claim(run, 1)]) == [ClaimResult.GRANTED] * 2
    await database.lose(run)
    await other.stop(run)
    assert await other.delete(run)
    assert await store.claim([claim(run, 0), claim(run, 2)]) == [ClaimResult.STOPPED] * 2
    await store.record([record(run, 0, State.DONE)])
    assert not (await store.heartbeat(run, 0, "one")).mine
    assert await store.runs() == []


async def test_deleted_run_is_not_planned(store: Any) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.stop(run)
    assert await store.delete(run)
    for planning in (store.plan(run, ROWS), store.planned(run)):
        with pytest.raises(LedgerError, match="was deleted while it was planned"):
            await planning
    assert await store.runs() == []


async def test_unfinished_run_keeps_contents(store: Any) -> None:
    run = await held(store, ROWS[:2])
    await store.plan(run, [(b"k" * 16, "{}")], contents={"c" * 40: "x"})
    await store.planned(run)
    await store.claim([claim(run, index) for index in range(3)])
    await store.record([record(run, 0, State.DONE), record(run, 1, State.REJECTED)])
    await store.stop(run)
    await store.release(run, 0, "one")
    assert not await store.prune_contents(run)
    assert await store.has_contents(run)
    await hold(store, run, "two")
    await store.record([record(run, 2, State.UNKNOWN, "two", is_final=True)])
    assert not await store.prune_contents(run), "it is held"
    await store.release(run, 0, "two")
    assert await store.prune_contents(run)
    assert not await store.has_contents(run)


async def test_replaced_holder_is_refused(store: Any, another: Callable[[], Any], database: Database) -> None:
    run = await held(store)
    assert await store.claim([claim(run, 0)]) == [ClaimResult.GRANTED]
    await database.lose(run)
    other = await another()
    assert await hold(other, run, "two") is None
    assert await store.claim([claim(run, 0), claim(run, 1)]) == [ClaimResult.STOPPED, ClaimResult.STOPPED]
    assert await other.claim([claim(run, 0, "two")]) == [ClaimResult.GRANTED]
    # Its late word that nothing was sent would deny the request that is now on its way.
    for state in (State.NOT_SENT, State.UNKNOWN, State.REJECTED):
        await store.record([record(run, 0, state)])
        assert (await states(store, run))[:2] == ["sending", "planned"]
    # But what is done is done.
    await store.record([record(run, 0, State.DONE)])
    await other.record([record(run, 0, State.REJECTED, "two")])
    assert (await states(store, run))[0] == "done"


async def test_better_outcome_replaces_unknown(store: Any) -> None:
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
async def test_a_code_keeps_its_type(store: Any, code: int | str | None) -> None:
    run = await held(store)
    await store.record([record(run, 3, State.REJECTED, code=code, summary="нет", request_id="r")])
    (found,) = [target async for target in store.targets(run, states=["rejected"])]
    assert (found.index, found.code, found.summary, found.request_id) == (3, code, "нет", "r")


async def test_unsettled_targets_are_paged(store: Any) -> None:
    run = await held(store)
    await store.claim([claim(run, index, request_id=f"r{index}", seconds=index) for index in range(5)])
    await store.record([record(run, 0, State.DONE), record(run, 1, State.REJECTED), record(run, 2, State.NOT_SENT)])
    await store.record([record(run, 3, State.UNKNOWN, at=START + timedelta(hours=1))])
    texts = [text for _, text in ROWS]
    first = [attrs.evolve(row, acting_for=0) for row in await store.unsettled(run, 0, after=-1, limit=3)]
    assert first == [
        Unsettled(2, texts[2]),
        Unsettled(3, texts[3], "r3", START + timedelta(seconds=3)),
        Unsettled(4, texts[4], "r4", START + timedelta(seconds=4)),
    ]
    rest = [attrs.evolve(row, acting_for=0) for row in await store.unsettled(run, 0, after=4, limit=100)]
    assert rest == [Unsettled(index, texts[index]) for index in range(5, 10)]
    assert await store.unsettled(run, 0, after=9, limit=100) == []


async def test_unsettled_targets_belong_to_chunk(store: Any) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, ROWS)
    await store.planned(run, size=4)
    assert [row.index for row in await store.unsettled(run, 1, after=-1, limit=100)] == [4, 5, 6, 7]


async def test_targets_are_paged_by_state(store: Any) -> None:
    rows = [(number.to_bytes(16, "big"), "{}") for number in range(2100)]
    run = await held(store, rows)
    await store.claim([claim(run, index) for index in range(2100)])
    await store.record([record(run, index, State.DONE if index % 2 else State.UNKNOWN) for index in range(2100)])
    assert [target.index async for target in store.targets(run, states=["done"])] == list(range(1, 2100, 2))
    assert len([target async for target in store.targets(run, states=["done", "unknown"])]) == 2100
    assert [target async for target in store.targets(run, states=["planned"])] == []


async def test_written_data_is_durable(store: Any, another: Callable[[], Any]) -> None:
    run = await held(store)
    await store.claim([claim(run, 0)])
    await store.close()
    await store.close()
    later = await another()
    assert await later.counts(run) == Counts(planned=9, sending=1)


def near(seconds: float) -> Any:
    """So many seconds, as a database's own clock measures them."""
    return pytest.approx(seconds, abs=1.0)


async def acting_for(store: Any, run: int) -> list[float]:
    return [max(0.0, row.acting_for) for row in await store.unsettled(run, 0, after=-1, limit=100)]


async def test_remaining_time_may_be_negative(store: Any, database: Database) -> None:
    run = await held(store)
    assert await store.claim([claim(run, 0)]) == [ClaimResult.GRANTED]
    await database.pass_time(CLAIM_AGE + ATTEMPT + 100)
    [first, *_] = await store.unsettled(run, 0, after=-1, limit=100)
    assert -101 <= first.acting_for <= -99


async def test_claim_acts_until_expiry(store: Any, database: Database) -> None:
    run = await held(store, ROWS[:3])
    await store.claim([claim(run, 0), claim(run, 1)])
    await store.record([record(run, 1, State.UNKNOWN)])
    full = CLAIM_AGE + ATTEMPT
    assert await acting_for(store, run) == [near(full), near(full), 0]
    await database.pass_time(30)
    assert await acting_for(store, run) == [near(full - 30), near(full - 30), 0]
    await database.pass_time(full)
    assert await acting_for(store, run) == [0, 0, 0]


async def test_a_repeated_claim_acts_anew(store: Any, database: Database) -> None:
    run = await held(store, ROWS[:2])
    full = CLAIM_AGE + ATTEMPT
    await store.claim([claim(run, 0), claim(run, 1)])
    await database.pass_time(30)
    assert await store.claim([claim(run, 1), claim(run, 1)]) == [ClaimResult.GRANTED] * 2
    assert await acting_for(store, run) == [near(full - 30), near(full)]
    await store.record([record(run, 1, State.UNKNOWN)])
    await database.pass_time(30)
    assert await store.claim([claim(run, 1), claim(run, 0)]) == [ClaimResult.GRANTED] * 2, "a repeat after an outcome"
    assert await acting_for(store, run) == [near(full), near(full)]


async def test_refused_claim_keeps_time(store: Any, database: Database, another: Callable[[], Any]) -> None:
    run = await held(store, ROWS[:1])
    await store.claim([claim(run, 0)])
    await database.pass_time(30)
    await store.stop(run)
    assert await store.claim([claim(run, 0)]) == [ClaimResult.STOPPED]
    assert await (await another()).claim([claim(run, 0, "two")]) == [ClaimResult.STOPPED]
    assert await acting_for(store, run) == [near(CLAIM_AGE + ATTEMPT - 30)]


async def test_repeated_claim_after_stop_refused(store: Any) -> None:
    run = await held(store)
    assert await store.claim([claim(run, 0)]) == [ClaimResult.GRANTED]
    await store.stop(run)
    assert await store.claim([claim(run, 0), claim(run, 1)]) == [ClaimResult.STOPPED] * 2
    await store.clear_stop(run)
    assert await store.claim([claim(run, 0), claim(run, 1, "two")]) == [ClaimResult.GRANTED, ClaimResult.STOPPED]


async def test_the_longest_timeout_counts(store: Any) -> None:
    run = await held(store, ROWS[:1])
    await store.claim([claim(run, 0)])
    await store.release(run, 0, "one")
    assert await store.acquire(run, 0, holder("two"), attempt_timeout=ATTEMPT + 60) is None
    assert await acting_for(store, run) == [near(CLAIM_AGE + ATTEMPT + 60)]


async def test_restored_run_is_unclear(store: Any, database: Database) -> None:
    run = await held(store, ROWS[:5])
    await store.claim([claim(run, index, request_id=f"r{index}", seconds=7) for index in range(4)])
    await store.record([record(run, 0, State.DONE), record(run, 1, State.NOT_SENT), record(run, 2, State.UNKNOWN)])
    await store.release(run, 0, "one")
    later = await database.restore(store)
    assert (await later.run("a")).restored  # type: ignore[union-attr]
    assert [stored_run.restored for stored_run in await later.runs()] == [True]
    await database.pass_time(1000)
    assert await hold(later, run, "two") is None
    await database.pass_time(30)
    found = await later.unsettled(run, 0, after=-1, limit=100)
    sent = START + timedelta(seconds=7)
    assert [(target.index, target.request_id, target.since) for target in found] == [
        (1, None, START),
        (2, "r2", sent),
        (3, "r3", sent),
        (4, None, START),
    ]
    assert [target.acting_for for target in found] == [near(CLAIM_AGE + ATTEMPT - 30)] * 4, "since it was taken"
    second = await later.begin(run_plan("b"))
    assert not second.restored


async def test_identity_is_checked(store: Any) -> None:
    await store.check_identity()
    await store.accept_copy()
    await store.check_identity()


async def planned(store: Any, name: str, rows: Sequence[tuple[bytes, str]] = ROWS, **more: Any) -> int:
    """A run of chunks of four targets each, all of them held."""
    run = (await store.begin(run_plan(name, **more))).number
    await store.plan(run, rows)
    for chunk in await store.planned(run, size=4):
        assert await hold(store, run, name, chunk.number) is None
    return run


async def launched(store: Any, name: str, **more: Any) -> int:
    """A run of ten targets, two each of: done, in flight, unknown, rejected, not sent. No process holds it."""
    run = await planned(store, name, **more)
    await store.claim([Claim(run, index // 4, index, name, None, START) for index in range(10)])
    outcomes = [State.DONE, None, State.UNKNOWN, State.REJECTED, State.NOT_SENT]
    now = more.get("at", START)
    await store.record(
        [
            Record(run, index // 4, index, name, state, "", None, None, 1, now)
            for index in range(10)
            if (state := outcomes[index // 2]) is not None
        ]
    )
    for chunk in range(3):
        await store.release(run, chunk, name)
    return run


async def test_repeats_of_another_run(store: Any, database: Database) -> None:
    first = await launched(store, "a")
    run = await planned(store, "b", ROWS[::-1])
    [found] = await store.repeats(run, within=3600)
    assert (found.run, found.count) == ("a", 6)
    assert list(found.commands) == [ROWS[index][1] for index in range(5, -1, -1)], "in the order of the new run"
    assert list(found.indexes) == [4, 5, 6, 7, 8, 9]
    assert abs(found.latest.timestamp() - (await moment(database))) < 5
    [part] = await store.repeats(run, chunk=1, within=3600)
    assert list(part.commands) == [ROWS[index][1] for index in (5, 4, 3, 2)]
    assert [repeat.count for repeat in await store.repeats(run, chunk=2, within=3600)] == [2]
    assert await store.repeats(run, chunk=0, within=3600) == []
    for chunk in range(3):
        await store.release(run, chunk, "b")
    assert await store.repeats(first, within=3600) == [], "the new run has launched nothing"


async def moment(database: Database) -> float:
    if database.lock_decides:
        return database.clock.now().timestamp()
    return time.time()


async def test_repeats_within_the_window(store: Any, database: Database) -> None:
    await launched(store, "a")
    run = await planned(store, "b")
    await database.pass_time(100)
    assert [repeat.count for repeat in await store.repeats(run, within=110)] == [6]
    assert await store.repeats(run, within=90) == []


async def test_finished_targets_repeat_nothing(store: Any) -> None:
    await launched(store, "a")
    run = await launched(store, "b")
    assert [repeat.count for repeat in await store.repeats(run, within=3600)] == [4], "its two that are done are over"
    run = await planned(store, "c")
    await store.claim([Claim(run, 1, 4, "c", None, START)])
    await store.record([Record(run, 1, 4, "c", State.UNKNOWN, "", None, None, 1, START, is_final=True)])
    [found, _] = await store.repeats(run, within=3600)
    assert list(found.indexes) == [0, 1, 2, 3, 5], "nothing settles 4 any more"


@pytest.mark.parametrize(
    ("first", "second", "repeats"),
    [
        ({}, {}, True),
        ({}, {"host": "other"}, False),
        ({"settings": '{"wire": "json"}'}, {"settings": "of a newer release"}, True),  # a command names its provider
        ({"account": "shop"}, {"account": "shop", "fingerprint": "g"}, True),
        ({"account": "shop"}, {"account": "other"}, False),
        ({"account": "shop"}, {"account": None}, True),
        ({"account": None}, {"account": "shop", "fingerprint": "g"}, False),
        ({}, {"fingerprint": "g"}, False),
    ],
)
async def test_repeats_of_one_account(store: Any, first: dict[str, Any], second: dict[str, Any], repeats: bool) -> None:
    await launched(store, "a", **first)
    run = await planned(store, "b", **second)
    assert bool(await store.repeats(run, within=3600)) == repeats


async def test_a_held_plan_repeats(store: Any, another: Callable[[], Any], database: Database) -> None:
    other = await another()
    first = await planned(other, "a")
    run = await planned(store, "b")
    assert [(repeat.run, repeat.count) for repeat in await store.repeats(run, within=1)] == [("a", 10)]
    if database.lock_decides:
        await database.pass_time(10_000)  # a suspended holder still holds it
        assert [repeat.count for repeat in await store.repeats(run, within=1)] == [10]
    await other.release(first, 1, "a")
    assert [repeat.count for repeat in await store.repeats(run, within=1)] == [6]
    await database.lose(first, 2)
    assert [repeat.count for repeat in await store.repeats(run, within=1)] == [4]
    await other.close()
    if database.lock_decides:
        assert await store.repeats(run, within=1) == []


async def test_many_repeats_are_counted(store: Any) -> None:
    rows = [(number.to_bytes(16, "big"), f"c{number}") for number in range(2500)]
    first = await held(store, rows)
    await store.claim([claim(first, index) for index in range(2500)])
    run = (await store.begin(run_plan("b"))).number
    await store.plan(run, rows)
    [found] = await store.repeats(run, within=3600)
    assert (found.count, list(found.commands)) == (2500, [f"c{number}" for number in range(10)])
    assert list(found.indexes) == list(range(2500))


@pytest.mark.parametrize("count", [2, 10])
async def test_repeats_across_run_sizes(store: Any, count: int) -> None:
    rows = [(bytes([number]) * 16, f"c{number}") for number in range(100, 100 + 5)]
    await launched(store, "a")
    run = await planned(store, "b", [*rows, *ROWS[:count][::-1], *rows])
    [found] = await store.repeats(run, within=3600)
    assert list(found.commands) == [ROWS[index][1] for index in range(10) if index < min(6, count)][::-1]
    assert found.count == min(6, count)
    assert list(found.indexes) == [5 + place for place in range(count) if count - 1 - place < 6]
    if count == 10:
        [found] = await store.repeats(run, chunk=3, within=3600)
        assert list(found.commands) == [ROWS[index][1] for index in (2, 1, 0)]


async def test_repeats_of_two_runs(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatchkit.ledger.postgres.repeats._PAGE", 3)
    await launched(store, "a")
    await launched(store, "b")
    run = await planned(store, "c")
    found = await store.repeats(run, within=3600)
    assert [(repeat.run, repeat.count, list(repeat.commands)) for repeat in found] == [
        (name, 6, [ROWS[index][1] for index in range(6)]) for name in ("a", "b")
    ]


async def rivals(store: Any, run: int, index: int = 0, *, log_key: int = 9, within: float = 60.0) -> bool:
    return bool(await store.has_rival(run, index, log_key, within=within))


async def of_one_log(store: Any, name: str, token: str, count: int = 3, **plan: Any) -> int:
    """A run of targets of the log 9, planned and held."""
    run = (await store.begin(run_plan(name, **plan))).number
    await store.plan(run, ROWS[:count], log_keys={key: 9 for key, _ in ROWS[:count]})
    await store.planned(run)
    await hold(store, run, token)
    return int(run)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same-run", "another-run"])
async def test_other_log_launch_is_rival(store: Any, elsewhere: bool) -> None:
    run = await of_one_log(store, "a", "one")
    other = await of_one_log(store, "b", "two") if elsewhere else run
    token = "two" if elsewhere else "one"
    await store.claim([claim(run, 0)])
    assert not await rivals(store, run), "its own claim, and targets that were never claimed"
    await store.claim([claim(other, 1, token)])
    assert await rivals(store, run), "in flight"
    assert not await rivals(store, run, log_key=8)
    for state, counts in ((State.NOT_SENT, False), (State.UNKNOWN, True), (State.DONE, True)):
        await store.record([record(other, 1, state, token)])
        assert await rivals(store, run) is counts, state


async def test_rejected_launch_is_no_rival(store: Any) -> None:
    run = await of_one_log(store, "a", "one")
    await store.claim([claim(run, 0), claim(run, 1)])
    await store.record([record(run, 1, State.REJECTED)])
    assert not await rivals(store, run)


async def test_resent_launch_is_rival(store: Any) -> None:
    run = await of_one_log(store, "a", "one")
    await store.claim([claim(run, 1)])
    await store.record([record(run, 1, State.NOT_SENT)])
    await hold(store, run, "one")
    await store.claim([claim(run, 1)])
    assert await rivals(store, run)


async def test_other_host_is_no_rival(store: Any) -> None:
    run = await of_one_log(store, "a", "one")
    other = await of_one_log(store, "b", "two", host="another")
    await store.claim([claim(other, 1, "two")])
    assert not await rivals(store, run)


async def test_log_key_is_required(store: Any) -> None:
    run = await held(store)
    await store.claim([claim(run, 1)])
    assert not await rivals(store, run)


async def test_launch_counts_until_expiry(database: Database, store: Any) -> None:
    run = await of_one_log(store, "a", "one")
    await store.claim([claim(run, 1)])
    await database.pass_time(60 + ATTEMPT + CLAIM_AGE - 1)
    assert await rivals(store, run)
    await database.pass_time(2)
    assert not await rivals(store, run)


async def test_unsettleable_target_is_left_alone(store: Any) -> None:
    run = await held(store, ROWS[:3])
    await store.claim([claim(run, 0), claim(run, 1), claim(run, 2)])
    await store.record([record(run, 0, State.UNKNOWN, is_final=True, summary="why"), record(run, 1, State.UNKNOWN)])
    assert [row.index for row in await store.unsettled(run, 0, after=-1, limit=9)] == [1, 2]
    counts = await store.counts(run)
    assert (counts, counts.unknown_for_good) == (Counts(unknown=2, sending=1, unknown_for_good=1), 1)
    told = [target async for target in store.targets(run)]
    assert [(target.state, target.is_final) for target in told] == [
        ("unknown", True),
        ("unknown", False),
        ("sending", False),
    ]
    assert told[0].summary == "why"
    await store.record([record(run, 0, State.DONE, "an-earlier-hold")])
    assert (await store.counts(run)).unknown_for_good == 0, "what is known to be done counts all the same"


async def repeats_of(store: Any, run: int) -> list[int]:
    return [row.repeats for row in await store.unsettled(run, 0, after=-1, limit=9)]


async def test_possible_repeats_are_counted(store: Any) -> None:
    run = await held(store, ROWS[:3])
    await store.claim([claim(run, 0), claim(run, 1)])
    assert await repeats_of(store, run) == [0, 0, 0]
    await store.record([record(run, 1, State.NOT_SENT)])
    for seconds, (token, before) in enumerate([("two", "one"), ("three", "two")]):
        await store.release(run, 0, before)
        await hold(store, run, token)
        # 1 was not sent: its first request is that of this hold.
        await store.claim([claim(run, 0, token), claim(run, 1, token, seconds=5 if seconds else 4)])
        await store.claim([claim(run, 0, token)])
        assert await repeats_of(store, run) == [seconds + 1, 0, 0]
    await store.record([record(run, 0, State.UNKNOWN, "three")])
    assert await repeats_of(store, run) == [2, 0, 0]
    await store.record([record(run, 0, State.UNKNOWN, "three", attempts=0)])
    assert await repeats_of(store, run) == [0, 0, 0], "it only looked"

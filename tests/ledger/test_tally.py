"""The tally of a run is what its rows say, whichever process wrote what, and wherever one was killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dispatchkit import Ledger, State
from dispatchkit.ledger.blocks import stretches, stretches_with
from dispatchkit.ledger.chunk import Holder
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.run import Counts
from dispatchkit.ledger.sqlite import write
from dispatchkit.ledger.store import Store
from dispatchkit.sandbox import Sandbox
from dispatchkit.testing.clock import FakeClock
from tests.ledger.ledger_process import launch
from tests.ledger.stores import DATABASES, Database, Sqlite
from tests.ledger.test_store import run_plan

START = datetime(2026, 1, 1, tzinfo=UTC)
STATES = (State.DONE, State.REJECTED, State.NOT_SENT, State.UNKNOWN)
TARGETS = 24


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> Database:
    return DATABASES[request.param](request, FakeClock(jumps=False))


async def planned(store: Store, total: int, *, size: int | None = None) -> int:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, [(b"%d" % number, f"c{number}") for number in range(total)])
    await store.planned(run, size=size)
    return run


async def recount(store: Store, run: int, *, start: int = 0, end: int = 2**31) -> Counts:
    """The counts, from the rows themselves."""
    found: Counter[str] = Counter()
    async for target in store.targets(run):
        if start <= target.index < end:
            found[target.state] += 1
            found["unknown_for_good"] += target.is_final
    return Counts(**found)


async def check(store: Store, run: int) -> None:
    assert await store.counts(run) == await recount(store, run)
    for chunk in await store.planned(run):
        counts = await store.counts(run, chunk=chunk.number)
        assert counts == await recount(store, run, start=chunk.start, end=chunk.end)
    for states in (("planned",), ("sending", "unknown"), STATES[1:], ("planned", "not_sent")):
        listed = [target.index async for target in store.targets(run, states=states)]
        assert listed == [target.index async for target in store.targets(run) if target.state in states]


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.second_stage) for seed in range(2, 8))])
async def test_tally_matches_rows(database: Database, seed: int) -> None:
    """Holders take turns. They claim again, record again, and record what another holds by now."""
    chance = random.Random(seed)
    async with database.stack:
        store = await database.open()
        run = await planned(store, TARGETS, size=TARGETS // 2)
        tokens = ["none"]
        for turn in range(40):
            if turn == 0 or chance.random() < 0.15:
                tokens.append(f"hold-{turn}")
                for chunk in (0, 1):
                    await store.release(run, chunk, tokens[-2])
                    assert await store.acquire(run, chunk, Holder(tokens[-1], 1, "h"), attempt_timeout=1.0) is None
            token = tokens[-1] if chance.random() < 0.7 else chance.choice(tokens)
            indexes = chance.sample(range(TARGETS), chance.randint(1, 6))
            if chance.random() < 0.5:
                request_id = chance.choice((None, "r"))
                await store.claim([Claim(run, index // 12, index, token, request_id, START) for index in indexes])
                continue
            states = STATES if chance.random() < 0.5 else (chance.choice(STATES),)
            await store.record([recorded(run, index, token, chance.choice(states), chance) for index in indexes])
            await check(store, run)
        await check(store, run)


def recorded(run: int, index: int, token: str, state: State, chance: random.Random) -> Record:
    is_final = state is State.UNKNOWN and chance.random() < 0.3
    at = START + timedelta(seconds=index)
    if state is State.DONE and chance.random() < 0.7:
        return Record(run, index // 12, index, token, state, "", None, None, 1, at)
    code = chance.choice((None, 4031, "X"))
    return Record(run, index // 12, index, token, state, "a text", code, "r", 2, at, is_final)


async def test_simultaneous_outcomes_count_once(database: Database) -> None:
    """A retry after a lost answer runs beside the statement itself."""
    async with database.stack:
        stores = [await database.open() for _ in range(4)]
        run = await planned(stores[0], 300)
        assert await stores[0].acquire(run, 0, Holder("one", 1, "host"), attempt_timeout=1.0) is None
        claims = [Claim(run, 0, index, "one", None, START) for index in range(300)]
        await asyncio.gather(*(store.claim(claims) for store in stores))
        assert await stores[0].counts(run) == Counts(sending=300)
        for state in (State.UNKNOWN, State.NOT_SENT, State.DONE):
            records = [Record(run, 0, index, "one", state, "", None, None, 1, START) for index in range(300)]
            await asyncio.gather(*(store.record(records) for store in stores))
            await check(stores[0], run)
        assert await stores[0].counts(run) == Counts(done=300)


async def test_late_outcome_counts_once(database: Database) -> None:
    """A holder that was presumed dead writes *done* while the next one writes that it is unknown."""
    async with database.stack:
        late, store = await database.open(), await database.open()
        run = await planned(store, 50)
        assert await late.acquire(run, 0, Holder("one", 1, "host"), attempt_timeout=1.0) is None
        await late.claim([Claim(run, 0, index, "one", None, START) for index in range(50)])
        await late.release(run, 0, "one")
        assert await store.acquire(run, 0, Holder("two", 1, "host"), attempt_timeout=1.0) is None
        for index in range(50):
            await asyncio.gather(
                store.record([Record(run, 0, index, "two", State.UNKNOWN, "", None, None, 1, START)]),
                late.record([Record(run, 0, index, "one", State.DONE, "", None, None, 1, START)]),
            )
        await asyncio.gather(
            store.claim([Claim(run, 0, index, "two", None, START) for index in range(50)]),
            late.record([Record(run, 0, index, "one", State.DONE, "", None, None, 1, START) for index in range(50)]),
        )
        assert await store.counts(run) == await recount(store, run) == Counts(done=50)


async def test_usual_batch_is_one_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_write_any", None)
    database = Sqlite(tmp_path, FakeClock(jumps=False))
    async with database.stack:
        store = await database.open()
        run = await planned(store, 30, size=20)
        for chunk in (0, 1):
            assert await store.acquire(run, chunk, Holder("one", 1, "host"), attempt_timeout=1.0) is None
        await store.claim([Claim(run, index // 20, index, "one", None, START) for index in range(30)])
        chance = random.Random(1)
        states = [STATES[index % 4] for index in range(30)]
        records = [recorded(run, index, "one", state, chance) for index, state in enumerate(states)]
        await store.record([record._replace(chunk=record.index // 20) for record in records])
        await check(store, run)


@pytest.mark.second_stage
@pytest.mark.parametrize("seed", range(2))
async def test_tally_survives_kills(database: Database, seed: int) -> None:
    """Each process is killed with signal 9 at a random moment. Not one row is without its count."""
    where = str(database.path) if isinstance(database, Sqlite) else database.dsn
    chance = random.Random(seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.ledger.ledger_process"])
    async with Sandbox(latency=0.002) as sandbox:
        for _ in range(5):
            launched = len(sandbox.direct.launches)
            given = ("direct", sandbox.url, sandbox.direct_token, where, range(1, 10_000))
            child = context.Process(target=launch, args=given)
            child.start()
            async with asyncio.timeout(60):
                while len(sandbox.direct.launches) <= launched:  # noqa: ASYNC110 - another process has to begin
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(child.join, chance.uniform(0, 0.4))
            child.kill()
            await asyncio.to_thread(child.join)
            async with Ledger(where) as ledger:
                if runs := await ledger.runs():
                    store = await ledger._open_store()
                    assert await store.counts(runs[0].number) == await recount(store, runs[0].number)
                    if not database.lock_decides:
                        await database.lose(runs[0].number)
    assert (await counts_of_run(where)).done


async def counts_of_run(where: str) -> Counts:
    async with Ledger(where) as ledger:
        return await ledger.counts("run")


def test_full_blocks_are_skipped() -> None:
    assert [*stretches(1000, 4000, {0: 24, 1: 1024})] == [range(2048, 4000)]
    assert [*stretches(0, 4000, {}, first=2000)] == [range(2000, 4000)]
    assert [*stretches(0, 4096, {0: 1024, 1: 1024, 2: 1024, 3: 1024})] == []
    assert [*stretches(0, 70 * 1024, {})] == [range(64 * 1024), range(64 * 1024, 70 * 1024)]


def test_blocks_are_found_by_state() -> None:
    rows = [(0, 0, 1024, 0, 0, 0, 0), (1, 2, 1020, 1, 0, 1, 1), (2, 0, 3, 0, 0, 0, 0)]
    assert stretches_with(2060, rows, ()) == [range(2060)]
    assert stretches_with(2060, rows, ("rejected", "unknown")) == [range(1024, 2048)]
    assert stretches_with(2060, rows, ("planned",)) == [range(2048, 2060)]
    assert stretches_with(2060, rows, ("planned", "sending")) == [range(1024, 2060)]
    assert stretches_with(2060, rows, ("done",)) == [range(1024), range(1024, 2048), range(2048, 2060)]

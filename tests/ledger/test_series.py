"""The series of a run: each outcome counts once, at its time, with its latency."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatchkit import Bucket, Ledger, LedgerError, State
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.series import BUCKET_SECONDS, LATENCY_BOUNDS, buckets_of, percentile, slot_of
from dispatchkit.ledger.sqlite import write
from dispatchkit.ledger.store import Store
from dispatchkit.testing import FakeClock
from dispatchkit.testing.clock import START
from tests.harness import run_settings, starts
from tests.ledger.stores import DATABASES, Database, Sqlite, holder
from tests.ledger.test_journal import outcome, taken
from tests.ledger.test_tally import planned

STATES = (State.DONE, State.REJECTED, State.NOT_SENT, State.UNKNOWN)
EVER = START - timedelta(days=1)


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> Database:
    return DATABASES[request.param](request, FakeClock(jumps=False))


def record(run: int, index: int, state: State = State.DONE, *, after: float = 0.0, took: float | None = 0.04) -> Record:
    """An outcome so many seconds after the start, and so many after its claim."""
    at = START + timedelta(seconds=after)
    since = None if took is None else at - timedelta(seconds=took)
    return Record(run, 0, index, "one", state, "", None, None, 1, at, since=since)


async def held(store: Store, total: int = 10) -> int:
    run = await planned(store, total)
    assert await store.acquire(run, 0, holder(), attempt_timeout=1.0) is None
    await store.claim([Claim(run, 0, index, "one", None, START) for index in range(total)])
    return run


def histogram(**slots: int) -> tuple[int, ...]:
    """A histogram by the bound of each slot, such as ``s0_05=3``."""
    bounds = {float(name[1:].replace("_", ".")): count for name, count in slots.items()}
    return (*(bounds.pop(bound, 0) for bound in LATENCY_BOUNDS), 0)


async def test_times_are_stored_exactly(database: Database) -> None:
    """A batch writes its times in one go: around a bucket's ends, without microseconds, and out of order."""
    afters = (0.0, 0.000001, 9.999999, 10.0, 5.25, 70.5, 3600.000123, 86400.0)
    async with database.stack:
        store = await database.open()
        run = await held(store)
        await store.record([record(run, index, after=after) for index, after in enumerate(afters)])
        stories = [await store.story(run, index) for index in range(len(afters))]
        found = [outcome.at for story in stories for outcome in story.outcomes]
        assert found == [START + timedelta(seconds=after) for after in afters]
        assert sum(bucket.done for bucket in await store.series(run, since=EVER)) == len(afters)


async def test_outcomes_count_in_buckets(database: Database) -> None:
    async with database.stack:
        store = await database.open()
        run = await held(store)
        await store.record([record(run, 0), record(run, 1, after=9.999999), record(run, 2, after=10, took=0.2)])
        await store.record([record(run, 3, after=10), record(run, 4, State.REJECTED, after=11)])
        await store.record([record(run, 5, State.UNKNOWN, after=40, took=60), record(run, 6, State.NOT_SENT, after=40)])
        second = START + timedelta(seconds=10)
        third = START + timedelta(seconds=40)
        expected = [
            Bucket(START, done=2, latency=histogram(s0_05=2)),
            Bucket(second, done=2, rejected=1, latency=histogram(s0_05=2, s0_2=1)),
            Bucket(third, not_sent=1, unknown=1, latency=histogram(s60=1)),
        ]
        assert await store.series(run, since=EVER) == expected
        assert await store.series(run + 1, since=EVER) == []
        for since in (second, second + timedelta(seconds=9.9)):
            assert await store.series(run, since=since) == expected[1:]
        assert await store.series(run, since=third + timedelta(seconds=10)) == []


async def test_repeated_record_counts_once(database: Database) -> None:
    async with database.stack:
        store = await database.open()
        run = await held(store)
        records = [record(run, index, state) for index, state in enumerate(STATES)]
        for _ in range(3):
            await store.record(records)
        await store.record([*records, record(run, 5), record(run, 5)])
        assert await store.series(run, since=EVER) == [
            Bucket(START, done=2, rejected=1, not_sent=1, unknown=1, latency=histogram(s0_05=4))
        ]


async def test_refused_outcome_is_not_counted(database: Database) -> None:
    async with database.stack:
        store = await database.open()
        run = await held(store)
        await store.release(run, 0, "one")
        assert await store.acquire(run, 0, holder("two"), attempt_timeout=1.0) is None
        await store.record([record(run, 0, State.UNKNOWN), record(run, 1)])
        assert await store.series(run, since=EVER) == [Bucket(START, done=1, latency=histogram(s0_05=1))]


async def test_settled_outcome_counts_again(database: Database) -> None:
    """An outcome that a resume settles counts at its own time. Its latency begins with the unclear request."""
    async with database.stack:
        store = await database.open()
        run = await held(store)
        await store.record([record(run, 0, State.UNKNOWN)])
        await store.record([record(run, 0, State.DONE, after=86400, took=86400.04)])
        assert await store.series(run, since=EVER) == [
            Bucket(START, unknown=1, latency=histogram(s0_05=1)),
            Bucket(START + timedelta(days=1), done=1, latency=(*(0,) * len(LATENCY_BOUNDS), 1)),
        ]


async def test_unclaimed_outcome_lacks_latency(database: Database) -> None:
    async with database.stack:
        store = await database.open()
        run = await held(store)
        await store.record([record(run, 0, took=None)])
        assert await store.series(run, since=EVER) == [Bucket(START, done=1)]


@pytest.mark.parametrize("seed", range(4))
async def test_series_matches_outcomes(database: Database, seed: int) -> None:
    """Holders take turns, claim and record again. Whatever is new in the outcomes is new in the series."""
    chance = random.Random(seed)
    expected: Counter[tuple[datetime, str]] = Counter()
    async with database.stack:
        store = await database.open()
        run = await planned(store, 24, size=12)
        tokens = ["none"]
        for turn in range(40):
            if turn == 0 or chance.random() < 0.15:
                tokens.append(f"hold-{turn}")
                for chunk in (0, 1):
                    await store.release(run, chunk, tokens[-2])
                    assert await store.acquire(run, chunk, holder(tokens[-1]), attempt_timeout=1.0) is None
            token = tokens[-1] if chance.random() < 0.7 else chance.choice(tokens)
            indexes = [chance.randrange(24) for _ in range(chance.randint(1, 6))]
            if chance.random() < 0.5:
                await store.claim([Claim(run, index // 12, index, token, None, START) for index in indexes])
                continue
            at = START + timedelta(seconds=3 * turn)
            states = STATES if chance.random() < 0.5 else (chance.choice(STATES),)
            await store.record(
                [
                    Record(run, index // 12, index, token, chance.choice(states), "", None, "r", 2, at, since=START)
                    for index in indexes
                ]
            )
            async for target in store.targets(run, states=[str(state) for state in STATES]):
                if target.at == at:
                    start = START + timedelta(seconds=3 * turn // BUCKET_SECONDS * BUCKET_SECONDS)
                    expected[start, target.state] += 1
        found: Counter[tuple[datetime, str]] = Counter()
        for bucket in await store.series(run, since=EVER):
            for state in STATES:
                found[bucket.start, state.value] += getattr(bucket, state.value)
        assert found == expected


async def test_simultaneous_records_count_once(database: Database) -> None:
    async with database.stack:
        stores = [await database.open() for _ in range(4)]
        run = await held(stores[0], 200)
        for place, state in enumerate((State.UNKNOWN, State.DONE)):
            records = [record(run, index, state, after=60 * place) for index in range(200)]
            await asyncio.gather(*(store.record(records) for store in stores))
        buckets = await stores[0].series(run, since=EVER)
        assert [(bucket.unknown, bucket.done) for bucket in buckets] == [(200, 0), (0, 200)]


async def test_usual_batch_stays_one_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_write_any", None)
    database = Sqlite(tmp_path, FakeClock(jumps=False))
    async with database.stack:
        store = await database.open()
        run = await held(store, 40)
        await store.record([record(run, index, STATES[index % 4], after=index) for index in range(40)])
        buckets = await store.series(run, since=EVER)
        assert [(bucket.done, bucket.unknown) for bucket in buckets] == [(3, 2), (2, 3), (3, 2), (2, 3)]


async def test_latency_begins_with_first_claim(tmp_path: Path) -> None:
    """A target that claims again after a pause has waited since its first claim."""
    clock = FakeClock(jumps=False)
    async with Ledger(tmp_path / "launch.db", clock=clock) as ledger:
        journal = ledger.journal("a", run_settings())
        await journal.open(starts([1]), lambda: None)
        [item] = await taken(journal)
        await journal.claim(item, None)
        clock.advance(2)
        await journal.claim(item, None)
        clock.advance(0.5)
        journal.record(item, outcome(item))
        await journal.close()
        [bucket] = await ledger.series("a")
        assert (bucket.done, bucket.latency) == (1, histogram(s3=1))


async def test_series_of_unknown_run(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "launch.db") as ledger:
        with pytest.raises(LedgerError, match="holds no run 'a'"):
            await ledger.series("a")
        with pytest.raises(ValueError, match="time zone"):
            await ledger.series("a", datetime(2026, 1, 1))


@given(st.lists(st.integers(1, 10_000_000), min_size=1), st.sampled_from([0.25, 0.5, 0.95, 1.0]))
def test_percentile_is_within_its_slot(milliseconds: list[int], share: float) -> None:
    slots = [0] * (len(LATENCY_BOUNDS) + 1)
    for each in milliseconds:
        slots[slot_of(START, START + timedelta(milliseconds=each))] += 1
    exact = sorted(milliseconds)[math.ceil(share * len(milliseconds)) - 1] / 1000
    slot = slot_of(START, START + timedelta(seconds=exact))
    found = percentile(slots, share)
    assert found is not None
    assert (0.0, *LATENCY_BOUNDS)[slot] <= found <= (*LATENCY_BOUNDS, LATENCY_BOUNDS[-1])[slot]


def test_empty_histogram_has_no_percentile() -> None:
    assert percentile([0] * (len(LATENCY_BOUNDS) + 1), 0.5) is None


def test_rows_of_bucket_join() -> None:
    rows: list[Any] = [(START, "done", 0, 2), (START, "done", -1, 1), (START, "not_sent", 3, 4)]
    [bucket] = buckets_of(rows)
    assert (bucket.done, bucket.not_sent, sum(bucket.latency)) == (3, 4, 2)

"""What a page reads of a run: blocks, ranges of targets, one target's claims and outcomes."""

from __future__ import annotations

from typing import Any

from dispatchkit import State
from dispatchkit.core.claim import ClaimResult
from dispatchkit.ledger.target import Target
from dispatchkit.testing.clock import START
from tests.ledger.test_store import (  # noqa: F401 - fixtures
    another,
    claim,
    clock,
    database,
    held,
    record,
    store,
)


def row(number: int) -> tuple[bytes, str]:
    return number.to_bytes(8, "big") + b"\1" * 12, f'{{"dispatch_id":{number}}}'


async def test_blocks_tally_a_run(store: Any) -> None:  # noqa: F811
    run = await held(store, [row(number) for number in range(1, 1030)])
    assert await store.blocks(run) == []
    await store.claim([claim(run, 0), claim(run, 1), claim(run, 1025)])
    await store.record([record(run, 1, State.REJECTED)])
    assert await store.blocks(run) == [(0, 1, 0, 1, 0, 0, 0), (1, 1, 0, 0, 0, 0, 0)]


async def test_targets_are_read_by_range(store: Any) -> None:  # noqa: F811
    run = await held(store, [row(number) for number in range(1, 2100)])
    found = [target.index async for target in store.targets(run, start=1000, end=2050)]
    assert found == [*range(1000, 2050)]
    await store.claim([claim(run, 5), claim(run, 1030)])
    assert [target.index async for target in store.targets(run, states=["sending"], start=6)] == [1030]
    assert [target.index async for target in store.targets(run, states=["sending"], end=1030)] == [5]


async def test_rows_are_those_of_targets(store: Any) -> None:  # noqa: F811
    run = await held(store, [row(number) for number in range(1, 1105)])
    await store.claim([claim(run, index, request_id=f"r-{index}") for index in range(5)])
    await store.record([record(run, 0, State.DONE), record(run, 1, State.REJECTED, summary="no", code="E1")])
    await store.record([record(run, 2, State.UNKNOWN, code=7, attempts=2, is_final=True)])
    await store.record([record(run, 3, State.UNKNOWN)])
    await store.claim([claim(run, 3, request_id="r-3")])
    rows = [each async for page in store.rows(run) for each in page]
    assert [Target.of_row(each) for each in rows] == [target async for target in store.targets(run)]
    assert [each[2] for each in rows[:6]] == ["done", "rejected", "unknown", "sending", "sending", "planned"]


async def test_indexes_are_found_by_target(store: Any) -> None:  # noqa: F811
    run = await held(store, [row(number) for number in range(1, 10)])
    assert await store.indexes_of(run, 4, limit=5) == [3]
    assert await store.indexes_of(run, 10, limit=5) == []


async def test_story_has_claims_and_outcome(store: Any) -> None:  # noqa: F811
    run = await held(store, [row(number) for number in range(1, 10)])
    assert await store.claim([claim(run, 2, request_id="r-1")]) == [ClaimResult.GRANTED]
    await store.record([record(run, 2, State.UNKNOWN, summary="lost", code=7, request_id="r-1", attempts=2)])
    story = await store.story(run, 2)
    assert [(each.send_no, each.request_id, each.since) for each in story.claims] == [(1, "r-1", START)]
    assert story.claims[0].claimed_at.tzinfo is not None
    [outcome] = story.outcomes
    assert (outcome.send_no, outcome.state, outcome.summary, outcome.code) == (1, "unknown", "lost", 7)
    assert (outcome.request_id, outcome.attempts, outcome.at, outcome.is_final) == ("r-1", 2, START, False)
    assert await store.story(run, 3) == type(story)([], [])

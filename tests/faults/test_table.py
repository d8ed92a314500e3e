"""Every fault times every command: acts at most once, tells the truth, and is back in time.

The whole table takes a minute (``python -m tests.faults.table``). Here every fault meets several of the commands, and
the two loops play other cells of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.faults.hostile_server import Recorder, share
from tests.faults.table import Cell, Mode, Row, cells, play_all

pytestmark = pytest.mark.second_stage

SLACK = 0.5
"""Seconds that a busy machine may add to each call: many of them run at once here. test_deadline is stricter."""


@pytest.fixture
async def elsewhere() -> AsyncIterator[Recorder]:
    async with Recorder() as recorder:
        yield recorder


def wrong(rows: list[Row]) -> list[str]:
    return [f"{row.cell}: {row}: {'; '.join(found)}" for row in rows if (found := list(row.faults(slack=SLACK)))]


def every(cells: list[Cell], nth: int) -> list[Cell]:
    """Every nth cell, beginning elsewhere on every loop, so that two loops cover more than one."""
    return cells[share(nth) :: nth]


@pytest.mark.parametrize("nth", [11, pytest.param(5, marks=pytest.mark.second_stage)])
async def test_first_attempt_faults_are_settled(elsewhere: Recorder, nth: int) -> None:
    chosen = every(list(cells(elsewhere.url, modes=["once"])), nth)

    rows = await play_all(chosen, elsewhere)

    assert len(rows) > 2_000 / nth
    assert wrong(rows) == []
    assert elsewhere.received == b""


@pytest.mark.second_stage
@pytest.mark.parametrize("mode", ["always", "dark", "alone"])
async def test_persistent_faults_are_settled(elsewhere: Recorder, mode: Mode) -> None:
    chosen = every(list(cells(elsewhere.url, modes=[mode])), 11)

    rows = await play_all(chosen, elsewhere, together=32 if mode == "always" else 16)  # where most of it is waiting

    assert len(rows) > 100
    assert wrong(rows) == []


@pytest.mark.parametrize("nth", [37, pytest.param(13, marks=pytest.mark.second_stage)])
async def test_blocking_calls_match_outcomes(elsewhere: Recorder, nth: int) -> None:
    chosen = every(list(cells(elsewhere.url, modes=["once"], blocking=True)), nth)

    rows = await play_all(chosen, elsewhere, together=8)

    assert len(rows) > 2_000 / nth
    assert wrong(rows) == []

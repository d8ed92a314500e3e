"""A run of a ledger can be watched by a process that does not perform it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import Ledger, LedgerError, Pace, Snapshot
from dispatchkit.testing.clock import FakeClock
from tests.harness import played, until


async def watched(ledger: Ledger, name: str) -> list[Snapshot]:
    return [snapshot async for snapshot in ledger.watch(name)]


async def test_other_ledger_watches_run(tmp_path: Path) -> None:
    clock, other, where = FakeClock(), FakeClock(), tmp_path / "launch.db"
    client, _ = played(clock)
    async with Ledger(where, clock=clock) as ledger, Ledger(where, clock=other) as far:
        await client.start_many(range(1, 11), ledger=ledger, run="all", max_launches=4).finish()
        watching = asyncio.create_task(watched(far, "all"))
        await until(lambda: other.time > 3)
        await client.start_many(range(1, 11), ledger=ledger, run="all").finish()
        first, *_, last = await watching
    assert (first.report.done, first.report.not_started, first.is_over) == (4, 6, False)
    assert (first.in_flight, first.settling, first.paused_for, first.time_left) == (0, None, None, None)
    assert (last.report.done, last.report.not_started, last.is_over, last.time_left) == (10, 0, True, 0.0)


@pytest.mark.second_stage
async def test_held_run_has_time_left(tmp_path: Path) -> None:
    clock = FakeClock()
    client, _ = played(clock, pace=Pace(rate=10))
    async with Ledger(tmp_path / "launch.db", clock=clock) as ledger:
        run = client.start_many(range(1, 1001), ledger=ledger, run="all", max_launches=100)
        for _ in range(20):
            await anext(run)
        looks = ledger.watch("all")
        first = await anext(looks)
        for _ in range(20):
            await anext(run)
        second = await anext(looks)
        await run.finish()
    assert (first.rate, first.is_over) == (None, False)
    assert second.in_flight >= 0
    assert second.rate is not None
    assert (second.time_left is None) == (not second.rate), "no outcome may be written between two looks"


async def test_stopped_run_ends_watch(tmp_path: Path) -> None:
    client, _ = played()
    async with Ledger(tmp_path / "launch.db") as ledger:
        await client.start_many(range(1, 11), ledger=ledger, run="all", max_launches=4).finish()
        await ledger.stop("all")
        assert [snapshot.is_over for snapshot in await watched(ledger, "all")] == [True]


async def test_missing_run_is_refused(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "launch.db") as ledger:
        with pytest.raises(LedgerError, match="holds no run"):
            await watched(ledger, "all")
        every: Any = "1"
        with pytest.raises(TypeError, match="every must be"):
            ledger.watch("all", every)

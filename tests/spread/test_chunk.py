"""What any engine calls. However it delivers, a chunk is launched once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dispatchkit import (
    AltcraftClient,
    AuthenticationError,
    DirectClient,
    LaunchBroadcast,
    Ledger,
    LedgerError,
    Report,
    StartDispatch,
)
from dispatchkit.sandbox import Sandbox
from dispatchkit.spread import launch_chunk, plan_chunks
from dispatchkit.spread.account import leave
from dispatchkit.spread.chunk import in_postgres
from tests.stage import until


@pytest.fixture
async def played() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def direct(played: Sandbox) -> AsyncIterator[DirectClient]:
    async with DirectClient(played.direct_token, base_url=played.url) as direct:
        yield direct


async def test_a_chunk_that_is_delivered_again_launches_nothing_twice(
    dsn: str, played: Sandbox, direct: DirectClient
) -> None:
    chunks = await plan_chunks(dsn, "r", direct, map(StartDispatch, range(1, 31)), size=10)
    assert chunks == [0, 1, 2]
    for chunk in (0, 1, 1):
        await launch_chunk(dsn, "r", chunk, client=direct)
    assert await launch_chunk(dsn, "r", 0, client=direct) == Report(done=10, not_started=0, earlier=10)
    assert played.launches == dict.fromkeys(range(1, 21), 1)


async def test_a_chunk_that_is_delivered_to_many_at_once_is_launched_by_one(
    dsn: str, played: Sandbox, direct: DirectClient
) -> None:
    await plan_chunks(dsn, "r", direct, map(StartDispatch, range(1, 101)))
    played.latency = 0.02
    reports = await asyncio.gather(*(launch_chunk(dsn, "r", 0, client=direct, concurrency=8) for _ in range(4)))
    assert played.launches == dict.fromkeys(range(1, 101), 1)
    assert sorted(report.done for report in reports) == [0, 0, 0, 100]


async def test_a_chunk_that_is_delivered_twice_to_one_process_is_launched_once(
    dsn: str, played: Sandbox, direct: DirectClient
) -> None:
    played.latency = 0.05
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, map(StartDispatch, range(1, 11)))
        reports = await asyncio.gather(*(launch_chunk(ledger, "r", 0, client=direct) for _ in range(2)))
        assert sorted(report.done for report in reports) == [0, 10]
        await leave(await in_postgres(ledger))
    assert played.launches == dict.fromkeys(range(1, 11), 1)


async def test_a_chunk_that_is_stopped_goes_to_another_worker(dsn: str, played: Sandbox, direct: DirectClient) -> None:
    played.latency = 0.2
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, map(StartDispatch, range(1, 11)))
        stop = asyncio.Event()
        launching = asyncio.create_task(launch_chunk(ledger, "r", 0, client=direct, concurrency=8, stop=stop))
        await until(lambda: sum(played.launches.values()) == 8)
        stop.set()
        assert (await launching).done == 8
        store = await in_postgres(ledger)
        assert await store.idle(10) == [("r", 0)]
        assert (await launch_chunk(ledger, "r", 0, client=direct)).done == 10
        assert await store.idle(10) == []
        await leave(store)
    assert played.launches == dict.fromkeys(range(1, 11), 1)


async def test_a_run_that_was_stopped_is_left_alone(dsn: str, played: Sandbox, direct: DirectClient) -> None:
    await plan_chunks(dsn, "r", direct, [StartDispatch(1)])
    async with Ledger(dsn) as ledger:
        await ledger.stop("r")
        assert await launch_chunk(ledger, "r", 0, client=direct) == Report()
        assert not played.launches
        await ledger.allow("r")
        assert (await launch_chunk(ledger, "r", 0, client=direct)).done == 1


async def test_it_makes_its_client_of_what_the_environment_says(
    dsn: str, played: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_TOKEN", played.altcraft_token)
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_URL", played.url)
    async with AltcraftClient(wire="xml") as altcraft:
        await altcraft.activate(7)
        await plan_chunks(dsn, "r", altcraft, [LaunchBroadcast(7)])
    assert (await launch_chunk(dsn, "r", 0)).done == 1
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_URL", "https://elsewhere.example")
    with pytest.raises(LedgerError, match="another's"):  # never to a host that this machine does not name
        await launch_chunk(dsn, "r", 0)


async def test_a_token_that_is_refused_is_raised(dsn: str, played: Sandbox) -> None:
    async with DirectClient("wrong", base_url=played.url) as wrong:
        await plan_chunks(dsn, "r", wrong, [StartDispatch(1)])
        with pytest.raises(AuthenticationError):
            await launch_chunk(dsn, "r", 0, client=wrong)


async def test_chunks_at_the_same_time_in_one_process_have_one_part_of_the_pace(
    dsn: str, direct: DirectClient, played: Sandbox
) -> None:
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, map(StartDispatch, range(1, 21)), size=10, rate=1000, concurrency=2)
        played.latency = 0.1
        launching = [asyncio.create_task(launch_chunk(ledger, "r", chunk, client=direct)) for chunk in (0, 1)]
        store = await in_postgres(ledger)
        leases = "SELECT rate, concurrency FROM dispatchkit.lease"
        while not (found := await store.link.ask(lambda link: link.fetch(leases))):  # noqa: ASYNC110 - of processes
            await asyncio.sleep(0.01)
        assert [tuple(row) for row in found] == [(1000.0, 2)]
        assert sum(report.done for report in await asyncio.gather(*launching)) == 20
        assert direct.statistics().pace.limit == 2


async def test_no_token_and_no_trace_of_one_is_in_the_database(dsn: str, direct: DirectClient, played: Sandbox) -> None:
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, [StartDispatch(1)], rate=5)
        await launch_chunk(ledger, "r", 0, client=direct)
        store = await in_postgres(ledger)
        for table in ("run", "chunk", "target", "sending", "outcome", "account", "lease"):
            statement = f"SELECT to_jsonb(t)::text FROM dispatchkit.{table} t"
            rows = await store.link.ask(lambda link, statement=statement: link.fetch(statement))  # type: ignore[misc]
            assert played.direct_token not in json.dumps([row[0] for row in rows])


async def test_only_a_ledger_that_machines_can_share_is_spread(tmp_path: Path, direct: DirectClient) -> None:
    with pytest.raises(LedgerError, match="in PostgreSQL"):
        await plan_chunks(str(tmp_path / "launch.db"), "r", direct, [StartDispatch(1)])


@pytest.mark.parametrize(
    ("name", "value"), [("size", 0), ("rate", 0.0), ("rate", -1.0), ("rate", float("inf")), ("concurrency", 0)]
)
async def test_settings_out_of_range_are_refused(dsn: str, direct: DirectClient, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        await plan_chunks(dsn, "r", direct, [StartDispatch(1)], **{name: value})  # type: ignore[arg-type]

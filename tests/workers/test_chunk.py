"""What any engine calls. However it delivers, a chunk is launched once."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_random_exponential

from dispatchkit import (
    AccountMismatchError,
    AltcraftClient,
    AttemptEnded,
    AuthenticationError,
    CallEnded,
    CallEvent,
    CallStarted,
    ChunkHeldError,
    DirectClient,
    Event,
    LaunchBroadcast,
    Ledger,
    LedgerError,
    ProviderSilentError,
    RepeatedTargetsError,
    Report,
    RetryPolicy,
    RunEnded,
    RunStarted,
    RunStoppedError,
    StartDispatch,
)
from dispatchkit.core.pacing.adaptive_limit import AdaptiveLimit
from dispatchkit.ledger.chunk import LEASE_TIMEOUT
from dispatchkit.ledger.postgres import store as postgres
from dispatchkit.sandbox import Sandbox
from dispatchkit.workers import chunk as chunk_module
from dispatchkit.workers import launch_chunk, plan_chunks
from dispatchkit.workers.chunk import in_postgres
from dispatchkit.workers.shared_pace import release_leases
from tests.harness import until

pytestmark = pytest.mark.second_stage  # real processes, sockets and databases


def _is_report(result: object) -> bool:
    return isinstance(result, Report)


@pytest.fixture
async def played() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def direct(played: Sandbox) -> AsyncIterator[DirectClient]:
    retry = RetryPolicy(state_lag=0.05, wait=wait_random_exponential(multiplier=0.01, max=30))
    async with DirectClient(played.direct_token, base_url=played.url, retry=retry, attempt_timeout=1) as direct:
        yield direct


async def test_redelivered_chunk_launches_once(dsn: str, played: Sandbox, direct: DirectClient) -> None:
    chunks = await plan_chunks(dsn, "r", direct, map(StartDispatch, range(1, 31)), size=10)
    assert chunks == [0, 1, 2]
    for chunk in (0, 1, 1):
        await launch_chunk(dsn, "r", chunk, client=direct)
    assert await launch_chunk(dsn, "r", 0, client=direct) == Report(done=10, not_started=0, previously_finished=10)
    assert played.launches == dict.fromkeys(range(1, 21), 1)


async def test_only_first_chunk_ramps(
    dsn: str, played: Sandbox, direct: DirectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramps: list[int] = []
    monkeypatch.setattr(AdaptiveLimit, "ramp", lambda _: ramps.append(1))
    async with Ledger(dsn) as ledger:
        for count, run in enumerate(("first", "second"), 1):
            await plan_chunks(ledger, run, direct, map(StartDispatch, range(1, 31)), size=10)
            for chunk in (0, 1, 2):
                await launch_chunk(ledger, run, chunk, client=direct)
                assert len(ramps) == count
        await release_leases(await in_postgres(ledger))
    assert played.launches == dict.fromkeys(range(1, 31), 2)


async def test_refused_chunk_proves_nothing(
    dsn: str, played: Sandbox, direct: DirectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramps: list[int] = []
    monkeypatch.setattr(AdaptiveLimit, "ramp", lambda _: ramps.append(1))
    await plan_chunks(dsn, "r", direct, map(StartDispatch, range(200_001, 200_021)), size=10)
    for chunk in (0, 1):
        assert (await launch_chunk(dsn, "r", chunk, client=direct)).rejected == 10
    assert len(ramps) == 2
    assert not played.launches


async def test_contended_chunk_has_one_launcher(dsn: str, played: Sandbox, direct: DirectClient) -> None:
    await plan_chunks(dsn, "r", direct, map(StartDispatch, range(1, 101)))
    played.latency = 0.02
    launching = (launch_chunk(dsn, "r", 0, client=direct, concurrency=8) for _ in range(4))
    *held, report = sorted(await asyncio.gather(*launching, return_exceptions=True), key=_is_report)
    assert played.launches == dict.fromkeys(range(1, 101), 1)
    assert report == Report(done=100, not_started=0)
    for error in held:
        assert isinstance(error, ChunkHeldError)
        assert (error.chunk, error.pid) == (0, os.getpid())
        assert LEASE_TIMEOUT - 5 < error.retry_after <= LEASE_TIMEOUT


async def test_duplicate_delivery_launches_once(dsn: str, played: Sandbox, direct: DirectClient) -> None:
    played.latency = 0.05
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, map(StartDispatch, range(1, 11)))
        launching = (launch_chunk(ledger, "r", 0, client=direct) for _ in range(2))
        held, report = sorted(await asyncio.gather(*launching, return_exceptions=True), key=_is_report)
        assert isinstance(held, ChunkHeldError)
        assert report == Report(done=10, not_started=0)
        await release_leases(await in_postgres(ledger))
    assert played.launches == dict.fromkeys(range(1, 11), 1)


@pytest.mark.usefixtures("no_ramp")
async def test_stopped_chunk_moves_to_worker(dsn: str, played: Sandbox, direct: DirectClient) -> None:
    played.latency = 0.2
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, map(StartDispatch, range(1, 11)))
        stop = asyncio.Event()
        launching = asyncio.create_task(launch_chunk(ledger, "r", 0, client=direct, concurrency=8, stop=stop))
        await until(lambda: sum(played.launches.values()) == 8)
        stop.set()
        assert (await launching).done == 8
        store = await in_postgres(ledger)
        assert await store.claimable_chunks(10) == [("r", 0)]
        assert (await launch_chunk(ledger, "r", 0, client=direct)).done == 10
        assert await store.claimable_chunks(10) == []
        await release_leases(store)
    assert played.launches == dict.fromkeys(range(1, 11), 1)


async def test_stopped_run_is_refused(dsn: str, played: Sandbox, direct: DirectClient) -> None:
    await plan_chunks(dsn, "r", direct, [StartDispatch(1)])
    async with Ledger(dsn) as ledger:
        await ledger.stop("r")
        with pytest.raises(RunStoppedError, match="was stopped"):
            await launch_chunk(ledger, "r", 0, client=direct)
        assert not played.launches
        await ledger.clear_stop("r")
        assert (await launch_chunk(ledger, "r", 0, client=direct)).done == 1


async def test_stop_during_launch_is_raised(dsn: str, played: Sandbox, direct: DirectClient) -> None:
    played.latency = 0.1
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, map(StartDispatch, range(1, 201)))
        launching = asyncio.create_task(launch_chunk(ledger, "r", 0, client=direct, concurrency=4))
        await until(lambda: sum(played.launches.values()) >= 8)
        await ledger.stop("r")
        with pytest.raises(RunStoppedError, match="of it are done"):
            await launching
    assert 8 <= sum(played.launches.values()) < 200


async def test_chunk_lost_in_launch_raises(dsn: str, played: Sandbox, direct: DirectClient) -> None:
    played.latency = 0.1
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, map(StartDispatch, range(1, 201)))
        launching = asyncio.create_task(launch_chunk(ledger, "r", 0, client=direct, concurrency=4))
        await until(lambda: sum(played.launches.values()) >= 8)
        store = await in_postgres(ledger)
        taken = "UPDATE dispatchkit.chunk SET token = 'x', pid = 7, host = 'other', seen = clock_timestamp()"
        await store.connection.run(lambda connection: connection.execute(taken))
        with pytest.raises(ChunkHeldError, match="process 7 on other"):
            await launching
    assert 8 <= sum(played.launches.values()) < 200


async def test_lost_chunk_is_taken_again(
    dsn: str, played: Sandbox, direct: DirectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "CLAIM_AGE", 0.1)
    played.latency = 0.1
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, map(StartDispatch, range(1, 101)))
        launching = asyncio.create_task(launch_chunk(ledger, "r", 0, client=direct, concurrency=4))
        await until(lambda: sum(played.launches.values()) >= 8)
        store = await in_postgres(ledger)
        await store.connection.run(lambda connection: connection.execute("UPDATE dispatchkit.chunk SET token = NULL"))
        played.latency = 0.0
        report = await launching
        assert (report.done, report.not_started) == (100, 0)
    assert played.launches == dict.fromkeys(range(1, 101), 1)


async def test_held_chunk_fails_before_pace(dsn: str, played: Sandbox, direct: DirectClient) -> None:
    played.latency = 0.3
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, map(StartDispatch, range(1, 11)), concurrency=1)
        launching = asyncio.create_task(launch_chunk(ledger, "r", 0, client=direct))
        await until(lambda: bool(played.launches))
        async with asyncio.timeout(2.5), Ledger(dsn) as other:  # all of the pace is taken: its share would be nothing
            with pytest.raises(ChunkHeldError):
                await launch_chunk(other, "r", 0, client=direct)
        assert (await launching).done == 10
        await release_leases(await in_postgres(ledger))


async def test_unknown_chunk_is_refused(dsn: str, direct: DirectClient) -> None:
    await plan_chunks(dsn, "r", direct, [StartDispatch(1)])
    with pytest.raises(LedgerError, match="has no chunk 1 of this run"):
        await launch_chunk(dsn, "r", 1, client=direct)


async def test_foreign_account_token_is_refused(dsn: str, played: Sandbox, direct: DirectClient) -> None:
    await plan_chunks(dsn, "r", direct, [StartDispatch(1)])
    async with DirectClient("other", base_url=played.url) as other:
        with pytest.raises(AccountMismatchError):
            await launch_chunk(dsn, "r", 0, client=other)
    assert played.requests == 0
    assert (await launch_chunk(dsn, "r", 0, client=direct)).done == 1


async def test_named_account_takes_another_token(dsn: str, played: Sandbox) -> None:
    async with DirectClient("old", base_url=played.url, account="shop") as old:
        await plan_chunks(dsn, "r", old, [StartDispatch(1)])
    async with DirectClient(played.direct_token, base_url=played.url, account="shop") as new:
        assert (await launch_chunk(dsn, "r", 0, client=new)).done == 1


async def test_repeats_across_runs_are_refused(dsn: str, played: Sandbox, direct: DirectClient) -> None:
    for run, window in (("early", 3600), ("monday", None), ("wednesday", None)):
        await plan_chunks(dsn, run, direct, map(StartDispatch, range(1, 4)), repeat_window=window)
    await launch_chunk(dsn, "monday", 0, client=direct)
    with pytest.raises(RepeatedTargetsError, match="1 in run 'monday'") as repeated:
        await plan_chunks(dsn, "tuesday", direct, map(StartDispatch, range(3, 6)), repeat_window=3600)
    assert repeated.value.runs == {"monday": 1}
    with pytest.raises(LedgerError, match="is incomplete"):  # no worker launches it once the window has passed
        await launch_chunk(dsn, "tuesday", 0, client=direct)
    with pytest.raises(RepeatedTargetsError, match="3 in run 'monday'"):  # it was planned with a window
        await launch_chunk(dsn, "early", 0, client=direct)
    with pytest.raises(RepeatedTargetsError, match="3 in run 'monday'"):
        await launch_chunk(dsn, "wednesday", 0, client=direct, repeat_window=3600)
    assert played.launches == dict.fromkeys(range(1, 4), 1)
    assert (await launch_chunk(dsn, "wednesday", 0, client=direct)).done == 3


@pytest.mark.parametrize("settings", ["{", "[]", '{"provider": 5}', '{"provider": "fancy", "wire": "json"}'])
async def test_invalid_settings_are_refused(dsn: str, direct: DirectClient, settings: str) -> None:
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, [StartDispatch(1)])
        store = await in_postgres(ledger)
        await store.connection.run(
            lambda connection: connection.execute("UPDATE dispatchkit.run SET settings = $1", settings)
        )
        with pytest.raises(LedgerError, match=r"is damaged|is not installed"):
            await launch_chunk(ledger, "r", 0)


async def test_client_comes_from_environment(dsn: str, played: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_TOKEN", played.altcraft_token)
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_URL", played.url)
    async with AltcraftClient(wire="xml") as altcraft:
        await altcraft.activate(7)
        await plan_chunks(dsn, "r", altcraft, [LaunchBroadcast(7)])
    assert (await launch_chunk(dsn, "r", 0)).done == 1
    async with AltcraftClient(wire="xml", deduplicates=True) as altcraft:
        await plan_chunks(dsn, "deduplicated", altcraft, [LaunchBroadcast(7)])
    assert (await launch_chunk(dsn, "deduplicated", 0)).done == 1
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_URL", "https://elsewhere.example")
    with pytest.raises(LedgerError, match="other settings"):  # never to a host that this machine does not name
        await launch_chunk(dsn, "r", 0)


async def test_refused_token_is_raised(dsn: str, played: Sandbox) -> None:
    async with DirectClient("wrong", base_url=played.url) as wrong:
        await plan_chunks(dsn, "r", wrong, [StartDispatch(1)])
        with pytest.raises(AuthenticationError):
            await launch_chunk(dsn, "r", 0, client=wrong)


async def test_refused_token_costs_one_request(dsn: str, played: Sandbox) -> None:
    async with DirectClient("d3Jvbmc6d3Jvbmc=", base_url=played.url) as direct:
        await plan_chunks(dsn, "r", direct, map(StartDispatch, range(1, 101)))
        with pytest.raises(AuthenticationError):
            await launch_chunk(dsn, "r", 0, client=direct)
        assert played.requests == 1


async def test_silent_provider_releases_chunk(dsn: str, played: Sandbox) -> None:
    async with DirectClient(played.direct_token, base_url="http://127.0.0.1:1") as direct:
        await plan_chunks(dsn, "r", direct, map(StartDispatch, range(1, 101)))
        with pytest.raises(ProviderSilentError) as caught:
            await launch_chunk(dsn, "r", 0, client=direct, give_up_after=0.5)
        assert (caught.value.run, caught.value.chunk, caught.value.left) == ("r", 0, 100)
        # It is held no more, so that another machine may have it.
        with pytest.raises(ProviderSilentError):
            await launch_chunk(dsn, "r", 0, client=direct, give_up_after=0.5)


async def test_process_chunks_share_pace(dsn: str, direct: DirectClient, played: Sandbox) -> None:
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, map(StartDispatch, range(1, 21)), size=10, rate=1000, concurrency=2)
        played.latency = 0.1
        launching = [asyncio.create_task(launch_chunk(ledger, "r", chunk, client=direct)) for chunk in (0, 1)]
        store = await in_postgres(ledger)
        leases = "SELECT rate, concurrency FROM dispatchkit.lease"
        while not (found := await store.connection.run(lambda connection: connection.fetch(leases))):  # noqa: ASYNC110 - of processes
            await asyncio.sleep(0.01)
        assert [tuple(row) for row in found] == [(1000.0, 2)]
        assert sum(report.done for report in await asyncio.gather(*launching)) == 20
        assert direct.statistics().pace.concurrency_limit == 2


async def test_database_holds_no_token(dsn: str, direct: DirectClient, played: Sandbox) -> None:
    async with Ledger(dsn) as ledger:
        await plan_chunks(ledger, "r", direct, [StartDispatch(1)], rate=5)
        await launch_chunk(ledger, "r", 0, client=direct)
        store = await in_postgres(ledger)
        for table in ("run", "chunk", "target", "sending", "outcome", "account", "lease"):
            statement = f"SELECT to_jsonb(t)::text FROM dispatchkit.{table} t"
            rows = await store.connection.run(lambda connection, statement=statement: connection.fetch(statement))  # type: ignore[misc]
            assert played.direct_token not in json.dumps([row[0] for row in rows])


async def test_only_shared_ledger_has_workers(tmp_path: Path, direct: DirectClient) -> None:
    with pytest.raises(LedgerError, match="in PostgreSQL"):
        await plan_chunks(str(tmp_path / "launch.db"), "r", direct, [StartDispatch(1)])


@pytest.mark.parametrize(
    ("name", "value"), [("size", 0), ("rate", 0.0), ("rate", -1.0), ("rate", float("inf")), ("concurrency", 0)]
)
async def test_invalid_settings_range_is_refused(dsn: str, direct: DirectClient, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        await plan_chunks(dsn, "r", direct, [StartDispatch(1)], **{name: value})  # type: ignore[arg-type]


NO_NUMBERS = [(True, TypeError), (1.5, TypeError), ("0", TypeError), (None, TypeError), (-1, ValueError)]
NO_NUMBERS += [(2**31, ValueError), (10**20, ValueError)]


@pytest.mark.parametrize(("value", "error"), NO_NUMBERS)
@pytest.mark.parametrize("name", ["chunk", "concurrency"])
async def test_launch_refuses_invalid_numbers(name: str, value: object, error: type[Exception]) -> None:
    given = {"chunk": 0, "concurrency": 1, name: value}
    with pytest.raises(error, match=f"^{name} must be an integer from {int(name == 'concurrency')} "):
        await launch_chunk("no ledger", "r", **given)  # type: ignore[arg-type]  # it is refused before all else


@pytest.mark.parametrize(("value", "error"), NO_NUMBERS)
async def test_ledger_refuses_invalid_numbers(value: object, error: type[Exception]) -> None:
    ledger = Ledger("postgresql://localhost/x")
    with pytest.raises(error, match=r"^number must be an integer from 0 "):
        ledger.chunk("r", value)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [("size", 2**31), ("concurrency", 10**20)])
async def test_plan_refuses_huge_numbers(dsn: str, direct: DirectClient, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        await plan_chunks(dsn, "r", direct, [StartDispatch(1)], **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, "5"])
async def test_plan_refuses_invalid_rates(direct: DirectClient, value: object) -> None:
    with pytest.raises(TypeError, match=r"^rate must be a number"):
        await plan_chunks("no ledger", "r", direct, [StartDispatch(1)], rate=value)  # type: ignore[arg-type]


async def test_own_client_takes_its_account(dsn: str, played: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    paced: list[str] = []
    real = chunk_module.share_pace  # type: ignore[attr-defined]

    def share_pace(store: object, key: str, *others: Any, **settings: Any) -> Any:
        paced.append(key)
        return real(store, key, *others, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(chunk_module, "share_pace", share_pace)
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", played.direct_token)
    monkeypatch.setenv("DISPATCHKIT_DIRECT_URL", played.url)
    async with DirectClient(base_url=played.url, account="shop") as direct:
        await plan_chunks(dsn, "r", direct, [StartDispatch(1), StartDispatch(2)], size=1)
        assert (await launch_chunk(dsn, "r", 0)).done == 1
        assert paced == [direct._account_key()]
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "other")
    with pytest.raises(AccountMismatchError):
        await launch_chunk(dsn, "r", 1)
    assert played.launches == {1: 1}


async def test_observers_see_each_chunk(dsn: str, played: Sandbox) -> None:
    events: list[Event] = []
    observed = DirectClient(played.direct_token, base_url=played.url, observers=[events.append])
    async with observed as direct:
        await plan_chunks(dsn, "r", direct, map(StartDispatch, range(1, 6)), size=3)
        assert events == []  # nothing is sent
        for chunk in (0, 1, 1):
            await launch_chunk(dsn, "r", chunk, client=direct)
    runs = [event for event in events if isinstance(event, RunStarted | RunEnded)]
    assert [type(event) for event in runs] == [RunStarted, RunEnded] * 3
    assert {event.run for event in runs} == {"r"}
    assert [(event.total, event.previously_finished) for event in runs if isinstance(event, RunStarted)] == [
        (3, 0),
        (2, 0),
        (2, 2),
    ]
    assert [(event.done, event.not_started) for event in runs if isinstance(event, RunEnded)] == [
        (3, 0),
        (2, 0),
        (2, 0),
    ]
    calls = [event for event in events if isinstance(event, CallEvent)]
    for index in range(5):  # the place in the run, not in the chunk
        of_one = [event for event in calls if event.index == index]
        assert [type(event) for event in of_one] == [CallStarted, AttemptEnded, CallEnded]
        assert {(event.run, event.target, event.call) for event in of_one} == {("r", index + 1, of_one[0].call)}
    assert len(calls) == 15

"""What a store promises, kept by PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from dispatchkit import State
from dispatchkit.core.claim import ClaimResult
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.chunk import Chunk, HeartbeatStatus, Holder
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.ledger.postgres.write import Account
from dispatchkit.ledger.run import Counts
from dispatchkit.ledger.target import Target, Unsettled
from tests.ledger.test_store import run_plan
from tests.postgres import Server

THEN = datetime(2026, 1, 31, 9, tzinfo=UTC)
LATER = THEN + timedelta(seconds=5)
HERE = socket.gethostname()
US = Holder("us", os.getpid(), HERE)
THEM = Holder("them", os.getpid(), "there")


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(dsn)
    await store.open()
    yield store
    await store.close()


async def planned(store: PostgresStore, count: int, *, size: int | None = None, name: str = "a") -> int:
    run = await store.begin(run_plan(name))
    await store.plan(run.number, [(b"%d" % number, f"c{number}") for number in range(count)])
    await store.planned(run.number, size=size)
    return run.number


async def held(store: PostgresStore, count: int = 3) -> int:
    run = await planned(store, count)
    assert await store.acquire(run, 0, US, attempt_timeout=70.0) is None
    return run


def claim(run: int, index: int, *, token: str = "us", since: datetime = THEN, request_id: str | None = None) -> Claim:
    return Claim(run, 0, index, token, request_id, since)


def record(run: int, index: int, state: State, *, token: str = "us", summary: str = "") -> Record:
    return Record(run, 0, index, token, state, summary, None, None, 1, LATER)


async def unclear(store: PostgresStore, run: int) -> list[Unsettled]:
    return [attrs.evolve(row, acting_for=0) for row in await store.unsettled(run, 0, after=-1, limit=100)]


async def test_run_keeps_its_settings(store: PostgresStore) -> None:
    first = await store.begin(run_plan("a", settings='{"host": "x"}'))
    again = await store.begin(run_plan("a", settings='{"host": "y"}'))
    assert again == first
    assert (first.name, first.total, first.plan_complete, first.stopped) == ("a", 0, False, False)
    assert first.created.utcoffset() == timedelta(0)
    second = await store.begin(run_plan("b"))
    assert await store.runs() == [second, first]
    assert await store.run("a") == first
    assert await store.run("c") is None


async def test_targets_are_numbered_once(store: PostgresStore) -> None:
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, [(b"x", "X"), (b"y", "Y"), (b"x", "X")])
    await store.plan(run, [(b"y", "Y"), (b"z", "Z")])
    await store.plan(run, [])
    assert [target async for target in store.targets(run)] == [
        Target(0, "X", "planned"),
        Target(1, "Y", "planned"),
        Target(2, "Z", "planned"),
    ]
    found = await store.run("a")
    assert found is not None
    assert found.total == 3


async def test_simultaneous_plans_are_one(dsn: str, store: PostgresStore) -> None:
    other = PostgresStore(dsn)
    await other.open()
    run = (await store.begin(run_plan("a"))).number
    rows = [(b"%d" % number, f"c{number}") for number in range(500)]
    await asyncio.gather(
        *(each.plan(run, rows[begin : begin + 100]) for begin in range(0, 500, 100) for each in (store, other))
    )
    await other.close()
    assert sorted([target.command async for target in store.targets(run)]) == sorted(command for _, command in rows)
    assert [target.index async for target in store.targets(run)] == list(range(500))


@pytest.mark.parametrize(
    ("before", "after", "size", "chunks"),
    [
        (0, 0, None, []),
        (5, 5, None, [(0, 5)]),
        (5, 8, None, [(0, 8)]),
        (0, 3, None, [(0, 3)]),
        (5, 5, 2, [(0, 2), (2, 4), (4, 5)]),
        (5, 8, 2, [(0, 2), (2, 4), (4, 5), (5, 7), (7, 8)]),
        (4, 4, 2, [(0, 2), (2, 4)]),
    ],
)
async def test_chunks_cover_all_targets_once(
    store: PostgresStore, before: int, after: int, size: int | None, chunks: list[tuple[int, int]]
) -> None:
    run = (await store.begin(run_plan("a"))).number
    for count in (before, after):
        await store.plan(run, [(b"%d" % number, "c") for number in range(count)])
        found = await store.planned(run, size=size)
    assert found == [Chunk(number, *ends) for number, ends in enumerate(chunks)]
    whole = await store.run("a")
    assert whole is not None
    assert whole.plan_complete


async def test_target_passes_through_states(store: PostgresStore) -> None:
    run = await held(store, 6)
    assert await store.claim([claim(run, index, request_id="r") for index in range(1, 6)]) == [ClaimResult.GRANTED] * 5
    assert await store.counts(run) == Counts(planned=1, sending=5)
    states = [State.DONE, State.REJECTED, State.NOT_SENT, State.UNKNOWN]
    await store.record([record(run, index, state, summary=f"{state}\0") for index, state in enumerate(states, 1)])
    assert await store.counts(run) == Counts(planned=1, sending=1, done=1, rejected=1, not_sent=1, unknown=1)
    assert await unclear(store, run) == [
        Unsettled(0, "c0"),
        Unsettled(3, "c3"),
        Unsettled(4, "c4", "r", THEN),
        Unsettled(5, "c5", "r", THEN),
    ]
    assert [target.state async for target in store.targets(run, states=["sending", "unknown"])] == [
        "unknown",
        "sending",
    ]


async def test_outcome_is_stored_in_full(store: PostgresStore) -> None:
    run = await held(store, 2)
    await store.claim([claim(run, 0, request_id="r")])
    told = Record(run, 0, 0, "us", State.REJECTED, "no", 4031, "r", 3, LATER)
    await store.record([told, told._replace(index=1, code="X", request_id=None)])
    assert [target async for target in store.targets(run)] == [
        Target(0, "c0", "rejected", "no", 4031, "r", 3, LATER),
        Target(1, "c1", "rejected", "no", "X", None, 3, LATER),
    ]


async def test_repeated_claim_is_written_once(store: PostgresStore) -> None:
    run = await held(store)
    for _ in range(2):
        assert await store.claim([claim(run, 0)]) == [ClaimResult.GRANTED]
    await store.record([record(run, 0, State.NOT_SENT)])
    assert await store.claim([claim(run, 0)]) == [ClaimResult.GRANTED]  # it was not sent, so this is a new one
    assert await store.counts(run) == Counts(planned=2, sending=1)
    await store.record([record(run, 0, State.DONE)])
    assert await store.claim([claim(run, 0), claim(run, 1)]) == [ClaimResult.TAKEN, ClaimResult.GRANTED]


async def test_simultaneous_claims_are_granted(dsn: str) -> None:
    stores = [PostgresStore(dsn) for _ in range(4)]
    for store in stores:
        await store.open()
    run = await held(stores[0], 200)
    claims = [claim(run, index) for index in range(200)]
    orders = [claims, claims[::-1], claims[50:] + claims[:50], claims]
    for claim_results in await asyncio.gather(
        *(store.claim(order) for store, order in zip(stores, orders, strict=True))
    ):
        assert claim_results == [ClaimResult.GRANTED] * 200
    count = await stores[0].connection.run(
        lambda connection: connection.fetchval("SELECT count(*) FROM dispatchkit.sending")
    )
    assert count == 200
    for store in stores:
        await store.close()


async def test_stopped_run_grants_nothing(store: PostgresStore) -> None:
    run = await held(store)
    await store.stop(run)
    assert await store.claim([claim(run, 0)]) == [ClaimResult.STOPPED]
    assert await store.heartbeat(run, 0, "us") == HeartbeatStatus(mine=True, stopped=True)
    await store.clear_stop(run)
    assert await store.claim([claim(run, 0)]) == [ClaimResult.GRANTED]


async def test_a_chunk_has_one_holder(store: PostgresStore) -> None:
    run = await held(store)
    assert await store.acquire(run, 0, THEM, attempt_timeout=70.0) == US
    assert await store.acquire(run, 0, US, attempt_timeout=70.0) is None
    assert await store.claim([claim(run, 0, token="them")]) == [ClaimResult.STOPPED]
    assert await store.heartbeat(run, 0, "them") == HeartbeatStatus(mine=False, stopped=False)
    [chunk] = await store.chunks(run)
    assert chunk.holder == US
    await store.release(run, 0, "them")
    assert await store.acquire(run, 0, THEM, attempt_timeout=70.0) == US
    await store.release(run, 0, "us")
    assert await store.acquire(run, 0, THEM, attempt_timeout=70.0) is None
    with pytest.raises(LedgerError, match="no chunk 7"):
        await store.acquire(run, 7, US, attempt_timeout=70.0)


async def test_unseen_holder_is_fenced_off(store: PostgresStore) -> None:
    run = await held(store)
    await store.claim([claim(run, 0)])
    await store.connection.run(
        lambda connection: connection.execute("UPDATE dispatchkit.chunk SET seen = seen - interval '31 s'")
    )
    [chunk] = await store.chunks(run)
    assert chunk.holder is None
    assert await store.acquire(run, 0, THEM, attempt_timeout=70.0) is None
    assert await store.claim([claim(run, 1)]) == [ClaimResult.STOPPED]
    assert await store.heartbeat(run, 0, "us") == HeartbeatStatus(mine=False, stopped=False)
    assert (await unclear(store, run))[0] == Unsettled(0, "c0", None, THEN)


async def test_former_hold_reports_nothing_newer(store: PostgresStore) -> None:
    run = await held(store)
    await store.claim([claim(run, 0)])
    await store.release(run, 0, "us")
    await store.acquire(run, 0, THEM, attempt_timeout=70.0)
    assert await store.claim([claim(run, 0, token="them")]) == [ClaimResult.GRANTED]
    for state in (State.NOT_SENT, State.UNKNOWN, State.REJECTED):
        await store.record([record(run, 0, state)])
        assert await store.counts(run) == Counts(planned=2, sending=1)
    await store.record([record(run, 0, State.DONE)])
    assert await store.counts(run) == Counts(planned=2, done=1)


async def test_final_outcome_is_never_overwritten(store: PostgresStore) -> None:
    run = await held(store, 1)
    await store.claim([claim(run, 0)])
    for told, state in [
        (State.UNKNOWN, "unknown"),
        (State.REJECTED, "rejected"),
        (State.UNKNOWN, "rejected"),
        (State.DONE, "rejected"),
    ]:
        await store.record([record(run, 0, told)])
        assert [target.state async for target in store.targets(run)] == [state]
    await store.record([record(run, 0, State.UNKNOWN), record(run, 0, State.REJECTED)] * 2)


async def test_final_outcome_wins_in_batch(store: PostgresStore) -> None:
    run = await held(store, 1)
    await store.claim([claim(run, 0)])
    await store.record([record(run, 0, state) for state in (State.UNKNOWN, State.DONE, State.UNKNOWN)])
    assert await store.counts(run) == Counts(done=1)


async def test_unclear_target_awaits_settling(store: PostgresStore) -> None:
    run = await held(store, 1)
    await store.claim([claim(run, 0, request_id="r")])
    await store.release(run, 0, "us")
    await store.acquire(run, 0, THEM, attempt_timeout=70.0)
    await store.record([record(run, 0, State.UNKNOWN, token="them")])  # it looked, and did not send
    assert await unclear(store, run) == [Unsettled(0, "c0", "r", THEN)]
    await store.claim([claim(run, 0, token="them", request_id="r")])
    await store.record([record(run, 0, State.DONE, token="them")])
    assert await unclear(store, run) == []


async def test_unfinished_chunks_are_listed(store: PostgresStore) -> None:
    run = await planned(store, 4, size=2)
    await store.acquire(run, 0, US, attempt_timeout=70.0)
    await store.record([record(run, index, State.DONE)._replace(chunk=index // 2) for index in (0, 1, 2)])
    assert await store.counts(run, chunk=1) == Counts(planned=1, done=1)
    assert [chunk.number for chunk in await store.chunks(run)] == [1]
    await store.release(run, 0, "us")
    await store.acquire(run, 1, US, attempt_timeout=70.0)
    await store.record([record(run, 3, State.UNKNOWN)._replace(chunk=1)])
    assert [chunk.number for chunk in await store.chunks(run)] == [1]


async def test_paused_account_defers_claim(store: PostgresStore) -> None:
    run = await held(store)
    pauses = list[float]()
    store.bind_account(run, Account("k", pauses.append))
    insert = "INSERT INTO dispatchkit.account VALUES ('k', clock_timestamp() + interval '5 s')"
    await store.connection.run(lambda connection: connection.execute(insert))
    assert await store.claim([claim(run, 0)]) == [ClaimResult.DEFERRED]
    assert 4 < pauses[0] <= 5
    await store.connection.run(
        lambda connection: connection.execute("UPDATE dispatchkit.account SET paused_until = now()")
    )
    assert await store.claim([claim(run, 0)]) == [ClaimResult.GRANTED]


async def test_concurrent_opens_create_tables_once(dsn: str) -> None:
    stores = [PostgresStore(dsn) for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(store.close() for store in stores))


async def test_other_release_tables_are_refused(dsn: str, store: PostgresStore) -> None:
    await store.connection.run(lambda connection: connection.execute("UPDATE dispatchkit.about SET version = 99"))
    with pytest.raises(LedgerError, match="version 99"):
        await PostgresStore(dsn).open()


async def is_restored(store: PostgresStore) -> bool:
    run = await store.run("a")
    assert run is not None
    assert run.restored in {stored_run.restored for stored_run in await store.runs()}
    found = await store.unsettled(run.number, 0, after=-1, limit=100)
    assert {each.since for each in found} == {run.created if run.restored else None}
    return run.restored


async def test_a_failover_is_seen(store: PostgresStore, postgres: Server) -> None:
    await held(store)
    assert not await is_restored(store)
    await asyncio.to_thread(postgres.promote)
    assert await is_restored(store)
    assert (await store.begin(run_plan("b"))).restored is False


@pytest.mark.parametrize("rows", ["TRUNCATE dispatchkit.sending", "VACUUM FULL dispatchkit.sending"])
async def test_restored_rows_are_seen(store: PostgresStore, rows: str) -> None:
    run = await held(store)
    await store.claim([claim(run, 0)])
    assert not (await store.runs())[0].restored
    await store.connection.run(lambda connection: connection.execute(rows))
    assert (await store.runs())[0].restored
    assert not (await store.begin(run_plan("b"))).restored


@pytest.mark.parametrize("part", [1, 2, 3])
async def test_identity_has_several_parts(store: PostgresStore, part: int) -> None:
    await held(store)
    parts = await store.connection.run(
        lambda connection: connection.fetchval("SELECT database_id FROM dispatchkit.run")
    )
    assert all(parts)
    await store.connection.run(
        lambda connection: connection.execute(f"UPDATE dispatchkit.run SET database_id[{part}] = '7'")
    )
    assert await is_restored(store)
    await store.connection.run(
        lambda connection: connection.execute(f"UPDATE dispatchkit.run SET database_id[{part}] = NULL")
    )
    assert not await is_restored(store)


async def test_restricted_role_has_no_identity(dsn: str, store: PostgresStore) -> None:
    functions = "FUNCTION pg_control_system(), pg_current_wal_lsn()"
    await store.connection.run(
        lambda connection: connection.execute(f"""
            CREATE ROLE plain LOGIN;
            GRANT USAGE ON SCHEMA dispatchkit TO plain;
            GRANT ALL ON ALL TABLES IN SCHEMA dispatchkit TO plain;
            REVOKE EXECUTE ON {functions} FROM public;
        """)
    )
    other = PostgresStore(dsn.replace("postgres@", "plain@"))
    try:
        await other.open()
        run = await other.begin(run_plan("a"))
        parts = await store.connection.run(
            lambda connection: connection.fetchval("SELECT database_id FROM dispatchkit.run")
        )
        assert parts[:2] == [None, None]
        assert not run.restored
        assert [stored_run.restored for stored_run in await store.runs()] == [False]
    finally:
        await other.close()
        await store.connection.run(
            lambda connection: connection.execute(f"""
                GRANT EXECUTE ON {functions} TO public;
                DROP OWNED BY plain;
                DROP ROLE plain;
            """)
        )


async def test_idle_chunks_have_no_lease(store: PostgresStore) -> None:
    run = await planned(store, 4, size=2)
    assert await store.claimable_chunks(10) == [("a", 0), ("a", 1)]
    assert await store.claimable_chunks(1) == [("a", 0)]
    assert await store.claimable_chunks(10, but=["a"]) == []
    assert await store.acquire(run, 0, US, attempt_timeout=70.0) is None
    assert await store.claimable_chunks(10) == [("a", 1)]
    await store.connection.run(
        lambda connection: connection.execute("UPDATE dispatchkit.chunk SET seen = seen - interval '31 s'")
    )
    assert await store.claimable_chunks(10) == [("a", 0), ("a", 1)]


async def test_ended_process_keeps_lease(store: PostgresStore) -> None:
    run = await planned(store, 1)
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await ended.wait()
    gone = Holder("gone", ended.pid, HERE)
    assert await store.acquire(run, 0, gone, attempt_timeout=70.0) is None
    found = await store.acquire(run, 0, US, attempt_timeout=70.0)
    assert found == gone
    assert 25 < found.lease_left <= 30
    assert (await store.chunks(run))[0].holder == gone
    assert await store.claimable_chunks(10) == []


async def test_repeated_claims_do_not_deadlock(dsn: str, store: PostgresStore) -> None:
    run = await held(store, 200)
    await store.claim([claim(run, index) for index in range(0, 200, 2)])
    others = [PostgresStore(dsn) for _ in range(4)]
    claims = [claim(run, index) for index in range(200)]
    orders = [claims, claims[::-1], claims[50:] + claims[:50], claims[::2] + claims[1::2]]
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = await store.connection.run(lambda connection: connection.fetchval(deadlocks))
    for other in others:
        await other.open()
    for _ in range(5):
        found = await asyncio.gather(*(other.claim(order) for other, order in zip(others, orders, strict=True)))
        assert found == [[ClaimResult.GRANTED] * 200] * 4
    for other in others:
        await other.close()
    assert await store.connection.run(lambda connection: connection.fetchval(deadlocks)) == before


async def test_unreachable_database_is_awaited(store: PostgresStore, postgres: Server) -> None:
    run = await held(store, 40)
    await store.claim([claim(run, 0)])
    await asyncio.to_thread(postgres.stop)
    waiting: list[asyncio.Task[Any]] = [
        asyncio.create_task(store.claim([claim(run, index) for index in range(20)])),
        asyncio.create_task(store.claim([claim(run, index) for index in range(10, 40)])),
        asyncio.create_task(store.record([record(run, 0, State.DONE)])),
        asyncio.create_task(store.heartbeat(run, 0, "us")),
        asyncio.create_task(store.unsettled(run, 0, after=-1, limit=100)),
    ]
    done, _ = await asyncio.wait(waiting, timeout=0.3)
    assert not done
    await asyncio.to_thread(postgres.start)
    first, second, _, pulse, left = await asyncio.gather(*waiting)
    assert set(second) == {ClaimResult.GRANTED}
    assert set(first[1:]) == {ClaimResult.GRANTED}
    assert pulse == HeartbeatStatus(mine=True, stopped=False)
    assert len(left) >= 39
    assert (await store.counts(run)).done == 1


async def test_broken_connections_lose_nothing(store: PostgresStore) -> None:
    run = await held(store, 400)

    async def break_them() -> None:
        end = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        for _ in range(20):
            await store.connection.run(lambda connection: connection.execute(end))
            await asyncio.sleep(0.01)

    async def work(first: int) -> None:
        for index in range(first, 400, 8):
            assert await store.claim([claim(run, index)]) == [ClaimResult.GRANTED]
            await store.record([record(run, index, State.DONE)])

    await asyncio.gather(break_them(), *map(work, range(8)))
    assert await store.counts(run) == Counts(done=400)
    count = await store.connection.run(
        lambda connection: connection.fetchval("SELECT count(*) FROM dispatchkit.sending")
    )
    assert count == 400


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("postgresql://postgres:secret@127.0.0.1:1/x", "cannot be reached"),
        ("postgresql://a:secret@/x?host={folder}", "cannot log in to"),
        ("postgresql://postgres:secret@/nowhere?host={folder}", "cannot log in to"),
    ],
)
async def test_database_error_hides_password(
    postgres: Server, where: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatchkit.ledger.postgres.store._RECONNECT_TIMEOUT", 0.1)
    folder = postgres.dsn("x").partition("host=")[2]
    with pytest.raises(LedgerError, match=says) as caught:
        await PostgresStore(where.format(folder=folder)).open()
    assert "secret" not in str(caught.value)

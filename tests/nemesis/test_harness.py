"""The harness itself: its judge, its provider and its proxy must be right before they may accuse anything."""

from __future__ import annotations

import asyncio
import random
import sys
import types
from collections.abc import AsyncIterator

import pytest

from dispatchkit import State
from dispatchkit.ledger.claim import Claim
from dispatchkit.ledger.postgres.store import PostgresStore
from tests.ledger.test_postgres import claim, held, record
from tests.nemesis import process
from tests.nemesis.database import Server
from tests.nemesis.faults import FAULTS
from tests.nemesis.judge import Report, judge
from tests.nemesis.provider import Act, Provider
from tests.nemesis.proxy import GRANTED, Proxy
from tests.nemesis.table import bad, table
from tests.nemesis.times import Times

_ACT = Act(10.0, 10.0, 1)
_LATER = Act(20.0, 21.0, 2)


@pytest.mark.parametrize(
    ("acts", "state", "counts"),
    [
        ([_ACT], "done", (0, 0, 0, 0)),
        ([_ACT, _LATER], "done", (1, 0, 0, 0)),
        ([_ACT, _LATER], "unknown", (1, 0, 0, 1)),
        ([], "done", (0, 1, 0, 0)),
        ([], "planned", (0, 1, 0, 0)),
        ([], "missing", (0, 1, 0, 0)),
        ([_ACT], "planned", (0, 0, 1, 0)),
        ([_ACT], "not_sent", (0, 0, 1, 0)),
        ([_ACT], "rejected", (0, 0, 1, 0)),
        ([], "unknown", (0, 0, 0, 1)),
        ([_ACT], "sending", (0, 0, 0, 1)),
    ],
)
def test_judges_ledger_states(acts: list[Act], state: str, counts: tuple[int, int, int, int]) -> None:
    verdict = judge([5], {5: acts}, {5: state})
    assert (verdict.double, verdict.lost, verdict.false, verdict.unknown) == counts
    assert verdict.clean == (counts[:3] == (0, 0, 0))


def test_unasked_launch_is_false() -> None:
    assert judge([5], {5: [_ACT], 6: [_ACT]}, {5: "done"}).false == 1


def test_launch_after_stop_is_false() -> None:
    assert judge([5], {5: [_ACT]}, {5: "done"}, quiet=[(9.0, 11.0)]).false == 1
    assert judge([5], {5: [_ACT]}, {5: "done"}, quiet=[(11.0, 12.0)]).clean


def test_untrue_report_is_false() -> None:
    said = Report("one", 0.0, 30.0, 1, {5: "not_sent"})
    assert judge([5], {5: [_ACT]}, {5: "done"}, [said]).false == 1
    other = Report("two", 9.0, 30.0, 0)
    assert judge([5], {5: [_ACT]}, {5: "done"}, [said, other]).clean  # it may be the other's
    early = Report("one", 0.0, 5.0, 0, {5: "done"})
    assert judge([5], {5: [_ACT]}, {5: "done"}, [early]).false == 1


def test_exit_status_vouches() -> None:
    left = Report("one", 0.0, 5.0, 0, claims_all=True)
    assert judge([5], {5: [_ACT]}, {5: "done"}, [left]).false == 1
    assert judge([5], {5: [_ACT]}, {5: "done"}, [Report("one", 0.0, 15.0, 0, claims_all=True)]).clean


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider(random.Random(1), latency=(0.0, 0.001))
    await made.open()
    yield made
    await made.close()


async def _send(provider: Provider, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
    writer.write(data)
    await writer.drain()
    return reader, writer


_START = b"POST /api/v1/dispatch/%d/start HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
_READ = b"GET /api/v1/dispatch?dispatch_id=%d HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_every_whole_request_acts(provider: Provider) -> None:
    _, writer = await _send(provider, _START % 7 + _START % 7 + (_START % 8)[:-1])
    await provider.acted(2)
    await asyncio.sleep(0.01)
    assert [len(provider.acts.get(i, ())) for i in (7, 8)] == [2, 0]
    writer.close()


async def test_state_is_honest(provider: Provider) -> None:
    reader, writer = await _send(provider, _READ % 7)
    assert b'"initiated"' in await reader.read(1000)
    writer.write(_START % 7)
    assert b'"dispatchId": 7' in await reader.read(1000)
    writer.write(_READ % 7)
    assert b'"sending"' in await reader.read(1000)
    writer.close()


async def test_acts_late_without_connection(provider: Provider) -> None:
    provider.late, provider.latest = 1.0, 0.2
    _, writer = await _send(provider, _START % 7)
    await asyncio.sleep(0.02)
    writer.transport.abort()
    assert provider.state(7) == "initiated"
    await asyncio.wait_for(provider.acted(1), 5)
    act = provider.acts[7][0]
    assert act.at - act.arrived > 0.15


async def test_altcraft_deduplicates_request_ids(provider: Provider) -> None:
    body = b'{"token": "t", "id": 9}'
    line = b"POST /api/v1.1/campaigns/%b HTTP/1.1\r\nRequest-ID: a\r\nContent-Length: %d\r\n\r\n%b"
    launch = line % (b"broadcasts/start", len(body), body)
    provider.deduplicates = True
    reader, writer = await _send(provider, launch)
    assert b"Duplicate-Request" not in await reader.read(1000)
    writer.write(launch)
    assert b"Duplicate-Request: true" in await reader.read(1000)
    writer.write(line % (b"log_v2", len(body), body))
    assert b'"total_count": 1' in await reader.read(1000)
    provider.deduplicates = False
    writer.write(launch)
    assert b"Duplicate-Request" not in await reader.read(1000)
    assert len(provider.acts[9]) == 2
    writer.close()


def test_proxy_cuts_closed_connection() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def play() -> None:
        accepted = []  # Python 3.13 warns of a writer that is dropped before it is closed
        server = await asyncio.start_server(lambda *streams: accepted.append(streams), "127.0.0.1", 0)
        proxy = Proxy(server.sockets[0].getsockname()[1])
        await proxy.open()
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            while proxy.cut() == 0:  # noqa: ASYNC110 - not connected yet
                await asyncio.sleep(0)
            for _ in range(10):  # the connections close while the proxy still knows them
                await asyncio.sleep(0)
                proxy.cut()
        finally:
            writer.transport.abort()
            proxy._writers.clear()
            await proxy.close()
            server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(play(), 10))


async def test_proxy_holds_and_cuts(provider: Provider) -> None:
    proxy = Proxy(provider.port)
    await proxy.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.stall()
    writer.write(_START % 7)
    await asyncio.sleep(0.03)
    assert not provider.count
    proxy.go()
    assert b"dispatchId" in await asyncio.wait_for(reader.read(1000), 5)
    assert proxy.cut() == 1
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(reader.readexactly(1), 1)
    writer.transport.abort()
    await proxy.close()


@pytest.mark.second_stage
async def test_wire_shows_grants() -> None:
    database = await Server.started()
    proxy = Proxy(database.port)
    await proxy.open()
    store = PostgresStore(database.dsn(port=proxy.port))
    seen: list[bytes] = []

    async def granted(*claims: Claim) -> bool:
        seen.clear()
        await store.claim(claims)
        return GRANTED in b"".join(seen)

    try:
        await store.open()
        run = await held(store)
        proxy.on_answer = seen.append
        assert await granted(claim(run, 0), claim(run, 1))
        assert not await granted(claim(run, 2, token="them"))
        seen.clear()
        await store.record([record(run, 0, State.DONE)])
        assert seen
        assert GRANTED not in b"".join(seen)
    finally:
        await store.close()
        await proxy.close()
        database.stop()
        database.remove()


def test_constants_are_patched_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = types.ModuleType("dispatchkit.one"), types.ModuleType("dispatchkit.two")
    value = 1234.5
    one.__dict__["SOME_LIMIT"] = two.__dict__["SOME_LIMIT"] = value
    for module in (one, two):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    found = process._everywhere(one, "SOME_LIMIT", 2)
    assert found == ["dispatchkit.one:SOME_LIMIT", "dispatchkit.two:SOME_LIMIT"]
    assert two.__dict__["SOME_LIMIT"] == 2.0


def test_real_times_are_the_promised() -> None:
    times = Times.of(1)
    assert (times.lease, times.claim, times.lag, times.attempt) == (30.0, 5.0, 60.0, 70.0)


def test_table_counts_bad_runs() -> None:
    row = {"fault": "kill", "store": "sqlite", "kind": "command", "number": 0, "seed": "0", "loop": "uvloop"}
    row |= {"fired": True, "double": 0, "lost": 0, "false": 0, "unknown": 3, "dropped": False, "errors": 0}
    row |= {"proof": [], "notes": []}
    assert not bad(row)
    assert bad(row | {"double": 1})
    assert bad(row | {"fired": False})
    assert not bad(row | {"fired": False, "dropped": True})
    assert bad(row | {"fired": False, "dropped": True, "double": 1})
    assert bad(row | {"errors": 1})
    for fault in ("stop_run", "takeover", "takeover_repeat"):  # one request, between the last check and the system call
        assert not bad(row | {"fault": fault, "double": 1})
        assert not bad(row | {"fault": fault, "false": 1})
        assert bad(row | {"fault": fault, "double": 2})
        assert bad(row | {"fault": fault, "double": 1, "false": 1})
        assert bad(row | {"fault": fault, "double": 1, "lost": 1})
    assert "| kill | sqlite | command | 2 | 2 | 0 | 1 | 0 | 0 | 6 | 0 | 0 | 1 |" in table([row, row | {"double": 1}])


def test_faults_say_what_is_right() -> None:
    assert len(FAULTS) >= 15
    assert all(fault.about for fault in FAULTS.values())

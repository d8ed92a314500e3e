"""One mailing launched to many segments: what a lost answer means where the log shows other launches, too."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_random_exponential

from dispatchkit import (
    AltcraftClient,
    Audience,
    FanOut,
    LaunchBroadcast,
    Ledger,
    OutcomeUnknownError,
    RetryPolicy,
    State,
)
from dispatchkit.core.clock import SYSTEM
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.errors import LedgerError
from dispatchkit.sandbox import AltcraftProvider, Call
from dispatchkit.sandbox.altcraft import ALTCRAFT_TOKEN
from tests.faults.hostile_server import Hostile, Stage, Strike

SEGMENTS = 40
QUICK = RetryPolicy(wait=wait_random_exponential(multiplier=0.001, max=0.05), state_lag=0.2)


class OwnTime(type(SYSTEM)):  # type: ignore[misc]
    """The machine's clock, but a process of its own: what one test launches is no other test's."""


def loses(*, acts: bool) -> Strike:
    async def play(stage: Stage) -> None:
        if acts:
            stage.act()

    return Strike(play)


def client_of(server: Hostile, **settings: Any) -> AltcraftClient:
    given = {"clock": OwnTime(), "retry": QUICK, "timeout": 5.0, **settings}
    return AltcraftClient(server.url, ALTCRAFT_TOKEN, **given)


def launches(count: int = SEGMENTS, first: int = 1) -> list[LaunchBroadcast]:
    return [LaunchBroadcast(9, audience=Audience("segment", number)) for number in range(first, first + count)]


@pytest.fixture
async def server() -> AsyncIterator[Hostile]:
    async with Hostile(AltcraftProvider([8, 9], active=[8, 9], deduplicates=False)) as server:
        yield server


async def outcomes(run: FanOut[Any]) -> list[Outcome[Any]]:
    return [outcome async for outcome in run]


def told_truly(server: Hostile, found: list[Outcome[Any]]) -> None:
    """Each outcome is held against the acts under its id."""
    ids = [act.request_id for act in server.provider.acts]
    for outcome in found:
        acts = ids.count(outcome.request_id)
        assert acts <= 1
        if outcome.state is State.DONE:
            assert acts == 1
        if outcome.state in {State.REJECTED, State.NOT_SENT}:
            assert acts == 0


@pytest.mark.usefixtures("no_ramp")  # the first is settled otherwise, since it is alone
@pytest.mark.parametrize("remembered", [False, True], ids=["plain", "ledger"])
@pytest.mark.parametrize("acts", [False, True], ids=["none-acted", "all-acted"])
async def test_ambiguous_segment_launches_stay_unknown(
    server: Hostile, tmp_path: Path, remembered: bool, acts: bool
) -> None:
    server.order(*[loses(acts=acts)] * 8)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(client_of(server))
        settings: dict[str, Any] = {}
        if remembered:
            settings = {"ledger": await stack.enter_async_context(Ledger(tmp_path / "l.db")), "run": "friday"}
        found = await outcomes(FanOut(client, launches(), **settings))
    assert len(server.provider.acts) == (40 if acts else 32)
    assert [outcome.state for outcome in found].count(State.DONE) == 32
    assert [outcome.state for outcome in found].count(State.UNKNOWN) == 8
    told_truly(server, found)


async def test_lone_started_launch_is_done(server: Hostile) -> None:
    server.order(loses(acts=True))
    async with client_of(server) as client:
        assert (await client.launch_broadcast(9)).settled
    assert len(server.provider.acts) == 1


async def test_clients_of_host_share_launches(server: Hostile) -> None:
    clock = OwnTime()
    async with client_of(server, clock=clock) as one, client_of(server, clock=clock, account="other") as two:
        await one.launch_broadcast(9)
        server.order(loses(acts=False))
        with pytest.raises(OutcomeUnknownError, match="another launch"):
            await two.launch_broadcast(9)
        server.order(loses(acts=True))
        assert (await two.launch_broadcast(8)).settled


async def test_ledger_shows_other_process(server: Hostile, tmp_path: Path) -> None:
    path = tmp_path / "l.db"

    async def accepts(stage: Stage) -> bool:
        assert stage.call is not None
        await stage.peer.send(AltcraftProvider([9], active=[9]).answer(stage.call).raw())
        return True

    server.order(Strike(accepts))
    async with client_of(server) as client, Ledger(path) as ledger:
        assert (await FanOut(client, launches(1), ledger=ledger, run="one").finish()).done == 1

    # Its start comes later, just when the launch of the other run is lost.
    async def another_acts(stage: Stage) -> None:
        call = stage.call
        assert call is not None
        headers = {**call.headers, "Request-ID": "of another run"}
        server.provider.answer(Call(call.method, call.path, call.query, headers, call.body))

    server.order(Strike(another_acts))
    # A clock of its own, so that this process has forgotten the other run.
    async with client_of(server) as client, Ledger(path) as ledger:
        [outcome] = await outcomes(FanOut(client, launches(1, first=2), ledger=ledger, run="two"))
    assert outcome.state is State.UNKNOWN
    assert "another launch of the same" in str(outcome.error)


async def test_lone_ledger_launch_is_done(server: Hostile, tmp_path: Path) -> None:
    server.order(loses(acts=True))
    async with client_of(server) as client, Ledger(tmp_path / "l.db") as ledger:
        [outcome] = await outcomes(FanOut(client, launches(1), ledger=ledger, run="one"))
    assert outcome.state is State.DONE
    assert outcome.result.settled


@pytest.mark.parametrize("others", [0, 1])
async def test_resumed_launch_asks_the_ledger(server: Hostile, tmp_path: Path, others: int) -> None:
    path = tmp_path / "l.db"
    server.order(loses(acts=True))
    async with client_of(server) as client, Ledger(path) as ledger:
        run = FanOut(client, launches(1 + others), ledger=ledger, run="one", concurrency=1, retry=QUICK, timeout=5)
        server.dark = lambda _: AltcraftProvider([]).answer(_)  # the log is refused: unknown
        assert (await run.finish()).unknown == 1
    server.dark = None
    async with client_of(server) as client, Ledger(path) as ledger:
        [outcome] = await outcomes(FanOut(client, None, ledger=ledger, run="one"))
    assert outcome.state is (State.UNKNOWN if others else State.DONE)


async def test_unreadable_ledger_settles_nothing(
    server: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> bool:
        raise LedgerError("the database is away")

    monkeypatch.setattr("dispatchkit.ledger.sqlite.store.SqliteStore.has_rival", away)
    server.order(loses(acts=True))
    async with client_of(server, timeout=0.5) as client, Ledger(tmp_path / "l.db") as ledger:
        [outcome] = await outcomes(FanOut(client, launches(1), ledger=ledger, run="one"))
    assert outcome.state is State.UNKNOWN
    assert "the ledger did not say" in str(outcome.error)


async def test_log_keys_are_for_launches(server: Hostile, tmp_path: Path) -> None:
    async with client_of(server) as client, Ledger(tmp_path / "l.db") as ledger:
        await client.activate_many([8], run_now=True, ledger=ledger, run="launch").finish()
        await client.activate_many([8], ledger=ledger, run="activate").finish()
    with contextlib.closing(sqlite3.connect(tmp_path / "l.db")) as db:
        assert db.execute("SELECT log_key FROM target ORDER BY run").fetchall() == [(8,), (None,)]


async def test_stripped_ids_are_not_done(server: Hostile) -> None:
    server.provider.deduplicates = True  # type: ignore[union-attr]
    strip = {"Request-ID", "X-Request-ID"}
    answer = server.provider.answer

    def stripping(call: Any) -> Any:
        headers = {name: text for name, text in call.headers.items() if name not in strip}
        return answer(type(call)(call.method, call.path, call.query, headers, call.body))

    server.provider.answer = stripping  # type: ignore[method-assign]
    async with client_of(server) as client:
        report = await client.launch_many(iter([9, 9, 9])).finish()
    assert (report.done, report.unknown) == (1, 2)
    assert len(server.provider.acts) == 1


async def test_blocking_clients_share_launches(server: Hostile) -> None:
    from dispatchkit import sync  # noqa: PLC0415 - it begins a thread

    def launch() -> None:
        with sync.AltcraftClient(server.url, ALTCRAFT_TOKEN, clock=OwnTime(), retry=QUICK, timeout=5.0) as client:
            client.launch_broadcast(9)
            server.order(loses(acts=False))
            with pytest.raises(OutcomeUnknownError, match="deduplicates=True"):
                client.launch_broadcast(9)

    await asyncio.to_thread(launch)
    assert len(server.provider.acts) == 1

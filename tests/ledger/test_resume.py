"""A launch that ended half-way goes on with the same line: nothing twice, nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_random_exponential

from dispatchkit import (
    ActivateMailing,
    AltcraftClient,
    DirectClient,
    Done,
    FanOut,
    LaunchBroadcast,
    Ledger,
    LedgerError,
    Report,
    RetryPolicy,
    RunStoppedError,
    StartDispatch,
    State,
)
from dispatchkit.core.call import launches, replays
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.errors import RepeatedTargetsError, ResponseLostError
from dispatchkit.ledger import hold
from dispatchkit.ledger.hold_lock import HoldLock, LockState
from dispatchkit.ledger.journal import LedgerJournal
from dispatchkit.ledger.sqlite import holds
from dispatchkit.ledger.sqlite import rows as sqlite_rows
from dispatchkit.ledger.sqlite import store as sqlite
from dispatchkit.ledger.sqlite import write as sqlite_write
from dispatchkit.sandbox import Fault, Sandbox
from tests.harness import starts, until

RETRY = RetryPolicy(state_lag=0.05, wait=wait_random_exponential(multiplier=0.01, max=30))


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request of an earlier process is on its way for long."""
    monkeypatch.setattr(sqlite, "CLAIM_AGE", 0.1)


@pytest.fixture
async def played() -> AsyncIterator[Sandbox]:
    async with Sandbox(active=range(1, 1001)) as sandbox:
        yield sandbox


@pytest.fixture
async def direct(played: Sandbox) -> AsyncIterator[DirectClient]:
    async with DirectClient(played.direct_token, base_url=played.url, retry=RETRY, attempt_timeout=1) as client:
        yield client


@pytest.fixture
async def altcraft(played: Sandbox) -> AsyncIterator[AltcraftClient]:
    async with AltcraftClient(played.url, played.altcraft_token, retry=RETRY, attempt_timeout=1) as client:
        yield client


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with Ledger(tmp_path / "launch.db") as ledger:
        yield ledger


@pytest.fixture
async def vouching(played: Sandbox) -> AsyncIterator[AltcraftClient]:
    """A client whose user vouches for the platform's deduplication."""
    settings: dict[str, Any] = {"retry": RETRY, "attempt_timeout": 1, "deduplicates": True}
    async with AltcraftClient(played.url, played.altcraft_token, **settings) as client:
        yield client


async def left_in_flight(client: Any, ledger: Ledger, commands: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that claims and sends, and is gone before it has written down what came of it."""
    with monkeypatch.context() as patched:
        patched.setattr(LedgerJournal, "record", lambda *_: None)
        await FanOut(client, commands, ledger=ledger, run="a").finish()
    assert (await ledger.counts("a")).sending == len(commands)


async def test_half_finished_run_continues(direct: DirectClient, played: Sandbox, ledger: Ledger) -> None:
    first = direct.start_many(range(1, 101), ledger=ledger, run="a", max_launches=40, concurrency=8)
    assert await first.finish() == Report(done=40, not_started=60)
    again = direct.start_many(range(1, 101), ledger=ledger, run="a")
    outcomes = [outcome async for outcome in again]
    assert sorted(outcome.index for outcome in outcomes) == list(range(40, 100))
    assert again.report == Report(done=100, not_started=0, previously_finished=40)
    assert played.launches == dict.fromkeys(range(1, 101), 1)
    requests = played.requests
    assert await direct.start_many(range(1, 101), ledger=ledger, run="a").finish() == Report(
        done=100, not_started=0, previously_finished=100
    )
    assert played.requests == requests


async def test_a_resume_needs_no_commands(direct: DirectClient, played: Sandbox, ledger: Ledger) -> None:
    await direct.start_many(range(1, 11), ledger=ledger, run="a", max_launches=4).finish()
    report = await FanOut(direct, None, ledger=ledger, run="a").finish()
    assert report == Report(done=10, not_started=0, previously_finished=4)
    assert set(played.launches.values()) == {1}


@pytest.mark.parametrize("change", ['"direct.start" "direct.stop"', '"dispatch_id":6} "dispatch_id":7}', "{ x"])
async def test_changed_command_is_not_launched(
    direct: DirectClient, played: Sandbox, ledger: Ledger, tmp_path: Path, change: str
) -> None:
    await direct.start_many(range(1, 7), ledger=ledger, run="a", max_launches=2).finish()
    with contextlib.closing(sqlite3.connect(tmp_path / "launch.db")) as db, db:
        db.execute("UPDATE target SET command = replace(command, ?, ?)", change.split())
    requests = played.requests
    with pytest.raises(LedgerError, match=r"the command [25] of the run 'a' is not what was planned"):
        await FanOut(direct, None, ledger=ledger, run="a").finish()
    assert played.requests == requests


async def test_late_damage_launches_nothing(
    direct: DirectClient, played: Sandbox, ledger: Ledger, tmp_path: Path
) -> None:
    await direct.start_many(range(1, 3001), ledger=ledger, run="a", max_launches=2).finish()
    with contextlib.closing(sqlite3.connect(tmp_path / "launch.db")) as db, db:
        db.execute("UPDATE target SET command = replace(command, ':3000}', ':3001}') WHERE \"index\" = 2999")
    requests = played.requests
    for commands in (None, starts(range(1, 3001))):
        with pytest.raises(LedgerError, match="the command 2999 of the run 'a' is not what was planned"):
            await FanOut(direct, commands, ledger=ledger, run="a").finish()
        assert played.requests == requests


async def test_run_now_is_another_command(altcraft: AltcraftClient, played: Sandbox, ledger: Ledger) -> None:
    both = [ActivateMailing(5), ActivateMailing(5, run_now=True), ActivateMailing(5)]
    assert await FanOut(altcraft, both, ledger=ledger, run="a").finish() == Report(done=2, not_started=0, repeats=1)
    assert played.launches == {5: 1}
    window = {"ledger": ledger, "repeat_window": 3600}
    for run, command in (("b", ActivateMailing(5)), ("c", ActivateMailing(5, run_now=True))):
        with pytest.raises(RepeatedTargetsError, match="1 in run 'a'"):
            await FanOut(altcraft, [command], run=run, **window).finish()  # type: ignore[arg-type]
    report = await FanOut(altcraft, [ActivateMailing(5, run_now=False)], run="d", **window).finish()  # type: ignore[arg-type]
    assert report.done == 1


async def test_changed_content_is_not_launched(
    altcraft: AltcraftClient, played: Sandbox, ledger: Ledger, tmp_path: Path
) -> None:
    commands = [LaunchBroadcast(number, content={"b": 1, "a": 2}) for number in range(1, 4)]
    await FanOut(altcraft, commands, ledger=ledger, run="a", max_launches=1).finish()
    with contextlib.closing(sqlite3.connect(tmp_path / "launch.db")) as db, db:
        db.execute("UPDATE target SET command = replace(command, '\"a\":2', '\"a\":3')")
    with pytest.raises(LedgerError, match="the command 1 of the run 'a' is not what was planned"):
        await FanOut(altcraft, None, ledger=ledger, run="a").finish()
    assert sum(played.launches.values()) == 1


async def test_equal_commands_are_one_launch(direct: DirectClient, played: Sandbox, ledger: Ledger) -> None:
    report = await direct.start_many([7, 8, 7, 7, 9], ledger=ledger, run="a").finish()
    assert report == Report(done=3, not_started=0, repeats=2)
    assert played.launches == {7: 1, 8: 1, 9: 1}
    await direct.start_many([9, 10], ledger=ledger, run="b").finish()
    assert played.launches == {7: 1, 8: 1, 9: 2, 10: 1}, "another run is another intention"


async def test_status_settles_direct_orphan(
    direct: DirectClient, played: Sandbox, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_in_flight(direct, ledger, list(starts(range(1, 101))), monkeypatch)
    outcomes: list[Outcome[Any]] = [outcome async for outcome in FanOut(direct, None, ledger=ledger, run="a")]
    assert {outcome.state for outcome in outcomes} == {State.DONE}
    assert all(isinstance(outcome, Done) and outcome.result.settled for outcome in outcomes)
    assert played.launches == dict.fromkeys(range(1, 101), 1)


@pytest.mark.second_stage
async def test_denied_orphan_is_launched_once(direct: DirectClient, played: Sandbox, ledger: Ledger) -> None:
    journal = ledger.journal("a", direct._run_settings())
    await journal.open(starts(range(1, 101)), lambda: None)
    while (item := await journal.next_item()) is not None:
        await journal.claim(item, None)
    await journal.close()
    assert played.requests == 0
    # So many at a time that a budget for repeats would not do.
    assert await FanOut(direct, None, ledger=ledger, run="a").finish() == Report(done=100, not_started=0)
    assert played.launches == dict.fromkeys(range(1, 101), 1)


async def test_altcraft_orphan_repeats_its_id(
    vouching: AltcraftClient, played: Sandbox, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = [LaunchBroadcast(number, content={"b": 1, "a": 2}) for number in range(1, 11)]
    await left_in_flight(vouching, ledger, commands, monkeypatch)
    before = {act.target: act.request_id for act in played.altcraft.acts}
    claimed = {target.request_id async for target in ledger.targets("a", ["sending"])}
    assert claimed == set(before.values())
    # The log cannot be read, so only the same id keeps it from acting twice.
    played.order(Fault.http(500), times=1000, path_contains="log_v2")
    outcomes: list[Outcome[Any]] = [outcome async for outcome in FanOut(vouching, None, ledger=ledger, run="a")]
    assert {outcome.state for outcome in outcomes} == {State.DONE}
    assert all(isinstance(outcome, Done) and outcome.result.replayed for outcome in outcomes)
    assert {outcome.request_id for outcome in outcomes} == claimed
    assert set(played.launches.values()) == {1}


async def test_log_settles_altcraft_orphan(
    altcraft: AltcraftClient, played: Sandbox, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = [LaunchBroadcast(number) for number in range(1, 11)]
    await left_in_flight(altcraft, ledger, commands, monkeypatch)
    outcomes: list[Outcome[Any]] = [outcome async for outcome in FanOut(altcraft, None, ledger=ledger, run="a")]
    assert {outcome.state for outcome in outcomes} == {State.DONE}
    assert all(isinstance(outcome, Done) and outcome.result.settled for outcome in outcomes)
    assert set(played.launches.values()) == {1}


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that begins knows of no launch and of no replay."""
    monkeypatch.setattr(launches, "_hosts", {})
    monkeypatch.setattr(replays, "_accounts", {})


async def resumed(played: Sandbox, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, *, deduplicates: bool) -> Report:
    """What the next process makes of the run."""
    forget(monkeypatch)
    settings: dict[str, Any] = {"retry": RETRY, "attempt_timeout": 1, "timeout": 3, "deduplicates": deduplicates}
    async with AltcraftClient(played.url, played.altcraft_token, **settings) as client:
        return await FanOut(client, None, ledger=ledger, run="a").finish()


async def test_foreign_response_is_not_believed(
    vouching: AltcraftClient, played: Sandbox, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(monkeypatch)
    yes = Fault.http(200, b'{"data": null, "error": 0, "error_text": "ok"}', {"Duplicate-Request": "true"})
    async with AltcraftClient(played.url, played.altcraft_token, retry=RETRY, deduplicates=True) as client:
        played.order(yes, times=10, path_contains="broadcasts/start")
        first = await FanOut(client, [LaunchBroadcast(7)], ledger=ledger, run="a").finish()
    assert first == Report(unknown=1, not_started=0)
    requests = played.requests
    again = await resumed(played, ledger, monkeypatch, deduplicates=True)
    assert (again, played.requests) == (Report(unknown=1, not_started=0, previously_finished=1), requests)


async def test_foreign_start_is_not_believed(played: Sandbox, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)
    async with AltcraftClient(played.url, played.altcraft_token, retry=RETRY, attempt_timeout=1) as client:
        played.order(Fault.dropped(), path_contains="broadcasts/start")
        run = FanOut(client, [LaunchBroadcast(7)], ledger=ledger, run="a")
        finishing = asyncio.create_task(run.finish())
        await until(lambda: not played.faults_left)
        await client.launch_broadcast(7)
        assert await finishing == Report(unknown=1, not_started=0)
    again = await resumed(played, ledger, monkeypatch, deduplicates=False)
    assert again == Report(unknown=1, not_started=0, previously_finished=1)


@pytest.mark.parametrize("killed", [False, True])
async def test_unclear_repeat_is_globally_last(
    played: Sandbox, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    forget(monkeypatch)
    played.order(Fault.lost_answer(), times=100, path_contains="broadcasts/start")
    settings: dict[str, Any] = {"retry": RETRY, "attempt_timeout": 1, "deduplicates": True}
    async with AltcraftClient(played.url, played.altcraft_token, **settings) as client:
        if killed:
            await left_in_flight(client, ledger, [LaunchBroadcast(7)], monkeypatch)
            with monkeypatch.context() as patched:
                patched.setattr(LedgerJournal, "record", lambda *_: None)
                await resumed(played, ledger, monkeypatch, deduplicates=True)
        else:
            await FanOut(client, [LaunchBroadcast(7)], ledger=ledger, run="a").finish()
    requests = played.requests
    for earlier in (0, 1) if killed else (1, 1):
        again = await resumed(played, ledger, monkeypatch, deduplicates=True)
        assert (again, played.requests) == (Report(unknown=1, not_started=0, previously_finished=earlier), requests)


@pytest.mark.second_stage
async def test_next_run_settles_unknown(direct: DirectClient, played: Sandbox, ledger: Ledger) -> None:
    played.order(Fault.lost_answer(), path_contains="/start")
    played.order(Fault.http(500), times=8, path_contains="dispatch")
    report = await direct.start_many([7], ledger=ledger, run="a", timeout=1.0).finish()
    assert report == Report(unknown=1, not_started=0)
    (target,) = [target async for target in ledger.targets("a", ["unknown"])]
    assert target.summary
    while played.faults_left:
        with contextlib.suppress(ResponseLostError):
            await direct.dispatches(status="sending")
    assert await FanOut(direct, None, ledger=ledger, run="a").finish() == Report(done=1, not_started=0)
    assert played.launches == {7: 1}


async def test_rejected_target_is_not_retried(direct: DirectClient, played: Sandbox, ledger: Ledger) -> None:
    await direct.stop_many([1, 2], ledger=ledger, run="a").finish()
    targets = [target async for target in ledger.targets("a")]
    assert [(target.state, target.code) for target in targets] == [("rejected", 4031), ("rejected", 4031)]
    requests = played.requests
    assert await FanOut(direct, None, ledger=ledger, run="a").finish() == Report(
        rejected=2, not_started=0, previously_finished=2
    )
    assert played.requests == requests


async def test_run_is_stopped_externally(direct: DirectClient, played: Sandbox, ledger: Ledger, tmp_path: Path) -> None:
    played.latency = 0.01
    run = direct.start_many(range(1, 501), ledger=ledger, run="a", concurrency=4)
    await anext(run)
    async with Ledger(tmp_path / "launch.db") as other:
        await other.stop("a")
        report = await asyncio.wait_for(run.finish(), 10)
        assert report.not_started
        counts = await other.counts("a")
        assert counts.done == report.done == len(played.launches)
        assert counts.sending == counts.unknown == 0
        with pytest.raises(RunStoppedError, match="clear_stop"):
            await FanOut(direct, None, ledger=ledger, run="a").finish()
        await other.clear_stop("a")
    assert (await FanOut(direct, None, ledger=ledger, run="a").finish()).done == 500
    assert set(played.launches.values()) == {1}


async def test_unwritable_ledger_launches_nothing(
    direct: DirectClient, played: Sandbox, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> list[object]:
        raise sqlite3.OperationalError("disk I/O error")

    run = direct.start_many(range(1, 101), ledger=ledger, run="a", concurrency=4)
    await anext(run)
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_write, "write_batches", breaks)
        with pytest.raises(LedgerError, match="disk I/O error"):
            await run.finish()
    known = await ledger.counts("a")
    assert sum(played.launches.values()) <= known.done + known.sending < 100
    assert (await FanOut(direct, None, ledger=ledger, run="a").finish()).done == 100
    assert set(played.launches.values()) == {1}


async def test_ledger_holds_no_token(
    direct: DirectClient, altcraft: AltcraftClient, played: Sandbox, ledger: Ledger, tmp_path: Path
) -> None:
    await direct.start_many([1, 2], ledger=ledger, run="a").finish()
    await FanOut(altcraft, [LaunchBroadcast(1)], ledger=ledger, run="b").finish()
    assert [run.name for run in await ledger.runs()] == ["b", "a"]
    await ledger.close()
    for file in tmp_path.iterdir():  # noqa: ASYNC240
        raw = file.read_bytes()
        assert played.direct_token.encode() not in raw
        assert b'"token"' not in raw
        assert b"Authorization" not in raw


async def test_foreign_command_is_never_sent(direct: DirectClient, ledger: Ledger) -> None:
    commands: list[Any] = [StartDispatch(1), LaunchBroadcast(2)]
    report = await FanOut(direct, commands, ledger=ledger, run="a").finish()
    assert report == Report(done=1, not_sent=1, not_started=0)
    assert (await ledger.counts("a")).not_sent == 1


@pytest.mark.second_stage
async def test_taken_over_repeat_launches_once(
    played: Sandbox, direct: DirectClient, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first holder is silent, as one that is suspended, or whose database is out of its reach.
    monkeypatch.setattr(hold, "HEARTBEAT_INTERVAL", 100.0)
    played.order(Fault.throttled(retry_after=0.1))
    first = asyncio.create_task(direct.start_many([1], ledger=ledger, run="a").finish())
    await until(lambda: direct.statistics().pace.throttled > 0)
    monkeypatch.setattr(sqlite_rows, "LEASE_TIMEOUT", 0.0)
    monkeypatch.setattr(HoldLock, "acquire", lambda _: LockState.UNSUPPORTED)  # or it would keep the run
    monkeypatch.setattr(holds, "lock_state", lambda _: LockState.UNSUPPORTED)
    async with Ledger(tmp_path / "launch.db") as other:
        assert (await FanOut(direct, None, ledger=other, run="a").finish()).done == 1
        assert await first == Report(rejected=1, not_started=0)
        assert (await other.counts("a")).done == 1
    assert played.launches == {1: 1}


@pytest.mark.parametrize("kind", ["generator", "asynchronous generator"])
async def test_closed_planning_leaves_incomplete_plan(
    played: Sandbox, direct: DirectClient, ledger: Ledger, kind: str
) -> None:
    taken = 0

    def commands() -> Iterator[StartDispatch]:
        nonlocal taken
        for taken in range(1, 100_001):
            yield StartDispatch(taken)

    async def one_by_one() -> AsyncIterator[StartDispatch]:
        for command in commands():
            await asyncio.sleep(0)
            yield command

    run = FanOut(direct, commands() if kind == "generator" else one_by_one(), ledger=ledger, run="a")
    planning = asyncio.create_task(run.finish())
    await until(lambda: taken > 100)
    await run.close()
    assert await planning == Report(not_started=None)
    assert not (await ledger.run("a")).plan_complete
    assert played.launches == {}


async def test_two_consumers_share_one_opening(direct: DirectClient, ledger: Ledger) -> None:
    fan_out = FanOut(direct, starts(range(1, 21)), ledger=ledger, run="a", concurrency=4)

    async def consume() -> list[int]:
        return [outcome.index async for outcome in fan_out]

    async with asyncio.timeout(10):
        first, second = await asyncio.gather(consume(), consume())
    assert sorted(first + second) == list(range(20))
    assert fan_out.report.done == 20

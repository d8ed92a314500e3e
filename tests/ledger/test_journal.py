"""The journal of a run: planned whole or refused, handed out once, held while it goes on."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from dispatchkit import (
    AccountMismatchError,
    DirectClient,
    FanOut,
    LaunchBroadcast,
    Ledger,
    LedgerError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    RepeatedTargetsError,
    RunHeldError,
    RunStoppedError,
    StartDispatch,
    State,
)
from dispatchkit.core.claim import CLAIM_AGE, ClaimResult
from dispatchkit.core.fanout.journal import PlanSummary
from dispatchkit.core.fanout.outcome import Done, Outcome, Rejected, failed
from dispatchkit.core.invalid_command import InvalidCommand
from dispatchkit.direct.commands import ReadDispatch
from dispatchkit.ledger import hold
from dispatchkit.ledger import journal as journal_module
from dispatchkit.ledger.chunk import HEARTBEAT_INTERVAL, LEASE_TIMEOUT
from dispatchkit.ledger.codec import encode
from dispatchkit.ledger.hold_lock import HoldLock, LockState
from dispatchkit.ledger.journal import LedgerJournal
from dispatchkit.ledger.sqlite import file as sqlite_file
from dispatchkit.ledger.sqlite import holds
from dispatchkit.ledger.sqlite import store as sqlite
from dispatchkit.testing import FakeClock
from tests.harness import run_plan, run_settings, starts, turns, until


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(jumps=False)


@pytest.fixture
async def ledger(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Ledger]:
    async with Ledger(tmp_path / "launch.db", clock=clock) as ledger:
        yield ledger


def nothing() -> None:
    pass


def outcome(item: Any, state: State = State.DONE) -> Outcome[Any]:
    errors = {
        State.REJECTED: RejectedError("no", status=400, code=None),
        State.NOT_SENT: NotSentError("no way"),
        State.UNKNOWN: OutcomeUnknownError("lost"),
    }
    if state is State.DONE:
        return Done(item.index, item.command, None)
    return failed(item.index, item.command, errors[state])


async def taken(journal: Any) -> list[Any]:
    items = []
    while (item := await journal.next_item()) is not None:
        items.append(item)
    return items


async def test_plan_precedes_first_claim(ledger: Ledger) -> None:
    journal = ledger.journal("a", run_settings({"provider": "direct"}))
    assert await journal.open([*starts(range(1, 6)), StartDispatch(2)], nothing) == PlanSummary(
        5, {State.DONE: 0, State.REJECTED: 0, State.UNKNOWN: 0}
    )
    items = await taken(journal)
    assert [(item.index, item.command) for item in items] == [(n, StartDispatch(n + 1)) for n in range(5)]
    assert await journal.next_item() is None
    await journal.close()


async def test_final_target_is_not_claimed(ledger: Ledger) -> None:
    journal = ledger.journal("a", run_settings())
    await journal.open(starts(range(1, 6)), nothing)
    states = [State.DONE, State.REJECTED, State.NOT_SENT, State.UNKNOWN]
    for item, state in zip(await taken(journal), states, strict=False):
        assert await journal.claim(item, f"r{item.index}") is ClaimResult.GRANTED
        journal.record(item, outcome(item, state))
    await journal.close()
    again = ledger.journal("a", run_settings())
    assert await again.open(None, nothing) == PlanSummary(5, {State.DONE: 1, State.REJECTED: 1, State.UNKNOWN: 0})
    left = await taken(again)
    assert [(item.index, item.request_id, item.unclear_since is None) for item in left] == [
        (2, None, True),
        (3, "r3", False),
        (4, None, True),
    ]
    await again.close()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_many_targets_are_claimed(ledger: Ledger, asynchronous: bool) -> None:
    async def source() -> AsyncIterator[StartDispatch]:
        for command in starts(range(1, 5001)):
            yield command

    journal = ledger.journal("a", run_settings())
    await journal.open(source() if asynchronous else starts(range(1, 5001)), nothing)
    each = await asyncio.gather(*(taken(journal) for _ in range(20)))
    assert sorted(item.index for items in each for item in items) == list(range(5000))
    await journal.close()


async def test_large_commands_are_read_gradually(ledger: Ledger) -> None:
    journal = ledger.journal("a", run_settings())
    await journal.open((LaunchBroadcast(n, content={"text": f"{n}{'x' * 300_000}"}) for n in range(1, 41)), nothing)
    first = await journal.next_item()
    assert first is not None
    await turns()
    await until(lambda: journal._pages._reading is None)
    assert sum(len(page) for page in journal._pages.ready) <= 16
    assert len(await taken(journal)) == 39
    await journal.close()


async def test_invalid_command_is_located(ledger: Ledger) -> None:
    bad: Any
    for bad, kind, text in [
        (
            InvalidCommand(ValueError("dispatch_id must be positive")),
            ValueError,
            r"commands\[1\]: dispatch_id must be positive",
        ),
        (InvalidCommand(TypeError("no text")), TypeError, r"commands\[1\]: no text: nothing was launched"),
        (ReadDispatch(1), TypeError, r"commands\[1\]: a ledger holds .*, not ReadDispatch"),
        ("7", TypeError, r"commands\[1\]: a ledger holds .*, not str"),
    ]:
        with pytest.raises(kind, match=text):
            await ledger.journal("a", run_settings()).open([StartDispatch(1), bad], nothing)
    assert not (await ledger.run("a")).plan_complete


async def test_truncated_plan_needs_same_command(ledger: Ledger) -> None:
    def broken() -> Iterator[StartDispatch]:
        yield from starts(range(1, 4))
        raise OSError("the list is gone")

    with pytest.raises(OSError, match="the list is gone"):
        await ledger.journal("a", run_settings()).open(broken(), nothing)
    with pytest.raises(LedgerError, match="the plan of the run 'a' is incomplete: run the same again"):
        await ledger.journal("a", run_settings()).open(None, nothing)
    journal = ledger.journal("a", run_settings())
    assert (await journal.open(starts(range(1, 6)), nothing)).total == 5
    await journal.close()


async def test_missing_run_is_not_resumed(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="the ledger holds no run 'a'"):
        await ledger.journal("a", run_settings()).open(None, nothing)
    assert await ledger.runs() == []


async def test_other_host_run_is_refused(ledger: Ledger) -> None:
    journal = ledger.journal("a", run_settings({"provider": "direct", "base_url": "https://one"}))
    await journal.open([StartDispatch(1)], nothing)
    await journal.close()
    with pytest.raises(LedgerError, match=r"other settings \(base_url: 'https://one', not 'https://two'\)"):
        await ledger.journal("a", run_settings({"provider": "direct", "base_url": "https://two"})).open(None, nothing)


async def test_external_stop_within_heartbeat(ledger: Ledger, clock: FakeClock) -> None:
    heard: list[str] = []
    journal = ledger.journal("a", run_settings())
    await journal.open(starts(range(1, 4)), lambda: heard.append("stop"))
    item = await journal.next_item()
    assert item is not None
    await ledger.stop("a")
    await until(lambda: bool(clock._sleepers))
    clock.advance(HEARTBEAT_INTERVAL)
    await until(lambda: bool(heard))
    assert await journal.claim(item, None) is ClaimResult.STOPPED
    assert await journal.next_item() is None
    await journal.close()
    assert (await ledger.counts("a")).planned == 3


async def test_failed_heartbeat_ends_the_run(
    ledger: Ledger, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = ledger.journal("a", run_settings())
    lost: list[str] = []
    await journal.open(starts(range(1, 4)), lambda: lost.append("stop"))
    item: Any = await journal.next_item()

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ledger._store, "heartbeat", broken)
    await until(lambda: bool(clock._sleepers))
    clock.advance(HEARTBEAT_INTERVAL)
    await until(lambda: bool(lost))
    with pytest.raises(LedgerError, match=r"the heartbeats of the run 'a' failed \(ZeroDivisionError\)"):
        await journal.claim(item, None)
    assert "the heartbeats of the run 'a' failed" in caplog.text
    await journal.close()


async def test_live_holder_is_not_replaced(ledger: Ledger, clock: FakeClock, tmp_path: Path) -> None:
    journal = ledger.journal("a", run_settings())
    lost: list[str] = []
    await journal.open(starts(range(1, 4)), lambda: lost.append("stop"))
    for _ in range(int(LEASE_TIMEOUT) + 5):
        await until(lambda: bool(clock._sleepers))
        clock.advance(HEARTBEAT_INTERVAL)
    async with Ledger(tmp_path / "launch.db", clock=clock) as other:
        with pytest.raises(LedgerError, match="the run 'a' is held by process"):
            await other.journal("a", run_settings()).open(None, nothing)
        # Now it is silent for too long, as a suspended process is. It still exists, so it keeps the run.
        clock.time += LEASE_TIMEOUT + 1
        with pytest.raises(RunHeldError, match="has been silent for 31 s") as raised:
            await other.journal("a", run_settings()).open(None, nothing)
        assert raised.value.silent_for == 31
        assert not lost
    await journal.close()


async def test_cancelled_claim_has_sent_nothing(ledger: Ledger) -> None:
    journal = ledger.journal("a", run_settings())
    await journal.open(starts(range(1, 4)), nothing)
    for waits in range(3):
        item = await journal.next_item()
        asking = asyncio.ensure_future(journal.claim(item, None))  # type: ignore[arg-type]
        await turns(waits)
        asking.cancel()
        await asyncio.wait([asking])
    await journal.close()
    counts = await ledger.counts("a")
    assert (counts.sending, counts.planned + counts.not_sent) == (0, 3)


async def test_cancelled_end_is_recorded(ledger: Ledger) -> None:
    journal = ledger.journal("a", run_settings())
    await journal.open(starts(range(1, 4)), nothing)
    refused = RejectedError("no", status=400, code=1)
    items = [item for _ in range(3) if (item := await journal.next_item()) is not None]
    for item in items:
        assert await journal.claim(item, None) is ClaimResult.GRANTED
    for item in items:
        journal.record(item, Rejected(item.index, item.command, refused))
        await turns(1)  # the first is on its way, and the others wait for it
    ending = asyncio.ensure_future(journal.close())
    await turns(1)
    ending.cancel()
    await asyncio.wait([ending])
    assert ending.cancelled()
    assert (await ledger.counts("a")).rejected == 3
    assert [chunk.holder for chunk in await ledger.chunks("a")] == []


async def test_cancelled_hold_is_released(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = ledger.journal("a", run_settings())
    await journal.open(starts(range(1, 4)), nothing)
    await journal.close()
    hold = sqlite.SqliteStore.acquire

    async def held_unheard(*args: Any, **settings: Any) -> None:
        assert await hold(*args, **settings) is None
        raise asyncio.CancelledError  # the thread continues if its caller is cancelled

    monkeypatch.setattr(sqlite.SqliteStore, "acquire", held_unheard)
    with pytest.raises(asyncio.CancelledError):
        await ledger.journal("a", run_settings()).open(None, nothing)
    monkeypatch.undo()
    again = ledger.journal("a", run_settings())
    await again.open(None, nothing)
    await again.close()


@pytest.mark.parametrize("times", [1, 2])
async def test_late_cancelled_hold_is_released(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The cancellation comes in the turn of the loop in which the run is held and planned."""
    journal = ledger.journal("a", run_settings())
    summary = LedgerJournal._summary

    async def summary_of_cancelled(self: LedgerJournal) -> PlanSummary:
        planned = await summary(self)
        asyncio.get_running_loop().call_soon(cancel, times)
        return planned

    def cancel(left: int) -> None:
        opening.cancel()
        if left > 1:
            asyncio.get_running_loop().call_soon(cancel, left - 1)

    monkeypatch.setattr(LedgerJournal, "_summary", summary_of_cancelled)
    opening = asyncio.ensure_future(journal.open(starts(range(1, 4)), nothing))
    await asyncio.wait([opening])
    assert opening.cancelled()
    heartbeat = journal._holding._heartbeat_task
    assert heartbeat is not None
    await until(heartbeat.done)
    await until(lambda: not journal._holding.chunks)
    assert [chunk.holder for chunk in await ledger.chunks("a")] == [None]


@pytest.mark.parametrize("awaits", ["page", "heartbeat"])
async def test_cancelled_release_is_complete(ledger: Ledger, awaits: str) -> None:
    journal = ledger.journal("a", run_settings())
    await journal.open(starts(range(1, 4)), nothing)
    if awaits == "page":
        journal._pages._read_ahead()
    awaited = journal._pages._reading if awaits == "page" else journal._holding._heartbeat_task
    assert awaited is not None
    awaited.add_done_callback(lambda _: closing_journal.cancel())
    closing_journal = asyncio.ensure_future(journal.close())
    await asyncio.wait([closing_journal])
    await until(lambda: not journal._holding.chunks)
    assert [chunk.holder for chunk in await ledger.chunks("a")] == [None]
    heartbeat = journal._holding._heartbeat_task
    assert heartbeat is not None
    assert heartbeat.done()


async def test_stopped_plan_size_is_unknown(ledger: Ledger) -> None:
    journal = ledger.journal("a", run_settings())

    def stopped() -> Iterator[StartDispatch]:
        yield StartDispatch(1)
        journal.stop()
        yield StartDispatch(2)

    assert (await journal.open(stopped(), nothing)).total is None
    await journal.close()


async def test_a_stop_leaves_nobody_waiting(ledger: Ledger) -> None:
    journal = ledger.journal("a", run_settings())
    await journal.open(starts(range(1, 11)), nothing)
    asking = [asyncio.ensure_future(journal.claim(item, None)) for item in await taken(journal)]
    await turns(2)
    journal.stop()
    assert set(await asyncio.gather(*asking)) == {ClaimResult.STOPPED}
    await journal.close()
    assert (await ledger.counts("a")).sending == 0


async def test_chunk_has_one_holder(ledger: Ledger) -> None:
    run = (await (store := await ledger._open_store()).begin(run_plan())).number
    await store.plan(run, [encode(command) for command in starts(range(1, 8))])
    await store.planned(run, size=3)
    second = ledger.chunk("a", 1).journal("a", run_settings())
    assert (await second.open(None, nothing)).total == 3
    with pytest.raises(LedgerError, match="is held by"):
        await ledger.journal("a", run_settings()).open(None, nothing)
    first = ledger.chunk("a", 0).journal("a", run_settings())
    assert (await first.open(None, nothing)).total == 3
    items = await taken(second)
    assert [item.index for item in items] == [3, 4, 5]
    for item in items:
        assert await second.claim(item, None) is ClaimResult.GRANTED
        second.record(item, outcome(item))
    await second.close()
    await first.close()
    whole = ledger.journal("a", run_settings())
    assert (await whole.open(None, nothing)).final == {State.DONE: 3, State.REJECTED: 0, State.UNKNOWN: 0}
    assert [item.index for item in await taken(whole)] == [0, 1, 2, 6]
    await whole.close()
    with pytest.raises(ValueError, match=r"run must be 'a', as in Ledger\.chunk or Ledger\.resuming, not 'b'"):
        ledger.chunk("a", 1).journal("b", run_settings())


async def test_failed_record_is_retried_once(ledger: Ledger) -> None:
    journal = ledger.journal("a", run_settings())
    await journal.open(starts(range(1, 4)), nothing)
    items = await taken(journal)
    assert await journal.claim(items[0], None) is ClaimResult.GRANTED
    store = await ledger._open_store()
    for view in ("first_batch", "batch"):
        await store._write(lambda db, view=view: db.execute(f"DROP VIEW {view}"))  # type: ignore[attr-defined]
    journal.record(items[0], outcome(items[0]))
    for item in items[1:]:
        with pytest.raises(LedgerError, match="cannot be used"):
            await journal.claim(item, None)
    await store._write(sqlite_file.make_view)  # type: ignore[attr-defined]
    await journal.close()
    counts = await ledger.counts("a")
    assert (counts.done, counts.planned) == (1, 2)


async def test_a_ledger_serves_one_loop(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "launch.db")
    await ledger.runs()

    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            asyncio.run(ledger.runs())  # type: ignore[arg-type]

    await asyncio.to_thread(elsewhere)
    await ledger.close()
    await ledger.close()
    with pytest.raises(RuntimeError, match="this Ledger is closed"):
        await ledger.runs()


@pytest.mark.parametrize(
    ("where", "error_type", "text"),
    [
        ("", ValueError, "must be a file"),
        ("mysql://me:secret@host/db", ValueError, "not another URL"),
        (7, TypeError, "must be a file or 'postgresql://...', not int"),
    ],
)
def test_invalid_ledger_is_refused(where: Any, error_type: type[Exception], text: str) -> None:
    with pytest.raises(error_type, match=text) as raised:
        Ledger(where)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(("name", "error_type"), [("", ValueError), ("a\nb", ValueError), (7, TypeError)])
def test_a_run_has_a_name(tmp_path: Path, name: Any, error_type: type[Exception]) -> None:
    with pytest.raises(error_type, match="run must be"):
        Ledger(tmp_path / "launch.db").journal(name, {})  # type: ignore[arg-type]


async def test_missing_run_lists_existing_runs(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="the ledger holds no run 'x'; it holds none"):
        await ledger.run("x")
    for number in range(12):
        await (await ledger._open_store()).begin(run_plan(f"r{number}"))
    told = "the ledger holds no run 'x'; it holds 'r11', 'r10', 'r9', 'r8', 'r7' and 7 more$"
    with pytest.raises(LedgerError, match=told):
        await ledger.counts("x")
    async with DirectClient("dG9rZW4=", base_url="http://127.0.0.1:1") as direct:
        with pytest.raises(LedgerError, match=told):
            await FanOut(direct, None, ledger=ledger.resuming("x"), run="x").finish()


async def ended(journal: LedgerJournal, commands: Iterator[StartDispatch] | None = None) -> None:
    """Open a run and close it again."""
    await journal.open(commands, nothing)
    await journal.close()


@pytest.mark.parametrize(
    ("planned", "given", "fits"),
    [
        ((None, "one"), (None, "one"), True),
        ((None, "one"), (None, "two"), False),
        (("retail", "one"), ("retail", "two"), True),
        (("retail", "one"), ("wholesale", "one"), False),
        (("retail", "one"), (None, "one"), True),
        (("retail", "one"), (None, "two"), False),
        ((None, "one"), ("retail", "one"), True),
        ((None, "one"), ("retail", "two"), False),
    ],
)
async def test_run_belongs_to_account(
    ledger: Ledger, planned: tuple[str | None, str], given: tuple[str | None, str], fits: bool
) -> None:
    account, token = planned
    await ended(ledger.journal("a", run_settings(account=account, token=token)), starts([1]))
    other, token = given
    again = ledger.journal("a", run_settings(account=other, token=token))
    if fits:
        await ended(again)
        assert (await ledger.run("a")).fingerprint == token
        return
    with pytest.raises(AccountMismatchError, match="change_account") as raised:
        await again.open(None, nothing)
    assert ("'retail'" in str(raised.value)) == ("retail" in {account, other})
    assert [chunk.holder for chunk in await ledger.chunks("a")] == [None]


async def test_write_protected_ledger_opens(ledger: Ledger, tmp_path: Path, clock: FakeClock) -> None:
    """A holder that is suspended within its own transaction."""
    first = ledger.journal("a", run_settings())
    await first.open(starts([1]), nothing)
    with closing(sqlite3.connect(tmp_path / "launch.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        async with Ledger(tmp_path / "launch.db", clock=clock) as other:
            [chunk] = await asyncio.wait_for(other.chunks("a"), 5)
            assert chunk.holder is not None
            assert chunk.holder.exists
            with pytest.raises(RunHeldError):
                await asyncio.wait_for(other.journal("a", run_settings()).open(None, nothing), 5)
        db.execute("ROLLBACK")
    await first.close()


async def test_account_is_fixed_while_launching(ledger: Ledger) -> None:
    journal = ledger.journal("a", run_settings(token="old"))
    await journal.open(starts([1]), nothing)
    async with DirectClient("new") as client:
        with pytest.raises(RunHeldError):
            await ledger.change_account("a", client)  # type: ignore[arg-type]
    assert (await ledger.run("a")).fingerprint == "old"
    await journal.close()


async def test_a_copy_cannot_be_stopped(ledger: Ledger, tmp_path: Path) -> None:
    await ended(ledger.journal("a", run_settings()), starts([1]))
    await ledger.close()
    shutil.copy(tmp_path / "launch.db", tmp_path / "copy.db")
    async with Ledger(tmp_path / "copy.db") as copy:
        with pytest.raises(LedgerError, match="copy"):
            await copy.stop("a")
        await copy.accept_copy()
        await copy.stop("a")


async def test_rotated_token_needs_permission(ledger: Ledger) -> None:
    await ended(ledger.journal("a", run_settings(token="old")), starts([1]))
    async with DirectClient("new") as client:
        with pytest.raises(AccountMismatchError):
            await ledger.journal("a", attrs.evolve(client._run_settings(), settings={})).open(None, nothing)
        await ledger.change_account("a", client)  # type: ignore[arg-type]
        await ended(ledger.journal("a", attrs.evolve(client._run_settings(), settings={})))
        with pytest.raises(AccountMismatchError):
            await ledger.journal("a", run_settings(token="old")).open(None, nothing)


async def test_repeated_targets_are_refused(ledger: Ledger) -> None:
    first = ledger.journal("noon", run_settings())
    await first.open(starts([1, 2, 3]), nothing)
    for item in (await taken(first))[:2]:
        assert await first.claim(item, None) is ClaimResult.GRANTED
        first.record(item, outcome(item))
    await first.close()
    again = ledger.journal("evening", run_settings(repeat_window=3600.0))
    with pytest.raises(RepeatedTargetsError, match=r"Found: 2 in run 'noon', .* UTC \(2, 1\)\.") as raised:
        await again.open(starts([2, 1, 3, 4]), nothing)
    assert raised.value.runs == {"noon": 2}
    assert [chunk.holder for chunk in await ledger.chunks("evening")] == [None], "nothing is held"
    with pytest.raises(RepeatedTargetsError):  # the run keeps the window that it was planned with
        await ledger.journal("evening", run_settings()).open(None, nothing)
    await ended(ledger.journal("night", run_settings()), starts([1, 2]))


async def launched(ledger: Ledger, run: str, ids: list[int]) -> None:
    journal = ledger.journal(run, run_settings())
    await journal.open(starts(ids), nothing)
    for item in await taken(journal):
        assert await journal.claim(item, None) is ClaimResult.GRANTED
        journal.record(item, outcome(item))
    await journal.close()


async def test_refused_run_stays_stopped(ledger: Ledger) -> None:
    await launched(ledger, "noon", [1, 2])
    settings = run_settings(repeat_window=3600.0)
    for _ in range(2):
        with pytest.raises(RepeatedTargetsError):
            await ledger.journal("evening", settings).open(starts([2, 3]), nothing)
        assert (await ledger.run("evening")).stopped
    with pytest.raises(RunStoppedError):
        await ledger.journal("evening", attrs.evolve(settings, repeat_window=None)).check()
    resumed = ledger._create_journal("evening", settings, resumes=True)
    assert (await resumed.open(None, nothing)).total == 1
    assert [item.index for item in await taken(resumed)] == [1], "only what the other run did not launch"
    await resumed.close()


async def test_refused_part_stops_no_run(ledger: Ledger) -> None:
    settings = run_settings(repeat_window=3600.0)
    await ledger.journal("evening", settings).plan_chunks(starts([1, 2]), size=1)
    await launched(ledger, "noon", [1])
    with pytest.raises(RepeatedTargetsError):
        await ledger.chunk("evening", 0).journal("evening", settings).open(None, nothing)
    assert not (await ledger.run("evening")).stopped


async def test_resume_leaves_out_repeats(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    settings = run_settings(repeat_window=3600.0)
    first = ledger.journal("morning", settings)
    await first.open(starts(range(1, 6)), nothing)
    unclear = await first.next_item()
    assert unclear is not None
    assert await first.claim(unclear, None) is ClaimResult.GRANTED
    await first.close()
    await launched(ledger, "noon", [2, 4])
    for commands in (None, starts(range(1, 6))):
        resumed = ledger.journal("morning", settings)
        planned = await resumed.open(commands, nothing)
        assert (planned.total, planned.launched_elsewhere) == (3, 2)
        items = await taken(resumed)
        assert [(item.index, item.unclear_since is None) for item in items] == [(0, False), (2, True), (4, True)]
        await resumed.close()
    assert "'morning' are left out, since other runs have launched them" in caplog.text
    assert re.search(r"2 in run 'noon', the latest at [-0-9]+ [:0-9]+ UTC \(2, 4\)$", caplog.text, re.MULTILINE)


async def test_canary_leaves_out_repeats(ledger: Ledger) -> None:
    settings = attrs.evolve(run_settings(repeat_window=3600.0), canary=2)
    await ledger.journal("morning", settings).plan_chunks(starts(range(1, 6)), size=9)
    await launched(ledger, "noon", [1, 2])
    resumed = ledger.journal("morning", settings)
    planned = await resumed.open(None, nothing)
    assert (planned.canary, planned.total) == (2, 3)
    await resumed.close()


async def test_overlapping_plans_launch_once(ledger: Ledger) -> None:
    settings = run_settings(repeat_window=3600.0)
    for name in ("a", "b"):
        await ledger.journal(name, settings).plan_chunks(starts([1, 2]), size=10)
    first = ledger.chunk("a", 0).journal("a", run_settings())
    await first.open(None, nothing)
    with pytest.raises(RepeatedTargetsError, match="in run 'a'"):
        await ledger.chunk("b", 0).journal("b", run_settings()).open(None, nothing)
    await first.close()


async def test_same_run_is_no_repeat(ledger: Ledger) -> None:
    settings = run_settings(repeat_window=3600.0)
    first = ledger.journal("a", settings)
    await first.open(starts([1, 2]), nothing)
    for item in await taken(first):
        assert await first.claim(item, None) is ClaimResult.GRANTED
    await first.close()
    await ended(ledger.journal("a", settings), starts([1, 2]))


@pytest.fixture
def _without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no locks, so that leases decide, as in a database."""
    monkeypatch.setattr(HoldLock, "acquire", lambda _: LockState.UNSUPPORTED)
    monkeypatch.setattr(holds, "lock_state", lambda _: LockState.UNSUPPORTED)


@pytest.mark.usefixtures("_without_locks")
async def test_lease_end_is_awaited(
    ledger: Ledger, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold.Hold, "keep", lambda *_: None)  # it is suspended
    first = ledger.journal("a", run_settings())
    await first.open(starts([1]), nothing)
    clock.advance(10)
    async with Ledger(tmp_path / "launch.db", clock=clock) as other:
        second = other.journal("a", run_settings())
        opening = asyncio.create_task(second.open(None, nothing))
        while not opening.done():
            await until(lambda: bool(clock._sleepers) or opening.done())
            clock.advance(0.5)
        await opening
        assert LEASE_TIMEOUT <= clock.time <= LEASE_TIMEOUT + 2
        [record] = caplog.records
        assert "waiting for the end of its lease at 00:00:30 UTC" in record.message
        await second.close()
    await first.close()


@pytest.mark.usefixtures("_without_locks")
async def test_renewed_lease_is_not_awaited(ledger: Ledger, clock: FakeClock, tmp_path: Path) -> None:
    first = ledger.journal("a", run_settings())
    await first.open(starts([1]), nothing)
    async with Ledger(tmp_path / "launch.db", clock=clock) as other:
        opening = asyncio.create_task(other.journal("a", run_settings()).open(None, nothing))
        while not opening.done():
            # Time passes only while all sleep: two heartbeats, and the one that waits for the lease.
            await until(lambda: len(clock._sleepers) > 2 or opening.done())
            clock.advance(0.25)
        with pytest.raises(RunHeldError, match="is held by process"):
            await opening
        assert clock.time < LEASE_TIMEOUT
    await first.close()


async def test_resume_clears_stop(ledger: Ledger, clock: FakeClock) -> None:
    await ended(ledger.journal("a", run_settings()), starts([1]))
    promised = await ledger.stop("a")
    assert promised == clock.now() + timedelta(seconds=CLAIM_AGE)
    with pytest.raises(RunStoppedError):
        await ledger.journal("a", run_settings()).open(None, nothing)
    stopped: list[str] = []
    resumed = ledger.resuming("a").journal("a", run_settings())
    await resumed.open(None, lambda: stopped.append("stop"))
    assert not (await ledger.run("a")).stopped
    await until(lambda: bool(clock._sleepers))
    clock.advance(HEARTBEAT_INTERVAL)
    await turns()
    assert not stopped
    await resumed.close()


async def test_stop_during_resume_holds(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    await ended(ledger.journal("a", run_settings()), starts([1]))
    await ledger.stop("a")
    take = hold.Hold.take

    async def stopped_again(held: hold.Hold) -> None:
        await take(held)
        await ledger.stop("a")

    monkeypatch.setattr(hold.Hold, "take", stopped_again)
    with pytest.raises(RunStoppedError, match="stopped while it was resumed"):
        await ledger.resuming("a").journal("a", run_settings()).open(None, nothing)
    assert (await ledger.run("a")).stopped
    assert [chunk.holder for chunk in await ledger.chunks("a")] == [None]


async def test_unheld_run_stays_stopped(ledger: Ledger, tmp_path: Path, clock: FakeClock) -> None:
    first = ledger.journal("a", run_settings())
    await first.open(starts([1]), nothing)
    await ledger.stop("a")
    async with Ledger(tmp_path / "launch.db", clock=clock) as other:
        with pytest.raises(RunHeldError):
            await other.resuming("a").journal("a", run_settings()).open(None, nothing)
        assert (await other.run("a")).stopped
    await first.close()


@pytest.mark.parametrize("step", ["check_identity", "begin", "plan", "planned", "acquire", "counts"])
async def test_stop_ends_database_wait(ledger: Ledger, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "CLOSE_TIMEOUT", 0.01)
    reached = asyncio.Event()

    async def hangs(*_: object, **__: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(sqlite.SqliteStore, step, hangs)
    journal = ledger.journal("a", run_settings())
    opening = asyncio.create_task(journal.open(starts([1]), nothing))
    await asyncio.wait_for(reached.wait(), 5)
    journal.stop()
    assert await asyncio.wait_for(opening, 5) == PlanSummary(None, {})
    await asyncio.wait_for(journal.close(), 5)
    monkeypatch.undo()
    if step != "check_identity" and step != "begin":
        assert all(chunk.holder is None for chunk in await ledger.chunks("a"))


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb"])
async def test_run_name_is_printable(ledger: Ledger, name: str) -> None:
    with pytest.raises(ValueError, match="run must be a name"):
        ledger.journal(name, run_settings())
    with pytest.raises(ValueError, match="account must be a name"):
        DirectClient("t", account=name)
    ledger.journal("x" * 200, run_settings())


@pytest.mark.parametrize(("resumed_at", "acting_until"), [(10.0, 75.0), (1000.0, 1000.0)])
async def test_orphan_acts_until_expiry(
    ledger: Ledger, clock: FakeClock, tmp_path: Path, resumed_at: float, acting_until: float
) -> None:
    first = ledger.journal("a", run_settings(attempt_timeout=70.0))
    await first.open(starts([1, 2]), nothing)
    for item in await taken(first):
        assert await first.claim(item, None) is ClaimResult.GRANTED
    await ledger.close()  # its process has ended
    clock.time = resumed_at
    async with Ledger(tmp_path / "launch.db", clock=clock) as other:
        second = other.journal("a", run_settings(attempt_timeout=9.0))
        await second.open(None, nothing)
        clock.advance(100)  # what is read late is believed no later
        items = await taken(second)
        assert [item.acting_until for item in items] == [acting_until] * 2
        assert all(item.unclear_since is not None for item in items)
        await second.close()


async def test_resume_waits_for_hold(ledger: Ledger, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    await ended(ledger.journal("a", run_settings()), starts([1]))
    await ledger.stop("a")
    take = hold.Hold.take

    async def slowly(held: hold.Hold) -> None:
        await take(held)
        await until(lambda: bool(clock._sleepers))
        clock.advance(HEARTBEAT_INTERVAL)  # a heartbeat sees the stop that is about to be taken back
        for _ in range(20):
            await turns()
            await ledger.counts("a")

    monkeypatch.setattr(hold.Hold, "take", slowly)
    resumed = ledger.resuming("a").journal("a", run_settings())
    stopped: list[str] = []
    await resumed.open(None, lambda: stopped.append("stop"))
    assert not stopped
    assert await resumed.next_item() is not None
    await resumed.close()

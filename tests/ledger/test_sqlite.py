"""What only a ledger in a file must do: what the disk, other processes and forks do to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import Ledger, LedgerError, RunHeldError, RunStoppedError, StartDispatch, State
from dispatchkit.core.claim import ClaimResult
from dispatchkit.ledger import hold_lock
from dispatchkit.ledger.chunk import LEASE_TIMEOUT
from dispatchkit.ledger.claim import Claim
from dispatchkit.ledger.hold_lock import HoldLock, LockState, lock_state
from dispatchkit.ledger.sqlite import file as sqlite_file
from dispatchkit.ledger.sqlite import store as sqlite_store
from dispatchkit.ledger.sqlite import write as sqlite_write
from dispatchkit.ledger.sqlite.store import SqliteStore
from dispatchkit.testing.clock import START, FakeClock
from tests.harness import run_settings
from tests.ledger.stores import holder
from tests.ledger.test_store import ATTEMPT, ROWS, claim, held, hold, planned, record, run_plan

SOURCES = Path(sqlite_write.__file__).parent


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "launch.db")
    await store.open()
    yield store
    await store.close()


async def test_commit_is_on_disk(store: SqliteStore, tmp_path: Path) -> None:
    def settings(db: sqlite3.Connection) -> tuple[str, int]:
        return db.execute("PRAGMA journal_mode").fetchone()[0], db.execute("PRAGMA synchronous").fetchone()[0]

    full = 2
    assert await store._write(settings) == ("wal", full)
    with contextlib.closing(sqlite3.connect(tmp_path / "launch.db")) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.py")), ids=lambda path: path.name)
def test_statements_number_no_parameters(path: Path) -> None:
    """Python 3.12.0 to 3.12.3 warn that ``?1`` is a named parameter."""
    assert re.findall(r"\?\d", path.read_text(encoding="utf-8")) == []


async def test_simultaneous_claims_share_transaction(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await held(store)
    sizes: list[int] = []
    write = sqlite_write.write_batches

    def counted(db: sqlite3.Connection, batches: Any, moment: Any) -> list[object]:
        sizes.append(len(batches))
        return write(db, batches, moment)

    monkeypatch.setattr(sqlite_write, "write_batches", counted)
    await asyncio.gather(*(store.claim([claim(run, index)]) for index in range(10)))
    assert sum(sizes) == 10
    assert len(sizes) <= 3


PRELUDE = """
import asyncio, os, sys, time
from pathlib import Path
from dispatchkit import Ledger, LedgerError, StartDispatch
from dispatchkit.ledger.sqlite.store import SqliteStore
from dispatchkit.ledger.chunk import Holder
from dispatchkit.ledger.run import RunPlan
from tests.harness import run_settings
path = Path(sys.argv[1])
PLAN = RunPlan(name="a", settings="{}", host="h", account=None, fingerprint="f", attempt_timeout=70.0)
"""


def child(script: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


HOLDS = """
async def main():
    ledger = Ledger(path)
    journal = ledger.journal("a", run_settings())
    await journal.open([StartDispatch(1), StartDispatch(2)], lambda: print("stopped", flush=True))
    first, second = await journal.next_item(), await journal.next_item()
    print(await journal.claim(first, None), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(await journal.claim(second, None), flush=True)
    os._exit(0)
asyncio.run(main())
"""


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def test_second_process_sees_holder(tmp_path: Path) -> None:
    path = tmp_path / "launch.db"
    with child(HOLDS, path) as process:
        assert said(process) == "ClaimResult.GRANTED"
        async with Ledger(path) as ledger:
            with pytest.raises(RunHeldError) as raised:
                await ledger.journal("a", run_settings()).open([StartDispatch(3)], lambda: None)
            assert (raised.value.pid, raised.value.host) == (process.pid, socket.gethostname())
            assert (await ledger.run("a")).total == 2, "nothing was added to what it is at work on"
            # Killed outright, it is known to be gone at once.
            process.kill()
            process.wait()
            journal = ledger.journal("a", run_settings())
            await journal.open(None, lambda: None)
            first = await journal.next_item()
            assert first is not None
            assert first.unclear_since is not None
            await journal.close()


async def test_suspended_holder_keeps_run(tmp_path: Path) -> None:
    path = tmp_path / "launch.db"
    clock = FakeClock(jumps=False)
    with child(HOLDS, path) as process:
        assert said(process) == "ClaimResult.GRANTED"
        process.send_signal(signal.SIGSTOP)
        try:
            store = SqliteStore(path, clock=clock)
            await store.open()
            # Days after its last heartbeat, by every clock.
            clock.time = time.time() - clock.now().timestamp() + 10**6
            found = await store.acquire(1, 0, holder("two"), attempt_timeout=ATTEMPT)
            assert found is not None
            assert found.exists
            assert found.pid == process.pid
            assert found.lease_left < -LEASE_TIMEOUT
        finally:
            process.kill()
        process.wait()
        assert await store.acquire(1, 0, holder("two"), attempt_timeout=ATTEMPT) is None, "at once"
        await store.close()


async def test_replaced_holder_launches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "launch.db"
    lock = Path(f"{path}-hold-1-0")
    with child(HOLDS, path) as process:
        assert said(process) == "ClaimResult.GRANTED"
        process.send_signal(signal.SIGSTOP)
        try:
            os.unlink(lock)  # noqa: PTH108 - of one line
            store = SqliteStore(path)
            await store.open()
            assert await store.acquire(1, 0, holder("two"), attempt_timeout=ATTEMPT) is None
        finally:
            process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert "ClaimResult.STOPPED" in {await asyncio.to_thread(said, process), await asyncio.to_thread(said, process)}
        assert (await store.counts(1)).planned == 1
        assert lock_state(lock) is LockState.TAKEN, "the lock of the one that has it now"
        await store.close()


FORKS = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
async def main():
    store = SqliteStore(path)
    await store.open()
    run = await store.begin(PLAN)
    await store.plan(run.number, [(b"k", "{}")])
    await store.planned(run.number)
    await store.acquire(run.number, 0, Holder("one", os.getpid(), "h"), attempt_timeout=70.0)
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_forked_child_has_no_hold(tmp_path: Path) -> None:
    path = tmp_path / "launch.db"
    with child(FORKS, path) as process:
        forked = int(said(process))
        try:
            store = SqliteStore(path)
            await store.open()
            assert await hold(store, 1, "two") is not None
            process.kill()
            process.wait()
            assert await hold(store, 1, "two") is None
            os.kill(forked, 0)
            await store.close()
        finally:
            os.kill(forked, signal.SIGKILL)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(jumps=False)


@pytest.fixture
async def boots(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Callable[[str], Awaitable[SqliteStore]]]:
    """Opens the ledger in some boot of the machine."""
    async with contextlib.AsyncExitStack() as stack:

        async def boot(boot_id: str) -> SqliteStore:
            store = SqliteStore(tmp_path / "launch.db", clock=clock, boot_id=boot_id)
            await store.open()
            stack.push_async_callback(store.close)
            return store

        yield boot


Boots = Callable[[str], Awaitable[SqliteStore]]


async def crash(store: SqliteStore) -> None:
    """Close the store as a process that is killed does: what it holds stays written."""
    for _, lock in store._holds._locks.values():
        assert lock is not None
        lock._descriptor.close()
    store._holds._locks.clear()
    await store.close()


async def test_released_lock_means_dead_holder(boots: Boots) -> None:
    store = await boots("x")
    run = await held(store)
    await crash(store)
    later = await boots("x")
    assert (await later.chunks(run))[0].holder is None
    assert await hold(later, run, "two") is None


@pytest.mark.parametrize(("passed", "taken"), [(0, False), (29, False), (31, True), (-29, False), (-31, True)])
async def test_the_lease_of_another_boot(boots: Boots, clock: FakeClock, passed: float, taken: bool) -> None:
    store = await boots("x")
    run = await held(store)
    await crash(store)
    later = await boots("y")
    clock.time += passed
    assert ((await later.chunks(run))[0].holder is None) == taken
    found = await hold(later, run, "two")
    assert (found is None) == taken
    if found is not None:
        assert found.boot_id == "x"
        assert (found.exists, found.lease_left) == (False, LEASE_TIMEOUT - abs(passed))
        assert (await hold(later, run, "two")) is not None, "it has kept no lock"


async def test_boot_without_id_differs(boots: Boots, clock: FakeClock) -> None:
    store = await boots("")
    run = await held(store)
    await crash(store)
    later = await boots("")
    assert await hold(later, run, "two") is not None
    clock.time += 31
    assert await hold(later, run, "two") is None


@pytest.mark.parametrize("boot_id", ["x", "y"])
async def test_without_locks_the_lease_decides(
    boots: Boots, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, boot_id: str
) -> None:
    monkeypatch.setattr(hold_lock, "fcntl", None)
    store = await boots("x")
    run = await held(store)
    later = await boots(boot_id)
    clock.time += LEASE_TIMEOUT - 1
    found = await hold(later, run, "two")
    assert found is not None
    assert (found.exists, found.lease_left) == (False, 1)
    assert (await later.chunks(run))[0].holder == found
    clock.time += 2
    assert (await later.chunks(run))[0].holder is None
    assert await hold(later, run, "two") is None
    assert not (await store.heartbeat(run, 0, "one")).mine


async def test_a_look_refuses_no_hold(boots: Boots, tmp_path: Path) -> None:
    store, other = await boots("x"), await boots("x")
    run = await held(store)
    await store.release(run, 0, "one")
    path = tmp_path / f"launch.db-hold-{run}-0"
    path.touch()
    looks = hold_lock._Descriptor(path, os.O_RDONLY)
    assert hold_lock._flock(looks, exclusive=False) is LockState.FREE
    waiting = asyncio.create_task(hold(other, run, "two"))
    await asyncio.sleep(0.002)
    looks.close()
    assert await waiting is None


async def test_failed_hold_releases_lock(boots: Boots, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = await boots("x"), await boots("x")
    run = await held(store)
    await store.release(run, 0, "one")
    monkeypatch.setattr(sqlite_write.Writing, "moment", lambda _: 1 / 0)
    with pytest.raises(LedgerError):
        await hold(store, run, "two")
    monkeypatch.undo()
    await store._write(
        lambda db: db.execute("CREATE TEMP TRIGGER t BEFORE UPDATE ON run BEGIN SELECT RAISE(FAIL, 'no'); END")
    )
    with pytest.raises(LedgerError):
        await store.acquire(run, 0, holder("two"), attempt_timeout=ATTEMPT + 1)
    assert await hold(other, run, "three") is None


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*-hold-*")}


async def test_released_lock_removes_file(boots: Boots, tmp_path: Path) -> None:
    store = await boots("x")
    run = await held(store)
    assert files(tmp_path) == {f"launch.db-hold-{run}-0"}
    await store.release(run, 0, "one")
    assert files(tmp_path) == set()
    await hold(store, run, "two")
    await store.close()
    assert files(tmp_path) == set()


async def test_linked_folder_shares_the_lock(boots: Boots, tmp_path: Path) -> None:
    store = await boots("x")
    run = await held(store)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    other = SqliteStore(link / "launch.db")
    await other.open()
    found = await hold(other, run, "two")
    assert found is not None
    assert found.exists
    await other.close()


def test_lock_has_one_winner(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    inside, most, taken = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, taken
        for _ in range(300):
            lock = HoldLock.acquire(path)
            if isinstance(lock, HoldLock):
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                taken += 1
                inside -= 1
                lock.release()
            else:
                lock_state(path)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert taken > 6
    assert not path.exists()


async def test_other_boot_uses_wall_clock(boots: Boots, clock: FakeClock) -> None:
    store = await boots("x")
    run = await held(store, ROWS[:1])
    await store.claim([claim(run, 0)])

    async def left(boot_id: str) -> float:
        [found] = await (await boots(boot_id)).unsettled(run, 0, after=-1, limit=1)
        return max(0.0, found.acting_for)

    clock.set_wall(7200)  # the wall clock is set, which counts only for another boot
    clock.time += 10
    assert (await left("x"), await left("y")) == (65, 0)
    clock.set_wall(-7200)
    assert (await left("x"), await left("y")) == (65, 75)


async def test_a_copy_is_refused(boots: Boots, tmp_path: Path, clock: FakeClock) -> None:
    store = await boots("x")
    run = await planned(store, "a")
    await store.check_identity()
    shutil.copy(tmp_path / "launch.db", tmp_path / "copy.db")
    copy = SqliteStore(tmp_path / "copy.db", clock=clock)
    await copy.open()
    with pytest.raises(LedgerError, match=r"is a copy .*: nothing was launched.*resume \.\.\. --copied"):
        await copy.check_identity()
    assert (await copy.counts(run)).planned == 10, "its plan is whole without the log"
    await copy.stop(run)
    await copy.accept_copy()
    await copy.check_identity()
    assert (await copy.runs())[0].restored
    await copy.close()


async def test_fresh_pages_are_as_others(boots: Boots, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await boots("x")
    run = await held(store)
    await store.claim([claim(run, 2)])
    await store.record([record(run, 6, State.DONE)])
    places = [(after, limit) for after in range(-1, 10) for limit in (1, 2, 3, 100)]
    pages = [await store.unsettled(run, 0, after=after, limit=limit) for after, limit in places]
    monkeypatch.setattr(sqlite_store, "FRESH", "SELECT 1 WHERE false")
    assert pages == [await store.unsettled(run, 0, after=after, limit=limit) for after, limit in places]
    assert [row.index for row in pages[3]] == [0, 1, 2, 3, 4, 5, 7, 8, 9]


def _copied_targets(folder: Path) -> int:
    """The number of targets in a copy of the file alone, without its log."""
    with contextlib.closing(sqlite3.connect(shutil.copy(folder / "launch.db", folder / "copy.db"))) as db:
        (count,) = db.execute("SELECT count(*) FROM target").fetchone()
    return int(count)


async def test_busy_reader_fails_no_plan(boots: Boots, tmp_path: Path) -> None:
    store = await boots("x")
    run = (await store.begin(run_plan("a"))).number
    with contextlib.closing(sqlite3.connect(tmp_path / "launch.db", isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("SELECT * FROM run").fetchall()
        await store.plan(run, ROWS)
        began = time.monotonic()
        assert len(await store.planned(run)) == 1
        assert time.monotonic() - began < 20  # without waiting for the reader, which takes 30 s
    await store.planned(run)
    assert _copied_targets(tmp_path) == len(ROWS)
    (busy,) = await store._write(lambda db: db.execute("PRAGMA busy_timeout").fetchone())
    assert busy == 30_000


async def test_repeats_after_a_clock_step(boots: Boots, clock: FakeClock) -> None:
    store = await boots("x")
    first = await planned(store, "a", ROWS[:1])
    await store.claim([Claim(first, 0, 0, "a", None, START)])
    await store.release(first, 0, "a")
    run = await planned(store, "b")
    clock.set_wall(7200)
    clock.time += 10
    assert [repeat.count for repeat in await store.repeats(run, within=60)] == [1]
    assert await store.repeats(run, within=5) == []
    assert [repeat.count for repeat in await (await boots("y")).repeats(run, within=7300)] == [1]
    assert await (await boots("y")).repeats(run, within=60) == []


async def refused(path: Path) -> str:
    async with Ledger(path) as ledger:
        with pytest.raises(LedgerError) as raised:
            await ledger.runs()
    assert str(path) in str(raised.value)
    return str(raised.value)


async def test_foreign_file_is_left_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("id\n1\n2\n" * 1000)
    assert "not a ledger: give the ledger a file of its own" in await refused(path)
    assert path.read_text() == "id\n1\n2\n" * 1000


async def test_foreign_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE run (x)")
    assert "another program's database, not a ledger" in await refused(path)


async def test_newer_ledger_asks_for_upgrade(store: SqliteStore, tmp_path: Path) -> None:
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "launch.db")) as db:
        db.execute("PRAGMA user_version = 5")
    assert "upgrade dispatchkit" in await refused(tmp_path / "launch.db")


async def test_missing_directory_is_reported(tmp_path: Path) -> None:
    assert "check that its directory exists" in await refused(tmp_path / "none" / "launch.db")


async def test_a_torn_file_is_told(store: SqliteStore, tmp_path: Path) -> None:
    path = tmp_path / "launch.db"
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, [(number.to_bytes(16, "big"), "x" * 500) for number in range(2000)])
    await store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    async with Ledger(path) as ledger:
        with pytest.raises(LedgerError, match="is damaged: keep the file, and restore a backup"):
            await ledger.counts("a")
    path.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    async with Ledger(path) as ledger:
        with pytest.raises(LedgerError, match="is damaged"):
            await ledger.counts("a")


UNPRIVILEGED = """
from dispatchkit import *  # import all of it, as the user nobody may not read it later
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
async def main():
    try:
        async with Ledger(path) as ledger:
            await ledger.journal("b", run_settings()).open([StartDispatch(1)], lambda: None)
    except LedgerError as error:
        print(error)
asyncio.run(main())
"""


@pytest.mark.parametrize("what", ["file", "directory"])
def test_write_protection_is_reported(what: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # not pytest's own folder, which other users may not enter
        path = Path(name) / "launch.db"
        asyncio.run(_made(path))
        path.parent.chmod(0o555 if what == "directory" else 0o777)
        path.chmod(0o444)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)  # a file of another user is refused for its mode
        with child(UNPRIVILEGED, path) as process:
            out, _ = process.communicate(timeout=30)
        path.parent.chmod(0o777)
    assert "allow this user to write" in out or "this user may write there" in out, out


async def _made(path: Path) -> None:
    async with Ledger(path) as ledger:
        assert await ledger.runs() == []


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
async def main():
    async with Ledger(path) as ledger:
        journal = ledger.journal("a", run_settings())
        await journal.open((StartDispatch(n) for n in range(1, 2001)), lambda: None)
        used = os.path.getsize(str(path) + "-wal")
        resource.setrlimit(resource.RLIMIT_FSIZE, (used + 100_000, resource.RLIM_INFINITY))
        claimed = 0
        try:
            while (item := await journal.next_item()) is not None:
                await journal.claim(item, None)
                claimed += 1
        except LedgerError as error:
            print(claimed, error, sep="|", flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await journal.close()
asyncio.run(main())
"""


async def test_full_disk_refuses_claims(tmp_path: Path) -> None:
    path = tmp_path / "launch.db"
    with child(FULL, path) as process:
        out, _ = process.communicate(timeout=50)
    claimed, _, message = out.partition("|")
    assert "Nothing was launched without its row: run the same again" in message
    async with Ledger(path) as ledger:
        counts = await ledger.counts("a")
        assert counts.sending in {int(claimed), int(claimed) + 1}
        journal = ledger.journal("a", run_settings())
        await journal.open(None, lambda: None)
        await journal.close()


async def test_page_limit_reads_as_full(store: SqliteStore) -> None:
    run = await held(store)
    await store._write(lambda db: db.execute("PRAGMA max_page_count = 1"))
    rows = [(number.to_bytes(16, "big"), "x" * 500) for number in range(1, 2001)]
    with pytest.raises(LedgerError, match="because the disk is full: free some space"):
        await store.plan(run, rows)
    assert await store.claim([claim(run, 1)]) == [ClaimResult.GRANTED], "what fits still is written"
    await store._write(lambda db: db.execute("PRAGMA max_page_count = 100000"))
    await store.plan(run, rows)
    assert (await store.runs())[0].total == len(ROWS) + 2000


async def test_starved_writer_reports_timeout(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatchkit.ledger.sqlite.file._BUSY", 0.05)
    other = SqliteStore(tmp_path / "launch.db")
    await other.open()
    with contextlib.closing(sqlite3.connect(tmp_path / "launch.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="was locked by another process"):
            await other.begin(run_plan("a"))
        db.execute("ROLLBACK")
    assert (await other.begin(run_plan("a"))).name == "a"
    await other.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_forked_store_is_refused(tmp_path: Path) -> None:
    script = """
import gc, warnings
warnings.simplefilter("ignore", DeprecationWarning)
async def main():
    store = SqliteStore(path)
    await store.open()
    run = await store.begin(PLAN)
    await store.plan(run.number, [(b"k", "{}")])
    await store.planned(run.number)
    await store.acquire(run.number, 0, Holder("one", 1, "h"), attempt_timeout=70.0)
    child = os.fork()
    if child == 0:
        try:
            await store.runs()
        except LedgerError as error:
            print(error, flush=True)
        await store.close()
        del store
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    other = SqliteStore(path)
    await other.open()
    found = await other.acquire(run.number, 0, Holder("two", 1, "h"), attempt_timeout=70.0)
    print(found is not None and found.exists, flush=True)
    await other.close()
    await store.close()
asyncio.run(main())
"""
    with child(script, tmp_path / "launch.db") as process:
        out, _ = process.communicate(timeout=30)
    first, second = out.splitlines()
    assert (
        f"this ledger was opened in process {process.pid}, and this process is a fork of it: make a new Ledger" in first
    )
    assert second == "True", "the parent keeps its hold"


async def test_open_ledger_lets_interpreter_exit(tmp_path: Path) -> None:
    script = """
ledger = Ledger(path)
async def main():
    await ledger.journal("a", run_settings()).open([StartDispatch(1)], lambda: None)
asyncio.run(main())
print("end", flush=True)
"""
    with child(script, tmp_path / "launch.db") as process:
        out, _ = process.communicate(timeout=10)
    assert (out, process.returncode) == ("end\n", 0)


async def test_forgotten_store_ends_threads(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "launch.db")
    await store.open()
    assert store._writer is not None
    thread = store._writer._thread
    del store
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()


async def test_a_closed_store_says_so(store: SqliteStore) -> None:
    await store.close()
    with pytest.raises(LedgerError, match="the ledger is closed"):
        await store.runs()


def test_ledger_made_meanwhile_is_one(tmp_path: Path) -> None:
    class Looking(sqlite3.Connection):
        """Another process makes the ledger between the first look at the file and the second one."""

        looks = 0

        def execute(self, *statement: Any) -> sqlite3.Cursor:
            self.looks += 1
            if self.looks == 2:
                with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                    other.execute("BEGIN IMMEDIATE")
                    sqlite_file.check(other, path)
                    other.execute("COMMIT")
            return super().execute(*statement)

    path = tmp_path / "launch.db"
    with contextlib.closing(sqlite3.connect(path, factory=Looking)) as db:
        assert sqlite_file.refuse_other(db, path)


async def test_stopped_run_is_not_restarted(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "launch.db") as ledger:
        journal = ledger.journal("a", run_settings())
        await journal.open([StartDispatch(1)], lambda: None)
        await journal.close()
        await ledger.stop("a")
        with pytest.raises(RunStoppedError, match="'a' was stopped"):
            await ledger.journal("a", run_settings()).open([StartDispatch(1)], lambda: None)
        await ledger.clear_stop("a")
        again = ledger.journal("a", run_settings())
        await again.open(None, lambda: None)
        await again.close()


async def test_file_is_private(tmp_path: Path) -> None:
    def modes() -> set[int]:
        return {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}

    async with Ledger(tmp_path / "private.db") as ledger:
        journal = ledger.journal("a", run_settings())
        await journal.open([StartDispatch(1)], lambda: None)
        assert files(tmp_path)
        assert modes() == {0o600}
        await journal.close()

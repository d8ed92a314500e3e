"""What only a ledger in a file must do: what the disk, other processes and forks do to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import Ledger, LedgerError, RunHeldError, RunStoppedError, StartDispatch
from dispatchkit.core.journal import Leave
from dispatchkit.ledger import sqlite
from dispatchkit.ledger.sqlite import SqliteStore
from dispatchkit.ledger.store import LEASE_TIMEOUT
from tests.ledger.test_store import ROWS, claim, held, holder
from tests.virtual import Manual


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "launch.db")
    await store.open()
    yield store
    await store.close()


async def test_a_commit_is_on_disk_when_it_returns(store: SqliteStore, tmp_path: Path) -> None:
    def settings(db: sqlite3.Connection) -> tuple[str, int]:
        return db.execute("PRAGMA journal_mode").fetchone()[0], db.execute("PRAGMA synchronous").fetchone()[0]

    full = 2
    assert await store._write(settings) == ("wal", full)
    with contextlib.closing(sqlite3.connect(tmp_path / "launch.db")) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_what_is_asked_for_together_is_one_transaction(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await held(store)
    sizes: list[int] = []
    write = sqlite._write_batches

    def counted(db: sqlite3.Connection, batches: Any) -> list[object]:
        sizes.append(len(batches))
        return write(db, batches)

    monkeypatch.setattr(sqlite, "_write_batches", counted)
    await asyncio.gather(*(store.claim([claim(run, index)]) for index in range(10)))
    assert sum(sizes) == 10
    assert len(sizes) <= 3


PRELUDE = """
import asyncio, os, sys, time
from pathlib import Path
from dispatchkit import Ledger, LedgerError, StartDispatch
from dispatchkit.ledger.sqlite import SqliteStore
path = Path(sys.argv[1])
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
    first, second = await journal.take(), await journal.take()
    print(await journal.claim(first, None), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(await journal.claim(second, None), flush=True)
    os._exit(0)
asyncio.run(main())
"""


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def test_a_second_process_is_refused_and_told_who_holds_the_run(tmp_path: Path) -> None:
    path = tmp_path / "launch.db"
    with child(HOLDS, path) as process:
        assert said(process) == "Leave.GRANTED"
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
            first = await journal.take()
            assert first is not None
            assert first.since is not None
            await journal.close()


async def test_a_holder_that_was_suspended_and_taken_over_launches_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "launch.db"
    clock = Manual()
    with child(HOLDS, path) as process:
        assert said(process) == "Leave.GRANTED"
        os.kill(process.pid, signal.SIGSTOP)
        async with Ledger(path) as ledger:
            with pytest.raises(RunHeldError):
                await ledger.journal("a", run_settings()).open(None, lambda: None)
        store = SqliteStore(path, clock=clock)
        await store.open()
        # So much later than the last sign of life that nobody believes in it.
        clock.time = (await _seen(path)) - clock.now().timestamp() + LEASE_TIMEOUT + 1
        assert await store.hold(1, 0, holder("two")) is None
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert "Leave.STOPPED" in {await asyncio.to_thread(said, process), await asyncio.to_thread(said, process)}
        assert (await store.counts(1)).planned == 1
        await store.close()


async def _seen(path: Path) -> float:
    with contextlib.closing(sqlite3.connect(path)) as db:
        seen: float = db.execute("SELECT seen FROM chunk").fetchone()[0]
    return seen


async def refused(path: Path) -> str:
    async with Ledger(path) as ledger:
        with pytest.raises(LedgerError) as raised:
            await ledger.runs()
    assert str(path) in str(raised.value)
    return str(raised.value)


async def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("id\n1\n2\n" * 1000)
    assert "not a ledger: give the ledger a file of its own" in await refused(path)
    assert path.read_text() == "id\n1\n2\n" * 1000


async def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE run (x)")
    assert "a database of something else, not a ledger" in await refused(path)


async def test_a_newer_ledger_asks_for_an_upgrade(store: SqliteStore, tmp_path: Path) -> None:
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "launch.db")) as db:
        db.execute("PRAGMA user_version = 3")
    assert "upgrade dispatchkit" in await refused(tmp_path / "launch.db")


async def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "see that its directory exists" in await refused(tmp_path / "none" / "launch.db")


async def test_a_torn_file_is_told(store: SqliteStore, tmp_path: Path) -> None:
    path = tmp_path / "launch.db"
    run = (await store.begin(run_plan("a"))).number
    await store.plan(run, [(number.to_bytes(16, "big"), "x" * 500) for number in range(2000)])
    await store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    async with Ledger(path) as ledger:
        with pytest.raises(LedgerError, match="is damaged: keep the file, and restore a copy"):
            await ledger.counts("a")
    path.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    async with Ledger(path) as ledger:
        with pytest.raises(LedgerError, match="is damaged"):
            await ledger.counts("a")


UNPRIVILEGED = """
from dispatchkit import *  # all of it, as nobody may read it afterwards
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
def test_what_must_not_be_written_is_told(what: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # not pytest's own folder, which nobody else may enter
        path = Path(name) / "launch.db"
        asyncio.run(_made(path))
        path.parent.chmod(0o555 if what == "directory" else 0o777)
        path.chmod(0o444)
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
            while (entry := await journal.take()) is not None:
                await journal.claim(entry, None)
                claimed += 1
        except LedgerError as error:
            print(claimed, error, sep="|", flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await journal.close()
asyncio.run(main())
"""


async def test_a_full_disk_refuses_claims_and_loses_none(tmp_path: Path) -> None:
    path = tmp_path / "launch.db"
    with child(FULL, path) as process:
        out, _ = process.communicate(timeout=50)
    claimed, _, message = out.partition("|")
    assert "nothing was launched without its row, so run the same again" in message
    async with Ledger(path) as ledger:
        counts = await ledger.counts("a")
        assert counts.sending in {int(claimed), int(claimed) + 1}
        journal = ledger.journal("a", run_settings())
        await journal.open(None, lambda: None)
        await journal.close()


async def test_pages_that_run_out_read_as_a_full_disk(store: SqliteStore) -> None:
    run = await held(store)
    await store._write(lambda db: db.execute("PRAGMA max_page_count = 1"))
    rows = [(number.to_bytes(16, "big"), "x" * 500) for number in range(1, 2001)]
    with pytest.raises(LedgerError, match="because the disk is full: free some space"):
        await store.plan(run, rows)
    assert await store.claim([claim(run, 1)]) == [Leave.GRANTED], "what fits still is written"
    await store._write(lambda db: db.execute("PRAGMA max_page_count = 100000"))
    await store.plan(run, rows)
    assert (await store.runs())[0].total == len(ROWS) + 2000


async def test_a_writer_that_is_kept_waiting_too_long_says_so(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatchkit.ledger.sqlite_file._BUSY", 0.05)
    other = SqliteStore(tmp_path / "launch.db")
    await other.open()
    with contextlib.closing(sqlite3.connect(tmp_path / "launch.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="was kept by another process"):
            await other.begin(run_plan("a"))
        db.execute("ROLLBACK")
    assert (await other.begin(run_plan("a"))).name == "a"
    await other.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_a_forked_child_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    script = """
import gc, warnings
from tests.stage import run_settings
warnings.simplefilter("ignore", DeprecationWarning)
async def main():
    store = SqliteStore(path)
    await store.open()
    run = await store.begin(run_plan("a"))
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
    print((await store.begin("b", "{}")).name, flush=True)
    await store.close()
asyncio.run(main())
"""
    with child(script, tmp_path / "launch.db") as process:
        out, _ = process.communicate(timeout=30)
    first, second = out.splitlines()
    assert f"this ledger was opened in process {process.pid}, of which this one is a fork: make a new Ledger" in first
    assert second == "b"


async def test_a_ledger_that_nobody_closed_does_not_keep_the_interpreter(tmp_path: Path) -> None:
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


async def test_a_store_that_is_forgotten_ends_its_threads(tmp_path: Path) -> None:
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


async def test_a_stopped_run_is_not_run_again_by_accident(tmp_path: Path) -> None:
    async with Ledger(tmp_path / "launch.db") as ledger:
        journal = ledger.journal("a", run_settings())
        await journal.open([StartDispatch(1)], lambda: None)
        await journal.close()
        await ledger.stop("a")
        with pytest.raises(RunStoppedError, match="'a' was stopped"):
            await ledger.journal("a", run_settings()).open([StartDispatch(1)], lambda: None)
        await ledger.allow("a")
        again = ledger.journal("a", run_settings())
        await again.open(None, lambda: None)
        await again.close()


async def test_nobody_else_may_read_what_it_holds(tmp_path: Path) -> None:
    def modes() -> set[int]:
        return {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}

    async with Ledger(tmp_path / "private.db") as ledger:
        assert await ledger.runs() == []
        assert modes() == {0o600}

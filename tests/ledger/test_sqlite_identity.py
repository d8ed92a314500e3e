"""A ledger file is told from its copies and from a restored backup, and has one name."""

# ruff: noqa: ASYNC240 - its files are small, and on a local disk
from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dispatchkit import Ledger, LedgerError
from dispatchkit.ledger.sqlite import identity as sqlite_identity
from dispatchkit.ledger.sqlite.file import connect
from dispatchkit.ledger.sqlite.store import SqliteStore
from tests.ledger.test_sqlite import PRELUDE, said
from tests.ledger.test_store import held, hold, run_plan

COPY = r"is a copy \(such as a restored backup\), or was moved .*: nothing was launched.*resume \.\.\. --copied"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs extended attributes")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "launch.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = await opened(path)
    yield store
    await store.close()


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    await store.open()
    return store


def backup(path: Path) -> Path:
    """A whole copy, as ``sqlite3 .backup`` makes it, with the file's attributes, as ``cp -a`` makes them."""
    target = path.with_name("backup.db")
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
    for name in os.listxattr(path):
        os.setxattr(target, name, os.getxattr(path, name))
    return target


def sql(path: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        return db.execute(statement, values).fetchall()


def attributes(path: Path) -> list[str]:
    return [name for name in os.listxattr(path) if name.startswith("user.dispatchkit.")]


async def check(path: Path) -> None:
    store = await opened(path)
    try:
        await store.check_identity()
    finally:
        await store.close()


def cp(source: Path, target: Path) -> None:
    subprocess.run(["cp", source, target], check=True)


def cp_a(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source, target], check=True)


def restore(source: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(source)) as db, contextlib.closing(sqlite3.connect(target)) as copy:
        db.backup(copy)


@pytest.mark.parametrize("copy", [cp, cp_a, restore])
@pytest.mark.parametrize("step", ["hold", "release"])
async def test_overwriting_backup_is_refused(store: SqliteStore, path: Path, copy: object, step: str) -> None:
    run = await held(store)
    if step == "hold":
        await store.release(run, 0, "one")
    saved = backup(path)
    if step == "hold":
        assert await hold(store, run, "two") is None
    else:
        await store.release(run, 0, "one")
    await store.close()
    copy(saved, path)  # type: ignore[operator]
    with pytest.raises(LedgerError, match=COPY):
        await check(path)


@pytest.mark.parametrize("copy", [cp, cp_a])
async def test_restored_inode_is_refused(store: SqliteStore, path: Path, copy: object) -> None:
    await held(store)
    await store.close()
    saved = backup(path)
    path.unlink()
    copy(saved, path)  # type: ignore[operator]
    found = path.stat()
    # As if the file system had given it the inode that was free.
    sql(path, "UPDATE about SET file = ?", f"{found.st_dev}:{found.st_ino}")
    if copy is cp:
        sql(path, "UPDATE about SET born = ?", sqlite_identity._born(path))
    with pytest.raises(LedgerError, match=COPY):
        await check(path)


async def test_replaced_ledger_is_refused(store: SqliteStore, path: Path) -> None:
    await held(store)
    await store.close()
    other = await opened(path.with_name("other.db"))
    run = await held(other)
    for _ in range(3):
        await other.heartbeat(run, 0, "one")
    await other.close()
    [(file, born)] = sql(path, "SELECT file, born FROM about")
    cp(path.with_name("other.db"), path)
    sql(path, "UPDATE about SET file = ?, born = ?", file, born)
    with pytest.raises(LedgerError, match=COPY):
        await check(path)


async def test_copy_over_run_ends_it(store: SqliteStore, path: Path) -> None:
    run = await held(store)
    saved = backup(path)
    await store.heartbeat(run, 0, "one")
    restore(saved, path)
    with pytest.raises(LedgerError, match=COPY):
        await store.heartbeat(run, 0, "one")
    with pytest.raises(LedgerError, match=COPY):
        await hold(store, run, "one")
    assert store._holds._locks == {}


async def test_missing_file_ends_run(store: SqliteStore, path: Path) -> None:
    run = await held(store)
    path.rename(path.with_name("other.db"))
    with pytest.raises(LedgerError, match="was removed or renamed while it was open: restore it"):
        await store.heartbeat(run, 0, "one")
    path.with_name("other.db").rename(path)
    assert (await store.heartbeat(run, 0, "one")).mine


async def test_accepted_copy_restores_runs(store: SqliteStore, path: Path) -> None:
    run = await held(store)
    await store.accept_copy()  # the same inode
    [found] = await store.runs()
    assert found.restored
    assert {row.since for row in await store.unsettled(run, 0, after=-1, limit=5)} == {found.created}
    assert not (await store.begin(run_plan("b"))).restored
    await store.check_identity()
    assert (await store.heartbeat(run, 0, "one")).mine
    assert attributes(path) == ["user.dispatchkit.1"]


async def test_renamed_file_is_no_copy(store: SqliteStore, path: Path) -> None:
    await held(store)
    await store.close()
    path.rename(path.with_name("other.db"))
    await check(path.with_name("other.db"))


async def test_rolled_back_renewal_is_accepted(store: SqliteStore, path: Path) -> None:
    run = await held(store)
    sql(path, "CREATE TRIGGER fail BEFORE UPDATE ON chunk BEGIN SELECT RAISE(FAIL, 'no'); END")
    for _ in range(3):
        with pytest.raises(LedgerError, match="no"):
            await store.heartbeat(run, 0, "one")
    sql(path, "DROP TRIGGER fail")
    await store.check_identity()
    assert (await store.heartbeat(run, 0, "one")).mine


async def test_renewal_without_attribute_is_accepted(store: SqliteStore, path: Path) -> None:
    run = await held(store)
    for _ in range(3):  # killed between the commit and the attribute
        await store._write(lambda db: sqlite_identity.renew(db, path))
    await store.check_identity()
    assert (await store.heartbeat(run, 0, "one")).mine
    assert attributes(path) == ["user.dispatchkit.5"]


async def test_uncommitted_renewal_writes_no_attribute(store: SqliteStore, path: Path) -> None:
    await held(store)
    await asyncio.gather(*(store.heartbeat(1, 0, "one") for _ in range(20)))
    [(renewals,)] = sql(path, "SELECT renewals FROM about")
    assert attributes(path) == [f"user.dispatchkit.{renewals}"]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        sqlite_identity.renew(db, path)
        db.execute("ROLLBACK")
    assert attributes(path) == [f"user.dispatchkit.{renewals}"]


async def test_vacuum_and_backup_are_accepted(store: SqliteStore, path: Path) -> None:
    run = await held(store)
    backup(path)
    sql(path, "SELECT 1")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("VACUUM")
    await store.check_identity()
    assert (await store.heartbeat(run, 0, "one")).mine
    await store.close()
    await check(path)


BEATS = """
async def main():
    store = SqliteStore(path)
    await store.open()
    await store.begin(PLAN)
    print("begun", flush=True)
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        await asyncio.gather(store.heartbeat(1, 0, "none"), store.check_identity(), store.heartbeat(1, 1, "none"))
    await store.close()
    print("agrees", flush=True)
asyncio.run(main())
"""


def beats(path: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PRELUDE + BEATS, str(path), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.second_stage
def test_concurrent_processes_see_no_copy(path: Path) -> None:
    processes = [beats(path, 0.4) for _ in range(3)]
    assert [process.communicate(timeout=50)[0] for process in processes] == ["begun\nagrees\n"] * 3


@pytest.mark.second_stage
async def test_killed_processes_leave_no_copy(path: Path) -> None:
    processes = [beats(path, 30) for _ in range(4)]
    for place, process in enumerate(processes):
        assert said(process) == "begun"
        await asyncio.sleep(0.011 * place)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        await check(path)


async def test_relative_path_survives_chdir(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(path.parent)
    store = await opened(Path("launch.db"))
    run = await held(store)
    monkeypatch.chdir(tmp_path_factory.mktemp("other"))
    assert (await store.heartbeat(run, 0, "one")).mine
    await store.check_identity()
    await store.close()


async def test_without_attributes_the_inode_decides(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    for name in ("setxattr", "getxattr", "listxattr", "removexattr"):
        monkeypatch.setattr(os, name, unsupported)
    monkeypatch.setattr(sqlite_identity, "_born", lambda _: None)
    store = await opened(path)
    run = await held(store)
    assert (await store.heartbeat(run, 0, "one")).mine
    await store.release(run, 0, "one")
    await store.close()
    assert sql(path, "SELECT born, renewals FROM about") == [(None, None)]
    await check(path)
    copy = path.with_name("copy.db")
    shutil.copyfile(path, copy)
    other = await opened(copy)
    with pytest.raises(LedgerError, match=COPY):
        await other.check_identity()
    await other.accept_copy()
    assert (await other.runs())[0].restored
    await other.close()
    await check(copy)
    monkeypatch.undo()
    await check(path)


async def test_empty_file_becomes_ledger(path: Path) -> None:
    path.touch()
    os.setxattr(path, "user.dispatchkit.7", b"of an earlier ledger")
    await check(path)
    assert attributes(path) == ["user.dispatchkit.0"]


def test_new_file_is_marked_first(path: Path) -> None:
    connect(path).close()
    assert attributes(path) == ["user.dispatchkit.0"]


async def test_replaced_attribute_is_read_again(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await held(store)
    getxattr = os.getxattr

    def replaced(path: Path, name: str) -> bytes:
        monkeypatch.setattr(os, "getxattr", getxattr)
        sqlite_identity._mark(path, 2, getxattr(path, name).decode())
        return getxattr(path, name)

    await store._write(lambda db: sqlite_identity.renew(db, path))
    monkeypatch.setattr(os, "getxattr", replaced)
    await store.check_identity()
    assert (await store.heartbeat(run, 0, "one")).mine


async def refused(path: Path) -> str:
    async with Ledger(path) as ledger:
        with pytest.raises(LedgerError) as raised:
            await ledger.runs()
    return str(raised.value)


async def test_a_hard_link_is_refused(store: SqliteStore, path: Path) -> None:
    await store.close()
    path.with_name("other.db").hardlink_to(path)
    before = path.read_bytes()
    for name in (path, path.with_name("other.db")):
        message = await refused(name)
        assert message.startswith(f"the ledger {name} is one file with 2 names (hard links): nothing was launched. ")
        assert "Remove the other links" in message
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} == {"launch.db", "other.db"}
    path.with_name("other.db").unlink()
    await check(path)


async def test_a_mounted_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = path.parent / "a b\\"
    folder.mkdir()
    path = folder / "launch.db"
    path.touch()
    (path.parent.parent / "link").symlink_to(folder)
    mounts = path.parent.parent / "mountinfo"
    escaped = str(path).replace("\\", "\\134").replace(" ", "\\040")
    mounts.write_text(f"22 1 8:1 / / rw - ext4 /dev/a rw\n23 22 8:1 /x {escaped} rw - ext4 /dev/a rw\n")
    monkeypatch.setattr(sqlite_identity, "_MOUNTS", mounts)
    for name in (path, folder.parent / "link" / path.name):
        assert (await refused(name)).endswith("Mount its folder, not the file")
    assert path.read_bytes() == b""
    monkeypatch.setattr(sqlite_identity, "_MOUNTS", folder / "none")
    await check(path)


def test_a_bind_mount_is_refused(path: Path, tmp_path: Path) -> None:
    asyncio.run(check(path))
    (tmp_path / "app").mkdir()
    mounted = tmp_path / "app" / "launch.db"
    mounted.touch()
    mount = 'mount --bind "$0" "$1" || exit 77; exec "$2" -c "$3" "$1" 0'
    script = PRELUDE + "try: asyncio.run(SqliteStore(path).open())\nexcept LedgerError as error: print(error)"
    command = ["unshare", "--mount", "sh", "-c", mount, str(path), str(mounted), sys.executable, script]
    try:
        ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if ended.returncode in {1, 77}:
        pytest.skip("needs the right to mount")
    assert ended.stdout.startswith(f"the ledger {mounted} is mounted as a single file: nothing was launched."), ended
    assert list((tmp_path / "app").iterdir()) == [mounted]

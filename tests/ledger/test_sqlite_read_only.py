"""A ledger's file is read where this user may not write it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import Ledger, LedgerError, StartDispatch
from dispatchkit.ledger.hold_lock import HoldLock, LockState, lock_state
from dispatchkit.ledger.sqlite import read
from dispatchkit.ledger.sqlite.store import SqliteStore
from tests.harness import run_settings
from tests.rights import without_rights

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has other rights")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # not pytest's own folder, which other users may not enter
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@pytest.fixture
async def path(folder: Path) -> Path:
    path = folder / "launch.db"
    async with Ledger(path) as ledger:
        await plan(ledger, "a")
    path.chmod(0o444)
    return path


async def plan(ledger: Ledger, run: str) -> None:
    journal = ledger.journal(run, run_settings())
    await journal.open([StartDispatch(1), StartDispatch(2)], lambda: None)
    await journal.close()


async def contents(ledger: Ledger) -> list[Any]:
    """All that a command which only reads may read."""
    runs = await ledger.runs()
    found: list[Any] = [(run.name, run.total) for run in runs]
    for run in runs:
        found += [await ledger.counts(run.name), await ledger.series(run.name), len(await ledger.chunks(run.name))]
        found += [(target.index, target.target, target.state) async for target in ledger.targets(run.name)]
    return found


def set_mode(mode: int, *paths: Path) -> None:
    for path in paths:
        path.chmod(mode)


@pytest.mark.parametrize("mode", [0o755, 0o555])
async def test_closed_ledger_is_read(path: Path, mode: int) -> None:
    async with Ledger(path) as ledger:
        before = await contents(ledger)
    set_mode(0o444, path)
    set_mode(mode, path.parent)
    files = sorted(path.parent.iterdir())
    with without_rights():
        async with Ledger(path) as ledger:
            assert await contents(ledger) == before
            assert sorted(path.parent.iterdir()) == files
            with pytest.raises(LedgerError, match=r"cannot be (written|opened)|can be read by other users"):
                await ledger.stop("a")
    assert len(before) == 6


async def test_ledger_in_use_is_read(path: Path) -> None:
    async with Ledger(path) as owner:
        await plan(owner, "b")
        set_mode(0o644, *(Path(f"{path}{end}") for end in ("", "-wal", "-shm")))
        with without_rights() as restore:
            async with Ledger(path) as ledger:
                assert [run.name for run in await ledger.runs()] == ["b", "a"]
                restore()
                await plan(owner, "c")
                assert [run.name for run in await ledger.runs()] == ["c", "b", "a"]


async def test_log_without_memory_is_refused(path: Path, folder: Path) -> None:
    copies = folder / "copies"
    copies.mkdir()
    async with Ledger(path) as owner:
        journal = owner.journal("b", run_settings())
        await journal.open([StartDispatch(1)], lambda: None)
        await journal.next_item()
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", copies)
        await journal.close()
    assert (copies / "launch.db-wal").stat().st_size
    set_mode(0o555, *copies.iterdir(), copies)
    with without_rights(), pytest.raises(LedgerError, match=r"left its log, launch\.db-wal\. Copy both files"):
        await Ledger(copies / "launch.db").runs()


async def test_concurrent_change_is_noticed(path: Path) -> None:
    with without_rights() as restore:
        async with Ledger(path) as ledger:
            assert len(await ledger.runs()) == 1
            restore()
            async with Ledger(path) as owner:
                await plan(owner, "b")
            with pytest.raises(LedgerError, match="was changed while it was read: run the same again"):
                await ledger.runs()


async def test_other_version_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "latest", lambda: 99)
    with without_rights(), pytest.raises(LedgerError, match="Let its owner upgrade it"):
        await Ledger(path).runs()


async def test_secret_file_is_refused(path: Path) -> None:
    set_mode(0o200 if os.geteuid() else 0o600, path)
    with without_rights(), pytest.raises(LedgerError, match="this user may not read the ledger"):
        await Ledger(path).runs()


async def test_other_boot_reads(path: Path) -> None:
    with without_rights():
        store = SqliteStore(path, boot_id="another")
        await store.open()
        assert len(await store.runs()) == 1
        await store.close()


def test_lock_shows_without_rights(folder: Path) -> None:
    file = folder / "launch.db-hold-1-0"
    lock = HoldLock.acquire(file)
    assert isinstance(lock, HoldLock)
    file.chmod(0o444)
    with without_rights():
        assert lock_state(file) is LockState.TAKEN
    lock.release()

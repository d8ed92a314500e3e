"""A ledger file is its owner's alone, is no link, and lies on a local disk."""

# ruff: noqa: ASYNC240 - it looks at servers, logs and small files
from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from dispatchkit import Ledger, LedgerError
from dispatchkit.ledger.sqlite import access

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs modes of POSIX")


@pytest.fixture(autouse=True)
def _warns_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_warned", set())


async def use(path: Path) -> None:
    async with Ledger(path) as ledger:
        await ledger.runs()


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
async def test_mode_for_others_is_repaired(tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "launch.db"
    await use(path)
    assert not caplog.records
    path.chmod(mode)
    wal = tmp_path / "launch.db-wal"
    wal.touch()
    wal.chmod(mode)
    await use(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [record.getMessage() for record in caplog.records] == [
        f"the ledger {path} could be read by other users (mode {mode:o}): now it has mode 600"
    ]


async def test_empty_file_gets_private_mode(tmp_path: Path) -> None:
    path = tmp_path / "launch.db"
    path.touch(0o644)
    await use(path)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


async def test_foreign_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE guests (name TEXT)")
    path.chmod(0o644)
    with pytest.raises(LedgerError, match="another program's database"):
        await use(path)
    assert path.stat().st_mode & 0o777 == 0o644


async def test_foreign_users_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "launch.db"
    await use(path)
    path.chmod(0o644)

    def refuse(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(LedgerError, match=r"mode 644\): .* Let its owner run: chmod 600"):
        await use(path)


async def test_missing_modes_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "launch.db"
    await use(path)
    path.chmod(0o644)
    monkeypatch.setattr(Path, "chmod", lambda self, mode: None)
    await use(path)
    assert "its file system keeps no other mode" in caplog.text


@pytest.mark.parametrize("exists", [True, False])
async def test_symbolic_link_is_refused(tmp_path: Path, exists: bool) -> None:
    path, link = tmp_path / "launch.db", tmp_path / "link.db"
    if exists:
        await use(path)
    link.symlink_to(path)
    with pytest.raises(LedgerError, match=f"is a symbolic link: nothing was launched. Name the file itself: {path}"):
        await use(link)
    assert path.exists() is exists


@pytest.mark.parametrize(
    ("kind", "point", "warns"),
    [
        ("nfs4", "{folder}", True),
        ("cifs", "{parent}", True),
        ("fuse.sshfs", "{folder}", True),
        ("ext4", "{folder}", False),
        ("nfs", "{folder}-other", False),
    ],
)
async def test_network_file_system_is_told(
    tmp_path: Path,
    kind: str,
    point: str,
    warns: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    mounts = tmp_path / "mountinfo"
    escaped = point.format(folder=folder, parent=tmp_path).replace(" ", "\\040")
    mounts.write_text(f"22 1 8:1 / / rw - ext4 /dev/a rw\n23 22 0:9 / {escaped} rw shared:1 - {kind} server:/x rw\n")
    monkeypatch.setattr(access, "_MOUNTS", mounts)
    await use(folder / "launch.db")
    assert (f"is on a network file system ({kind})" in caplog.text) is warns
    assert len(caplog.records) == warns

"""The file of a SQLite ledger: create it, check it, and explain its errors."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import cast

from dispatchkit._version import __version__
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.chunk import LEASE_TIMEOUT
from dispatchkit.ledger.migrations import check_known, held, latest, pending, statements
from dispatchkit.ledger.sqlite.access import close_to_others, refuse_link, warn_of_network
from dispatchkit.ledger.sqlite.identity import check_names, create, mark_new
from dispatchkit.ledger.sqlite.sql import BATCH, FIRST_BATCH

__all__ = [
    "add_boot",
    "check",
    "connect",
    "connect_writer",
    "empty_log",
    "explain",
    "find_boot",
    "make_view",
    "refuse_other",
    "release_of",
]

_APPLICATION = 0x44504B4C
"""Application id of the file: "DPKL"."""
_HELD = "SELECT 1 FROM chunk WHERE token IS NOT NULL AND seen >= ?"
_BUSY = 30.0
"""Seconds to wait for another writer."""

_AGAIN = "Nothing was launched without its row: run the same again"
_MEANINGS = {
    "SQLITE_FULL": f"cannot be written, because the disk is full: free some space. {_AGAIN}",
    "SQLITE_READONLY": "cannot be written: allow this user to write the file and its directory",
    "SQLITE_CANTOPEN": "cannot be opened: check that its directory exists, and that this user may write there",
    "SQLITE_PERM": "cannot be opened: allow this user to read and write the file and its directory",
    "SQLITE_NOTADB": "is another kind of file, not a ledger: give the ledger a file of its own",
    "SQLITE_CORRUPT": "is damaged: keep the file, and restore a backup, or save the rest with sqlite3's .recover",
    "SQLITE_BUSY": f"was locked by another process (suspended?) for {_BUSY:.0f} s: end that process. {_AGAIN}",
    "SQLITE_IOERR": f"cannot be read or written, because the disk fails or a quota is reached: check both. {_AGAIN}",
}


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the file, with every commit synced.

    Raises:
        LedgerError: The file is a directory, a link or another program's database. It has two names, or others can
            read it. Or its file system has no shared memory.
    """
    refuse_link(path)
    if path.is_dir():
        raise LedgerError(f"the ledger {path} is a directory: name a file in it")
    check_names(path)
    with contextlib.suppress(OSError):  # SQLite's own error is clearer
        # Readable by its owner only: it holds message content. SQLite gives its other files the same mode.
        made = os.open(path, os.O_CREAT | os.O_EXCL, 0o600)
        mark_new(made)
        os.close(made)
    is_empty = path.exists() and not path.stat().st_size
    db = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    try:
        refuse_other(db, path)  # before anything changes the file
        if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise LedgerError(
                f"the ledger {path} cannot be on this file system, which has no shared memory: use a local disk"
            )
        if is_empty or db.execute("PRAGMA application_id").fetchone() == (_APPLICATION,):
            close_to_others(path)  # a file of something else is left alone
            warn_of_network(path)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -16384")  # KiB; four times as much plans a million targets only 10 % faster
    except BaseException:
        db.close()
        raise
    return db


def check(db: sqlite3.Connection, path: Path) -> None:
    """Create or upgrade the tables in the writer's transaction, or check their version.

    Raises:
        LedgerError: The file is no ledger, a newer release made it, or it needs an upgrade while a run is held.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if not refuse_other(db, path):
        version = 0
    check_known(version, release_of(db) if version > latest() else None, f"the ledger {path}")
    if version == latest():
        return
    if version and db.execute(_HELD, (time.time() - LEASE_TIMEOUT,)).fetchone():
        raise held(f"the ledger {path}", version)
    for migration in pending(version):
        for statement in statements(migration.sqlite):
            db.execute(statement)
    if not version:
        create(db, path)
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
    db.execute("UPDATE about SET release = ?", (__version__,))
    db.execute(f"PRAGMA user_version = {latest()}")


def refuse_other(db: sqlite3.Connection, path: Path) -> bool:
    """Refuse another program's database. Returns whether the file is a ledger; else it holds no table.

    Raises:
        LedgerError: It is another program's.
    """
    # In this order: another process may be making the ledger, and commits its tables along with the id.
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application == _APPLICATION:
        return True
    if application != 0 or tables:
        raise LedgerError(f"{path} is another program's database, not a ledger: give the ledger a file of its own")
    return False


def release_of(db: sqlite3.Connection) -> str | None:
    """The release that made the tables; None if they do not say."""
    with contextlib.suppress(sqlite3.Error):  # its tables may be other ones by then
        return cast("str | None", db.execute("SELECT release FROM about").fetchone()[0])
    return None


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the file for the writer, with the temporary view that takes a batch in one statement.

    Raises:
        LedgerError: The file has two names, or its file system has no shared memory.
    """
    db = connect(path)
    make_view(db)
    return db


def make_view(db: sqlite3.Connection) -> None:
    """Create the temporary views that take a batch."""
    for statement in (*statements(FIRST_BATCH), *statements(BATCH)):
        db.execute(statement)


def find_boot(db: sqlite3.Connection, boot_id: str) -> int | None:
    """The number of this boot in the tables; 0 if the system has no boot id.

    None if the tables do not exist, are another program's, or do not have this boot yet.
    """
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION or version != latest():
        return None
    if not boot_id:
        return 0
    row = db.execute("SELECT number FROM boot WHERE id = ?", (boot_id,)).fetchone()
    return None if row is None else int(row[0])


def add_boot(db: sqlite3.Connection, boot_id: str) -> int:
    """Add this boot to the tables, and return its number. See `find_boot`."""
    if boot_id:
        db.execute("INSERT OR IGNORE INTO boot (id) VALUES (?)", (boot_id,))
    return find_boot(db, boot_id) or 0


def empty_log(db: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file, so that a copy of the file is complete. A busy reader prevents that.

    The log keeps its size: a commit that makes its file longer takes the time of 1.3 others.
    """
    db.execute("PRAGMA busy_timeout = 0")
    try:
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    finally:
        db.execute(f"PRAGMA busy_timeout = {_BUSY * 1000:.0f}")


def explain(path: Path, error: sqlite3.Error) -> LedgerError:
    """Describe an SQLite error and what to do."""
    name = getattr(error, "sqlite_errorname", "")
    for prefix, text in _MEANINGS.items():
        if name.startswith(prefix):
            return LedgerError(f"the ledger {path} {text} ({error})")
    return LedgerError(f"the ledger {path} cannot be used: {error}")

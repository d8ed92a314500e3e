"""The file of a ledger in SQLite: made for its owner alone, seen to be ours, and what its errors mean to a reader."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import cast

from dispatchkit._version import __version__
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.migrations import check_known, held, latest, pending, statements
from dispatchkit.ledger.sqlite.access import close_to_others, refuse_link, warn_of_network
from dispatchkit.ledger.sqlite.identity import check_names, create, mark_new
from dispatchkit.ledger.sqlite.sql import BATCH
from dispatchkit.ledger.store import LEASE_TIMEOUT

__all__ = ["add_boot", "check", "connect", "connect_writer", "empty_log", "explain", "find_boot", "make_view"]

_APPLICATION = 0x44504B4C
"""Marks the file as ours: "DPKL"."""
_HELD = "SELECT 1 FROM chunk WHERE token IS NOT NULL AND seen >= ?"
_BUSY = 30.0
"""Seconds for which another process may keep us from writing."""

_AGAIN = "nothing was launched without its row, so run the same again"
_MEANINGS = {
    "SQLITE_FULL": f"cannot be written, because the disk is full: free some space; {_AGAIN}",
    "SQLITE_READONLY": "cannot be written: allow this user to write the file and its directory",
    "SQLITE_CANTOPEN": "cannot be opened: see that its directory exists, and that this user may write there",
    "SQLITE_PERM": "cannot be opened: allow this user to read and write the file and its directory",
    "SQLITE_NOTADB": "is a file of something else, not a ledger: give the ledger a file of its own",
    "SQLITE_CORRUPT": "is damaged: keep the file, and restore a copy, or save what is left with sqlite3's .recover",
    "SQLITE_BUSY": f"was kept by another process (suspended?) for {_BUSY:.0f} s: end what holds it; {_AGAIN}",
    "SQLITE_IOERR": f"cannot be read or written, because the disk fails or allows no more: see to it; {_AGAIN}",
}


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, or make it, with every commit synced.

    Raises:
        LedgerError: The file has two names, is a link, can be read by others, or has no shared memory.
    """
    refuse_link(path)
    check_names(path)
    with contextlib.suppress(OSError):  # what is wrong, SQLite says better
        # It holds the content of messages. SQLite gives the files beside it the same mode.
        made = os.open(path, os.O_CREAT | os.O_EXCL, 0o600)
        mark_new(made)
        os.close(made)
    is_empty = path.exists() and not path.stat().st_size
    db = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    try:
        if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise LedgerError(f"the ledger {path} cannot be kept there: its file system has no shared memory")
        if is_empty or db.execute("PRAGMA application_id").fetchone() == (_APPLICATION,):
            close_to_others(path)  # a file of something else is left alone
            warn_of_network(path)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -16384")  # in KiB: four times that plans a million a tenth faster, no more
    except BaseException:
        db.close()
        raise
    return db


def check(db: sqlite3.Connection, path: Path) -> None:
    """Make or upgrade the tables, in the writer's transaction, or see that they are ours.

    Raises:
        LedgerError: They are of something else or of a newer release, or are to be upgraded and in use.
    """
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        if application != 0 or db.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise LedgerError(
                f"{path} is a database of something else, not a ledger: give the ledger a file of its own"
            )
        version = 0
    check_known(version, _release(db) if version > latest() else None, f"the ledger {path}")
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


def _release(db: sqlite3.Connection) -> str | None:
    with contextlib.suppress(sqlite3.Error):  # its tables may be other ones by then
        return cast("str | None", db.execute("SELECT release FROM about").fetchone()[0])
    return None


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the file for the writer, with the view that takes a batch in one statement: it lasts as the connection does.

    Raises:
        LedgerError: The file has two names, or its file system has no shared memory.
    """
    db = connect(path)
    make_view(db)
    return db


def make_view(db: sqlite3.Connection) -> None:
    """Make the view that takes a batch."""
    view, trigger = BATCH.split(";", 1)
    db.execute(view)
    db.execute(trigger)


def find_boot(db: sqlite3.Connection, boot_id: str) -> int | None:
    """The number by which the tables refer to this boot of the machine: 0 if the system names none.

    None: the tables are not there, are not ours, or do not hold this boot yet.
    """
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION or version != latest():
        return None
    if not boot_id:
        return 0
    found = db.execute("SELECT number FROM boot WHERE id = ?", (boot_id,)).fetchone()
    return None if found is None else int(found[0])


def add_boot(db: sqlite3.Connection, boot_id: str) -> int:
    """Have the tables hold this boot of the machine. See `find_boot`."""
    if boot_id:
        db.execute("INSERT OR IGNORE INTO boot (id) VALUES (?)", (boot_id,))
    return find_boot(db, boot_id) or 0


def empty_log(db: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file, so that a copy of the file is whole. A busy reader makes it do less."""
    db.execute("PRAGMA busy_timeout = 0")
    try:
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.execute(f"PRAGMA busy_timeout = {_BUSY * 1000:.0f}")


def explain(path: Path, error: sqlite3.Error) -> LedgerError:
    """Say what went wrong with the file, and what to do about it."""
    name = getattr(error, "sqlite_errorname", "")
    for kind, text in _MEANINGS.items():
        if name.startswith(kind):
            return LedgerError(f"the ledger {path} {text} ({error})")
    return LedgerError(f"the ledger {path} cannot be used: {error}")

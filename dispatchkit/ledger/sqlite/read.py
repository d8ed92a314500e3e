"""The reader's thread of a SQLite ledger: it also reads a file that this user may not write.

SQLite reads a write-ahead log through shared memory, a file beside the ledger. Where it does not exist, SQLite creates
it. A reader that may not write the ledger creates no file: its owner could not use a file of another user. Without a
log, the ledger is complete in its file. Such a file is read without locks, so each read looks whether it was changed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from dispatchkit.errors import LedgerError
from dispatchkit.ledger.migrations import check_known, latest
from dispatchkit.ledger.sqlite.access import refuse_link, warn_of_network
from dispatchkit.ledger.sqlite.file import connect, refuse_other, release_of
from dispatchkit.ledger.sqlite.identity import check_names

__all__ = ["Reading", "fetching"]

_Rows: TypeAlias = list[tuple[Any, ...]]


class Reading:
    """The work of the reader's thread. It has no reference to the store, which can thus be garbage-collected.

    Args:
        path: The file, as an absolute path.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unchanged: Sequence[int] | None = None
        """The state of a file that is read without locks."""
        self.is_read_only = False
        """Whether this user may not write the file."""

    def connect(self) -> sqlite3.Connection:
        """Open the file.

        Raises:
            LedgerError: See `file.connect`. Or a file that may not be written has a log that cannot be read.
        """
        path = self._path
        if not path.is_file() or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            return connect(path)
        self.is_read_only = True
        if not os.access(path, os.R_OK):
            raise LedgerError(f"this user may not read the ledger {path}: run this command as its owner")
        refuse_link(path)
        check_names(path)
        log, memory = (path.with_name(f"{path.name}-{end}") for end in ("wal", "shm"))
        has_locks = log.exists() and memory.exists()
        if not has_locks and log.exists() and log.stat().st_size:
            raise LedgerError(
                f"the ledger {path} cannot be read where this user may not write: the process that wrote it left its "
                f"log, {log.name}. Copy both files to a folder of this user, and read the copy"
            )
        self._unchanged = None if has_locks else _state(path)
        db = sqlite3.connect(f"{path.as_uri()}?{'mode=ro' if has_locks else 'immutable=1'}", uri=True)
        try:
            db.isolation_level = None
            refuse_other(db, path)
            _check_version(db, path)
            warn_of_network(path)
        except BaseException:
            db.close()
            raise
        return db

    def perform(self, db: sqlite3.Connection, works: Sequence[object]) -> list[object]:
        """Perform reads one after another.

        Raises:
            LedgerError: Another process changes a file that is read without locks.
        """
        results = [cast("Callable[[sqlite3.Connection], object]", work)(db) for work in works]
        if self._unchanged is not None and self._unchanged != _state(self._path):
            raise LedgerError(f"the ledger {self._path} was changed while it was read: run the same again")
        return results


def _state(path: Path) -> Sequence[int]:
    """What a writer changes: the file, and that a log exists."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, path.with_name(f"{path.name}-wal").exists()


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    check_known(version, release_of(db) if version > latest() else None, f"the ledger {path}")
    if version < latest():
        raise LedgerError(
            f"the ledger {path} is of version {version}, version {latest()} is needed, and this user may not write it. "
            "Let its owner upgrade it (dispatchkit ledger init), or read a copy in a folder of this user"
        )


def fetching(statement: str, given: Sequence[object] | Mapping[str, object]) -> Callable[[sqlite3.Connection], _Rows]:
    """The work of a statement that returns rows."""
    return lambda db: db.execute(statement, given).fetchall()

"""Delete what a finished run of an SQLite ledger holds.

Each function gets the connection of the writer, within a transaction. A process may take the run until it began, so the
same transaction decides and deletes.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from dispatchkit.ledger.sqlite.holds import Holds
from dispatchkit.ledger.store import TABLES_OF_RUN

__all__ = ["delete_contents", "delete_run"]

_IS_PRUNABLE = """
SELECT (:whole AND stopped) OR (plan_complete AND total <= (
  SELECT coalesce(sum(done + rejected + final), 0) FROM tally WHERE run = :run)) FROM run WHERE number = :run
"""


def delete_contents(holds: Holds, db: sqlite3.Connection, run: int, *, now: datetime) -> bool:
    """Delete the contents of a run. See `Store.prune_contents`."""
    if not _is_prunable(holds, db, run, whole=False):
        return False
    db.execute("PRAGMA secure_delete = ON")  # else the free pages of the file still hold them
    db.execute("DELETE FROM content WHERE run = ?", (run,))
    db.execute("UPDATE run SET contents_pruned = ? WHERE number = ?", (now.isoformat(), run))
    return True


def delete_run(holds: Holds, db: sqlite3.Connection, run: int) -> bool:
    """Delete a run. See `Store.delete`."""
    if not _is_prunable(holds, db, run, whole=True):
        return False
    for table in TABLES_OF_RUN:
        db.execute(f"DELETE FROM {table} WHERE run = ?", (run,))
    db.execute("DELETE FROM run WHERE number = ?", (run,))
    return True


def _is_prunable(holds: Holds, db: sqlite3.Connection, run: int, *, whole: bool) -> bool:
    row = db.execute(_IS_PRUNABLE, {"run": run, "whole": whole}).fetchone()
    return row is not None and bool(row[0]) and all(chunk.holder is None for chunk in holds.chunks(db, run))

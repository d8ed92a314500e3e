"""Add targets to a run in an SQLite ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from itertools import chain
from operator import itemgetter

from dispatchkit.ledger.store import deleted_meanwhile

__all__ = ["add_targets", "total_of"]

_ROWS = 333
"""Targets per INSERT: older SQLite releases allow 999 parameters."""

_Row = tuple[int, bytes, str]


def add_targets(db: sqlite3.Connection, run: int, commands: Mapping[bytes, str]) -> int:
    """Add targets that the run does not have, in their order. The transaction is the caller's.

    Args:
        db: The connection of the writer.
        run: The number of the run.
        commands: The texts of the commands, by key.

    Returns:
        The number of the run's targets.
    """
    total = total_of(db, run)
    rows = [(index, key, command) for index, (key, command) in enumerate(commands.items(), total)]
    # In the order of keys, each page of their index is changed once.
    rows.sort(key=itemgetter(1))
    try:
        _insert(db, run, rows)
    except sqlite3.IntegrityError:
        # The run has some of them: take back those of this part.
        db.execute('DELETE FROM target WHERE run = ? AND "index" >= ?', (run, total))
        rows = [row for row in rows if not _has(db, run, row[1])]
        rows.sort()
        rows = [(index, key, command) for index, (_, key, command) in enumerate(rows, total)]
        _insert(db, run, rows)
    return total + len(rows)


def total_of(db: sqlite3.Connection, run: int) -> int:
    """The number of a run's targets.

    Raises:
        LedgerError: The run was deleted.
    """
    row = db.execute("SELECT total FROM run WHERE number = ?", (run,)).fetchone()
    if row is None:
        raise deleted_meanwhile()
    return int(row[0])


def _insert(db: sqlite3.Connection, run: int, rows: list[_Row]) -> None:
    """Insert rows. On a conflict, the rows so far stay: a statement that takes them back copies each page first."""
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        places = ",".join([f"({run},?,?,?)"] * len(some))
        statement = f'INSERT OR FAIL INTO target (run, "index", key, command) VALUES {places}'  # noqa: S608 - parameters
        db.execute(statement, [*chain.from_iterable(some)])


def _has(db: sqlite3.Connection, run: int, key: bytes) -> bool:
    row = db.execute("SELECT 1 FROM target WHERE run = ? AND key = ?", (run, key)).fetchone()
    return row is not None

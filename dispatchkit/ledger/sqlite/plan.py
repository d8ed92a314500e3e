"""Plan a run in an SQLite ledger: add its targets, and divide them into chunks.

Each function gets the connection of the writer, within a transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter

from dispatchkit.ledger.chunk import Chunk, divide
from dispatchkit.ledger.contents import Content
from dispatchkit.ledger.files import pieces
from dispatchkit.ledger.sqlite.holds import Holds
from dispatchkit.ledger.store import deleted_meanwhile

__all__ = ["add_part", "add_targets", "complete_plan"]

_ROWS = 333
"""Targets per INSERT: older SQLite releases allow 999 parameters."""

_Row = tuple[int, bytes, str]


def add_part(
    db: sqlite3.Connection,
    run: int,
    rows: Sequence[tuple[bytes, str]],
    *,
    log_keys: Mapping[bytes, int],
    contents: Mapping[str, Content],
    part: tuple[int, bytes] | None,
) -> None:
    """Add a part of a plan. See `Store.plan`."""
    once: dict[bytes, str] = {}
    for key, command in rows:
        once.setdefault(key, command)
    total = add_targets(db, run, once)
    db.execute("UPDATE run SET total = ? WHERE number = ?", (total, run))
    if log_keys:
        db.executemany(
            "UPDATE target SET log_key = ? WHERE run = ? AND key = ? AND log_key IS NULL",
            [(log_key, run, key) for key, log_key in log_keys.items()],
        )
    if contents:
        _add_contents(db, run, contents)
    if part is not None:
        db.execute("INSERT OR REPLACE INTO plan_part (run, number, digest) VALUES (?, ?, ?)", (run, *part))


def add_targets(db: sqlite3.Connection, run: int, commands: Mapping[bytes, str]) -> int:
    """Add targets that the run does not have, in their order.

    Args:
        db: The connection.
        run: The number of the run.
        commands: The texts of the commands, by key.

    Returns:
        The number of the run's targets.
    """
    total = _total_of(db, run)
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


def _total_of(db: sqlite3.Connection, run: int) -> int:
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
        statement = f'INSERT OR FAIL INTO target (run, "index", key, command) VALUES {places}'
        db.execute(statement, [*chain.from_iterable(some)])


def _has(db: sqlite3.Connection, run: int, key: bytes) -> bool:
    row = db.execute("SELECT 1 FROM target WHERE run = ? AND key = ?", (run, key)).fetchone()
    return row is not None


def _add_contents(db: sqlite3.Connection, run: int, contents: Mapping[str, Content]) -> None:
    sql = "SELECT hash FROM content WHERE run = ? AND hash IN (SELECT value FROM json_each(?)) AND number = 0"
    known = {name for (name,) in db.execute(sql, (run, json.dumps([*contents])))}
    db.executemany(
        "INSERT OR REPLACE INTO content (run, hash, number, piece) VALUES (?, ?, ?, ?)",
        (
            (run, name, number, piece)
            for name, content in contents.items()
            if name not in known
            for number, piece in enumerate(pieces(content))
        ),
    )


def complete_plan(holds: Holds, db: sqlite3.Connection, run: int, *, size: int | None) -> list[Chunk]:
    """Mark the plan of a run as complete, and divide it into chunks.

    Args:
        holds: Reads the chunks.
        db: The connection.
        run: The number of the run.
        size: Targets of a chunk; None makes one chunk.

    Returns:
        The chunks of the run.
    """
    db.execute("UPDATE run SET plan_complete = 1 WHERE number = ?", (run,))
    total = _total_of(db, run)
    db.executemany(
        "INSERT INTO chunk (run, number, start_index, end_index) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (run, number) DO UPDATE SET end_index = excluded.end_index",
        [(run, chunk.number, chunk.start, chunk.end) for chunk in divide(holds.chunks(db, run), total, size)],
    )
    return holds.chunks(db, run)

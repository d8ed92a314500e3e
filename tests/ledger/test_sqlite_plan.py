"""Targets that an SQLite ledger adds to a run: in their order, each once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from dispatchkit.ledger.migrations import m0001_tables, statements
from dispatchkit.ledger.sqlite import plan
from dispatchkit.ledger.sqlite.plan import add_targets

MANY = 1000
"""More than one statement inserts."""


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    for statement in statements(m0001_tables.SQLITE):
        db.execute(statement)
    others = len(db.execute("SELECT * FROM pragma_table_info('run')").fetchall()) - 4
    for run in (1, 2):
        db.execute(f"INSERT INTO run VALUES ({run}, 'run {run}', '', '', {', '.join(['0'] * others)})")
    yield db
    db.close()


def add(db: sqlite3.Connection, run: int, numbers: list[int]) -> int:
    total = add_targets(db, run, {number.to_bytes(8, "big"): str(number) for number in numbers})
    db.execute("UPDATE run SET total = ? WHERE number = ?", (total, run))
    return total


def targets(db: sqlite3.Connection, run: int) -> list[tuple[int, int]]:
    rows = db.execute('SELECT "index", command FROM target WHERE run = ? ORDER BY "index"', (run,))
    return [(index, int(command)) for index, command in rows]


def test_order_is_that_of_commands(db: sqlite3.Connection) -> None:
    numbers = [*range(MANY, 0, -1)]
    assert add(db, 1, numbers) == MANY
    assert targets(db, 1) == [*enumerate(numbers)]


def test_new_targets_need_no_look(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_has", None)
    assert (add(db, 1, [3, 2]), add(db, 1, [4, 1])) == (2, 4)
    assert targets(db, 1) == [(0, 3), (1, 2), (2, 4), (3, 1)]


@pytest.mark.parametrize("known", [1, MANY // 2, MANY])
@pytest.mark.parametrize("numbers", [[*range(1, MANY + 1)], [*range(MANY, 0, -1)]], ids=["rising", "falling"])
def test_known_target_is_left_out(db: sqlite3.Connection, numbers: list[int], known: int) -> None:
    assert (add(db, 2, [known]), add(db, 1, [known])) == (1, 1)
    assert add(db, 1, numbers) == MANY
    assert targets(db, 1) == [*enumerate([known, *(number for number in numbers if number != known)])]
    assert add(db, 1, numbers) == MANY
    assert targets(db, 2) == [(0, known)]

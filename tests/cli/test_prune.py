"""``dispatchkit ledger prune``: old runs go, with all their rows."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from dispatchkit.core.clock import SYSTEM
from dispatchkit.ledger.store import TABLES_OF_RUN
from tests.cli.conftest import Played, run
from tests.workers.conftest import Field


def days_later(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    later = SYSTEM.now() + timedelta(days=days)
    monkeypatch.setattr(type(SYSTEM), "now", lambda _: later)


def test_old_runs_are_deleted(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "l.db"
    assert run("direct", "start", "1-4", "--yes", "--base-url", played.url, "--ledger", ledger).code == 0
    assert run("ledger", "prune", ledger, "--yes").out == "No run is older than 90 days.\n"
    days_later(monkeypatch, 91)
    assert run("ledger", "prune", ledger, "--yes", "--older-than", 100).out == "No run is older than 100 days.\n"
    asked = run("ledger", "prune", ledger)
    assert asked.code == 2
    assert "delete 1 run older than 90 days" in asked.err
    assert "Nothing was deleted." in asked.err
    assert run("ledger", "prune", ledger, "--yes").out == "Deleted 1 run.\n"
    with sqlite3.connect(ledger) as db:
        for table in (*TABLES_OF_RUN, "run"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    db.close()


def test_shared_ledger_is_pruned(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("direct", "start", "1-4", "--yes", "--base-url", field.sandbox.url).code == 0
    days_later(monkeypatch, 91)
    assert run("ledger", "prune", "--yes").out == "Deleted 1 run.\n"
    assert "start" not in run("ledger", "list").out

"""``dispatchkit ledger prune``: the contents of old runs go, and their outcomes stay."""

from __future__ import annotations

import base64
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from dispatchkit.core.clock import SYSTEM
from dispatchkit.ledger.store import TABLES_OF_RUN
from tests.cli.conftest import Played, Result, run
from tests.workers.conftest import Field

CONTENT = base64.b64encode(b"%PDF" * 300)


def days_later(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    later = SYSTEM.now() + timedelta(days=days)
    monkeypatch.setattr(type(SYSTEM), "now", lambda _: later)


def launch(ledger: Path | None, tmp_path: Path, *more: object) -> Result:
    """A launch with a file, whose size makes it a content."""
    (tmp_path / "price.pdf").write_bytes(b"%PDF" * 1000)
    where = () if ledger is None else ("--ledger", ledger)
    return run(
        "altcraft", "activate", "1-4", "--run-now", "--attach", tmp_path / "price.pdf", "--yes", "--run", "a", *where,
        *more,
    )  # fmt: skip


def test_contents_are_deleted(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "l.db"
    assert launch(ledger, tmp_path).code == 0
    before = run("ledger", "export", ledger, "--json")
    assert CONTENT in ledger.read_bytes()
    assert run("ledger", "prune", ledger, "--yes").out == "No finished run with contents is older than 90 days.\n"
    days_later(monkeypatch, 91)
    asked = run("ledger", "prune", ledger)
    assert asked.code == 2
    assert "delete the contents of 1 run older than 90 days" in asked.err
    assert "Nothing was deleted." in asked.err
    assert run("ledger", "prune", ledger, "--yes").out == "Deleted the contents of 1 run.\n"
    assert CONTENT not in ledger.read_bytes()
    assert "pruned at" in run("ledger", "show", ledger).out
    exported = run("ledger", "export", ledger, "--json")
    assert "contents of run 'a' were pruned at" in exported.err
    ids = [line.partition('"target": ')[2] for line in exported.out.splitlines()]
    assert ids == [line.partition('"target": ')[2] for line in before.out.splitlines()]
    assert run("ledger", "prune", ledger, "--yes").out == "No finished run with contents is older than 90 days.\n"
    again = launch(ledger, tmp_path)
    assert (again.code, played.sandbox.altcraft.launches.total()) == (0, 4)


def test_repeats_are_noticed(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "l.db"
    assert launch(ledger, tmp_path).code == 0
    days_later(monkeypatch, 91)
    assert run("ledger", "prune", ledger, "--yes").code == 0
    assert launch(ledger, tmp_path, "--run", "b", "--repeat-window", "always").code == 5


def test_unfinished_run_is_kept(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "l.db"
    assert launch(ledger, tmp_path, "--max-launches", 1).code == 1
    days_later(monkeypatch, 91)
    for more in ((), ("--runs",)):
        kept = run("ledger", "prune", ledger, "--yes", *more)
        assert kept.err == "Kept 1 old run, held or not finished: 'a'.\n"
        assert kept.out.startswith("No ")
    assert run("resume", ledger, "--yes").code == 0


@pytest.mark.parametrize("size", [1000, 100_000], ids=["content", "file"])
def test_pruned_rest_is_told(played: Played, tmp_path: Path, size: int) -> None:
    ledger = tmp_path / "l.db"
    (tmp_path / "price.pdf").write_bytes(b"%PDF" * size)
    line = ("altcraft", "activate", "1-4", "--run-now", "--attach", tmp_path / "price.pdf", "--yes", "--run", "a")
    assert run(*line, "--ledger", ledger, "--max-launches", 1).code == 1
    with sqlite3.connect(ledger) as db:  # as a command that prunes while another one looks
        db.executescript("DELETE FROM content; UPDATE run SET contents_pruned = '2026-01-31T09:00:00+00:00'")
    refused = run("resume", ledger, "--yes")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith(
        "dispatchkit: the contents of run 'a' were pruned at 2026-01-31 09:00:00 UTC, so it cannot be resumed: nothing "
        "was sent. Launch what is left as a new run, with its contents, and --from the file that this writes: "
        "dispatchkit ledger failures "
    )


def test_pruned_unknown_stays(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "l.db"
    assert launch(ledger, tmp_path).code == 0
    with sqlite3.connect(ledger) as db:
        db.executescript(
            "UPDATE outcome SET state = 'unknown', final = 1; UPDATE tally SET unknown = done, final = done, done = 0"
        )
    days_later(monkeypatch, 91)
    assert run("ledger", "prune", ledger, "--yes").code == 0
    resumed = run("resume", ledger, "--yes")
    assert resumed.out.startswith("Nothing is left to resume in run 'a'. 4 targets stay unknown"), resumed
    assert resumed.code == 3


@pytest.mark.usefixtures("_short_claims")
def test_runs_are_deleted(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "l.db"
    assert launch(ledger, tmp_path, "--max-launches", 1).code == 1
    assert run("stop-run", ledger, "a").code == 0
    days_later(monkeypatch, 91)
    assert "repeats" in run("ledger", "prune", ledger, "--runs").err
    assert run("ledger", "prune", ledger, "--yes", "--runs").out == "Deleted 1 run.\n"
    with sqlite3.connect(ledger) as db:
        for table in (*TABLES_OF_RUN, "run"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    db.close()


def test_shared_ledger_is_pruned(field: Field, played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch(None, tmp_path).code == 0
    days_later(monkeypatch, 91)
    assert run("ledger", "prune", "--yes").out == "Deleted the contents of 1 run.\n"
    assert "pruned at" in run("ledger", "show", "a").out + run("ledger", "show").out
    assert run("ledger", "prune", "--yes", "--runs").out == "Deleted 1 run.\n"
    assert "activate" not in run("ledger", "list").out

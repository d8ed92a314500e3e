"""What the command line writes with --json and --csv is what `to_dict()` gives, and fits the schema that ships."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.cli.views import ledger as view
from dispatchkit.cli.views.snapshot import RunSnapshot
from dispatchkit.ledger.chunk import Holder
from dispatchkit.ledger.run import Counts, Run
from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, Result, run
from tests.cli.test_ledger_shows import NOW
from tests.schema import SCHEMA, fits


def objects(result: Result, name: str) -> list[dict[str, Any]]:
    """The lines of the output, each of which fits the schema."""
    found = [json.loads(line) for line in result.out.splitlines()]
    assert found, result
    for each in found:
        fits(each, name)
    return found


def rows(result: Result, name: str) -> list[dict[str, str]]:
    """The rows of the output, whose columns are those of the schema."""
    reader = csv.DictReader(io.StringIO(result.out))
    assert reader.fieldnames == [*SCHEMA["$defs"][name]["properties"]]
    return [*reader]


@pytest.fixture
def ledger(played: Played, tmp_path: Path) -> Path:
    """A run of three dispatches, of which one is refused and one is left."""
    where = tmp_path / "launch.db"
    played.sandbox.order(Fault.http(404, b'{"error": {"code": 4040, "msg": "gone"}}'), path_contains="/2/")
    line = ("direct", "start", "1-3", "--yes", "--base-url", played.url, "--ledger", where, "--run", "friday")
    assert run(*line, "--max-launches", 2, "--concurrency", 1).code == 1
    return where


def test_a_launch_writes_outcomes(played: Played) -> None:
    told = objects(run("direct", "start", "1999-2001", "--yes", "--json", "--base-url", played.url), "Outcome")
    assert {entry["state"] for entry in told} == {"done", "rejected"}


def test_an_unknown_outcome_fits_too(played: Played) -> None:
    played.sandbox.order(Fault.lost_answer())
    played.sandbox.order(Fault.lost_answer(), times=100, path_contains="dispatch?")
    played.sandbox.direct.read_lag = 60
    [told] = objects(run("direct", "stop", 1, "--yes", "--json", "--base-url", played.url, "--timeout", 0.5), "Outcome")
    assert (told["state"], told["error"]["is_final"]) == ("unknown", False)


def test_a_launch_shows_no_content(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "price.txt"
    file.write_text("hunter2")
    result = run("altcraft", "launch", 1, "--yes", "--json", "--content", '{"field": "hunter2"}', "--attach", file)
    [told] = objects(result, "Outcome")
    assert told["command"]["content_keys"] == ["field"]
    assert told["command"]["attachments"] == [{"name": "price.txt", "size": 7, "media_type": "text/plain"}]
    assert "hunter2" not in result.out + result.err


def test_reads_write_what_was_read(played: Played) -> None:
    assert run("altcraft", "launch", 1, "--yes").code == 0
    objects(run("direct", "list", "--json", "--base-url", played.url), "Dispatch")
    objects(run("altcraft", "log", 1, "--json"), "LogEntry")
    objects(run("altcraft", "status", "1", "101", "--json"), "Outcome")


@pytest.mark.parametrize(
    ("command", "name", "csv_name"),
    [
        ("list", "RunSnapshot", "RunSnapshotRow"),
        ("show", "RunSnapshot", "RunSnapshotRow"),
        ("export", "Target", "TargetRow"),
        ("failures", "Target", "Failure"),
    ],
)
def test_ledger_writes_values_and_rows(ledger: Path, command: str, name: str, csv_name: str) -> None:
    told = objects(run("ledger", command, ledger, "--json"), name)
    assert len(rows(run("ledger", command, ledger, "--csv"), csv_name)) == len(told)


def test_export_rows_are_flat_targets(ledger: Path) -> None:
    told = rows(run("ledger", "export", ledger, "--csv"), "TargetRow")
    assert [(row["target"], row["command_type"], row["state"], row["code"]) for row in told] == [
        ("1", "StartDispatch", "done", ""),
        ("2", "StartDispatch", "rejected", "4040"),
        ("3", "StartDispatch", "planned", ""),
    ]


def test_failures_file_follows_schema(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "failed.csv"
    run("direct", "start", "2000-2001", "--yes", "--base-url", played.url, "--failures", file)
    [row] = rows(Result(0, file.read_text(), ""), "Failure")
    assert (row["id"], row["outcome"]) == ("2001", "rejected")


async def test_follower_writes_only_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(view, "_POLL_INTERVAL", 0)
    holder = Holder("token", 7, "here", since=NOW, lease_left=30)
    first = RunSnapshot(Run(1, "friday", "{}", NOW, 5, True, False), Counts(planned=5), [holder])
    over = attrs.evolve(first, counts=Counts(done=5), holders=[])
    snapshots = iter([first, attrs.evolve(first, holders=[attrs.evolve(holder, lease_left=29)]), over])

    async def take() -> RunSnapshot:
        return next(snapshots)

    await view._follow(take, LedgerRef("launch.db", "friday"), "json")
    told = objects(Result(0, capsys.readouterr().out, ""), "RunSnapshot")
    assert [entry["state"] for entry in told] == ["running", "over"]

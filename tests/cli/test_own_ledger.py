"""Launches of the command line are recorded in the user's own ledger, where no other is named."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sqlite3
import stat
from pathlib import Path

import pytest

from dispatchkit.cli.output.reporter import Reporter
from tests.cli.conftest import Played, Result, run


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/dispatchkit/launches.db"


def start(played: Played, *arguments: object) -> Result:
    return run("direct", "start", "--yes", "--base-url", played.url, *arguments)


def test_launch_is_recorded(played: Played, own: Path) -> None:
    result = start(played, "1-4")
    found = re.search(r"Recorded as run '(\d{8}-\d{6}-start-[0-9a-f]{4})'\. To show it: dispatchkit (.*)\n", result.out)
    assert found is not None, result
    assert f"run           {found[1]}\n" in run(*shlex.split(found[2])).out
    assert found[1] in run("ledger", "list").out
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    assert stat.S_IMODE(own.parent.stat().st_mode) == 0o700


def test_name_is_told_once_recorded(played: Played, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unopened = start(played, 1, "--ledger", tmp_path / "no-folder" / "l.db")
    assert (unopened.code, "The launch is run" in unopened.err) == (2, False)
    assert "no-folder" in unopened.err
    names: list[str] = []

    def note(_reporter: Reporter, text: str) -> None:
        with contextlib.closing(sqlite3.connect(own)) as db:
            names.extend(
                name for (name,) in db.execute("SELECT name FROM run") if f"The launch is run {name!r}" in text
            )

    monkeypatch.setattr(Reporter, "note", note)
    assert start(played, 1).code == 0
    assert len(names) == 1


def test_rest_can_be_resumed(played: Played, own: Path) -> None:
    result = start(played, "1-4", "--max-launches", 1)
    line = result.out.partition("To resume the run: dispatchkit ")[2]
    assert run(*shlex.split(line), "--yes").code == 0
    assert played.sandbox.launches == dict.fromkeys(range(1, 5), 1)


def test_no_ledger_records_nothing(played: Played, own: Path) -> None:
    for _ in range(2):
        result = start(played, "1-4", "--no-ledger")
        assert result.code == 0
        assert "Recorded" not in result.out
    assert not own.parent.exists()


def test_sandbox_and_stop_record_nothing(played: Played, own: Path) -> None:
    assert run("direct", "start", "1-4", "--sandbox").code == 0
    assert run("direct", "stop", 1, "--yes", "--base-url", played.url).code == 1
    assert run("direct", "start", 1, "--dry-run").code == 0
    assert not own.parent.exists()


def test_named_ledger_goes_first(played: Played, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(played, 1, "--ledger", tmp_path / "named.db").code == 0
    monkeypatch.setenv("DISPATCHKIT_LEDGER", str(tmp_path / "other.db"))
    assert start(played, 2).code == 0
    assert not own.exists()


@pytest.mark.parametrize("name", ["state", "dispatchkit"])
def test_unwritable_folder_names_way_out(played: Played, own: Path, name: str) -> None:
    blocked = next(folder for folder in own.parents if folder.name == name)
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("a file, where a folder should be")
    result = start(played, 7, "--run", "friday")
    assert (result.code, result.out, played.sandbox.requests) == (2, "", 0)
    assert result.err.startswith(f"dispatchkit: launches are recorded in {own}, which cannot be written (")
    line = result.err.rpartition("To launch without a record: ")[2]
    assert "--no-ledger" in line
    assert run(*shlex.split(line)[1:], "--yes").code == 0


def test_read_only_folder_is_refused(played: Played, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(played, 1).code == 0
    own.parent.chmod(0o500)
    if os.geteuid() == 0:  # root may write to any folder
        monkeypatch.setattr(os, "access", lambda path, _: path != own.parent)
    result = start(played, 2)
    own.parent.chmod(0o700)
    assert (result.code, played.sandbox.launches) == (2, {1: 1})
    assert (
        f"({own.parent} is read-only): nothing was sent. Make the folder writable, or name another file with --ledger. "
        "To launch without a record: dispatchkit direct"
    ) in result.err


def test_open_folder_is_closed(played: Played, own: Path) -> None:
    own.parent.mkdir(parents=True)
    own.parent.chmod(0o755)
    assert start(played, 1).code == 0
    assert stat.S_IMODE(own.parent.stat().st_mode) == 0o700


def test_endless_range_needs_no_ledger(played: Played) -> None:
    result = start(played, "1-1000000000000")
    assert (result.code, played.sandbox.requests) == (2, 0)
    assert "too many for the ledger on this machine" in result.err


@pytest.mark.parametrize("run_name", ["spring.sale", "a/b", "there.db"])
def test_line_names_any_run(
    played: Played, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.db").touch()
    result = start(played, 1, "--run", run_name)
    line = result.out.partition("To show it: dispatchkit ")[2]
    assert f"run           {run_name}\n" in run(*shlex.split(line)).out


def test_first_look_finds_no_ledger(own: Path) -> None:
    for command in (("ledger", "list"), ("ledger", "show"), ("resume",)):
        result = run(*command)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"dispatchkit: no launch was recorded yet: there is no ledger {own}.")


def test_init_makes_own_ledger(own: Path) -> None:
    assert run("ledger", "init").code == 0
    assert own.exists()


@pytest.mark.parametrize("command", ["show", "failures", "export", "report"])
@pytest.mark.parametrize("is_named", [False, True], ids=["own", "named"])
def test_missing_file_is_no_run(
    played: Played, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, *, is_named: bool
) -> None:
    assert start(played, 1).code == 0
    monkeypatch.chdir(tmp_path)
    if is_named:
        monkeypatch.setenv("DISPATCHKIT_LEDGER", str(own))
    missing = run("ledger", command, "nothere.db", *(("-o", "-") if command == "report" else ()))
    assert (missing.code, missing.out) == (2, "")
    assert missing.err == "dispatchkit: there is no ledger nothere.db: no such file. Check its name and its folder\n"


def test_run_named_like_file(played: Played, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show = re.search(r"To show it: dispatchkit (.*)\n", start(played, 1, "--run", "a.db").out)
    assert show is not None
    assert "run           a.db\n" in run(*shlex.split(show[1])).out
    monkeypatch.setenv("DISPATCHKIT_LEDGER", str(own))
    show = re.search(r"To show it: dispatchkit (.*)\n", start(played, 2, "--run", "b.db").out)
    assert show is not None
    assert "run           b.db\n" in run(*shlex.split(show[1])).out

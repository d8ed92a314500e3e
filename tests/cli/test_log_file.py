"""``--log-file``: the library's records, one line each."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from dispatchkit.cli.output.log_file import LogFile
from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, run, wait_until
from tests.workers.conftest import Field

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) dispatchkit[.\w]*( run='.*')?: .+")


def start(played: Played, *more: object) -> int:
    return run("direct", "start", "1-3", "--yes", "--base-url", played.url, *more).code


def test_lines_are_appended(played: Played, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    assert start(played, "--ledger", tmp_path / "l.db", "--log-file", log) == 0
    first = log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert all(map(LINE.fullmatch, first.splitlines()))
    assert "run='" in first
    assert played.sandbox.direct_token not in first
    assert start(played, "--ledger", tmp_path / "l.db", "--again", "--run", "two", "--log-file", log) == 0
    assert log.read_text().startswith(first)
    assert "run='two'" in log.read_text()


def test_resume_writes_lines(played: Played, tmp_path: Path) -> None:
    ledger, log = tmp_path / "l.db", tmp_path / "run.log"
    assert start(played, "--ledger", ledger, "--max-launches", 1) == 1
    assert run("resume", ledger, "--yes", "--log-file", log).code == 0
    assert all(map(LINE.fullmatch, log.read_text().splitlines()))
    assert log.read_text()


@pytest.mark.second_stage
def test_pauses_are_logged(played: Played, tmp_path: Path) -> None:
    """Warnings of the pace are shown, and do not keep its other records from the file."""
    played.sandbox.order(Fault.throttled(1.1))
    assert start(played, "--no-ledger", "--log-file", tmp_path / "run.log") == 0
    log = (tmp_path / "run.log").read_text()
    assert len(re.findall(" INFO dispatchkit.pace: the account is paused until ", log)) == 1


def test_existing_mode_is_kept(played: Played, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.touch(0o640)
    log.chmod(0o640)
    assert start(played, "--no-ledger", "--log-file", log) == 0
    assert stat.S_IMODE(log.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["missing/run.log", ".", "pipe"])
def test_unwritable_file_is_refused(played: Played, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    ended = run("direct", "start", "1", "--yes", "--base-url", played.url, "--log-file", tmp_path / name)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert played.sandbox.requests == 0


def test_full_disk_is_told_once(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dispatchkit.cli.output.log_file.os.write", full)
    log = tmp_path / "run.log"
    ended = run("direct", "start", "1-3", "--yes", "--base-url", played.url, "--no-ledger", "--log-file", log)
    monkeypatch.undo()
    assert ended.code == 0
    assert ended.err.count("No space left on device. The run goes on") == 1


def test_torn_line_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging  # noqa: PLC0415

    log, told, write = tmp_path / "run.log", list[str](), os.write
    handler = LogFile(log)
    handler.tell = told.append
    record = logging.makeLogRecord({"name": "dispatchkit", "levelname": "INFO", "msg": "whole\nline", "created": 0})
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:9]))
    handler.handle(record)
    monkeypatch.undo()
    handler.handle(record)
    handler.handle(record)
    handler.close()
    line = "1970-01-01T00:00:00.000Z INFO dispatchkit: whole\\nline\n"
    assert log.read_text() == f"1970-01-0\n{line}{line}"
    assert len(told) == 1


def test_worker_writes_lines(field: Field, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    field.worker("--log-file", log)
    field.plan(3)
    wait_until(lambda: "run='r': chunk 0 is over" in log.read_text())
    assert all(map(LINE.fullmatch, log.read_text().splitlines()))

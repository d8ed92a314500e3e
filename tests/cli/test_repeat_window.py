"""``--repeat-window``: the same line twice launches nothing twice, unless that is said."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.conftest import Played, Result, run


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    where = tmp_path / "launch.db"
    monkeypatch.setenv("DISPATCHKIT_LEDGER", str(where))
    monkeypatch.setattr("dispatchkit.cli.input.ledger_ref.SYSTEM", Ticking())
    return where


class Ticking:
    """Each made name has another second."""

    def __init__(self) -> None:
        self._seconds = 0

    def now(self) -> object:
        self._seconds += 1
        return datetime(2026, 1, 31, 9, 0, self._seconds, tzinfo=UTC)


def start(played: Played, *arguments: object) -> Result:
    return run("direct", "start", "--yes", "--base-url", played.url, *arguments)


def test_same_line_twice_is_refused(played: Played) -> None:
    assert start(played, "1-4").code == 0
    again = start(played, "3-9")
    assert again.code == 2
    assert re.search(
        r"dispatchkit: 2 of these ids were launched within 1h, or may have been: 2 in run '20260131-090001-start', the "
        r"latest at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\. Nothing was sent\. Leave them out, or launch all the same: ",
        again.err,
    ), again
    assert played.sandbox.launches == dict.fromkeys(range(1, 5), 1)
    line = again.err.rstrip().partition("all the same: ")[2]
    assert line.endswith("--repeat-window never")
    assert run(*shlex.split(line)[1:], "--yes").code == 0
    assert played.sandbox.launches[3] == 2


def test_named_run_has_no_window(played: Played) -> None:
    assert start(played, "1-4", "--run", "a").code == 0
    assert start(played, "1-4", "--run", "b").code == 0
    refused = start(played, "1-4", "--run", "c", "--repeat-window", "30m")
    assert refused.code == 2
    line = refused.err.rstrip().partition("all the same: ")[2]
    assert "--run" not in shlex.split(line)
    assert line.count("--repeat-window") == 1
    assert run(*shlex.split(line)[1:], "--yes").code == 0


def test_stop_is_never_refused(played: Played) -> None:
    assert start(played, "1-4").code == 0
    for _ in range(2):
        assert "launched within" not in run("direct", "stop", "1-4", "--yes", "--base-url", played.url).err


def test_new_run_launches_the_rest(played: Played) -> None:
    assert start(played, "1-4", "--max-launches", 2, "--concurrency", 1).code == 1
    assert start(played, "3-4").code == 0


def test_resume_keeps_its_window(played: Played) -> None:
    assert start(played, "1-4").code == 0
    assert start(played, "4-9").code == 2
    resumed = run("resume", "--run", "20260131-090002-start", "--yes")
    assert resumed.code == 2
    assert "1 of these ids was launched within 1h" in resumed.err
    assert "all the same" not in resumed.err


@pytest.mark.parametrize("word", ["0h", "1", "soon"])
def test_window_is_a_time(played: Played, word: str) -> None:
    result = start(played, 1, "--repeat-window", word)
    assert (result.code, played.sandbox.requests) == (2, 0)
    assert "--repeat-window must be a time such as 90s, 15m or 1h, or never" in result.err


def test_window_needs_a_ledger(monkeypatch: pytest.MonkeyPatch, played: Played) -> None:
    monkeypatch.delenv("DISPATCHKIT_LEDGER")
    result = start(played, 1, "--repeat-window", "1h")
    assert (result.code, played.sandbox.requests) == (2, 0)
    assert "--repeat-window needs a ledger" in result.err

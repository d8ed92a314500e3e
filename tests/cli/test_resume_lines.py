"""The line that resumes a run has what the run's host needs, and how its launch began."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.cli.invocation import Invocation
from dispatchkit.cli.views.snapshot import resume_line
from dispatchkit.core.clock import SYSTEM
from tests.cli.conftest import Played, run
from tests.workers.conftest import Field


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ('{"provider":"direct","base_url":"http://provider.test"}', " --insecure"),
        ('{"provider":"direct","base_url":"https://provider.test"}', ""),
        ('{"provider":"direct","base_url":"http://127.0.0.1:1"}', ""),
        ('{"provider":"direct","base_url":"nonsense"}', ""),
        ('{"provider":"direct"}', ""),
        ("{", ""),
    ],
    ids=["plain", "tls", "loopback", "no-url", "no-host", "damaged"],
)
def test_plain_host_needs_insecure(settings: str, needed: str) -> None:
    run: Any = SimpleNamespace(name="r", account=None, profile=None, settings=settings, launch_options=None)
    assert resume_line(LedgerRef("a.db"), run) == f"dispatchkit resume a.db --run r{needed}"


def test_insecure_stands_once() -> None:
    run: Any = SimpleNamespace(
        name="r", account=None, profile=None, settings='{"base_url":"http://provider.test"}', launch_options=None
    )
    typed = Invocation((("insecure", ("--insecure",)),))
    assert resume_line(LedgerRef("a.db", invocation=typed), run) == "dispatchkit resume a.db --run r --insecure"


@pytest.mark.parametrize(
    ("typed", "kept", "expected"),
    [
        ({"not_after": "2026-01-30T21:00Z"}, {}, ""),
        ({"not_after": "2026-02-01T21:00Z"}, {}, " --not-after 2026-02-01T21:00Z"),
        ({"not_after": "14:59", "zone": "Europe/Moscow"}, {}, ""),
        ({"not_after": "15:01", "zone": "Europe/Moscow"}, {}, " --not-after 15:01 --zone Europe/Moscow"),
        (
            {"not_before": "9:00", "not_after": "15:01", "zone": "Europe/Moscow"},
            {},
            " --not-after 15:01 --zone Europe/Moscow",
        ),
        ({}, {"not_after": "2026-01-30T21:00", "zone": "Europe/Moscow"}, ""),
        ({"zone": "Europe/Moscow"}, {"not_after": "14:00"}, ""),
        ({"zone": "Mars/Base"}, {"not_after": "14:00"}, " --zone Mars/Base --not-after 14:00"),
    ],
)
def test_past_hours_are_left_out(
    monkeypatch: pytest.MonkeyPatch, typed: dict[str, str], kept: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(type(SYSTEM), "now", lambda _: datetime(2026, 1, 31, 12, tzinfo=UTC))
    words = {name: [f"--{name.replace('_', '-')}", value] for name, value in {**typed, **kept}.items()}
    invocation = Invocation(tuple((name, tuple(words[name])) for name in typed))
    line = LedgerRef("a.db", invocation=invocation).resume("r", kept=json.dumps({name: words[name] for name in kept}))
    assert line == f"dispatchkit resume a.db --run r{expected}"
    assert kept or invocation.again("--x") == f"dispatchkit{expected} --x"


def test_run_keeps_its_options(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text(played.sandbox.direct_token)
    given = ("--rate", 500, "--concurrency", 2, "--stop-after-failures", 9, "--never-repeat", "--log-file", "run.log")
    more = ("--token-file", "token", "--notify", "true secret", "--ledger", "l.db", "--run", "a", "--max-launches", 1)
    started = run("direct", "start", "1-3", "--yes", "--base-url", played.url, *given, *more)
    at_end = started.out.partition("To resume the run: ")[2].splitlines()[0]
    assert "--log-file run.log --notify 'true secret'" in at_end
    shown = run("ledger", "show", "l.db", "a").out
    line = shown.partition("to resume")[2].splitlines()[0].strip()
    folder = Path.cwd()
    for option in (
        "--rate 500", "--concurrency 2", "--stop-after-failures 9", "--never-repeat",
        f"--log-file {folder / 'run.log'}", f"--token-file {folder / 'token'}",
    ):  # fmt: skip
        assert f" {option}" in line, line
    assert "--max-launches" not in line
    assert "--notify" not in line
    remark = "The run was launched with --notify. A ledger does not keep its command: add it, to be told of the end."
    assert remark in shown
    assert remark in run("ledger", "report", "l.db", "a", "-o", "-").out
    assert "--notify" not in run(*shlex.split(line)[1:], "--yes", "--notify", "true", "--max-launches", 1).err
    resumed = run(*shlex.split(line)[1:], "--yes")
    assert (resumed.code, remark in resumed.err) == (0, True)
    assert played.sandbox.launches == {1: 1, 2: 1, 3: 1}
    facts = json.loads(run("ledger", "show", "l.db", "a", "--json").out)
    assert "secret" not in json.dumps(facts)


@pytest.mark.second_stage
def test_typed_option_stands_once(played: Played, tmp_path: Path) -> None:
    ledger = tmp_path / "l.db"
    line = ("direct", "start", "1-3", "--yes", "--base-url", played.url, "--ledger", ledger, "--run", "a")
    assert run(*line, "--rate", 500, "--max-launches", 1).code == 1
    stopped = run("stop-run", ledger, "a")
    assert re.search(r"To resume it: dispatchkit resume \S+ --run a --rate 500\n", stopped.out), stopped


@pytest.mark.parametrize(
    "kept",
    ["{", "[]", '{"rate":5}', '{"rate":["--notify","rm"]}', '{"yes":["--yes"]}', '{"rate":["--rate","5","--yes"]}'],
)
def test_foreign_options_are_ignored(kept: str) -> None:
    run: Any = SimpleNamespace(name="r", account=None, profile=None, settings="{}", launch_options=kept)
    assert resume_line(LedgerRef("a.db"), run) == "dispatchkit resume a.db --run r"


def test_shared_ledger_keeps_options(field: Field) -> None:
    line = ("direct", "start", "1-3", "--yes", "--base-url", field.sandbox.url, "--rate", 500, "--run", "a")
    assert run(*line, "--max-launches", 1).code == 1
    assert "dispatchkit resume --run a --rate 500\n" in run("ledger", "show", "a").out

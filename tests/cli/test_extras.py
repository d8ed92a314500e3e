"""The command line where only its own extra is installed: everything else is left alone, or named in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = """
import sys

for name in ("asyncpg", "psycopg", "psycopg_pool", "procrastinate", "uvloop", "orjson", "defusedxml"):
    sys.modules[name] = None
from dispatchkit.cli import main

main()
"""


def run_without_extras(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT, *words], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.second_stage
@pytest.mark.parametrize(
    "words",
    [
        ("direct", "start", "1-3", "--sandbox"),
        ("direct", "start", "1-3", "--dry-run"),
        ("altcraft", "launch", "90", "--sandbox"),
        ("ledger", "--help"),
        ("worker", "--help"),
        ("plan", "--help"),
    ],
    ids=" ".join,
)
def test_commands_do_without_extras(words: tuple[str, ...]) -> None:
    done = run_without_extras(*words)
    assert done.returncode == 0, done.stderr


def test_file_ledger_needs_no_extra(tmp_path: Path) -> None:
    where = str(tmp_path / "launch.db")
    assert run_without_extras("ledger", "init", where).returncode == 0
    done = run_without_extras("ledger", "list", where)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.second_stage
@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("ledger", "list", "postgresql://db/x"), "ledger"),
        (("resume", "postgresql://db/x", "--run", "r", "--yes"), "ledger"),
        (("ledger", "init", "postgresql://db/x", "--sql"), "ledger"),
        (("worker", "--ledger", "postgresql://db/x"), "workers"),
        (
            ("plan", "--ledger", "postgresql://db/x", "--run", "r", "direct", "start", "1", "--yes", "--account", "a"),
            "workers",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_missing_extra_is_one_line(words: tuple[str, ...], extra: str) -> None:
    done = run_without_extras(*words, *(["--base-url", "http://127.0.0.1:9"] if "direct" in words else []))
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith(f"pip install 'dispatchkit[{extra}]'\n"), done.stderr


CASES = [
    ("typer", "direct list", "cli"),
    ("rich", "direct list", "cli"),
    ("asyncpg", "ledger list postgresql://u@127.0.0.1:1/x", "ledger"),
    ("asyncpg", "worker --ledger postgresql://u@127.0.0.1:1/x", "workers"),
    ("psycopg", "worker --ledger postgresql://u@127.0.0.1:1/x", "workers"),
    ("procrastinate", "worker --ledger postgresql://u@127.0.0.1:1/x", "workers"),
    ("defusedxml", "altcraft launch 7 --yes --wire xml --base-url http://127.0.0.1:1", "xml"),
]


@pytest.mark.second_stage
@pytest.mark.parametrize(("missing", "line", "extra"), CASES)
def test_missing_package_is_one_line(missing: str, line: str, extra: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from dispatchkit.cli import main; main()"
    environment = {**os.environ, "DISPATCHKIT_DIRECT_TOKEN": "key", "DISPATCHKIT_ALTCRAFT_TOKEN": "key"}
    command = [sys.executable, "-c", code, *line.split()]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended
    assert f"pip install 'dispatchkit[{extra}]'" in ended.stderr


def test_library_names_extra() -> None:
    code = "import sys; sys.modules['asyncpg'] = None; import dispatchkit.workers"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr.splitlines()[-1].endswith("pip install 'dispatchkit[ledger]'")

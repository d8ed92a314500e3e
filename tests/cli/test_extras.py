"""Without an extra, one line says how to install it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CASES = [
    ("typer", "direct list", "cli"),
    ("rich", "direct list", "cli"),
    ("asyncpg", "ledger list postgresql://u@127.0.0.1:1/x", "ledger"),
    ("asyncpg", "worker --ledger postgresql://u@127.0.0.1:1/x", "ledger"),
    ("psycopg", "worker --ledger postgresql://u@127.0.0.1:1/x", "workers"),
    ("procrastinate", "worker --ledger postgresql://u@127.0.0.1:1/x", "workers"),
    ("defusedxml", "altcraft launch 7 --yes --wire xml --base-url http://127.0.0.1:1", "xml"),
]


@pytest.mark.parametrize(("missing", "line", "extra"), CASES)
def test_a_missing_extra_is_one_line(missing: str, line: str, extra: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from dispatchkit.cli import main; main()"
    environment = {**os.environ, "DISPATCHKIT_DIRECT_TOKEN": "key", "DISPATCHKIT_ALTCRAFT_TOKEN": "key"}
    command = [sys.executable, "-c", code, *line.split()]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended
    assert f"pip install 'dispatchkit[{extra}]'" in ended.stderr


def test_the_library_names_the_extra_too() -> None:
    code = "import sys; sys.modules['asyncpg'] = None; import dispatchkit.workers"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr.splitlines()[-1].endswith("pip install 'dispatchkit[ledger]'")

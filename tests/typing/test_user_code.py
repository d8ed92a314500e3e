"""What mypy and pyright, as `pyproject.toml` configures them (strict), say about a user's code."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).with_name("user_code.py")
ROOT = CODE.parents[2]
EXPECTED = {number for number, line in enumerate(CODE.read_text().splitlines(), 1) if line.endswith("# error")}

pytestmark = [pytest.mark.second_stage, pytest.mark.timeout(300)]


def check(module: str, *arguments: str) -> str:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: it comes with the extra 'lint'")
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False).stdout


def test_mypy_sees_the_expected_errors(tmp_path: Path) -> None:
    output = check("mypy", "--strict", "--config-file", "pyproject.toml", "--cache-dir", str(tmp_path), str(CODE))
    found = {(match[1], int(match[2])) for match in re.finditer(r"^(\S+):(\d+): error: ", output, re.MULTILINE)}
    assert found == {(str(CODE.relative_to(ROOT)), number) for number in EXPECTED}, output


def test_pyright_sees_the_expected_errors() -> None:
    output = check("pyright", "--outputjson", "--pythonpath", sys.executable, str(CODE))
    diagnostics = json.loads(output)["generalDiagnostics"]
    found = {each["range"]["start"]["line"] + 1 for each in diagnostics if each["severity"] == "error"}
    assert found == EXPECTED, diagnostics


def test_example_provider_is_strictly_typed() -> None:
    example = ROOT / "tests/providers/example_provider.py"
    output = check("pyright", "--outputjson", "--pythonpath", sys.executable, str(example))
    assert json.loads(output)["generalDiagnostics"] == []


def test_expected_errors_are_marked() -> None:
    assert len(EXPECTED) > 10

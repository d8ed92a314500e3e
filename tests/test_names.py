"""Test names have two to five words: they name a behaviour."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def badly_named(source: str) -> list[str]:
    """Return the test functions and methods of a file whose names, without ``test_``, have one word or six."""
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    names = (node.name for node in nodes if node.name.startswith("test_"))
    return [name for name in names if not 2 <= len(name.removeprefix("test_").split("_")) <= 5]


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.relative_to(TESTS).as_posix())
def test_names_are_short(path: Path) -> None:
    assert badly_named(path.read_text(encoding="utf-8")) == []


def test_long_names_are_found() -> None:
    source = "class TestIt:\n    async def test_one_two_three_four_five_six(self): ...\ndef test_one(): ..."
    assert badly_named(source) == ["test_one", "test_one_two_three_four_five_six"]
    assert badly_named("def test_one_two_three_four_five(): ...\ndef six_words_of_what_is_none(): ...") == []

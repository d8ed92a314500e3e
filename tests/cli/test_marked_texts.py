"""Every text of the command line is marked for translation: what the source shows without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

import dispatchkit.cli
from dispatchkit.ledger.chunk import Holder
from dispatchkit.ledger.run import Counts
from dispatchkit.ledger.run_snapshot import RunSnapshot, RunStop, nothing_to_stop
from tests.cli.translations import extracted

FOLDER = Path(dispatchkit.cli.__file__).parent

MARKS = {"_", "N_", "counted", "ngettext"}

NO_TEXTS = {"cast", "compile", "debug", "log", "_log", "sub", "TypeVar"}
"""Functions whose strings no user sees: patterns, types, and the log, which is in English."""

OUTPUTS = {
    "ImportError", "TypeError", "ValueError", "Table", "Text", "TextColumn", "UnusableFileError", "add_column",
    "add_row", "ask", "confirm", "echo", "fail", "gave_up", "note", "section", "tell", "write",
}  # fmt: skip
"""Functions that show each string they are called with."""

TEXT_KEYWORDS = {"epilog", "help"}

LAYOUT = {"justify", "overflow", "style"}
"""Arguments of Rich that no user reads."""

DATA = {
    "option_names.py": ("",),  # it searches and replaces words of the library, whose messages are in English
    "output/bar.py": ("bold ", "ellipsis", "{task."),
    "output/failures.py": ("it was left in flight",),  # a value, which JSON and CSV have too
    "output/progress.py": ("bold ",),
    "output/report_file.py": ("<!doctype html>",),
    "providers/sandbox.py": ("\n\nexport DISPATCHKIT_",),
    "run/init_ledger.py": ("-- ",),  # comments in SQL
    "views/report_html.py": (":root", "{}\n<head>", "<"),
}
"""The starts of strings that are no texts, by file."""

WORDS = re.compile(r"[A-Za-z]*[a-z]{2,}[,.:;]? [a-z]{2,}|[A-Za-z][a-z]+ [A-Za-z][a-z]+")
"""Words of a sentence. A name, an option or a key has none."""

WORD = re.compile("[a-z]{2,}")


def unmarked_in(source: str) -> Iterator[tuple[int, str]]:
    """The strings that look like a text and are not marked, by line."""
    tree = ast.parse(source)
    documented = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    yield from _unmarked(tree, documented, shown=False)


def _unmarked(node: ast.AST, documented: set[int], *, shown: bool) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in NO_TEXTS:
            return
        children: list[ast.AST] = [*node.args, *(each for each in node.keywords if each.arg not in LAYOUT), node.func]
        if name in MARKS:
            children = [child for child in node.args if not isinstance(child, ast.Constant)]
        for child in children:
            is_text = isinstance(child, ast.keyword) and child.arg in TEXT_KEYWORDS
            yield from _unmarked(child, documented, shown=is_text or (name in OUTPUTS and child is not node.func))
        return
    if isinstance(node, ast.Constant | ast.JoinedStr):
        text = _literal(node)
        wanted = WORD if shown else WORDS
        if id(node) not in documented and wanted.search(text.replace("dispatchkit", "")):
            yield node.lineno, text
        parts = [part for part in getattr(node, "values", []) if isinstance(part, ast.FormattedValue)]
        for part in parts:
            yield from _unmarked(part.value, documented, shown=shown)
        return
    inside = shown and isinstance(node, ast.IfExp | ast.BinOp | ast.Tuple | ast.Starred | ast.BoolOp | ast.keyword)
    for child in ast.iter_child_nodes(node):
        yield from _unmarked(child, documented, shown=inside)


def _literal(node: ast.Constant | ast.JoinedStr) -> str:
    parts: Sequence[ast.expr] = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(
        part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "{}" for part in parts
    )


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.py")), ids=lambda file: str(file.relative_to(FOLDER)))
def test_texts_are_marked(file: Path) -> None:
    name = file.relative_to(FOLDER).as_posix()
    found = unmarked_in(file.read_text("utf-8"))
    assert [(line, text) for line, text in found if not text.startswith(DATA.get(name, ("no data",)))] == []


def marks_in_f_strings(source: str) -> Iterator[int]:
    """The lines of marked texts that stand in an f-string, also with an f-string inside."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            calls = [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]
            marks = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in MARKS]
            yield from (mark.lineno for mark in marks if any(_is_text(each) for each in mark.args))


def _is_text(argument: ast.expr) -> bool:
    inner = ast.walk(argument)
    return isinstance(argument, ast.Constant) or any(isinstance(each, ast.JoinedStr) for each in inner)


def test_f_strings_hold_no_marks() -> None:
    """``pybabel extract`` does not look into them before Python 3.12, and warns of inner f-strings from there on."""
    found = {file.name: [*marks_in_f_strings(file.read_text("utf-8"))] for file in FOLDER.rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}


def functions_with_two_meanings(source: str) -> Iterator[str]:
    """The functions that mark a text, and also bind the name of the mark."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [inner for inner in ast.walk(node) if isinstance(inner, ast.Name) and inner.id == "_"]
            if len({type(name.ctx) for name in names}) > 1:
                yield node.name


def test_marks_have_one_meaning() -> None:
    """Python 3.12.0 to 3.12.3 take the mark for the unbound variable of another comprehension."""
    found = {file.name: [*functions_with_two_meanings(file.read_text("utf-8"))] for file in FOLDER.rglob("*.py")}
    assert {name: functions for name, functions in found.items() if functions} == {}


def test_words_of_stop_are_marked() -> None:
    """They stand in a module of the library, since the control room shows them in English."""
    run: Any = SimpleNamespace(name="friday")
    snapshot = RunSnapshot(run, Counts(sending=2), [Holder("t", 1, "host")])
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    held, free = (RunStop(attrs.evolve(snapshot, holders=each), at) for each in (snapshot.holders, ()))

    def mark(text: str) -> str:
        return f"[{text}]"

    def mark_plural(singular: str, plural: str, count: int) -> str:
        return mark(singular if count == 1 else plural)

    told = [
        held.accepted(mark, mark_plural),
        free.accepted(mark, mark_plural),
        held.interrupted(mark),
        held.confirmed(mark),
        nothing_to_stop("friday", mark),
    ]
    assert [(text[0], text[-1]) for text in told] == [("[", "]")] * 5
    assert told[0] == "[Run 'friday' is stopped (2 calls in flight). Waiting until 12:00:00 UTC.]"
    assert sum(file == "ledger/run_snapshot.py" for file in extracted().values()) == 5

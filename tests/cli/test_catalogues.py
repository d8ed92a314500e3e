"""The catalogues: extraction finds all texts, and each translation fits its text."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from dispatchkit.built_in import altcraft, direct
from dispatchkit.cli.translate import fits
from dispatchkit.core.fanout.check import Objection
from dispatchkit.core.fanout.polling import WatchEnd
from dispatchkit.errors import State
from tests.cli.test_marked_texts import MARKS
from tests.cli.translations import FOLDER, Message

ROOT = Path(__file__).parents[2]
DOC = ROOT / ".github/docs/translating.md"
CATALOGUES = sorted((FOLDER / "locale").glob("*/LC_MESSAGES/dispatchkit.po"))


def marked() -> Iterator[Message]:
    """The texts that the source marks."""
    for file in (*FOLDER.rglob("*.py"), FOLDER.parent / "ledger/run_snapshot.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MARKS:
                texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
                if texts and isinstance(texts[0], str):
                    yield texts[0] if len(texts) == 1 else (texts[0], str(texts[1]))


def first_of(message: Message | list[str]) -> str:
    """The text, or the singular of a text with a plural."""
    return message if isinstance(message, str) else message[0]


def problems(catalog: Catalog) -> Iterator[str]:
    """What is wrong with the entries of a catalogue."""
    for entry in catalog:
        if entry.id:
            texts = (entry.id,) if isinstance(entry.id, str) else entry.id
            for translated in (entry.string,) if isinstance(entry.string, str) else entry.string or ("",):
                if not translated or entry.fuzzy:
                    yield f"{texts[0]!r} has no translation"
                elif not fits(translated, *texts):
                    yield f"{texts[0]!r}: placeholders differ in {translated!r}"
                elif _ends(translated) != _ends(texts[0]):
                    yield f"{texts[0]!r}: spaces or lines differ in {translated!r}"


def _ends(text: str) -> tuple[bool, bool, int]:
    return text.startswith(" "), text.endswith(" "), text.count("\n\n")


def read(file: Path) -> Catalog:
    return read_po(io.BytesIO(file.read_bytes()), domain="dispatchkit")


@pytest.mark.second_stage
def test_extraction_finds_marked_texts(tmp_path: Path) -> None:
    [line] = re.findall("pybabel extract (.*)", DOC.read_text("utf-8"))
    template = tmp_path / "dispatchkit.pot"
    words = line.replace("dispatchkit.pot", str(template)).split()
    command = [sys.executable, "-W", "error", "-m", "babel.messages.frontend", "-q", "extract", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    found = {first_of(entry.id) for entry in read(template) if entry.id}
    assert found == {*map(first_of, marked())}
    assert len(found) > 500


def test_texts_can_be_formatted() -> None:
    for message in marked():
        assert fits(message, message) if isinstance(message, str) else fits(message[0], *message), message
        for text in (message,) if isinstance(message, str) else message:
            assert "{}" not in text, "a placeholder needs a name"


def test_texts_of_library_are_marked() -> None:
    texts = {first_of(message) for message in marked()}
    for provider in (altcraft.PROVIDER, direct.PROVIDER):
        assert {provider.help, provider.noun[0]} <= texts
        assert provider.noun in {*marked()}
    assert {each.text for each in (*WatchEnd, *Objection)} <= texts
    assert {each.value.replace("_", " ") for each in State} <= texts


def test_problems_of_catalogue_are_found() -> None:
    catalog = Catalog(locale="ru")
    catalog.add("Run {name}", "Запуск {other}")
    catalog.add(("{count} id", "{count} ids"), ("{count} номер", "{count} номера", "номеров"))
    catalog.add(" and ", "и")
    catalog.add("Stop")
    assert [problem.partition(": ")[0] for problem in problems(catalog)] == [
        "'Run {name}'",
        "'{count} id'",
        "' and '",
        "'Stop' has no translation",
    ]


def test_catalogues_are_whole() -> None:
    texts = {first_of(message) for message in marked()}
    for file in CATALOGUES:
        catalog = read(file)
        assert [*problems(catalog)] == [], file
        assert {first_of(entry.id) for entry in catalog if entry.id} == texts, f"{file}: update it"
        compiled = io.BytesIO()
        write_mo(compiled, catalog)
        assert file.with_suffix(".mo").read_bytes() == compiled.getvalue(), f"{file}: compile it again"

"""Catalogues for tests: one that puts each text into brackets, and any other, as a compiled file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.mofile import write_mo

import dispatchkit.cli
from dispatchkit.direct.commands import STATUSES

FOLDER = Path(dispatchkit.cli.__file__).parent

KEYWORDS = DEFAULT_KEYWORDS | {"counted": (2, 3)}
"""What ``pybabel extract`` looks for, as .github/docs/translating.md has it."""

LIBRARY = (
    re.compile(r"https?://\S+"),
    re.compile(r"^dispatchkit: ", re.MULTILINE),
    re.compile(r"\bdispatchkit [a-z].*"),  # a line to type
    re.compile(r"^[\d,]+ \w+Error: .*$", re.MULTILINE),  # why calls failed, and what to do
    re.compile(rf"\b({'|'.join(sorted(STATUSES))})\b"),
)
"""What the library and the providers say."""

Message = str | tuple[str, ...]


@cache
def extracted() -> Mapping[Message, str]:
    """The texts of the command line, and the file of each. A text with a plural is a pair."""
    with (FOLDER.parents[1] / "pyproject.toml").open("rb") as file:
        mappings = tomllib.load(file)["tool"]["babel"]["mappings"]
    methods = [(each["pattern"].removeprefix("dispatchkit/"), each["method"]) for each in mappings]
    found = extract_from_dir(FOLDER.parent, method_map=methods, keywords=KEYWORDS)
    return {message: file for file, _line, message, _comments, _context in found}


def bracketed() -> Catalog:
    """A translation into English whose texts stand in brackets."""
    return _translated(_in_brackets)


def marked_up() -> Catalog:
    """A translation into English whose texts end with Rich's markup, for a style that nothing began."""
    return _translated(lambda text: f"{text}[/b]")


def _translated(translate: Callable[[str], str]) -> Catalog:
    catalog = Catalog(locale="de", domain="dispatchkit", fuzzy=False)
    for message in extracted():
        forms = (message,) if isinstance(message, str) else message
        translated = tuple(map(translate, forms))
        catalog.add(message, translated[0] if isinstance(message, str) else translated)
    return catalog


def _in_brackets(text: str) -> str:
    """Each paragraph in brackets of its own, since a list of commands shows only the first."""
    return "\n".join(f"\u27e6{line}\u27e7" if line else "" for line in text.split("\n"))


def outside_brackets(text: str) -> str:
    """The text without what stands in brackets. A bracket may hold others: texts that fill a text."""
    before = ""
    while before != text:
        before, text = text, re.sub("\u27e6[^\u27e6\u27e7]*\u27e7", "", text)
    return text


def words_outside(text: str, data: Iterable[str] = ()) -> Iterator[str]:
    """The words that stand in no bracket and are no data."""
    left = outside_brackets(text)
    for library in LIBRARY:
        left = library.sub("", left)
    for each in sorted(data, key=len, reverse=True):
        left = left.replace(each, "")
    yield from re.findall(r"[^\s]*[a-z]{3,}[^\s]*", left)


def compiled(catalog: Catalog, folder: Path) -> Path:
    """Write a catalogue where the command line looks for it. Returns the folder of all languages."""
    file = folder / str(catalog.locale) / "LC_MESSAGES" / "dispatchkit.mo"
    file.parent.mkdir(parents=True)
    with file.open("wb") as stream:
        write_mo(stream, catalog)
    return folder

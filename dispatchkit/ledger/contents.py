"""Contents: the long fields of commands, such as attached files. A ledger stores each of them once a run.

The text of a command has the hash of a content in its place, at the end:

    {"type":"altcraft.activate","version":1,"mailing_id":7,"shared":{"attachments":"5a0c..."}}

The hash ignores the order of keys, as the key of a command does. So the first of two such contents of a run is stored.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Self, cast

from dispatchkit.errors import LedgerError
from dispatchkit.ledger.long_json import LONG, hash_json

__all__ = ["FIELD", "MIN_LENGTH", "CommandText", "ContentCache", "hash_of", "new_contents", "unique_length"]

FIELD = "shared"
"""The field of a text that has the hashes of its contents, by the names of their fields."""
MIN_LENGTH = 256
"""Characters from which on a field is stored as a content. A hash takes about 60."""
_MARK = f',"{FIELD}":{{"'
"""No JSON string has it, since its quotes would be escaped. See `_hashes` for a field of a field."""
_DIGITS = 40

_write_sorted = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode


def hash_of(text: str) -> str:
    """The hash of a content, whatever the order of its keys."""
    return hash_json(text, _sort)[:_DIGITS]


def _sort(text: str) -> str:
    return _write_sorted(json.loads(text))


class CommandText(str):
    """The text of a command with contents, and what is known of them by hash."""

    __slots__ = ("contents", "is_large")
    contents: Mapping[str, str]
    is_large: bool
    """Whether a thread should read its contents."""

    def __new__(cls, text: str, contents: Mapping[str, str], *, is_large: bool = False) -> Self:
        """A text with its contents."""
        self = super().__new__(cls, text)
        self.contents = contents
        self.is_large = is_large
        return self

    def __reduce__(self) -> tuple[type[CommandText], tuple[str, Mapping[str, str]]]:
        return CommandText, (str(self), {name: self.contents[name] for name in _hashes(self) if name in self.contents})

    @property
    def is_complete(self) -> bool:
        """Whether all its contents are known."""
        return self.contents.keys() >= set(_hashes(self))


def new_contents(text: str, known: Mapping[str, str]) -> Mapping[str, str]:
    """The contents of an encoded command that are not known."""
    if not isinstance(text, CommandText) or text.contents.keys() <= known.keys():
        return {}
    return {name: content for name, content in text.contents.items() if name not in known}


def unique_length(texts: Iterable[str]) -> int:
    """The characters of the contents that only one of the texts has."""
    long = [text for text in texts if isinstance(text, CommandText)]
    count = Counter(name for text in long for name in _hashes(text)) if len(long) > 1 else Counter[str]()
    return sum(len(text.contents.get(name, "")) for text in long for name in _hashes(text) if count[name] == 1)


def _hashes(text: str) -> Collection[str]:
    start = text.rfind(_MARK)
    if start < 0 or not text.endswith('"}}'):
        return ()
    try:
        # A field of a field has one more brace behind it.
        return cast("dict[str, str]", json.loads(text[start + len(_MARK) - 2 : -1])).values()
    except ValueError:
        return ()


class ContentCache:
    """The contents of the commands that were read last."""

    def __init__(self) -> None:
        self._runs: dict[int, dict[str, str]] = {}

    async def attach(
        self, run: int, texts: Sequence[str], read: Callable[[int, Sequence[str]], Awaitable[Iterable[tuple[str, str]]]]
    ) -> Sequence[str]:
        """The texts with their contents. Texts without contents cost one search each.

        Args:
            run: The number of the run.
            texts: The texts of commands, as they are stored.
            read: Reads contents of a run by their hashes. Those that are missing are left out.

        Raises:
            LedgerError: A content is damaged, or cannot be read.
        """
        wanted = {name for text in texts if _MARK in text for name in _hashes(text)}
        if not wanted:
            return texts
        known = self._runs.get(run, {})
        contents = {name: known[name] for name in wanted if name in known}
        missing = sorted(wanted - known.keys())
        for name, text in await read(run, missing) if missing else ():
            is_intact = _is_intact(name, text) if len(text) < LONG else await asyncio.to_thread(_is_intact, name, text)
            if not is_intact:
                raise LedgerError("a content of the ledger is not what was planned. The ledger is damaged: restore it")
            contents[name] = text
        self._runs = {run: contents}  # those of the next page are mostly the same
        large = {name for name, content in contents.items() if len(content) >= LONG}
        return [
            CommandText(text, contents, is_large=bool(large) and not large.isdisjoint(_hashes(text)))
            if _MARK in text
            else text
            for text in texts
        ]


def _is_intact(name: str, text: str) -> bool:
    try:
        return hash_of(text) == name
    except (ValueError, RecursionError):
        return False

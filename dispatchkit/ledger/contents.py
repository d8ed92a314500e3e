"""Contents: the long fields of commands. A ledger stores each of them once a run, in pieces.

The text of a command has the hash of a content in its place, at the end:

    {"type":"altcraft.activate","version":1,"mailing_id":7,"shared":{"attachments":"5a0c...",":0":"91be..."}}

The hash ignores the order of keys, as the key of a command does. So the first of two such contents of a run is stored.
A name with a colon stands for a file (`files`), which the JSON of a content refers to by its hash. A page of commands
is read without its files: each is read when its command is launched.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Self, TypeAlias, cast

from dispatchkit.errors import LedgerError
from dispatchkit.ledger.files import DIGITS, File, find, of_pieces

__all__ = [
    "FIELD",
    "LONG",
    "MIN_LENGTH",
    "CommandText",
    "Content",
    "ContentCache",
    "file_key",
    "files_of",
    "hash_of",
    "is_file_key",
    "load_files",
    "needs_contents",
    "new_contents",
    "sorted_json",
    "unique_length",
]

Content: TypeAlias = str | File
"""A content: the JSON of a field, or a file."""

FIELD = "shared"
"""The field of a text that has the hashes of its contents, by the names of their fields."""
MIN_LENGTH = 256
"""Characters from which on a field is stored as a content. A hash takes about 60."""
LONG = 256 * 1024
"""Characters from which on a thread reads a JSON. Shorter ones take less than a few milliseconds."""
_MARK = f',"{FIELD}":{{"'
"""No JSON string has it, since its quotes would be escaped. See `_hashes` for a field of a field."""

_write_sorted = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode


def hash_of(text: str) -> str:
    """The hash of the JSON of a content, whatever the order of its keys."""
    return sha256(sorted_json(text).encode()).hexdigest()[:DIGITS]


def sorted_json(text: str) -> str:
    """A JSON with the keys of its objects in order.

    Raises:
        ValueError: The text is no JSON.
        RecursionError: It is nested too deeply.
    """
    return _write_sorted(json.loads(text))


def file_key(number: int) -> str:
    """What stands for the name of a field where the hash is that of a file."""
    return f":{number}"


def is_file_key(name: str) -> bool:
    """Whether a hash is that of a file."""
    return name.startswith(":")


class CommandText(str):
    """The text of a command with contents, and what is known of them by hash."""

    __slots__ = ("contents", "is_large")
    contents: Mapping[str, Content]
    is_large: bool
    """Whether a thread should read its contents."""

    def __new__(cls, text: str, contents: Mapping[str, Content], *, is_large: bool = False) -> Self:
        """A text with its contents."""
        self = super().__new__(cls, text)
        self.contents = contents
        self.is_large = is_large
        return self

    def __reduce__(self) -> tuple[type[CommandText], tuple[str, Mapping[str, Content]]]:
        known = {name: self.contents[name] for name in _hashes(self).values() if name in self.contents}
        return CommandText, (str(self), known)

    @property
    def is_complete(self) -> bool:
        """Whether all its contents are known. Its files need not be."""
        return self.contents.keys() >= {name for key, name in _hashes(self).items() if not is_file_key(key)}


def new_contents(text: str, known: Mapping[str, Content]) -> Mapping[str, Content]:
    """The contents of an encoded command that are not known."""
    if not isinstance(text, CommandText) or text.contents.keys() <= known.keys():
        return {}
    return {name: content for name, content in text.contents.items() if name not in known}


def unique_length(texts: Iterable[str]) -> int:
    """The characters of the contents that only one of the texts has."""
    long = [text for text in texts if isinstance(text, CommandText)]
    names = [_hashes(text).values() for text in long]
    count = Counter(name for some in names for name in some) if len(long) > 1 else Counter[str]()
    return sum(
        len(text.contents.get(name, ""))
        for text, some in zip(long, names, strict=True)
        for name in some
        if count[name] == 1
    )


def _hashes(text: str) -> Mapping[str, str]:
    start = text.rfind(_MARK)
    if start < 0 or not text.endswith('"}}'):
        return {}
    try:
        # A field of a field has one more brace behind it.
        return cast("dict[str, str]", json.loads(text[start + len(_MARK) - 2 : -1]))
    except ValueError:
        return {}


def _file_names(text: str) -> list[str]:
    return [name for key, name in _hashes(text).items() if is_file_key(key)] if _MARK in text else []


def needs_contents(text: str) -> bool:
    """Whether a text is whole only with contents or files of the ledger."""
    return _MARK in text and bool(_hashes(text))


def files_of(text: str) -> dict[str, File] | None:
    """The files of a text by hash; None if `load_files` must read one."""
    contents: Mapping[str, Content] = text.contents if isinstance(text, CommandText) else {}
    files: dict[str, File] = {}
    for name in _file_names(text):
        file = contents.get(name) or find(name)
        if not isinstance(file, File):
            return None
        files[name] = file
    return files


async def load_files(text: str, read: Callable[[str], Awaitable[Sequence[bytes]]]) -> str | None:
    """A text with its files. None if a file is missing or damaged.

    Args:
        text: The text of a command, as a store returns it.
        read: Reads the pieces of a file by its hash, in order.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    files: dict[str, File] = {}
    for name in _file_names(text):
        file = find(name) or await asyncio.to_thread(of_pieces, name, await read(name))
        if file is None:
            return None
        files[name] = file
    known: Mapping[str, Content] = text.contents if isinstance(text, CommandText) else {}
    return CommandText(text, {**known, **files}, is_large=isinstance(text, CommandText) and text.is_large)


class ContentCache:
    """The contents of the commands that were read last."""

    def __init__(self) -> None:
        self._runs: dict[int, dict[str, str]] = {}

    async def attach(
        self,
        run: int,
        texts: Sequence[str],
        read: Callable[[int, Sequence[str]], Awaitable[Iterable[tuple[str, bytes]]]],
    ) -> Sequence[str]:
        """The texts with their contents, but for files. Texts without contents cost one search each.

        Args:
            run: The number of the run.
            texts: The texts of commands, as they are stored.
            read: Reads contents of a run by their hashes. Those that are missing are left out.

        Raises:
            LedgerError: A content is damaged, or cannot be read.
        """
        wanted = {
            name for text in texts if _MARK in text for key, name in _hashes(text).items() if not is_file_key(key)
        }
        if not wanted:
            return texts
        known = self._runs.get(run, {})
        contents = {name: known[name] for name in wanted if name in known}
        missing = sorted(wanted - known.keys())
        for name, data in await read(run, missing) if missing else ():
            text = _intact(name, data) if len(data) < LONG else await asyncio.to_thread(_intact, name, data)
            if text is None:
                raise LedgerError("a content of the ledger is not what was planned. The ledger is damaged: restore it")
            contents[name] = text
        self._runs = {run: contents}  # those of the next page are mostly the same
        large = {name for name, content in contents.items() if len(content) >= LONG}
        return [
            CommandText(text, contents, is_large=bool(large) and not large.isdisjoint(_hashes(text).values()))
            if _MARK in text
            else text
            for text in texts
        ]


def _intact(name: str, data: bytes) -> str | None:
    """The JSON of a content; None if it is not the one with this hash."""
    try:
        text = data.decode()
        return text if hash_of(text) == name else None
    except (ValueError, RecursionError):
        return None

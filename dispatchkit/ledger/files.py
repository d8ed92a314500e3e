"""Files of commands: the large values of bytes, which a ledger stores as they are, in pieces, by their hash.

One value of 70 MiB would block the event loop: a driver copies it while it holds the interpreter. So no row and no
parameter is longer than `PIECE_BYTES`. A thread hashes a file, and that does not hold the interpreter.

The files of commands that exist are known by their hash. So equal files are read and hashed once, and share memory.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from operator import itemgetter

import attrs

__all__ = [
    "DIGITS",
    "FILE_BYTES",
    "PIECE_BYTES",
    "File",
    "batches",
    "file_of",
    "find",
    "joined",
    "keep",
    "known_file",
    "of_pieces",
    "pieces",
]

DIGITS = 40
"""Hexadecimal digits of a hash: 160 bits."""
FILE_BYTES = 64 * 1024
"""Bytes from which on a value is a file. Shorter ones stand in the JSON of their field, in Base64."""
PIECE_BYTES = 1024 * 1024
"""Maximum bytes of a stored piece. A driver copies it in less than a millisecond."""


@attrs.define(eq=False)
class File:
    """A large value of bytes."""

    name: str
    """Its hash."""
    data: bytes = attrs.field(repr=False)

    def __len__(self) -> int:
        return len(self.data)


_by_name: weakref.WeakValueDictionary[str, File] = weakref.WeakValueDictionary()
_by_id: weakref.WeakValueDictionary[int, File] = weakref.WeakValueDictionary()


def find(name: str) -> File | None:
    """The file with this hash, if a command of this process has it."""
    return _by_name.get(name)


def known_file(data: bytes) -> File | None:
    """The file of a value that was hashed before."""
    file = _by_id.get(id(data))
    return file if file is not None and file.data is data else None


def file_of(data: bytes) -> File:
    """The file of a value. A thread should call it: the hash of 70 MiB takes a tenth of a second or more."""
    return known_file(data) or _known(File(sha256(data).hexdigest()[:DIGITS], data))


def of_pieces(name: str, parts: Sequence[bytes]) -> File | None:
    """The file of its pieces; None if one is missing, damaged or in the wrong place. See `file_of`."""
    data = b"".join(parts)
    return _known(File(name, data)) if sha256(data).hexdigest()[:DIGITS] == name else None


def _known(file: File) -> File:
    _by_id[id(file.data)] = file  # the id stays that of the data, which the file keeps
    _by_name[file.name] = file
    return file


def keep(owner: object, files: Iterable[File]) -> None:
    """Keep files known for as long as their command exists."""
    for file in files:
        with contextlib.suppress(TypeError):  # a class of another package may allow no weak references
            weakref.finalize(owner, _forget, file).atexit = False


def _forget(_: File) -> None:
    """Nothing: the end of the finalizer ends the last reference to the file."""


def pieces(content: str | File) -> Iterator[memoryview]:
    """The bytes of a content, in pieces. One without bytes has one empty piece."""
    view = memoryview(content.data if isinstance(content, File) else content.encode())
    for start in range(0, max(len(view), 1), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]


def batches(contents: Mapping[str, str | File]) -> Iterator[list[tuple[str, int, bytes]]]:
    """The pieces of contents as rows of hash, number and piece, in batches of at most `PIECE_BYTES` bytes."""
    batch: list[tuple[str, int, bytes]] = []
    size = 0
    for name, content in contents.items():
        for number, piece in enumerate(pieces(content)):
            if batch and size + len(piece) > PIECE_BYTES:
                yield batch
                batch, size = [], 0
            batch.append((name, number, bytes(piece)))
            size += len(piece)
    if batch:
        yield batch


def joined(rows: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The contents of rows of hash and piece, which are sorted by hash and number."""
    return [(name, b"".join([piece for _, piece in group])) for name, group in groupby(rows, itemgetter(0))]

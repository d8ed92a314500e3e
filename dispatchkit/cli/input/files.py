"""Open what ``--from`` names, and tell text and workbooks from what is neither, by the first bytes."""

from __future__ import annotations

import gzip
import os
import stat
import sys
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Protocol

__all__ = ["Bytes", "is_workbook", "open_bytes", "read_workbook"]

_HEAD = 1 << 16
_MAX_WORKBOOK = 256 << 20
"""Bytes of a workbook. It is read as a whole: its directory stands at its end."""
_MAX_UNPACKED = 1 << 30
"""Bytes of all parts of a workbook together."""

_ZIP = b"PK\x03\x04"
_GZIP = b"\x1f\x8b"
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF", "a PDF", "copy the ids into a text file or a spreadsheet"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file (.xls, .doc)", "save it as .xlsx or CSV in Excel"),
    (b"PK\x05\x06", "an empty ZIP archive", "name the file that holds the ids"),
    (b"Rar!", "a RAR archive", "unpack it, and name the file in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it, and name the file in it"),
    (b"BZh", "a bzip2 archive", "unpack it with bunzip2"),
    (b"\xfd7zXZ\x00", "an xz archive", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it with unzstd"),
    (b"SQLite format 3\x00", "an SQLite database", "write the targets of a ledger to a CSV with 'ledger export' first"),
    (b"{\\rtf", "a rich text document", "save it as plain text"),
    (b"\x89PNG", "a picture", "name the file that holds the ids"),
    (b"\xff\xd8\xff", "a picture", "name the file that holds the ids"),
    (b"GIF8", "a picture", "name the file that holds the ids"),
    (b"\x7fELF", "a program", "name the file that holds the ids"),
)
_ZIPPED: tuple[tuple[str, str, str], ...] = (
    ("xl/workbook.bin", "a binary Excel workbook (.xlsb)", "save it as .xlsx or CSV in Excel"),
    ("word/", "a Word document (.docx)", "copy the ids into a text file or a spreadsheet"),
    ("ppt/", "a PowerPoint presentation (.pptx)", "copy the ids into a text file or a spreadsheet"),
    ("content.xml", "an OpenDocument file (.ods, .odt)", "save it as .xlsx or CSV"),
    ("Index/", "an Apple iWork file", "export it as .xlsx or CSV"),
)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


class Bytes:
    """A stream of bytes whose first ones can be looked at before they are read.

    Args:
        stream: Where they come from.
        name: What messages call it.
    """

    def __init__(self, stream: _Readable, name: str) -> None:
        self._stream = stream
        self.name = name
        self.head = self._more(_HEAD)
        """The first bytes: all of them if the stream is short."""
        self._rest = self.head

    def read(self, size: int) -> bytes:
        """At most so many bytes; empty at the end.

        Raises:
            ValueError: It is a damaged gzip file, or gives no bytes although it is not at its end.
        """
        if self._rest:
            data, self._rest = self._rest[:size], self._rest[size:]
            return data
        return self._more(size)

    def _more(self, size: int) -> bytes:
        data: bytes | None = self._stream.read(size)
        if data is None:  # what follows may come at any time, so this is not the end
            raise ValueError(f"{self.name} does not block, so its end cannot be told: write it to a file first")
        return data


class _Gunzipped:
    """The content of a gzip file, unpacked as it is read."""

    def __init__(self, packed: Bytes) -> None:
        self._name = packed.name
        # It only reads; typeshed asks for a seekable file.
        self._file = gzip.GzipFile(fileobj=packed)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]

    def read(self, size: int) -> bytes:
        try:
            data: bytes = self._file.read(size)
        except EOFError:
            raise ValueError(f"{self._name} ends too early: the download was cut short, so get it again") from None
        except (gzip.BadGzipFile, zlib.error):
            raise ValueError(f"{self._name} is a damaged gzip file: get it again") from None
        return data


@contextmanager
def open_bytes(path: str) -> Generator[Bytes]:
    """Open a file, a pipe, or standard input for ``-``. A gzip file is unpacked.

    Raises:
        ValueError: It is a folder or a device, or neither text nor a workbook.
        OSError: It cannot be read.
    """
    if path == "-":
        yield _known(Bytes(sys.stdin.buffer, "standard input"))
        return
    _check_kind(path)
    with Path(path).open("rb") as stream:
        yield _known(Bytes(stream, path))


def _check_kind(path: str) -> None:
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path}: Is a directory: name a file in it")
    # A terminal is as good as standard input. Other devices may have no end.
    if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not _is_terminal(path)):
        raise ValueError(f"{path} is a device, not a file: name a file, or - for standard input")


def _is_terminal(path: str) -> bool:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        return os.isatty(descriptor)
    finally:
        os.close(descriptor)


def _known(source: Bytes, *, packed: bool = False) -> Bytes:
    head = source.head
    for magic, what, remedy in _KINDS:
        if head.startswith(magic):
            raise ValueError(f"{source.name} is {what}, not a list of ids: {remedy}")
    if head.startswith(_GZIP):
        if packed:
            raise ValueError(f"{source.name} is packed twice: unpack it with gunzip")
        return _known(Bytes(_Gunzipped(source), source.name), packed=True)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:5].lower() in {b"<html", b"<!doc", b"<?xml", b"<tabl"}:
        raise ValueError(
            f"{source.name} is a web page or XML, not a list of ids: save it as .xlsx or CSV. A download that needs a "
            "login often is such a page"
        )
    return source


def is_workbook(source: Bytes) -> bool:
    """Whether it is a ZIP archive, such as .xlsx."""
    return source.head.startswith(_ZIP)


def read_workbook(source: Bytes) -> tuple[BytesIO, zipfile.ZipFile]:
    """All bytes of a workbook, and its parts.

    Raises:
        ValueError: It is another archive, damaged, or too large.
    """
    data = BytesIO()
    while block := source.read(1 << 20):
        data.write(block)
        if data.tell() > _MAX_WORKBOOK:
            raise ValueError(f"{source.name} is larger than {_MAX_WORKBOOK >> 20} MiB: save it as CSV")
    try:
        archive = zipfile.ZipFile(data)
    except zipfile.BadZipFile:
        raise ValueError(f"{source.name} is a damaged workbook or ZIP archive: get it again") from None
    names = archive.namelist()
    if "xl/workbook.xml" not in names:
        for prefix, what, remedy in _ZIPPED:
            if any(name.startswith(prefix) for name in names):
                raise ValueError(f"{source.name} is {what}, not a list of ids: {remedy}")
        raise ValueError(f"{source.name} is a ZIP archive, not a list of ids: unpack it, and name the file in it")
    if sum(part.file_size for part in archive.infolist()) > _MAX_UNPACKED:
        raise ValueError(f"{source.name} is larger than {_MAX_UNPACKED >> 20} MiB when unpacked: save it as CSV")
    if len({name.lower() for name in names}) != len(names) or not _is_intact(archive):
        raise ValueError(f"{source.name} is a damaged workbook: get it again, or open it in Excel and save it")
    return data, archive


def _is_intact(archive: zipfile.ZipFile) -> bool:
    """Whether the checksum of each part is right: the reader of values does not check all of them.

    No part is unpacked further than to the size that the directory gives.
    """
    try:
        return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError):
        return False

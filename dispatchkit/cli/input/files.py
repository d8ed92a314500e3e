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

from dispatchkit.cli.translate import _

__all__ = ["Bytes", "is_workbook", "open_bytes", "read_workbook"]

_HEAD = 1 << 16
_MAX_WORKBOOK = 256 << 20
"""Bytes of a workbook. It is read as a whole: its directory stands at its end."""
_MAX_UNPACKED = 1 << 30
"""Bytes of all parts of a workbook together."""

_ZIP = b"PK\x03\x04"
_GZIP = b"\x1f\x8b"
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF", _("a PDF"), _("copy the ids into a text file or a spreadsheet")),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        _("an old Excel or Word file (.xls, .doc)"),
        _("save it as .xlsx or CSV in Excel"),
    ),
    (b"PK\x05\x06", _("an empty ZIP archive"), _("name the file that holds the ids")),
    (b"Rar!", _("a RAR archive"), _("unpack it, and name the file in it")),
    (b"7z\xbc\xaf\x27\x1c", _("a 7-Zip archive"), _("unpack it, and name the file in it")),
    (b"BZh", _("a bzip2 archive"), _("unpack it with bunzip2")),
    (b"\xfd7zXZ\x00", _("an xz archive"), _("unpack it with unxz")),
    (b"\x28\xb5\x2f\xfd", _("a Zstandard archive"), _("unpack it with unzstd")),
    (
        b"SQLite format 3\x00",
        _("an SQLite database"),
        _("write the targets of a ledger to a CSV with 'ledger export' first"),
    ),
    (b"{\\rtf", _("a rich text document"), _("save it as plain text")),
    (b"\x89PNG", _("a picture"), _("name the file that holds the ids")),
    (b"\xff\xd8\xff", _("a picture"), _("name the file that holds the ids")),
    (b"GIF8", _("a picture"), _("name the file that holds the ids")),
    (b"\x7fELF", _("a program"), _("name the file that holds the ids")),
)
_ZIPPED: tuple[tuple[str, str, str], ...] = (
    ("xl/workbook.bin", _("a binary Excel workbook (.xlsb)"), _("save it as .xlsx or CSV in Excel")),
    ("word/", _("a Word document (.docx)"), _("copy the ids into a text file or a spreadsheet")),
    ("ppt/", _("a PowerPoint presentation (.pptx)"), _("copy the ids into a text file or a spreadsheet")),
    ("content.xml", _("an OpenDocument file (.ods, .odt)"), _("save it as .xlsx or CSV")),
    ("Index/", _("an Apple iWork file"), _("export it as .xlsx or CSV")),
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
            raise ValueError(
                _("{name} does not block, so its end cannot be told: write it to a file first").format(name=self.name)
            )
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
            raise ValueError(
                _("{name} ends too early: the download was cut short, so get it again").format(name=self._name)
            ) from None
        except (gzip.BadGzipFile, zlib.error):
            raise ValueError(_("{name} is a damaged gzip file: get it again").format(name=self._name)) from None
        return data


@contextmanager
def open_bytes(path: str) -> Generator[Bytes]:
    """Open a file, a pipe, or standard input for ``-``. A gzip file is unpacked.

    Raises:
        ValueError: It is a folder or a device, or neither text nor a workbook.
        OSError: It cannot be read.
    """
    if path == "-":
        yield _known(Bytes(sys.stdin.buffer, _("standard input")))
        return
    _check_kind(path)
    with Path(path).open("rb") as stream:
        yield _known(Bytes(stream, path))


def _check_kind(path: str) -> None:
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise ValueError(_("{path}: Is a directory: name a file in it").format(path=path))
    # A terminal is as good as standard input. Other devices may have no end.
    if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not _is_terminal(path)):
        raise ValueError(_("{path} is a device, not a file: name a file, or - for standard input").format(path=path))


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
            raise ValueError(
                _("{name} is {what}, not a list of ids: {remedy}").format(name=source.name, what=what, remedy=remedy)
            )
    if head.startswith(_GZIP):
        if packed:
            raise ValueError(_("{name} is packed twice: unpack it with gunzip").format(name=source.name))
        return _known(Bytes(_Gunzipped(source), source.name), packed=True)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:5].lower() in {b"<html", b"<!doc", b"<?xml", b"<tabl"}:
        raise ValueError(
            _(
                "{name} is a web page or XML, not a list of ids: save it as .xlsx or CSV. A download that needs "
                "a login often is such a page"
            ).format(name=source.name)
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
            raise ValueError(
                _("{name} is larger than {most} MiB: save it as CSV").format(name=source.name, most=_MAX_WORKBOOK >> 20)
            )
    try:
        archive = zipfile.ZipFile(data)
    except zipfile.BadZipFile:
        raise ValueError(
            _("{name} is a damaged workbook or ZIP archive: get it again").format(name=source.name)
        ) from None
    names = archive.namelist()
    if "xl/workbook.xml" not in names:
        for prefix, what, remedy in _ZIPPED:
            if any(name.startswith(prefix) for name in names):
                raise ValueError(
                    _("{name} is {what}, not a list of ids: {remedy}").format(
                        name=source.name, what=what, remedy=remedy
                    )
                )
        raise ValueError(
            _("{name} is a ZIP archive, not a list of ids: unpack it, and name the file in it").format(name=source.name)
        )
    if sum(part.file_size for part in archive.infolist()) > _MAX_UNPACKED:
        raise ValueError(
            _("{name} is larger than {most} MiB when unpacked: save it as CSV").format(
                name=source.name, most=_MAX_UNPACKED >> 20
            )
        )
    if len({name.lower() for name in names}) != len(names) or not _is_intact(archive):
        raise ValueError(
            _("{name} is a damaged workbook: get it again, or open it in Excel and save it").format(name=source.name)
        )
    return data, archive


def _is_intact(archive: zipfile.ZipFile) -> bool:
    """Whether the checksum of each part is right: the reader of values does not check all of them.

    No part is unpacked further than to the size that the directory gives.
    """
    try:
        return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError):
        return False

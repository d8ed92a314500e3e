"""A file of a report. It is written whole or not at all, and replaces at most an earlier one of its kind.

The text goes to another file in the same folder, which takes the name at the end. So a reader, or a crash, never finds
half a report.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from dispatchkit.cli.text import write
from dispatchkit.cli.translate import _

__all__ = ["HTML_START", "JSON_START", "ReportFile"]

HTML_START = '<!doctype html>\n<html lang="en" data-dispatchkit="report">'
"""How a report begins as HTML."""
JSON_START = '{"made_at": '
"""How a report begins as JSON."""


class ReportFile:
    """The file, as a context. An exception leaves the earlier file.

    Args:
        name: The file, or ``-`` for standard output.
        start: How such a file begins. A file that begins otherwise is refused, unless it is empty.
        replaces: Whether an earlier file of its kind is replaced.

    Raises:
        ValueError: There is another file of this name, or it is none.
        OSError: The file cannot be read.
    """

    def __init__(self, name: str, start: str, *, replaces: bool = False) -> None:
        self.name = name
        self.is_standard_output = name == "-"
        self.path = Path(name).resolve()
        """The file itself, also where the name is that of a link to it."""
        self._stream: TextIO | None = None
        self._other = self.path
        self._is_whole = True
        if not self.is_standard_output:
            with self._errors_with_name():
                self._check(start, replaces=replaces)

    def is_same_as(self, other: ReportFile) -> bool:
        """Whether both are the same file, or both standard output."""
        if self.is_standard_output or other.is_standard_output:
            return self.is_standard_output and other.is_standard_output
        return self.path == other.path

    def __enter__(self) -> Self:
        if self._stream is None:
            self._stream = sys.stdout if self.is_standard_output else self._temporary()
        return self

    def _temporary(self) -> TextIO:
        # Only its owner may read it: it has ids of the customer.
        with self._errors_with_name():
            number, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        self._other = Path(name)
        return os.fdopen(number, "w", encoding="utf-8", newline="")

    def write(self, text: str) -> None:
        """Write some text.

        Raises:
            OSError: The disk is full.
        """
        assert self._stream is not None  # noqa: S101 - the context is open
        if self.is_standard_output:
            self._is_whole = self._is_whole and write(self._stream, text)
        else:
            with self._errors_with_name():
                self._stream.write(text)

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stream, self._stream = self._stream, None
        if stream is None or self.is_standard_output:
            return
        try:
            with self._errors_with_name():
                with stream:
                    if error is None:
                        stream.flush()
                        os.fsync(stream.fileno())
                if error is None:
                    self._other.replace(self.path)
        finally:
            with suppress(OSError):  # it has its name already
                self._other.unlink()

    @contextmanager
    def _errors_with_name(self) -> Generator[None]:
        """Let the errors of the file have its name, not that of the other file, or none."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from error

    def _check(self, start: str, *, replaces: bool) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                raise ValueError(
                    _("there is no folder {folder}: make it, or name another file").format(folder=self.path.parent)
                ) from None
            return
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(_("{path} is no file: name another one").format(path=self.name))
        with self.path.open("rb") as stream:
            begin = stream.read(len(start.encode()))
        if begin and begin != start.encode():
            raise ValueError(
                _("{path} holds something else than such a report, so it is not replaced: name another file").format(
                    path=self.name
                )
            )
        if begin and not replaces:
            raise ValueError(
                _("{path} holds an earlier report: name another file, or add --force to replace it").format(
                    path=self.name
                )
            )

"""``--log-file``: the records of the library, one line each, appended to a file.

A line has the UTC time, the level, the logger and the message. The run and the index of the command stand before the
message, if there are any:

    2026-11-27T09:14:02.118Z WARNING dispatchkit run='black-friday' index=41: no answer within 70 s

The library's records have no token and no body. Passwords of URLs are masked here.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.text import escape_control, redact_urls, write
from dispatchkit.cli.translate import _

__all__ = ["LogFile", "with_log"]

_PACKAGE = logging.getLogger("dispatchkit")
_MODE = 0o600


def _tell(text: str) -> None:
    write(sys.stderr, f"{escape_control(text)}\n")


class LogFile(logging.Handler):
    """Appends records to a file.

    Args:
        path: The file. A new one can be read by its owner only; an existing one keeps its mode.

    Raises:
        ValueError: It is no regular file.
        OSError: It cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self._path = path
        self.tell: Callable[[str], None] = _tell
        """Called with a line when the file can no longer be written to."""
        self._fails = False
        self._is_torn = False
        # Without O_NONBLOCK, a pipe that no process reads would block here for ever.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), _MODE)
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            os.close(self._file)
            raise ValueError(
                _("--log-file takes a regular file, and {path} is none: name another one").format(path=path)
            )

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record. A full disk does not end the run: it is told once, and later records are tried."""
        line = f"{_line(record)}\n".encode(errors="backslashreplace")
        try:
            written = os.write(self._file, b"\n" + line if self._is_torn else line)
        except OSError as error:
            self._fail(error.strerror or str(error))
            return
        self._is_torn = written < len(line) + self._is_torn
        if self._is_torn:  # the next line begins after the part that is there
            self._fail(_("only a part of a line was written"))

    def _fail(self, reason: str) -> None:
        if not self._fails:
            self._fails = True
            self.tell(
                _("{path}: {reason}. The run goes on, and --log-file lacks some of its lines.").format(
                    path=self._path, reason=reason
                )
            )

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        super().close()


def _line(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
    fields = vars(record)
    run, index = fields.get("run"), fields.get("index")
    named = ("" if run is None else f" run={run!r}") + ("" if index is None else f" index={index}")
    return escape_control(redact_urls(f"{at}Z {record.levelname} {record.name}{named}: {record.getMessage()}"))


@contextmanager
def with_log(path: Path | None) -> Generator[None]:
    """Append the library's records from INFO up to a file, until the end of the block. None writes none.

    Raises:
        typer.Exit: With status 2, if the file cannot be written to.
    """
    if path is None:
        yield
        return
    with exit_on_user_error():
        handler = LogFile(path)
    level = _PACKAGE.level
    _PACKAGE.addHandler(handler)
    _PACKAGE.setLevel(logging.INFO)
    try:
        yield
    finally:
        _PACKAGE.removeHandler(handler)
        _PACKAGE.setLevel(level)
        handler.close()

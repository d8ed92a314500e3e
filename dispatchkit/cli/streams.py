"""Writing to the standard streams and to files. A closed pipe is ignored; a full disk is reported."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["UNWRITABLE", "ignore_broken_pipe", "unwritable", "write"]

UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""Errors that say that output is lost, and not that its reader has gone."""

_errors: list[OSError] = []
"""Errors of writes since the last call of `unwritable`."""


def write(stream: TextIO, text: str) -> bool:
    """Write text at once. Returns whether it could be written: the reader may be gone, or the disk full."""
    with ignore_broken_pipe(stream):
        stream.write(text)
        stream.flush()
        return True
    return False


@contextmanager
def ignore_broken_pipe(stream: TextIO) -> Generator[None]:
    """Go on where the stream cannot be written to. From then on, nothing is written to it.

    `unwritable` reports it afterwards, unless only the reader has gone: a closed pipe or terminal.
    """
    try:
        yield
    except OSError as error:
        if error.errno in UNWRITABLE and not _is_lost_terminal(stream, error):
            _errors.append(error)
        # At its end, the process would write the rest of the buffer again, and report the error again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def unwritable() -> str:
    """The reason for output that was lost since the last call; empty if none was."""
    reason = _errors[0].strerror or str(_errors[0]) if _errors else ""
    _errors.clear()
    return reason


def _is_lost_terminal(stream: TextIO, error: OSError) -> bool:
    return error.errno == errno.EIO and stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)

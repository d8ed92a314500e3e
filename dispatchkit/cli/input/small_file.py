"""Read a file that an option names, whole and up to a size. Devices and folders are refused before they are opened."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

from dispatchkit.cli.translate import _

__all__ = ["read_small_file"]


def read_small_file(option: str, path: str, *, max_bytes: int, pipe: bool = False) -> bytes:
    """Read the file of an option.

    Args:
        option: The option, for messages.
        path: The file. ``-`` is standard input, where a pipe may be given.
        max_bytes: The most bytes of the file.
        pipe: Whether it may be a pipe too, such as the ``<(...)`` of a shell.

    Raises:
        ValueError: It is larger, or a device or a socket; or a pipe, where none may be given.
        OSError: It is a folder, or cannot be read.
    """
    if path == "-" and pipe:
        return _bounded(option, _("standard input"), sys.stdin.buffer.read(max_bytes + 1), max_bytes)
    status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    is_pipe = stat.S_ISFIFO(status.st_mode)
    if not (stat.S_ISREG(status.st_mode) or (pipe and (is_pipe or _has_end(path, status)))):
        also = _("a file or a pipe") if pipe else _("a regular file")
        raise ValueError(
            _("{option} must name {also}, and {path} is {kind}: name the file itself").format(
                option=option, also=also, path=path, kind=_kind(status.st_mode)
            )
        )
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - unbuffered: what is not ours stays in a pipe
        data = bytearray()
        while len(data) <= max_bytes and (part := file.read(min(1 << 16, max_bytes + 1 - len(data)))):
            data += part
    return _bounded(option, path, bytes(data), max_bytes)


def _bounded(option: str, name: str, data: bytes, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise ValueError(
            _("{option} takes at most {most:,} bytes, and {name} holds more: name another file").format(
                option=option, most=max_bytes, name=name
            )
        )
    return data


def _has_end(path: str, status: os.stat_result) -> bool:
    """Whether it is a terminal, which is as good as standard input, or empty. Other devices may have no end."""
    if not stat.S_ISCHR(status.st_mode):
        return False
    if path == os.devnull:
        return True
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        return os.isatty(descriptor)
    finally:
        os.close(descriptor)


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return _("a pipe")
    return _("a socket") if stat.S_ISSOCK(mode) else _("a device")

"""Read a regular file whole, as it is at one moment."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["read_regular_file"]

# Windows has no O_NONBLOCK and O_NOCTTY, and translates line ends without O_BINARY.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
)


def read_regular_file(path: Path, *, max_bytes: int) -> bytes:
    """Read a regular file. Its kind and its size are checked before anything is read; links are followed.

    Raises:
        OSError: The file cannot be read, is no regular file, or changes while it is read.
        ValueError: The file is larger than ``max_bytes``.
    """
    _check(path, path.stat(), max_bytes)  # before the open: that of a device may have an effect
    descriptor = os.open(path, _FLAGS)  # that of a pipe would wait for a writer without O_NONBLOCK
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
        before = os.fstat(descriptor)
        _check(path, before, max_bytes)
        data = bytearray()
        while len(data) <= before.st_size and (part := file.read(before.st_size + 1 - len(data))):
            data += part
        after = os.fstat(descriptor)
    if len(data) != before.st_size or _version(before) != _version(after):
        raise OSError(errno.EBUSY, "it changed while it was read: try again once it is complete", str(path))
    return bytes(data)


def _check(path: Path, status: os.stat_result, max_bytes: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it must be a regular file, not a pipe, a socket or a device", str(path))
    if status.st_size > max_bytes:
        raise ValueError(f"{path} must be a file of at most {max_bytes:,} bytes, not {status.st_size:,}")


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns

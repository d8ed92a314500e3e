"""Tell the file of a ledger from its copies, and refuse a file that has two names.

A row of the table `about` names the file by device, inode and time of birth, and counts renewals: every hold, every
heartbeat and every release adds one. An extended attribute of the file carries the same count in its name,
``user.dispatchkit.<count>``, and the database's id as its value. SQLite's backups and a plain ``cp`` copy the row
alone, so:

- a file without the attribute is a copy;
- an attribute with another id belongs to another database, which was copied over this file;
- an attribute with a higher count shows that the database is older than its file: a backup was copied over it.
  ``cp -a`` copies attributes too. It leaves those of the target, and each count has a name of its own.

The row is committed first, the attribute follows. A rollback, a kill between the two and a power failure leave an
attribute that is behind its row, which is no fault. The attribute is written under the write lock, from a row that is
committed, so no process writes one that is ahead.

The file is never opened here: to close it would drop SQLite's POSIX locks on it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import sqlite3
import struct
import sys
from pathlib import Path

import attrs

from dispatchkit.errors import LedgerError

__all__ = ["accept", "check_copy", "check_names", "create", "mark_new", "renew", "settle"]

_PREFIX = "user.dispatchkit."
_UNSUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL}
_MOUNTS = Path("/proc/self/mountinfo")
_AT_FDCWD, _STATX_BTIME, _STATX_SIZE = -100, 0x800, 256
_MASK_AT, _BTIME_AT = 0, 80
"""Offsets in ``struct statx``, the same on all architectures."""


@attrs.frozen
class _Found:
    """What the file system says of the file."""

    file: str
    """Device and inode."""
    born: str | None
    """Its time of birth, which tells it from a later file with the same inode; None where it is not known."""
    counts: dict[int, str]
    """The attributes: the database's id by the count of renewals."""


def check_names(path: Path) -> None:
    """Refuse a file with a second name: SQLite's log and the locks of holds are named after the file.

    Raises:
        LedgerError: It has a second hard link, or is a mount point.
    """
    try:
        links = path.stat().st_nlink
    except OSError:  # it is not there yet, or SQLite says what is wrong
        return
    if links > 1:
        raise LedgerError(
            f"the ledger {path} is one file with {links} names (hard links): nothing was launched. Runs under two "
            "names do not see each other, and would launch twice. Give the ledger one name: remove the other links, "
            f"which 'find / -samefile {path}' lists"
        )
    if os.fsencode(os.path.realpath(path)) in _mount_points():
        raise LedgerError(
            f"the ledger {path} is mounted as a single file: nothing was launched. A run inside of the container and "
            "one outside would not see each other, and would launch twice. Mount its folder, not the file"
        )


def _mount_points() -> set[bytes]:
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return set()
    return {re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split(b" ")[4]) for line in lines}


def mark_new(descriptor: int) -> None:
    """Mark a file that was just made, before SQLite opens it; synced, so that a power failure does not unmark it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # `create` sees to it
            os.setxattr(descriptor, f"{_PREFIX}0", secrets.token_hex(16).encode())
            os.fsync(descriptor)


def create(db: sqlite3.Connection, path: Path) -> None:
    """Write the row `about` of new tables, and mark the file if that was not done.

    Raises:
        LedgerError: The file system fails.
    """
    found = _look(path)
    count: int | None = 0
    database_id = found.counts.get(0, "")
    if len(found.counts) != 1 or not database_id:
        database_id = secrets.token_hex(16)
        count = 0 if _mark(path, 0, database_id) else None
    values = (database_id, found.file, found.born, count)
    db.execute("INSERT INTO about (database_id, file, born, renewals) VALUES (?, ?, ?, ?)", values)


def check_copy(db: sqlite3.Connection, path: Path) -> None:
    """Compare the file with the row `about`.

    Raises:
        LedgerError: The file is a copy.
    """
    found = _look(path)  # before the row, which another process may renew
    database_id, file, born, renewals = db.execute("SELECT database_id, file, born, renewals FROM about").fetchone()
    agrees = found.file == file and (None in {found.born, born} or found.born == born)
    if agrees and renewals is not None:
        agrees = set(found.counts.values()) == {database_id} and max(found.counts) <= renewals
    if not agrees:
        raise LedgerError(
            f"the ledger {path} is a copy (such as a backup that was restored), or was moved to another disk: nothing "
            "was launched. A copy and its original would both launch what is left. If the original is not used any "
            "more, resume the run with 'dispatchkit resume ... --copied' (in Python: await ledger.accept_copy()); else "
            "use the original"
        )


def renew(db: sqlite3.Connection, path: Path) -> None:
    """Count a renewal, in the writer's transaction. `settle` follows once it is committed.

    Raises:
        LedgerError: The file is a copy.
    """
    check_copy(db, path)
    db.execute("UPDATE about SET renewals = renewals + 1")


def settle(db: sqlite3.Connection, path: Path) -> None:
    """Write the committed count to the attribute, outside of a transaction.

    Raises:
        LedgerError: The file is a copy, or the file system fails.
    """
    db.execute("BEGIN IMMEDIATE")
    check_copy(db, path)
    database_id, renewals = db.execute("SELECT database_id, renewals FROM about").fetchone()
    if renewals is not None:
        _mark(path, renewals, database_id)
    db.execute("COMMIT")


def accept(db: sqlite3.Connection, path: Path) -> None:
    """Take the file as it is for the original, outside of a transaction. A kill halfway leaves a copy.

    Raises:
        LedgerError: The file system fails.
    """
    database_id = secrets.token_hex(16)
    db.execute("BEGIN IMMEDIATE")
    found = _look(path)
    count = 0 if _mark(path, 0, database_id) else None
    values = (database_id, found.file, found.born, count)
    db.execute("UPDATE about SET database_id = ?, file = ?, born = ?, renewals = ?", values)
    db.execute("COMMIT")


def _mark(path: Path, count: int, database_id: str) -> bool:
    """Make one attribute the only one. False: the file system has none."""
    if sys.platform != "linux":
        return False
    name = f"{_PREFIX}{count}"
    try:
        os.setxattr(path, name, database_id.encode())
        for other in os.listxattr(path):
            if other.startswith(_PREFIX) and other != name:
                os.removexattr(path, other)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise _failure(path, error) from error
    return True


def _look(path: Path) -> _Found:
    try:
        found = path.stat()
    except OSError as error:
        raise _failure(path, error) from error
    return _Found(f"{found.st_dev}:{found.st_ino}", _born(path), _counts(path))


def _counts(path: Path) -> dict[int, str]:
    counts: dict[int, str] = {}
    if sys.platform == "linux":
        try:
            for name in os.listxattr(path):
                if name.startswith(_PREFIX) and (count := name.removeprefix(_PREFIX)).isdecimal():
                    counts[int(count)] = os.getxattr(path, name).decode(errors="replace")
        except OSError as error:
            if error.errno == errno.ENODATA:  # another process has just replaced it
                return _counts(path)
            if error.errno not in _UNSUPPORTED:
                raise _failure(path, error) from error
    return counts


def _born(path: Path) -> str | None:
    if sys.platform != "linux":
        return None
    try:
        statx = ctypes.CDLL(None, use_errno=True).statx
    except (AttributeError, OSError):  # an old C library
        return None
    result = ctypes.create_string_buffer(_STATX_SIZE)
    if statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, result):
        return None
    (known,) = struct.unpack_from("=I", result, _MASK_AT)
    if not known & _STATX_BTIME:
        return None
    seconds, nanoseconds = struct.unpack_from("=qI", result, _BTIME_AT)
    return f"{seconds}.{nanoseconds:09}"


def _failure(path: Path, error: OSError) -> LedgerError:
    if error.errno == errno.ENOENT:
        return LedgerError(f"the ledger {path} was removed or renamed while it was open: put it back, and run the same")
    return LedgerError(f"the ledger {path} cannot be identified: its file system fails ({error.strerror})")

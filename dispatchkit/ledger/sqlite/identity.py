"""Detect copies of a ledger file, and refuse a file with two names.

A row of the table `about` has the file's device, inode and birth time, and a count of renewals. Every hold, heartbeat
and release adds one. An extended attribute of the file, ``user.dispatchkit.<count>``, has the same count in its
name. Its value is the database's id. SQLite backups and a plain ``cp`` copy only the row, so:

- a file without the attribute is a copy;
- an attribute with another id means that another database was copied over this file;
- an attribute with a higher count means that an older backup was copied over this file. ``cp -a`` also copies
  attributes. It keeps those of the target, since each count has its own name.

The row is committed first, then the attribute is written. A rollback, a kill between the two and a power failure leave
the attribute behind its row, which is valid. The attribute is written under the write lock, from a committed row, so it
is never ahead.

This module never opens the file: closing it would drop SQLite's POSIX locks.
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
class _FileIdentity:
    """The identity of the file, from the file system."""

    file: str
    """Device and inode."""
    born: str | None
    """Birth time, which differs for a later file with the same inode; None if unknown."""
    counts: dict[int, str]
    """Extended attributes: the database's id by count of renewals."""


def check_names(path: Path) -> None:
    """Refuse a file with a second name: SQLite's log and the hold locks are named after the file.

    Raises:
        LedgerError: The file has a second hard link, or is a mount point.
    """
    try:
        links = path.stat().st_nlink
    except OSError:  # it does not exist yet, or SQLite reports the error
        return
    if links > 1:
        raise LedgerError(
            f"the ledger {path} is one file with {links} names (hard links): nothing was launched. Runs under two "
            "names do not see each other, and would launch twice. Remove the other links, which "
            f"'find / -samefile {path}' lists"
        )
    if os.fsencode(os.path.realpath(path)) in _mount_points():
        raise LedgerError(
            f"the ledger {path} is mounted as a single file: nothing was launched. Runs inside and outside of the "
            "container would not see each other, and would launch twice. Mount its folder, not the file"
        )


def _mount_points() -> set[bytes]:
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return set()
    return {re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split(b" ")[4]) for line in lines}


def mark_new(descriptor: int) -> None:
    """Mark a new file before SQLite opens it, and sync the mark."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # then `create` marks it
            os.setxattr(descriptor, f"{_PREFIX}0", secrets.token_hex(16).encode())
            os.fsync(descriptor)


def create(db: sqlite3.Connection, path: Path) -> None:
    """Write the row `about` of new tables, and mark the file if it is not marked.

    Raises:
        LedgerError: The file system fails.
    """
    identity = _identify(path)
    count: int | None = 0
    database_id = identity.counts.get(0, "")
    if len(identity.counts) != 1 or not database_id:
        database_id = secrets.token_hex(16)
        count = 0 if _mark(path, 0, database_id) else None
    values = (database_id, identity.file, identity.born, count)
    db.execute("INSERT INTO about (database_id, file, born, renewals) VALUES (?, ?, ?, ?)", values)


def check_copy(db: sqlite3.Connection, path: Path) -> None:
    """Compare the file with the row `about`.

    Raises:
        LedgerError: The file is a copy.
    """
    identity = _identify(path)  # before the row is read: another process may renew it
    database_id, file, born, renewals = db.execute("SELECT database_id, file, born, renewals FROM about").fetchone()
    agrees = identity.file == file and (None in {identity.born, born} or identity.born == born)
    if agrees and renewals is not None:
        agrees = set(identity.counts.values()) == {database_id} and max(identity.counts) <= renewals
    if not agrees:
        raise LedgerError(
            f"the ledger {path} is a copy (such as a restored backup), or was moved to another disk: nothing was "
            "launched. A copy and its original would both launch the same targets. If the original is no longer used, "
            "resume the run with 'dispatchkit resume ... --copied' (in Python: await ledger.accept_copy()). Otherwise "
            "use the original"
        )


def renew(db: sqlite3.Connection, path: Path) -> None:
    """Count a renewal, in the writer's transaction. `settle` follows after the commit.

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
    """Accept the file as the original, outside of a transaction. If the process is killed halfway, it stays a copy.

    Raises:
        LedgerError: The file system fails.
    """
    database_id = secrets.token_hex(16)
    db.execute("BEGIN IMMEDIATE")
    identity = _identify(path)
    count = 0 if _mark(path, 0, database_id) else None
    values = (database_id, identity.file, identity.born, count)
    db.execute("UPDATE about SET database_id = ?, file = ?, born = ?, renewals = ?", values)
    db.execute("COMMIT")


def _mark(path: Path, count: int, database_id: str) -> bool:
    """Replace all attributes by one. Returns False if the file system has no attributes."""
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


def _identify(path: Path) -> _FileIdentity:
    try:
        stat = path.stat()
    except OSError as error:
        raise _failure(path, error) from error
    return _FileIdentity(f"{stat.st_dev}:{stat.st_ino}", _born(path), _counts(path))


def _counts(path: Path) -> dict[int, str]:
    counts: dict[int, str] = {}
    if sys.platform == "linux":
        try:
            for name in os.listxattr(path):
                if name.startswith(_PREFIX) and (count := name.removeprefix(_PREFIX)).isdecimal():
                    counts[int(count)] = os.getxattr(path, name).decode(errors="replace")
        except OSError as error:
            if error.errno == errno.ENODATA:  # another process replaced the attribute meanwhile
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
        return LedgerError(
            f"the ledger {path} was removed or renamed while it was open: restore it, then run the same again"
        )
    return LedgerError(f"the ledger {path} cannot be identified: its file system fails ({error.strerror})")

"""Check where the file of a ledger lies, and take the right to read it from other users."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from dispatchkit.errors import LedgerError

__all__ = ["close_to_others", "refuse_link", "warn_of_network"]

logger = logging.getLogger("dispatchkit.ledger")

_OTHERS = 0o077
_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = frozenset({
    "9p", "afs", "ceph", "cifs", "fuse.ceph", "fuse.cephfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone",
    "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb2", "smb3", "smbfs",
    "virtiofs",
})  # fmt: skip
_warned = set[str]()


def refuse_link(path: Path) -> None:
    """Refuse a symbolic link: a ledger has one name, and the target of a link can be exchanged.

    Raises:
        LedgerError: It is one. Folders on the way may be links.
    """
    if path.is_symlink():
        raise LedgerError(
            f"the ledger {path} is a symbolic link: nothing was launched. Name the file itself: "
            f"{os.path.realpath(path)}"
        )


def close_to_others(path: Path) -> None:
    """Take the right to read the file from other users, as it holds the content of messages.

    Raises:
        LedgerError: It belongs to another user, so its mode cannot be changed.
    """
    if os.name != "posix":
        return
    before = path.stat().st_mode
    for file in (path, *(path.with_name(f"{path.name}-{end}") for end in ("wal", "shm"))):
        try:
            mode = file.stat().st_mode
            if mode & _OTHERS:
                file.chmod(mode & 0o7777 & ~_OTHERS)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise LedgerError(
                f"the ledger {path} can be read by other users (mode {before & 0o777:o}): nothing was launched. Its "
                f"mode cannot be changed ({error.strerror}). Let its owner run: chmod 600 {file}"
            ) from error
    if not before & _OTHERS:
        return
    if path.stat().st_mode & _OTHERS:
        _warn(path, "can be read by other users, and its file system keeps no other mode: use another folder")
    else:
        _warn(path, f"could be read by other users (mode {before & 0o777:o}): now it has mode 600")


def warn_of_network(path: Path) -> None:
    """Warn if the file lies on another machine, where SQLite's log and its locks do not work reliably."""
    kind = _file_system(path)
    if kind in _NETWORK:
        _warn(
            path,
            f"is on a network file system ({kind}), where its log and its locks are not reliable. Two machines may "
            "launch the same: use a local disk, or PostgreSQL for several machines",
        )


def _warn(path: Path, text: str) -> None:
    message = f"the ledger {path} {text}"
    if message not in _warned:  # two connections open the file
        _warned.add(message)
        logger.warning("%s", message)


def _file_system(path: Path) -> str:
    """The type of the file system that holds the file; empty where the system does not say."""
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return ""
    folder = os.fsencode(os.path.realpath(path.parent))
    longest, kind = -1, b""
    for line in lines:
        before, _, after = line.partition(b" - ")
        point = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), before.split(b" ")[4])
        inside = folder == point or folder.startswith(point.rstrip(b"/") + b"/")
        if inside and len(point) >= longest:  # a later mount covers an earlier one
            longest, kind = len(point), after.split(b" ")[0]
    return kind.decode(errors="replace")

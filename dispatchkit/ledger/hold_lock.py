"""The lock of one hold of a chunk: an `flock` on a file beside the ledger, which ends with the process that took it.

Other processes see it across PID namespaces, and nothing has to be known of the process that has it. A copy of the
descriptor would keep the lock after the end of its process, so a forked child closes its copies before anything else
runs there. Closing a copy does not unlock; `LOCK_UN` would, so it is never used.

The file is removed while the lock is held. So a process that has locked a file checks that the path still leads to it.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import threading
from pathlib import Path
from typing import Self

from dispatchkit.core.transport.fork import register_fork_reset
from dispatchkit.errors import LedgerError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["HoldLock", "LockState", "lock_state"]

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""What `flock` answers on a file system that has no locks."""


class LockState(enum.Enum):
    """Whether a hold exists, as its lock shows."""

    FREE = "free"
    TAKEN = "taken"
    UNSUPPORTED = "unsupported"
    """Nothing can tell: the system or the file system has no `flock`."""


class _Descriptor:
    """An open descriptor. In a forked child, which has closed its copy, its number is -1."""

    def __init__(self, path: Path, flags: int) -> None:
        # A fork in another thread waits until what was just opened is known here.
        self.number = -1
        with _fork_lock:
            self.number = os.open(path, flags | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            register_fork_reset(self)

    def close(self) -> None:
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def reset_after_fork(self) -> object:
        """Close the copy that a forked child inherits."""
        self.close()
        return None

    def __del__(self) -> None:
        self.close()


_fork_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_fork_lock.acquire, after_in_parent=_fork_lock.release, after_in_child=_fork_lock.release
    )


class HoldLock:
    """A lock that is held. See `acquire`."""

    def __init__(self, path: Path, descriptor: _Descriptor) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path) -> Self | LockState:
        """Take the lock, or return why it cannot be taken: it is `TAKEN`, or locks are `UNSUPPORTED`.

        A process that only looks keeps it from being taken for a moment: try again after some milliseconds.

        Raises:
            LedgerError: The file cannot be made.
        """
        if fcntl is None:
            return LockState.UNSUPPORTED
        while True:
            try:
                descriptor = _Descriptor(path, os.O_CREAT)
            except OSError as error:
                raise _unusable(path, error) from error
            state = _flock(descriptor, exclusive=True)
            if state is LockState.FREE and _is_at(path, descriptor):
                return cls(path, descriptor)
            descriptor.close()
            if state is not LockState.FREE:
                return state

    def release(self) -> None:
        """Remove the file and give the lock up. Doing so twice, or in a forked child, does nothing."""
        if self._descriptor.number >= 0:
            if _is_at(self._path, self._descriptor):  # else it was removed, and may be the lock of the next hold
                with contextlib.suppress(OSError):
                    self._path.unlink()
            self._descriptor.close()


def lock_state(path: Path) -> LockState:
    """Whether a process has the lock. To look, the lock is shared for a moment."""
    if fcntl is None:
        return LockState.UNSUPPORTED
    while True:
        try:
            descriptor = _Descriptor(path, 0)
        except FileNotFoundError:
            return LockState.FREE
        except OSError:  # it is another user's
            return LockState.UNSUPPORTED
        try:
            state = _flock(descriptor, exclusive=False)
            if state is not LockState.FREE or _is_at(path, descriptor):
                return state
        finally:
            descriptor.close()


def _flock(descriptor: _Descriptor, *, exclusive: bool) -> LockState:
    """What is found; `FREE` means that it is locked now."""
    assert fcntl is not None  # noqa: S101 - callers have checked it
    try:
        fcntl.flock(descriptor.number, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return LockState.TAKEN
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return LockState.UNSUPPORTED
        raise LedgerError(f"the ledger's lock cannot be taken, because the disk fails: {error}") from error
    return LockState.FREE


def _is_at(path: Path, descriptor: _Descriptor) -> bool:
    """Whether the path leads to the open file; another process may have removed it."""
    opened = os.fstat(descriptor.number)
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def _unusable(path: Path, error: OSError) -> LedgerError:
    return LedgerError(
        f"the ledger's lock {path} cannot be made ({error.strerror}): allow this user to write the file and its "
        "directory"
    )

"""The lock of a chunk's hold: an `flock` on a file beside the ledger, which ends with its process.

Other processes see the lock across PID namespaces, whatever the holder's process id. A forked child closes its copies
of the descriptors before other code runs, since a copy would extend the lock. Closing a copy does not unlock the file.
`LOCK_UN` would, so it is never used.

A release removes the file under the lock. So after locking, a process checks that the path still refers to its file.
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
"""Errors of `flock` on a file system without locks."""


class LockState(enum.Enum):
    """The state of a hold's lock."""

    FREE = "free"
    TAKEN = "taken"
    UNSUPPORTED = "unsupported"
    """The system or the file system has no `flock`."""


class _Descriptor:
    """An open file descriptor. A forked child closes its copy, and sets the number to -1."""

    def __init__(self, path: Path, flags: int) -> None:
        # A fork in another thread waits until the new descriptor is registered.
        self.number = -1
        with _fork_lock:
            self.number = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            register_fork_reset(self)

    def close(self) -> None:
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def reset_after_fork(self) -> object:
        """Close the inherited copy in a forked child."""
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
    """An acquired lock. See `acquire`."""

    def __init__(self, path: Path, descriptor: _Descriptor) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path) -> Self | LockState:
        """Acquire the lock, or return the reason: `TAKEN` or `UNSUPPORTED`.

        `lock_state` in another process also takes the lock for microseconds: try again after some milliseconds.

        Raises:
            LedgerError: The file cannot be created.
        """
        if fcntl is None:
            return LockState.UNSUPPORTED
        while True:
            try:
                descriptor = _Descriptor(path, os.O_RDWR | os.O_CREAT)
            except OSError as error:
                raise _unusable(path, error) from error
            state = _flock(descriptor, exclusive=True)
            if state is LockState.FREE and _is_at(path, descriptor):
                return cls(path, descriptor)
            descriptor.close()
            if state is not LockState.FREE:
                return state

    def release(self) -> None:
        """Remove the file and release the lock. A second call, or one in a forked child, does nothing."""
        if self._descriptor.number >= 0:
            if _is_at(self._path, self._descriptor):  # otherwise the path may be the next hold's lock
                with contextlib.suppress(OSError):
                    self._path.unlink()
            self._descriptor.close()


def lock_state(path: Path) -> LockState:
    """Whether a process has the lock. The check takes a shared lock for a moment."""
    if fcntl is None:
        return LockState.UNSUPPORTED
    while True:
        try:
            descriptor = _Descriptor(path, os.O_RDONLY)
        except FileNotFoundError:
            return LockState.FREE
        except OSError:  # the file belongs to another user
            return LockState.UNSUPPORTED
        try:
            state = _flock(descriptor, exclusive=False)
            if state is not LockState.FREE or _is_at(path, descriptor):
                return state
        finally:
            descriptor.close()


def _flock(descriptor: _Descriptor, *, exclusive: bool) -> LockState:
    """Try to lock the file. Returns the state before: `FREE` means that it is locked now."""
    assert fcntl is not None  # noqa: S101 - callers have checked it
    try:
        fcntl.flock(descriptor.number, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return LockState.TAKEN
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return LockState.UNSUPPORTED
        raise LedgerError(f"the ledger's lock cannot be taken, because the disk fails ({error}): check it") from error
    return LockState.FREE


def _is_at(path: Path, descriptor: _Descriptor) -> bool:
    """Whether the path still refers to the open file: another process may have removed it."""
    opened = os.fstat(descriptor.number)
    try:
        current = path.stat(follow_symlinks=False)
    except OSError:
        return False
    return (current.st_dev, current.st_ino) == (opened.st_dev, opened.st_ino)


def _unusable(path: Path, error: OSError) -> LedgerError:
    return LedgerError(
        f"the ledger's lock {path} cannot be created ({error.strerror}): allow this user to write the file and its "
        "directory"
    )

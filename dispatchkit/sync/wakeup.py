"""Wake a thread that waits, at the least cost.

Python releases a lock while it holds the GIL, so the woken thread goes to sleep once more and waits for the GIL. Python
writes to an eventfd without the GIL, so the woken thread runs at once. A round trip between two threads takes 7 us of
CPU by eventfds, and 18 us by ``call_soon_threadsafe`` and a lock. Platforms without eventfds take the latter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet

from dispatchkit.core.transport.fork import KEEP_ALIVE

__all__ = ["LoopWakeup", "Wakeup", "give_back", "reset_after_fork", "take"]

_close = os.close  # a finaliser may run when the module `os` is gone


class Wakeup(Protocol):
    """One thread waits for it, and another sends it. It may come without a reason: check the reason and wait again."""

    def send(self) -> None:
        """Wake the thread that waits, or else the next one to wait."""
        ...

    def wait(self) -> None:
        """Wait without a limit. A signal handler may run meanwhile, and its exception ends the wait."""
        ...

    def wait_at_most(self, seconds: float) -> None:
        """Wait like `wait`, but not longer than this."""
        ...


_of_events: WeakSet[_EventWakeup] = WeakSet()
"""All that there are. A signal handler may fork before or after the wait of a call, so that no call knows them all."""


class _EventWakeup:
    """A wake-up by eventfd. Each user holds a reference, so no late `send` writes to a descriptor of another file."""

    __slots__ = ("__weakref__", "_descriptor")

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC)
        _of_events.add(self)

    def send(self) -> None:
        os.eventfd_write(self._descriptor, 1)

    def wait(self) -> None:
        os.read(self._descriptor, 8)  # it goes on after a signal handler, unlike `os.eventfd_read`

    def wait_at_most(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if poll.poll(seconds * 1000):
            self.wait()

    def detach_after_fork(self) -> None:
        """Share it with the parent no longer, in a forked child."""
        try:
            own = os.eventfd(0, os.EFD_CLOEXEC)
        except OSError:  # too many open files: one less makes room
            os.close(self._descriptor)
            own = os.eventfd(0, os.EFD_CLOEXEC)
        # The number stays: a wait that a signal handler has interrupted goes on with it.
        if own != self._descriptor:
            os.dup2(own, self._descriptor, inheritable=False)
            os.close(own)

    def __del__(self, close: Callable[[int], None] = _close) -> None:
        if hasattr(self, "_descriptor"):
            close(self._descriptor)


# On Windows a lock that waits without end cannot be interrupted.
_SLICE = 0.1 if sys.platform == "win32" else -1.0


class _LockWakeup:
    """A wake-up by a lock, which a `send` releases."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def send(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is released already
            self._lock.release()

    def wait(self) -> None:
        self._lock.acquire(timeout=_SLICE)

    def wait_at_most(self, seconds: float) -> None:
        self._lock.acquire(timeout=seconds)


_MAX_FREE = 32
_free: list[Wakeup] = []
"""Wake-ups that no wait uses, to save the system calls that make one."""


def take() -> Wakeup:
    """A wake-up for one wait. A signal handler may start a wait inside another wait, so a thread has no fixed one."""
    try:
        return _free.pop()
    except IndexError:
        return _new()


def give_back(wakeup: Wakeup) -> None:
    """Keep a wake-up for a later wait. A `send` that is still to come wakes that wait without a reason."""
    if len(_free) < _MAX_FREE:
        _free.append(wakeup)


def reset_after_fork() -> None:
    """Share no wake-up with the parent in a forked child, which has its own copy of each lock."""
    for wakeup in list(_of_events):
        with contextlib.suppress(OSError):  # there is no room even for one file less
            wakeup.detach_after_fork()
    # A daemon closes all descriptors that it has inherited, so its calls make new ones.
    KEEP_ALIVE.extend(_free)
    _free.clear()


def _new() -> Wakeup:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # too many open files
            return _EventWakeup()
    return _LockWakeup()


class LoopWakeup:
    """Calls a function on the thread of an event loop.

    Args:
        loop: The loop, which does not run yet.
        callback: The function. Several sends may be one call.
    """

    __slots__ = ("_callback", "_descriptor", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._descriptor = -1
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # too many open files, or too many that the kernel watches
                descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                try:
                    loop.add_reader(descriptor, self._read)
                except BaseException:
                    os.close(descriptor)
                    raise
                self._descriptor = descriptor

    def send(self) -> None:
        """Let the loop call the function soon, unless it is closed."""
        if self._descriptor >= 0:
            os.eventfd_write(self._descriptor, 1)
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._callback)

    def _read(self) -> None:
        os.eventfd_read(self._descriptor)
        self._callback()

    def __del__(self, close: Callable[[int], None] = _close) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            close(self._descriptor)

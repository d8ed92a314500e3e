"""Raise the GC threshold while a large fan-out runs.

CPython collects generation 0 every 700 net allocations. With 1,000 calls in flight, that costs a third of the CPU time.
Cycles are found a little later. The end of the run restores the threshold.
"""

from __future__ import annotations

import gc
import os
import threading

__all__ = ["raise_gc_threshold", "restore_gc_threshold"]

_OBJECTS = 20
"""Objects that one call in flight allocates, about."""

_lock = threading.RLock()  # the garbage collector may end a coroutine that needs it, too
_workers = _before = _last = 0


def raise_gc_threshold() -> None:
    """Count one more worker of any run, and raise the threshold. `restore_gc_threshold` undoes it."""
    global _before, _last  # noqa: PLW0603 - the collector is the process's own
    with _lock:
        if not _workers:
            _before = _last = gc.get_threshold()[0]
        _apply(1)


def restore_gc_threshold() -> None:
    """Count one worker less. After the last one, the threshold is the original."""
    with _lock:
        _apply(-1)


def _apply(change: int) -> None:
    global _last, _workers  # noqa: PLW0603
    _workers = max(0, _workers + change)  # a forked child may drop workers of its parent
    current, *others = gc.get_threshold()
    if _before == 0 or current != _last:
        return  # it is off, or other code has set it since
    _last = max(_before, _workers * _OBJECTS)
    if current != _last:
        gc.set_threshold(_last, *others)


def _forget() -> None:
    """Reset in a forked child, since the runs go on in the parent. A thread of the parent may hold the lock."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()
    if _workers:
        _apply(-_workers)


if hasattr(os, "register_at_fork"):  # there is none on Windows
    os.register_at_fork(after_in_child=_forget)

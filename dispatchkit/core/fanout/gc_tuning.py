"""Room for what is young: the garbage collector, while a wide fan-out runs.

Python looks through its youngest objects whenever 700 more were made than dropped. A thousand calls in flight make and
drop twenty times that in every turn of the loop, all of it alive, and looking through it over and over takes a third of
all their time. So while a run is that wide, its objects may be as many as it needs before they are looked through.
What a cycle holds is found a little later; nothing is kept for longer than the run.
"""

from __future__ import annotations

import gc
import os
import threading

__all__ = ["raise_gc_threshold", "restore_gc_threshold"]

_OBJECTS = 20
"""How many objects a call in flight makes before it drops them, about."""

_lock = threading.Lock()
_workers = _before = _last = 0


def raise_gc_threshold() -> None:
    """One worker more, in whatever run. `restore_gc_threshold` takes it back."""
    global _before, _last  # noqa: PLW0603 - the collector is the process's own
    with _lock:
        if not _workers:
            _before = _last = gc.get_threshold()[0]
        _apply(1)


def restore_gc_threshold() -> None:
    """One worker less. After the last one all is as it was."""
    with _lock:
        _apply(-1)


def _apply(change: int) -> None:
    global _last, _workers  # noqa: PLW0603
    _workers = max(0, _workers + change)  # a forked child may drop what it inherited of its parent's
    current, *others = gc.get_threshold()
    if _before == 0 or current != _last:
        return  # it is off, or somebody else has set it meanwhile and knows better
    _last = max(_before, _workers * _OBJECTS)
    if current != _last:
        gc.set_threshold(_last, *others)


def _forget() -> None:
    """After a fork: the runs go on in the parent only, and no thread of it is here to release the lock."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    if _workers:
        _apply(-_workers)


if hasattr(os, "register_at_fork"):  # there is none on Windows
    os.register_at_fork(after_in_child=_forget)

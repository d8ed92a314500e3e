"""Garbage collection of the command line: hardly any while it starts, and none of what it has imported.

A command imports some 600 modules, which make 100,000 objects that stay. By default, CPython searches them for garbage
again and again, and once more at the exit. That takes a fifth of the CPU time of a short command.
"""

from __future__ import annotations

import atexit
import gc

__all__ = ["postpone_collections", "resume_collections"]

_OBJECTS = 500_000
"""Net allocations until the first collection. It bounds the garbage of a large input."""

_before: tuple[int, int, int] | None = None


def postpone_collections() -> None:
    """Raise the threshold of the collector until `resume_collections`, and leave out the collections at the exit."""
    global _before  # noqa: PLW0603 - the collector is the process's own
    if 0 < gc.get_threshold()[0] < _OBJECTS:
        _before = gc.get_threshold()
        gc.set_threshold(_OBJECTS, *_before[1:])
        atexit.register(gc.freeze)


def resume_collections() -> None:
    """Restore the threshold, and keep all objects so far out of the collections. Later calls do nothing."""
    global _before  # noqa: PLW0603
    if _before is not None:
        gc.freeze()
        gc.set_threshold(*_before)
        _before = None

"""Refuse to work in a process whose sockets or threads gevent or eventlet has replaced.

asyncio needs the real ones. With greenlets in their place, an event loop in its own thread never runs. A blocking
caller then waits forever.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import cast

__all__ = ["refuse_patched"]

_PATCHERS = (
    ("gevent", "gevent.monkey", "is_module_patched", ("socket", "select", "threading", "_thread")),
    ("eventlet", "eventlet.patcher", "is_monkey_patched", ("socket", "select", "thread")),
)
"""Library, module, the function that tells whether a module is patched, and the modules that asyncio needs."""


def refuse_patched() -> None:
    """Check that sockets, select and threads are Python's own.

    Raises:
        RuntimeError: gevent or eventlet has replaced one of them.
    """
    for library, module, function, needed in _PATCHERS:
        is_patched = cast("Callable[[str], bool] | None", getattr(sys.modules.get(module), function, None))
        if is_patched is not None and (patched := [name for name in needed if is_patched(name)]):
            raise RuntimeError(
                f"{library} has replaced {' and '.join(patched)} in this process. dispatchkit needs Python's own: use "
                "it without monkey-patching, or in another process. Celery's prefork pool is such a process"
            )

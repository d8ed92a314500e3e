"""The rights of another user: root, who runs the tests in a container, may write any file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

__all__ = ["without_rights"]

_NOBODY = 65534


@contextlib.contextmanager
def without_rights() -> Iterator[Callable[[], None]]:
    """Be a user without rights within the context, or until the yielded call. A user without any stays as it is.

    What is imported must be imported before: such a user may be unable to read it.
    """
    if os.geteuid() != 0:
        yield lambda: None
        return

    def restore() -> None:
        os.setresuid(0, 0, 0)

    os.setresuid(_NOBODY, _NOBODY, 0)
    try:
        yield restore
    finally:
        restore()

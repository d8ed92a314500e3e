"""Targets that several runs launch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import attrs

__all__ = ["MAX_COMMANDS", "RECORDED_LATE", "Launched", "Repeat"]

MAX_COMMANDS = 10
"""Maximum number of commands in a `Repeat`."""
RECORDED_LATE = 3600.0
"""Maximum seconds from the end of a hold to the write of its last outcome."""


@attrs.frozen
class Repeat:
    """Targets of a run that another run has launched, is launching, or may have launched."""

    run: str
    """The name of the other run."""
    count: int
    commands: Sequence[str] = attrs.field(repr=False)
    """The first commands, at most `MAX_COMMANDS`, encoded by `codec`."""
    latest: datetime
    """The latest claim or outcome of these targets in the other run."""
    indexes: Sequence[int] = attrs.field(repr=False)
    """The indexes of these targets in this run, in order."""


class Launched(NamedTuple):
    """A target that a run has launched, is launching, or may have launched."""

    run: str
    """The name of the run."""
    key: bytes
    """The key of its command, see `keys.key_of`."""
    state: str
    """``done``, ``sending`` or ``unknown``; ``planned`` if a process is about to launch it."""
    at: datetime
    """The latest claim or outcome."""

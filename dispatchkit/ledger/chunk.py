"""A chunk of a run's targets, and the lease of the process that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import attrs

from dispatchkit.values import HIDDEN, Value

__all__ = ["HEARTBEAT_INTERVAL", "LEASE_TIMEOUT", "Chunk", "HeartbeatStatus", "Holder", "divide"]

LEASE_TIMEOUT = 30.0
"""Seconds from its last heartbeat to the end of a holder's lease."""
HEARTBEAT_INTERVAL = 1.0
"""Seconds between two heartbeats. A holder obeys a stop within this time."""


@attrs.frozen
class Holder(Value):
    """The process that holds a chunk."""

    token: str = attrs.field(repr=False, metadata=HIDDEN)
    """The token of the hold."""
    pid: int
    host: str
    since: datetime | None = attrs.field(default=None, eq=False)
    """Start of the hold; None if the store does not tell."""
    boot_id: str = attrs.field(default="", eq=False)
    """Id of the machine's boot; empty if the system has none."""
    process_started: int = attrs.field(default=0, eq=False)
    """Start time of the process, in clock ticks since the boot; 0 if unknown."""
    pid_namespace: int = attrs.field(default=0, eq=False)
    """Inode of the PID namespace; 0 if the system has none. Process ids are unique only within a namespace."""
    lease_left: float = attrs.field(default=LEASE_TIMEOUT, eq=False)
    """Seconds until the lease ends, on the database's clock; negative after missed heartbeats."""
    exists: bool = attrs.field(default=False, eq=False)
    """Whether the lock shows that the process exists. Then the hold does not end with its lease."""


@attrs.frozen
class Chunk(Value):
    """A range of a run's targets: from ``start`` up to, not including, ``end``."""

    number: int
    start: int
    end: int
    holder: Holder | None = None
    """The current holder; None if there is none, or its lease has ended."""


@attrs.frozen
class HeartbeatStatus:
    """The answer to a heartbeat."""

    mine: bool
    """Whether the process still holds the chunk."""
    stopped: bool
    """Whether the run was stopped."""


def divide(chunks: Sequence[Chunk], total: int, size: int | None) -> list[Chunk]:
    """The new or extended chunks that cover the targets after the present ones.

    Args:
        chunks: The present chunks, in order.
        total: The number of the run's targets.
        size: Targets of a new chunk; None extends a single chunk, or makes one.
    """
    end = chunks[-1].end if chunks else 0
    if end == total:
        return []
    if size is None:
        if len(chunks) == 1:
            return [attrs.evolve(chunks[0], end=total)]
        size = max(1, total - end)
    first = len(chunks)
    return [
        Chunk(number, begin, min(total, begin + size)) for number, begin in enumerate(range(end, total, size), first)
    ]

"""What a database must be able to do to hold ledgers. `sqlite` and `postgres` do it.

Five tables. Nothing that was written is taken back; what happened to a target is what its latest rows say::

    run        one launch: its name, how it is carried out, whether its plan is whole, whether it was stopped
    chunk      a stretch of a run's targets that one process holds at a time: its owner, and when that was last seen
    target     one command of a run, as data; the same command twice in one run is one target
    sending    a request is about to leave: written, durably, before its first byte
    outcome    what came of it; an unknown one may be overwritten by a later and better one, a final one never

A target without `sending` is planned. One with `sending` and no `outcome` is in flight, or its process died: whoever
holds the chunk next finds it unclear, and settles it.

The owner of a chunk is a token that is new for every hold, not for every process, and every claim names it in the same
statement that writes `sending`. So whoever was taken for dead and comes back is refused, even by a hair's breadth.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from typing import Protocol

import attrs

from dispatchkit.core.journal import Leave
from dispatchkit.errors import State

__all__ = ["Chunk", "Claim", "Counts", "Holder", "Pulse", "Record", "Run", "Store", "Target", "Unsettled"]

STALE = 30.0
"""Seconds after which a holder that was not seen is taken for dead."""
BEAT = 1.0
"""Seconds between two signs of life of a holder: also how soon it obeys a stop."""


@attrs.frozen
class Run:
    """A run, as it is listed."""

    number: int
    """Its key in the database."""
    name: str
    settings: str
    """JSON: how the run is carried out, for whoever resumes it. Never a token."""
    created: datetime
    total: int
    """Targets that are planned so far."""
    whole: bool
    """Whether all of its commands are planned. Only then may it be resumed without them."""
    stopped: bool


@attrs.frozen
class Counts:
    """How far a run, or a chunk of it, has come."""

    planned: int = 0
    """Never begun."""
    sending: int = 0
    """In flight, or left by a process that died."""
    done: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0


@attrs.frozen
class Holder:
    """Who holds a chunk."""

    token: str
    """New for every hold."""
    pid: int
    host: str
    since: datetime | None = attrs.field(default=None, eq=False)
    """When it took the chunk, where a store tells it."""


@attrs.frozen
class Chunk:
    """A stretch of a run's targets: from ``first`` up to, not including, ``end``."""

    number: int
    first: int
    end: int
    holder: Holder | None = None
    """Who holds it now, if he was seen lately."""


@attrs.frozen
class Unsettled:
    """A target that is not final: planned, not sent, unknown, or left in flight."""

    index: int
    command: str
    """As `codec` writes it."""
    request_id: str | None = None
    since: datetime | None = None
    """When its first unclear request began; None if none is unclear."""


@attrs.frozen
class Claim:
    """A request is about to leave."""

    run: int
    chunk: int
    index: int
    token: str
    """Of the one who holds the chunk."""
    request_id: str | None
    since: datetime
    """When the first request of it that is unclear began: now, or what `Unsettled.since` says."""


@attrs.frozen
class Record:
    """What came of a target."""

    run: int
    chunk: int
    index: int
    token: str
    """Of the hold under which it came about."""
    state: State
    summary: str
    """Of the error; empty where there is none."""
    code: int | str | None
    request_id: str | None
    attempts: int
    at: datetime


@attrs.frozen
class Target:
    """A target with all that is known of it, as it is shown and exported."""

    index: int
    command: str
    state: str
    """``planned``, ``sending``, or the value of a `State`."""
    summary: str = ""
    code: int | str | None = None
    request_id: str | None = None
    attempts: int = 0
    at: datetime | None = None


@attrs.frozen
class Pulse:
    """What a holder learns when it gives a sign of life."""

    mine: bool
    """Whether it still holds the chunk."""
    stopped: bool
    """Whether the run was stopped."""


class Store(Protocol):
    """A database that holds ledgers. All times are UTC. Every method raises `LedgerError`, and nothing else.

    One store serves one event loop. ``plan``, ``claim`` and ``record`` return once what they wrote is on disk.
    """

    async def open(self) -> None:
        """Connect, and make or check the tables."""
        ...

    async def close(self) -> None:
        """Disconnect. Closing twice does nothing."""
        ...

    async def begin(self, name: str, settings: str) -> Run:
        """The run of this name: a new one, or the one that is there, with its own settings."""
        ...

    async def run(self, name: str) -> Run | None:
        """The run of this name."""
        ...

    async def runs(self) -> list[Run]:
        """All runs, the newest first."""
        ...

    async def plan(self, run: int, rows: Sequence[tuple[bytes, str]]) -> None:
        """Plan targets: the key by which two are the same, and the command. A key that is there already is passed over.

        Targets are numbered from 0 in the order in which they come.
        """
        ...

    async def planned(self, run: int, *, size: int | None = None) -> list[Chunk]:
        """All targets are planned: mark the run as whole, and divide it into chunks of ``size`` targets, or into one.

        A run that is whole already keeps the chunks it has; targets that are new get chunks of their own, or, where
        there is a single chunk and no ``size``, join it.
        """
        ...

    async def chunks(self, run: int) -> list[Chunk]:
        """The chunks of a run that hold a target which is not final (done or rejected)."""
        ...

    async def hold(self, run: int, chunk: int, holder: Holder) -> Holder | None:
        """Take a chunk: None if it is ours now, else who holds it.

        It is taken from a holder that was not seen for `STALE` seconds, or whose process on this host is gone.
        """
        ...

    async def beat(self, run: int, chunk: int, token: str) -> Pulse:
        """Give a sign of life."""
        ...

    async def let_go(self, run: int, chunk: int, token: str) -> None:
        """Give a chunk up, if it is still ours."""
        ...

    async def unsettled(self, run: int, chunk: int, *, after: int, limit: int) -> list[Unsettled]:
        """The next targets of a chunk, by index, that are neither done nor rejected."""
        ...

    async def claim(self, claims: Sequence[Claim]) -> list[Leave]:
        """Write `sending`, each in the one statement that also sees whose the chunk is and whether the run was stopped.

        Asked again for the same index by the same token, it gives the same answer: an answer may have been lost.
        """
        ...

    async def record(self, records: Sequence[Record]) -> None:
        """Write outcomes. One that is done or rejected is never overwritten; asked again, it changes nothing.

        Of a holder that the chunk was taken from, only *done* still counts: whoever came after it may have a request
        on its way, which anything else would deny.
        """
        ...

    async def counts(self, run: int, *, chunk: int | None = None) -> Counts:
        """How far a run has come, or one chunk of it."""
        ...

    def targets(self, run: int, *, states: Collection[str] = ()) -> AsyncIterator[Target]:
        """The targets of a run by index, those in one of the states, or all; read in pages."""
        ...

    async def stop(self, run: int, *, stopped: bool) -> None:
        """Set or clear the flag that every claim and every sign of life reads."""
        ...

"""What a fan-out writes down before it acts, as far as it needs to know: the side of the ledger that it sees.

A journal is the memory of one run. The fan-out plans all its commands in it, then takes back one after another those
that are not final, asks leave for each just before its first byte, and has what came of it written down.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Generic, Never, Protocol, TypeVar

import attrs

from dispatchkit.core.call.context import RunSettings
from dispatchkit.core.claim import ClaimResult
from dispatchkit.core.command import Command
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.errors import State

__all__ = ["Journal", "JournalProvider", "PlanSummary", "Source", "WorkItem"]

R = TypeVar("R")
W = TypeVar("W")


@attrs.frozen
class WorkItem(Generic[W, R]):
    """One command of a run that is not final yet."""

    index: int
    """Its place in the run, from 0."""
    command: Command[W, R]
    request_id: str | None = None
    """The request id of an earlier attempt that is unclear; None where there is none."""
    unclear_since: datetime | None = None
    """When an earlier attempt that is unclear began: settle it before anything is sent. None: nothing is unclear."""
    acting_until: float | None = None
    """On the clock's ``monotonic``: until when a request of an earlier process may still reach the provider. No state
    that was read before, or soon after, denies it. None: until the call begins."""
    repeats: int = 0
    """How many processes may have sent it again since then."""
    acted_by: float | None = None
    """On the clock's ``monotonic``: when such a request has acted at the latest, but for the lag of the state that
    shows it. None: ``acting_until``, which a takeover puts off."""


@attrs.frozen
class PlanSummary:
    """A run as it is found when a fan-out opens it."""

    total: int | None
    """Commands, each counted once; None if nobody can know."""
    final: Mapping[State, int]
    """How many came to a final outcome earlier: also to an unknown one that nothing can settle. They are not touched
    again."""


class Source(Protocol):
    """Where one fan-out takes its commands from, and tells what came of them: its run's memory, if it has one."""

    async def open(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None, stop: Callable[[], None]
    ) -> PlanSummary:
        """Hold the run, and plan what it does not know yet. If this fails, nothing is held.

        Args:
            commands: What to do. One that the run already knows is not planned a second time. None: what is planned.
            stop: Called, on the event loop, once the run was stopped from elsewhere or lost to another process.

        Raises:
            LedgerError: The run is held by another process, or its memory cannot be written; or there are no commands,
                and the plan of the run is not whole.
            TypeError: One of the commands could not be built.
            ValueError: One of the commands could not be built.
        """
        ...

    async def next_item(self) -> WorkItem[Never, object] | None:
        """The next command that is not final; None after the last."""
        ...

    def stop(self) -> None:
        """Nothing is launched any more: a claim that waits for the database gives up, as `ClaimResult.STOPPED`."""
        ...

    def record(self, item: WorkItem[W, R], outcome: Outcome[R]) -> None:
        """Have an outcome written down soon. Until then, the run remembers the request as unclear."""
        ...

    async def close(self) -> None:
        """Write what is left to write, and let go of the run.

        Raises:
            LedgerError: It cannot be written.
        """
        ...


class Journal(Source, Protocol):
    """The memory of one run, held by one fan-out at a time."""

    async def claim(self, item: WorkItem[W, R], request_id: str | None) -> ClaimResult:
        """Write down, durably, that a command's request is about to leave. Not a byte may leave before it is granted.

        Raises:
            LedgerError: It cannot be written.
        """
        ...

    async def has_rival(self, item: WorkItem[W, R], within: float) -> bool:
        """Whether another launch of the same log (`Command.log_key`) on this host may have left.

        It is in this run or another one, and came to no outcome that denies it.

        Args:
            item: The launch that is asked for.
            within: Seconds from now back to the time from which on others count.

        Raises:
            LedgerError: It cannot be read.
        """
        ...


class JournalProvider(Protocol):
    """What gives each run its journal: the ledger."""

    def journal(self, run: str, settings: RunSettings) -> Journal:
        """The memory of the run of this name.

        Args:
            run: Its name.
            settings: How the client carries it out. A run of another provider, host or account is refused.
        """
        ...

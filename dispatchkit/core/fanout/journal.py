"""The protocols through which a fan-out uses a ledger.

A journal is the memory of one run. The fan-out plans all its commands in it, then takes those that are not final one
after another. It claims each just before the first byte, and records its outcome.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Generic, Never, Protocol, TypeVar

import attrs

from dispatchkit.core.claim import ClaimResult
from dispatchkit.core.command import Command
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.errors import State

if TYPE_CHECKING:
    from dispatchkit.core.call.context import RunSettings

__all__ = ["FinishedTarget", "Journal", "JournalProvider", "PlanSummary", "Source", "WorkItem"]

R = TypeVar("R")
W = TypeVar("W")


@attrs.define(eq=False)
class WorkItem(Generic[W, R]):
    """One command of a run that is not final yet. It never changes: a frozen class would only take longer to make."""

    index: int
    """Its place in the run, from 0."""
    command: Command[W, R]
    request_id: str | None = None
    """The request id of an earlier attempt that is unclear; None where there is none."""
    unclear_since: datetime | None = None
    """When an earlier unclear attempt began: it is settled before anything is sent. None: nothing is unclear."""
    acting_until: float | None = None
    """On the clock's ``monotonic``: the latest time at which a request of an earlier process may reach the provider. A
    state that was read before it, or soon after it, denies nothing. None: the start of the call."""
    repeats: int = 0
    """The number of processes that may have repeated it since then."""
    acted_by: float | None = None
    """On the clock's ``monotonic``: the latest time at which such a request may have had its effect. It excludes the
    lag of the state that shows the effect. None: ``acting_until``, which a takeover postpones."""


@attrs.frozen
class FinishedTarget:
    """A target among the first ones of a run that an earlier fan-out finished."""

    command: Command[Never, object]
    state: State
    """Done, rejected, or unknown for good."""
    since: datetime | None = None
    """When its first request began."""
    summary: str = ""
    """The summary of its error."""
    index: int | None = None
    """Its place in the run, from 0."""


@attrs.frozen
class PlanSummary:
    """The state of a run when a fan-out opens it."""

    total: int | None
    """Commands, each counted once; None if the number cannot be known."""
    final: Mapping[State, int]
    """Commands with a final outcome, by state; an unknown one that nothing can settle is final, too. They are not
    performed again."""
    canary: int | None = None
    """The number of targets that go first; 0 if the rest has begun before. None: the fan-out's own number."""
    finished: tuple[FinishedTarget, ...] = ()
    """Those of the first targets that are final."""
    launched_elsewhere: int = 0
    """Commands that are left out, because another run launched them or launches them now. ``total`` lacks them."""


class Source(Protocol):
    """The source of one fan-out's commands, and the recorder of their outcomes."""

    async def open(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None, stop: Callable[[], None]
    ) -> PlanSummary:
        """Hold the run, and plan its new commands. If this fails, the run is not held.

        Args:
            commands: The commands. One that is planned already is not planned twice. None: those that are planned.
            stop: Called on the event loop once the run was stopped from elsewhere or lost to another process.

        Raises:
            LedgerError: Another process holds the run, or the ledger cannot be written; or ``commands`` is None and
                the plan is incomplete.
            TypeError: One of the commands could not be built.
            ValueError: One of the commands could not be built.
        """
        ...

    async def next_item(self) -> WorkItem[Never, object] | None:
        """The next command that is not final; None after the last."""
        ...

    def next_at_once(self) -> WorkItem[Never, object] | None:
        """The same without a wait. None also if there is none yet: then ask `next_item`."""
        ...

    def stop(self) -> None:
        """Launch nothing more: a claim that waits for the database ends as `ClaimResult.STOPPED`."""
        ...

    def record(self, item: WorkItem[W, R], outcome: Outcome[R]) -> None:
        """Write an outcome soon. Until it is written, the ledger holds the request as unclear."""
        ...

    async def close(self) -> None:
        """Write the outcomes that are not written yet, and release the run.

        Raises:
            LedgerError: It cannot be written.
        """
        ...


class Journal(Source, Protocol):
    """The memory of one run, held by one fan-out at a time."""

    def claim(self, item: WorkItem[W, R], request_id: str | None) -> Awaitable[ClaimResult]:
        """Claim a command, durably. No byte of its request may be sent before the claim is granted.

        Raises:
            LedgerError: It cannot be written.
        """
        ...

    async def has_rival(self, item: WorkItem[W, R], within: float) -> bool:
        """Whether another launch of the same log (`Command.log_key`) on this host may have been sent.

        It counts in this run and in any other, unless its outcome denies that it was sent.

        Args:
            item: The launch to compare with.
            within: Seconds; earlier launches do not count.

        Raises:
            LedgerError: It cannot be read.
        """
        ...


class JournalProvider(Protocol):
    """Gives each run its journal: usually a `Ledger`."""

    def journal(self, run: str, settings: RunSettings) -> Journal:
        """The journal of a run.

        Args:
            run: The name of the run.
            settings: The client's settings. A run of another provider, host or account is refused.
        """
        ...

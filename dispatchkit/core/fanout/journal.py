"""What a fan-out writes down before it acts, as far as it needs to know: the side of the ledger that it sees.

A journal is the memory of one run. The fan-out plans all its commands in it, then takes back one after another those
that are not final, asks leave for each just before its first byte, and has what came of it written down.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Generic, Never, Protocol, TypeVar

import attrs

from dispatchkit.core.command import Command
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.errors import State

__all__ = ["Entry", "Journal", "Journals", "Leave", "Planned", "RunSettings", "Source"]

R = TypeVar("R")
W = TypeVar("W")


class Leave(enum.Enum):
    """What a journal answers to somebody who wants to send."""

    GRANTED = "granted"
    """It is on disk that the request is about to leave: go."""
    LATER = "later"
    """Not now: the account is paused elsewhere. The pacer has been told; ask again when it gives leave."""
    GONE = "gone"
    """Somebody else has it, or it has come to its outcome: leave it alone."""
    STOPPED = "stopped"
    """The run was stopped, or another process has taken it over: start nothing any more."""


@attrs.frozen
class Entry(Generic[W, R]):
    """One command of a run that is not final yet."""

    index: int
    """Its place in the run, from 0."""
    command: Command[W, R]
    request_id: str | None = None
    """The request id of an earlier attempt that is unclear; None where there is none."""
    since: datetime | None = None
    """When an earlier attempt that is unclear began: settle it before anything is sent. None: nothing is unclear."""
    acting_until: float | None = None
    """On the clock's ``monotonic``: until when a request of an earlier process may still reach the provider. No state
    that was read before, or soon after, denies it. None: until the call begins."""
    repeats: int = 0
    """How many processes may have sent it again since then."""
    acted_by: float | None = None
    """On the clock's ``monotonic``: when such a request has acted at the latest, but for the lag of the state that
    shows it. None: ``acting_until``, which a takeover puts off."""


@attrs.frozen(kw_only=True)
class RunSettings:
    """How a client carries out a run, as far as the run's memory must know."""

    settings: Mapping[str, str]
    """Provider, host and format, as text. A run that was planned with others is refused."""
    account: str | None
    """The account's name, where the client has one."""
    fingerprint: Callable[[], str] = attrs.field(repr=False)
    """Gives what identifies the token on every machine. It is slow on purpose: it takes a tenth of a second."""
    attempt_timeout: float
    """Seconds that one attempt may take."""
    repeat_window: float | None = None
    """Seconds within which another run must not have launched the same target on the same account; None allows it."""


@attrs.frozen
class Planned:
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
    ) -> Planned:
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

    async def take(self) -> Entry[Never, object] | None:
        """The next command that is not final; None after the last."""
        ...

    def halt(self) -> None:
        """Nothing is launched any more: a claim that waits for the database gives up, as `Leave.STOPPED`."""
        ...

    def record(self, entry: Entry[W, R], outcome: Outcome[R]) -> None:
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

    async def claim(self, entry: Entry[W, R], request_id: str | None) -> Leave:
        """Write down, durably, that a command's request is about to leave. Not a byte may leave before it is granted.

        Raises:
            LedgerError: It cannot be written.
        """
        ...

    async def has_rival(self, entry: Entry[W, R], within: float) -> bool:
        """Whether another launch of the same log (`Command.log_key`) on this host may have left.

        It is in this run or another one, and came to no outcome that denies it.

        Args:
            entry: The launch that is asked for.
            within: Seconds from now back to the time from which on others count.

        Raises:
            LedgerError: It cannot be read.
        """
        ...


class Journals(Protocol):
    """What gives each run its journal: the ledger."""

    def journal(self, run: str, settings: RunSettings) -> Journal:
        """The memory of the run of this name.

        Args:
            run: Its name.
            settings: How the client carries it out. A run of another provider, host or account is refused.
        """
        ...

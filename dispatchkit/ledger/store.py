"""What a database must be able to do to hold ledgers. `sqlite` and `postgres` do it.

Five tables. Nothing that was written is taken back; what happened to a target is what its latest rows say::

    run        one launch: its name, how it is carried out, whether its plan is complete, whether it was stopped
    chunk      a stretch of a run's targets that one process holds at a time: its owner, and when that was last seen
    target     one command of a run, as data; the same command twice in one run is one target. Its log key says in
               which log of the provider alone it shows, if that is so
    sending    a request is about to leave: written, durably, before its first byte; with the time of its latest claim
    outcome    what came of it; an unknown one may be overwritten by a later and better one, a final one never. An
               unknown one that nothing can settle is marked, and whoever holds the chunk next leaves it alone

A target without `sending` is planned. One with `sending` and no `outcome` is in flight, or its process died: whoever
holds the chunk next finds it unclear, and settles it.

The owner of a chunk is a token that is new for every hold, not for every process, and every claim names it in the same
statement that writes `sending`. So whoever was taken for dead and comes back is refused, even by a hair's breadth.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Never, Protocol, cast

import attrs

from dispatchkit.core.claim import ClaimResult
from dispatchkit.errors import LedgerError, State
from dispatchkit.values import HIDDEN, SHOWN, Json, Value, redact_urls, shown_as, target_of

if TYPE_CHECKING:
    from dispatchkit.core.command import Command

__all__ = [
    "HEARTBEAT_INTERVAL",
    "LEASE_TIMEOUT",
    "MAX_NUMBER",
    "Chunk",
    "Claim",
    "Counts",
    "HeartbeatStatus",
    "Holder",
    "PausedAccount",
    "Record",
    "Repeat",
    "Run",
    "RunPlan",
    "SharedStore",
    "Store",
    "Target",
    "Unsettled",
]

LEASE_TIMEOUT = 30.0
"""Seconds after its last heartbeat for which a holder keeps its chunk."""
HEARTBEAT_INTERVAL = 1.0
"""Seconds between two heartbeats of a holder. A holder obeys a stop within this time."""
MAX_NUMBER = 2**31 - 1
"""The largest number that a column of a database holds."""


def _settings(text: str) -> dict[str, str]:
    try:
        settings: object = json.loads(text)
    except ValueError:
        settings = None
    known = cast("dict[str, object]", settings) if isinstance(settings, dict) else {}
    return {name: redact_urls(str(value)) for name, value in known.items()}


@functools.lru_cache(maxsize=1)  # the keys of a target need it one after the other
def _command(text: str) -> Command[Never, object] | None:
    from dispatchkit.ledger.codec import decode  # noqa: PLC0415 - it knows the providers, which a store does not

    try:
        return decode(text)
    except LedgerError:
        return None


def _command_dict(text: str) -> dict[str, Json] | None:
    command = _command(text)
    return None if command is None else command.to_dict()


@attrs.frozen(kw_only=True)
class RunPlan:
    """A run that is to begin: whose it is, and how it is carried out."""

    name: str
    settings: str
    """JSON: provider, host and format, for the process that resumes it. Never a token."""
    host: str
    """The provider's host, as the client names it. With `account` and a command it makes the key of a repeat."""
    account: str | None
    """The account's name, where the client has one."""
    fingerprint: str
    """A slow hash of the token: it identifies the account where there is no name."""
    attempt_timeout: float
    """Seconds that one attempt may take."""
    repeat_window: float | None = None
    """Seconds within which no other run may have launched one of the targets, for each process that launches it."""


@attrs.frozen
class Run(Value):
    """A run, as it is listed.

    Example:
        >>> async with Sandbox() as sandbox, Ledger("launch.db") as ledger:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         report = await direct.start_many([7, 8], ledger=ledger, run="black-friday").finish()
        ...     [(run.name, run.total, run.plan_complete) for run in await ledger.runs()]
        [('black-friday', 2, True)]
    """

    number: int
    """Its key in the database."""
    name: str
    settings: str = attrs.field(metadata=shown_as("settings", _settings))
    """JSON: how the run is carried out, for whoever resumes it. Never a token."""
    created: datetime
    total: int
    """Targets that are planned so far."""
    plan_complete: bool
    """Whether all of its commands are planned. Only then may it be resumed without them."""
    stopped: bool
    account: str | None = None
    """The account that it was planned for, where the client named it."""
    fingerprint: str = attrs.field(default="", metadata=HIDDEN)
    """The fingerprint of the token that it was planned with."""
    attempt_timeout: float = 0.0
    """Seconds: the longest `attempt_timeout` of all processes that held it."""
    restored: bool = False
    """Whether the database was restored, copied or failed over since the run was planned: rows may have been lost, so
    a target that looks planned may have been launched."""
    stops: int = 0
    """How often it was stopped."""
    repeat_window: float | None = None
    """Seconds within which no other run may have launched one of its targets."""


@attrs.frozen
class PausedAccount(Value):
    """An account on which all processes that share the ledger start nothing, as the provider asked for it."""

    key: str
    """A hash."""
    until: datetime
    """The end of the pause, UTC."""
    runs: tuple[Run, ...] = ()
    """The runs that were planned for it, the newest first."""


@attrs.frozen
class Counts(Value):
    """How far a run, or a chunk of it, has come.

    Example:
        >>> Counts(planned=700, done=300)
        Counts(planned=700, sending=0, done=300, rejected=0, not_sent=0, unknown=0)
    """

    planned: int = 0
    """Never begun."""
    sending: int = 0
    """In flight, or left by a process that died."""
    done: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0
    unknown_for_good: int = attrs.field(default=0, repr=False, metadata=SHOWN)
    """How many of those that are unknown nothing can settle any more: a resume leaves them alone."""


@attrs.frozen
class Holder(Value):
    """Who holds a chunk."""

    token: str = attrs.field(metadata=HIDDEN)
    """New for every hold."""
    pid: int
    host: str
    since: datetime | None = attrs.field(default=None, eq=False)
    """When it took the chunk, where a store tells it."""
    boot_id: str = attrs.field(default="", eq=False)
    """The boot of its machine; empty where the system names none."""
    process_started: int = attrs.field(default=0, eq=False)
    """Start time of its process, in clock ticks since the boot; 0 where the system tells none."""
    pid_namespace: int = attrs.field(default=0, eq=False)
    """Inode of its PID namespace; 0 where the system has none. Process ids of another namespace mean nothing here."""
    lease_left: float = attrs.field(default=LEASE_TIMEOUT, eq=False)
    """Seconds until its lease ends, by the database's clock; negative if it has missed its heartbeats."""
    exists: bool = attrs.field(default=False, eq=False)
    """Whether its process certainly exists, as its lock shows. Then no lease ends the hold."""


@attrs.frozen
class Chunk(Value):
    """A stretch of a run's targets: from ``start`` up to, not including, ``end``."""

    number: int
    start: int
    end: int
    holder: Holder | None = None
    """Who holds it now, if he was seen lately."""


@attrs.frozen
class Unsettled:
    """A target that is not final: planned, not sent, left in flight, or unknown and not `Record.is_final`."""

    index: int
    command: str
    """As `codec` writes it."""
    request_id: str | None = None
    since: datetime | None = None
    """When its first unclear request began; None if none is unclear. Of a planned target of a `Run.restored` run: when
    the run was created."""
    acting_for: float = 0.0
    """Seconds from now for which a request of an earlier process may still reach the provider: what is left of
    ``claimed_at + CLAIM_AGE + attempt_timeout``, negative once that has passed. Of a planned target of a `Run.restored`
    run, whose claim may be lost: what is left of that, counted from the hold."""
    repeats: int = 0
    """How many later holds may have sent it again since its first unclear request. One whose outcome says that it made
    no attempt counts as none."""


@attrs.frozen
class Repeat:
    """Targets of one run that another run launched, launches, or may have launched."""

    run: str
    """The name of the other run."""
    count: int
    commands: Sequence[str]
    """The first of them, at most ten, as `codec` writes them."""
    latest: datetime
    """The latest claim or outcome of them in the other run."""


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
    is_final: bool = False
    """Of an unknown outcome: whether nothing can settle it any more."""


@attrs.frozen
class Target(Value):
    """A target with all that is known of it, as it is shown and exported.

    Its `to_dict` shows the command itself, without its content; None if this release cannot read it.

    Example:
        >>> target = Target(0, '{"type":"direct.start","version":1,"dispatch_id":7}', "planned")
        >>> target.to_dict()["command"]
        {'type': 'StartDispatch', 'dispatch_id': 7}
        >>> async with Sandbox() as sandbox, Ledger("launch.db") as ledger:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         report = await direct.start_many([7], ledger=ledger, run="black-friday").finish()
        ...     [(target.index, target.state) async for target in ledger.targets("black-friday")]
        [(0, 'done')]
    """

    __to_dict_also__: ClassVar[tuple[str, ...]] = ("target",)

    index: int
    command: str = attrs.field(metadata=shown_as("command", _command_dict))
    """As `codec` writes it."""
    state: str
    """``planned``, ``sending``, or the value of a `State`."""
    summary: str = ""
    code: int | str | None = None
    request_id: str | None = None
    attempts: int = 0
    at: datetime | None = None
    is_final: bool = False
    """Of an unknown one: whether nothing can settle it any more, so that a resume leaves it alone."""

    @property
    def target(self) -> int | None:
        """The id that the command acts on; None if this release cannot read the command."""
        return target_of(_command(self.command))


@attrs.frozen
class HeartbeatStatus:
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

    async def check_identity(self) -> None:
        """Check that the database is the one in which its ledger was made. Called before a run begins or is held.

        Raises:
            LedgerError: It is a copy. A copy of a ledger and its original would both launch what is left.
        """
        ...

    async def accept_copy(self) -> None:
        """Take the database as it is for the original, which is not used any more.

        Runs that were planned before are `Run.restored`.
        """
        ...

    async def begin(self, plan: RunPlan) -> Run:
        """The run of this name: a new one, or the one that is there, with its own settings."""
        ...

    async def set_account(self, run: int, *, account: str | None, fingerprint: str) -> None:
        """The account of a run has another name, or another token."""
        ...

    async def run(self, name: str) -> Run | None:
        """The run of this name."""
        ...

    async def runs(self) -> list[Run]:
        """All runs, the newest first."""
        ...

    async def plan(
        self, run: int, rows: Sequence[tuple[bytes, str]], *, log_keys: Mapping[bytes, int] | None = None
    ) -> None:
        """Plan targets: the key by which two are the same, and the command. A key that is there already is passed over.

        Targets are numbered from 0 in the order in which they come. ``log_keys`` holds the `Command.log_key` of those
        that have one, by their key.
        """
        ...

    async def planned(self, run: int, *, size: int | None = None) -> list[Chunk]:
        """All targets are planned: mark it as complete, and divide it into chunks of ``size`` targets, or into one.

        A run whose plan is complete keeps the chunks it has; targets that are new get chunks of their own, or, where
        there is a single chunk and no ``size``, join it.
        """
        ...

    async def chunks(self, run: int) -> list[Chunk]:
        """The chunks of a run that hold a target which is not final (done or rejected)."""
        ...

    async def acquire(self, run: int, chunk: int, holder: Holder, *, attempt_timeout: float) -> Holder | None:
        """Take a chunk: None if it is ours now, else the holder that keeps it.

        In a file, a lock decides: a holder whose process exists keeps the chunk (`Holder.exists`), and one whose
        process of the same boot has ended does not. Where no lock can tell, the lease decides. Host names and process
        ids decide nothing. If it is taken, the run's `attempt_timeout` becomes at least the given one.
        """
        ...

    async def heartbeat(self, run: int, chunk: int, token: str) -> HeartbeatStatus:
        """Give a sign of life."""
        ...

    async def release(self, run: int, chunk: int, token: str) -> None:
        """Give a chunk up, if it is still ours."""
        ...

    async def unsettled(self, run: int, chunk: int, *, after: int, limit: int) -> list[Unsettled]:
        """The next targets of a chunk, by index, that are neither done nor rejected, nor unknown for good."""
        ...

    async def claim(self, claims: Sequence[Claim]) -> list[ClaimResult]:
        """Write `sending`, each in the one statement that also sees whose the chunk is and whether the run was stopped.

        Asked again for the same index by the same token, it grants the same claim anew, with a new time: an answer may
        have been lost, or the claim may have expired.
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

    async def stop(self, run: int) -> None:
        """Set the flag that every claim and every heartbeat reads, and count the stop."""
        ...

    async def clear_stop(self, run: int, *, stops: int | None = None) -> bool:
        """Clear the flag. False: the run was stopped more often than ``stops`` says, so it stays stopped."""
        ...

    async def has_rival(self, run: int, index: int, log_key: int, *, within: float) -> bool:
        """Whether another target of this log and host, of any run, may have acted within so many seconds.

        Its request was claimed since then, or may have arrived since then: up to `CLAIM_AGE` and the run's
        ``attempt_timeout`` after its claim. One that was rejected or not sent does not count. If the database is away,
        it is not waited for.
        """
        ...

    async def repeats(self, run: int, *, chunk: int | None = None, within: float) -> list[Repeat]:
        """Targets that another run of the same account and host launched within so many seconds.

        They are done, in flight or unclear there, or planned in a chunk that is held now. Of this run, or of one chunk
        of it, only targets that are not final are compared.
        """
        ...


class SharedStore(Store, Protocol):
    """A database whose ledgers many processes share, with the pauses of their accounts."""

    async def pauses(self) -> list[tuple[str, datetime]]:
        """The keys of the accounts that are paused now, and until when."""
        ...

    async def lift_pauses(self, keys: Collection[str]) -> list[str]:
        """End the pauses of accounts. Returns the keys of those that were paused."""
        ...

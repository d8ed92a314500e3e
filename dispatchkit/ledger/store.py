"""The protocol of a ledger's database, and its values. `sqlite` and `postgres` implement it.

There are eight tables. The latest rows of a target give its state:

- `run`: one launch, with its name, its settings, whether its plan is complete, and whether it was stopped.
- `chunk`: a range of a run's targets, with its token and its latest heartbeat. One process holds it at a time.
- `target`: one command of a run, as data. Equal commands of a run are one target. If a log alone shows the command, the
  log key is the number of that log.
- `content`: a piece of a long field or a file of a run's commands, by its hash. Each is there once, whatever number of
  targets has it. The transaction that plans its first target writes all of its pieces.
- `sending`: a claim, with the time of the latest claim. It is durable before the first byte of the request.
- `outcome`: the outcome. A later outcome may replace an unknown one, never a done or rejected one. A mark tells that
  nothing can settle an unknown outcome. The next holder leaves a marked outcome alone.
- `tally`: the numbers of targets by state, of each block of a chunk (`blocks`). The transaction that writes a `sending`
  or an `outcome` also changes its tally. So no count reads the targets, and a resume skips the blocks that are over.
- `series`: the numbers of outcomes by time, state and latency (`series`). The transaction that writes an `outcome` also
  adds it here.
- `plan_part`: a digest of some ten thousand commands, as they were given. The same commands are not planned twice.

A target without `sending` is planned. A target with `sending` and no `outcome` is in flight, or its process died. Its
next holder settles it.

Each hold of a chunk has a new token. Every claim has the token in the statement that writes `sending`. So a
presumed-dead holder that returns is fenced off.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Never, Protocol, Self, TypeAlias, cast

import attrs

from dispatchkit.core.claim import ClaimResult
from dispatchkit.core.reprs import RichRepr, describe
from dispatchkit.errors import LedgerError, State
from dispatchkit.json_rows import Json
from dispatchkit.ledger.series import Bucket
from dispatchkit.redaction import redact_urls
from dispatchkit.values import HIDDEN, SHOWN, Value, shown_as, target_of

if TYPE_CHECKING:
    from dispatchkit.core.command import Command
    from dispatchkit.ledger.contents import Content

__all__ = [
    "HEARTBEAT_INTERVAL",
    "LEASE_TIMEOUT",
    "MAX_NUMBER",
    "TABLES_OF_RUN",
    "Chunk",
    "Claim",
    "Counts",
    "HeartbeatStatus",
    "Holder",
    "Launched",
    "PausedAccount",
    "Record",
    "Repeat",
    "Run",
    "RunPlan",
    "SharedStore",
    "Store",
    "StoredClaim",
    "StoredOutcome",
    "Story",
    "Target",
    "TargetRow",
    "Unsettled",
    "deleted_meanwhile",
]

LEASE_TIMEOUT = 30.0
"""Seconds from its last heartbeat to the end of a holder's lease."""
HEARTBEAT_INTERVAL = 1.0
"""Seconds between two heartbeats. A holder obeys a stop within this time."""
MAX_NUMBER = 2**31 - 1
"""Maximum integer of a database column."""


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
        return decode(text, partial=True)
    except LedgerError:
        return None


def _command_dict(text: str) -> dict[str, Json] | None:
    command = _command(text)
    return None if command is None else command.to_dict()


def _command_repr(text: str) -> str:
    """The command without its content, which its text has."""
    command = _command(text)
    return "<a command that this release cannot read>" if command is None else repr(command)


@attrs.frozen(kw_only=True)
class RunPlan:
    """The settings of a new run."""

    name: str
    settings: str
    """JSON: provider, host and format, for a resume. Never a token."""
    host: str
    """The client's base URL. Repeats are searched among runs with the same host and account."""
    account: str | None
    """The account's name, if the client has one."""
    fingerprint: str
    """A slow hash of the token. It identifies an account without a name."""
    attempt_timeout: float
    """Seconds that one attempt may take."""
    repeat_window: float | None = None
    """Seconds within which no other run may have launched one of the targets; None allows it."""
    canary: int | None = None
    """The number of targets that go first; see ``canary`` in `FanOutOptions`."""
    planned_by: str | None = None
    planned_on: str | None = None
    profile: str | None = None
    launch_options: str | None = None


@attrs.frozen(repr=False)
class Run(Value):
    """A run of the ledger.

    Example:
        >>> async with Sandbox() as sandbox, Ledger("launch.db") as ledger:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         report = await direct.start_many([7, 8], ledger=ledger, run="black-friday").finish()
        ...     [(run.name, run.total, run.plan_complete) for run in await ledger.runs()]
        [('black-friday', 2, True)]
    """

    number: int
    """Key in the database."""
    name: str
    settings: str = attrs.field(metadata=shown_as("settings", _settings))
    """JSON: the settings of the client, for a resume. Never a token."""
    created: datetime
    total: int
    """Number of targets that are planned so far."""
    plan_complete: bool
    """Whether all commands are planned. Only then can the run be resumed without them."""
    stopped: bool
    account: str | None = None
    """The account's name, if the client had one."""
    fingerprint: str = attrs.field(default="", repr=False, metadata=HIDDEN)
    """The fingerprint of the account's token."""
    attempt_timeout: float = 0.0
    """Seconds: the longest attempt timeout of all holders."""
    restored: bool = False
    """Whether the database was restored, copied or failed over since the plan: planned targets may be launched."""
    stops: int = 0
    """Number of stops."""
    repeat_window: float | None = None
    """Seconds within which no other run may have launched one of its targets."""
    canary: int | None = None
    """The number of targets that go first; see ``canary`` in `FanOutOptions`."""
    contents_pruned: datetime | None = None
    """When `Ledger.prune` deleted the contents of its commands; None if they are there."""
    planned_by: str | None = None
    """The user whose process planned it; None if the system does not tell."""
    planned_on: str | None = None
    """The name of the machine that planned it."""
    profile: str | None = None
    """The profile of the client that planned it; None if it had none."""
    launch_options: str | None = attrs.field(default=None, repr=False, metadata=HIDDEN)
    """JSON: pace, guards and files of the command line that planned it, for the line that resumes it; None without."""

    def __rich_repr__(self) -> RichRepr:
        settings = _settings(self.settings)
        yield self.name
        yield "provider", settings.get("provider"), None
        yield "base_url", settings.get("base_url"), None
        yield "account", self.account, None
        yield "created", f"{self.created:%Y-%m-%d %H:%M:%S}"
        yield "total", self.total
        yield "plan_complete", self.plan_complete, True
        yield "stopped", self.stopped, False
        yield "restored", self.restored, False
        yield "stops", self.stops, 0
        yield "repeat_window", self.repeat_window, None
        yield "canary", self.canary, None
        yield "contents_pruned", self.contents_pruned, None

    def __repr__(self) -> str:
        return describe(self)


@attrs.frozen
class PausedAccount(Value):
    """An account that all processes with this ledger pause, as the provider asked."""

    key: str
    """The account key, a hash."""
    until: datetime
    """The end of the pause, UTC."""
    runs: tuple[Run, ...] = ()
    """The runs of the account, newest first."""


@attrs.frozen
class Counts(Value):
    """The numbers of targets by state, of a run or a chunk.

    Example:
        >>> Counts(planned=700, done=300)
        Counts(planned=700, sending=0, done=300, rejected=0, not_sent=0, unknown=0)
    """

    planned: int = 0
    """Targets without a request."""
    sending: int = 0
    """Targets in flight, or left by a process that died."""
    done: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0
    unknown_for_good: int = attrs.field(default=0, repr=False, metadata=SHOWN)
    """Number of unknown targets that nothing can settle, so that a resume leaves them alone."""

    @property
    def left(self) -> int:
        """The number of targets that a resume settles or launches."""
        return self.planned + self.sending + self.not_sent + self.unknown - self.unknown_for_good


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


@attrs.define
class Unsettled:
    """A target that is not final: planned, not sent, left in flight, or unknown and not `Record.is_final`.

    It never changes: a frozen class would only take longer to make.
    """

    index: int
    command: str = attrs.field(repr=False)
    """The command, encoded by `codec`."""
    request_id: str | None = None
    since: datetime | None = None
    """Start of the first unclear request; for a planned target of a `Run.restored` run, the run's creation."""
    acting_for: float = 0.0
    """Seconds from now for which an earlier process's request may still reach the provider; negative once it cannot.

    They are left until ``claimed_at + CLAIM_AGE + attempt_timeout``. A planned target of a `Run.restored` run may have
    lost its claim, so the start of the hold replaces ``claimed_at``.
    """
    repeats: int = 0
    """Number of later holds that may have sent the request again. Holds whose outcome has no attempt do not count."""
    key: bytes = attrs.field(default=b"", eq=False)
    """The key that the command was planned with."""


@attrs.frozen
class Repeat:
    """Targets of a run that another run has launched, is launching, or may have launched."""

    run: str
    """The name of the other run."""
    count: int
    commands: Sequence[str] = attrs.field(repr=False)
    """The first commands, at most ten, encoded by `codec`."""
    latest: datetime
    """The latest claim or outcome of these targets in the other run."""
    indexes: Sequence[int] = attrs.field(repr=False)
    """The indexes of these targets in this run, in order."""


class Launched(NamedTuple):
    """A target that a run has launched, is launching, or may have launched."""

    run: str
    """The name of the run."""
    key: bytes
    """The key of its command, see `codec.key`."""
    state: str
    """``done``, ``sending`` or ``unknown``; ``planned`` if a process is about to launch it."""
    at: datetime
    """The latest claim or outcome."""


TABLES_OF_RUN = ("chunk", "target", "content", "sending", "outcome", "tally", "series", "plan_part")
"""The tables whose rows belong to a run, by their column ``run``."""


class Claim(NamedTuple):
    """A claim of a target, before its request leaves."""

    run: int
    chunk: int
    index: int  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride] - of a tuple
    token: str
    """The token of the hold."""
    request_id: str | None
    since: datetime
    """Start of the first unclear request: `Unsettled.since`, or now."""


class Record(NamedTuple):
    """The outcome of a target."""

    run: int
    chunk: int
    index: int  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride] - of a tuple
    token: str
    """The token of the hold."""
    state: State
    summary: str
    """The error's summary; empty without an error."""
    code: int | str | None
    request_id: str | None
    attempts: int
    at: datetime
    is_final: bool = False
    """Whether the outcome is unknown and nothing can settle it."""
    since: datetime | None = None
    """`Claim.since` of the first claim in this hold, for the latency; None without a claim."""


@attrs.frozen
class Target(Value):
    """A target with its state, for display and export.

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
    command: str = attrs.field(repr=_command_repr, metadata=shown_as("command", _command_dict))
    """As `codec` writes it."""
    state: str
    """``planned``, ``sending``, or the value of a `State`."""
    summary: str = ""
    code: int | str | None = None
    request_id: str | None = None
    attempts: int = 0
    at: datetime | None = None
    is_final: bool = False
    """Whether the outcome is unknown and nothing can settle it, so that a resume leaves it alone."""
    since: datetime | None = attrs.field(default=None, eq=False, repr=False, metadata=HIDDEN)
    """When its request began: the first one that is unclear, or else the latest; None if there was none."""

    @property
    def target(self) -> int | None:
        """The id that the command acts on; None if this release cannot read the command."""
        return target_of(_command(self.command))

    @classmethod
    def of_row(cls, row: TargetRow) -> Self:
        """The target of a row."""
        index, command, state, summary, code, request_id, attempts, at, is_final = row
        moment = None if at is None else datetime.fromisoformat(at)
        return cls(index, command, state, summary, code, request_id, attempts, moment, bool(is_final))


TargetRow: TypeAlias = tuple[int, str, str, str, int | str | None, str | None, int, str | None, int]
"""The fields of a `Target` up to ``is_final``. Its time is text (ISO 8601), and ``is_final`` may be 0 or 1."""


@attrs.frozen
class StoredClaim:
    """A claim of a target, as it is stored."""

    send_no: int
    """Counts the holds that claimed the target, from 1."""
    request_id: str | None
    since: datetime
    """Start of the first unclear request."""
    claimed_at: datetime
    """Time of the latest claim of this hold."""


@attrs.frozen
class StoredOutcome:
    """An outcome of a target, as it is stored."""

    send_no: int
    """The claim that it belongs to; 0 if nothing was claimed."""
    state: str
    summary: str
    code: int | str | None
    request_id: str | None
    attempts: int
    at: datetime
    is_final: bool = False
    """Whether the outcome is unknown and nothing can settle it."""


@attrs.frozen
class Story:
    """What a ledger stores of one target. A file has only the latest outcome."""

    claims: Sequence[StoredClaim] = ()
    outcomes: Sequence[StoredOutcome] = ()


@attrs.frozen
class HeartbeatStatus:
    """The answer to a heartbeat."""

    mine: bool
    """Whether the process still holds the chunk."""
    stopped: bool
    """Whether the run was stopped."""


def deleted_meanwhile() -> LedgerError:
    """The error of a plan whose run another process has deleted."""
    return LedgerError("the run was deleted while it was planned: nothing was launched. Run the same again")


class Store(Protocol):
    """The database of a ledger. All times are UTC. Every method raises only `LedgerError`.

    A store belongs to one event loop. ``plan``, ``claim`` and ``record`` return once their rows are on disk.
    """

    async def open(self) -> None:
        """Connect, and create or check the tables."""
        ...

    async def close(self) -> None:
        """Disconnect. A second call does nothing."""
        ...

    async def check_identity(self) -> None:
        """Check that the database is no copy. Called before a run begins or is held.

        Raises:
            LedgerError: The database is a copy. A copy and its original would launch the same targets.
        """
        ...

    async def accept_copy(self) -> None:
        """Accept a copy whose original is no longer used. Earlier runs become `Run.restored`."""
        ...

    async def begin(self, plan: RunPlan) -> Run:
        """Create the run, or return the existing one with its own settings."""
        ...

    async def set_account(self, run: int, *, account: str | None, fingerprint: str) -> None:
        """Change the account's name and the token's fingerprint of a run."""
        ...

    async def run(self, name: str) -> Run | None:
        """The run with this name; None if it does not exist."""
        ...

    async def runs(self) -> list[Run]:
        """All runs, newest first."""
        ...

    async def plan(
        self,
        run: int,
        rows: Sequence[tuple[bytes, str]],
        *,
        log_keys: Mapping[bytes, int] | None = None,
        contents: Mapping[str, Content] | None = None,
        part: tuple[int, bytes] | None = None,
    ) -> None:
        """Add targets to the plan, as pairs of key and encoded command. Existing keys are skipped.

        Targets are numbered from 0 in their order. ``log_keys`` has the `Command.log_key` of commands with one, by key.
        ``contents`` has the contents of the commands by hash, see `contents`. Known ones are skipped. No statement has
        more than `files.PIECE_BYTES` of them, and all are written in one transaction. ``part`` is the
        number and the digest of this part of the given commands, for `plan_parts`.
        """
        ...

    async def plan_parts(self, run: int) -> dict[int, bytes]:
        """The digests of the parts that are planned, by number."""
        ...

    async def planned(self, run: int, *, size: int | None = None) -> list[Chunk]:
        """Mark the plan as complete, and divide it into chunks of ``size`` targets, or into one chunk.

        Existing chunks stay. New targets get new chunks, or join a single chunk if ``size`` is None.
        """
        ...

    async def chunks(self, run: int) -> list[Chunk]:
        """The chunks of a run with targets that are neither done nor rejected."""
        ...

    async def acquire(self, run: int, chunk: int, holder: Holder, *, attempt_timeout: float) -> Holder | None:
        """Acquire a chunk. Returns None, or the other holder that keeps it.

        In a file, a lock decides: a holder keeps its chunk while its process exists (`Holder.exists`). If its process
        has ended within the same boot, the chunk is free. Without locks, the lease decides, never the host name or the
        process id. An acquired chunk raises the run's `attempt_timeout` to at least the given one.
        """
        ...

    async def heartbeat(self, run: int, chunk: int, token: str) -> HeartbeatStatus:
        """Extend the lease of a chunk."""
        ...

    async def release(self, run: int, chunk: int, token: str) -> None:
        """Release a chunk, if the token still holds it."""
        ...

    async def unsettled(self, run: int, chunk: int, *, after: int, limit: int) -> list[Unsettled]:
        """The next targets of a chunk, by index, without done, rejected and final unknown ones."""
        ...

    async def read_file(self, run: int, name: str) -> list[bytes]:
        """The pieces of a file by its hash, in order; empty if it is missing. Their hash is not checked."""
        ...

    async def claim(self, claims: Sequence[Claim]) -> list[ClaimResult]:
        """Write `sending` rows. The same statement checks the hold of the chunk and the stop of the run.

        After a lost answer or an expiry, a claim of the same index and token is granted again. It gets a new time.
        """
        ...

    async def record(self, records: Sequence[Record]) -> None:
        """Write outcomes. This is idempotent. Done and rejected outcomes are never overwritten.

        From a holder that lost its chunk, only *done* is accepted: its successor may have a request in flight.
        """
        ...

    async def counts(self, run: int, *, chunk: int | None = None) -> Counts:
        """The numbers of targets by state, of a run or a chunk."""
        ...

    async def series(self, run: int, *, since: datetime) -> list[Bucket]:
        """The outcomes of a run over time, from the bucket of ``since`` on. Buckets without an outcome are left out."""
        ...

    async def times(self, run: int) -> tuple[datetime | None, datetime | None]:
        """The start of the first request of a run, and the time of its latest outcome. It reads all of its rows."""
        ...

    async def blocks(self, run: int) -> list[tuple[int, ...]]:
        """The tally of a run by block: the block's number, then the columns of `blocks.TALLIED`.

        A block that nothing was claimed of is left out.
        """
        ...

    async def targets(
        self, run: int, *, states: Collection[str] = (), start: int = 0, end: int = MAX_NUMBER
    ) -> AsyncIterator[Target]:
        """Iterate over the targets of a run by index. See `pages`."""
        async for page in self.pages(run, states=states, start=start, end=end):
            for target in page:
                yield target

    def pages(
        self, run: int, *, states: Collection[str] = (), start: int = 0, end: int = MAX_NUMBER
    ) -> AsyncIterator[list[Target]]:
        """Iterate over the targets of a run by index, in pages. ``states`` selects states; empty selects all.

        Only indexes from ``start`` up to, not including, ``end`` are read.
        """
        ...

    def rows(self, run: int) -> AsyncIterator[Sequence[TargetRow]]:
        """Iterate over all targets of a run by index, in pages: a million of them, without a `Target` for each."""
        ...

    async def indexes_of(self, run: int, target: int, *, limit: int) -> list[int]:
        """The first indexes of a run whose key begins as those of commands with this target do.

        A hash may begin like that, too, so compare the target of each.
        """
        ...

    async def story(self, run: int, index: int) -> Story:
        """Every claim and outcome that is stored of a target, in their order."""
        ...

    async def stop(self, run: int) -> None:
        """Set the stop that every claim and every heartbeat reads, and count it."""
        ...

    async def clear_stop(self, run: int, *, stops: int | None = None) -> bool:
        """Clear the stop. Returns False if there were other stops since ``stops``, so that the run stays stopped."""
        ...

    async def has_contents(self, run: int) -> bool:
        """Whether a run has contents."""
        ...

    async def prune_contents(self, run: int) -> bool:
        """Delete the contents of a run's commands. Its targets, keys and outcomes stay.

        Returns False if a process holds the run, or something is left to do in it. Then nothing is deleted.
        """
        ...

    async def delete(self, run: int) -> bool:
        """Delete a run with all its targets.

        Returns False if a process holds the run, or it is not stopped and something is left to do in it. Then nothing
        is deleted.
        """
        ...

    async def has_rival(self, run: int, index: int, log_key: int, *, within: float) -> bool:
        """Whether another target of this log and host, of any run, may have acted within so many seconds.

        A request may arrive up to `CLAIM_AGE` plus the run's ``attempt_timeout`` after its claim. Rejected and unsent
        targets do not count. An unreachable database is not waited for.
        """
        ...

    async def repeats(self, run: int, *, chunk: int | None = None, within: float) -> list[Repeat]:
        """Targets that another run of the same account and host launched within so many seconds.

        In the other run, they are done, in flight or unclear, or planned in a chunk that is held now. Only targets of
        this run (or chunk) that are not final are compared.
        """
        ...

    def launched(self, plan: RunPlan, *, low: bytes, high: bytes, within: float) -> AsyncIterator[Launched]:
        """What other runs launched within so many seconds, for a plan that is not written yet.

        Args:
            plan: The plan. Only runs of its account and host, and of other names, count.
            low: The keys begin after this one.
            high: The keys end before this one.
            within: Seconds.
        """
        ...


class SharedStore(Store, Protocol):
    """A store that many machines share, with the pauses of their accounts."""

    async def pauses(self) -> list[tuple[str, datetime]]:
        """The keys of the paused accounts, with the ends of their pauses."""
        ...

    async def lift_pauses(self, keys: Collection[str]) -> list[str]:
        """Lift the pauses of accounts. Returns the keys of those that were paused."""
        ...

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

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from dispatchkit.core.claim import ClaimResult
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.chunk import Chunk, HeartbeatStatus, Holder
from dispatchkit.ledger.claim import Claim, Record, Story
from dispatchkit.ledger.repeat import Launched, Repeat
from dispatchkit.ledger.run import Counts, Run, RunPlan
from dispatchkit.ledger.series import Bucket
from dispatchkit.ledger.target import Target, TargetRow, Unsettled

if TYPE_CHECKING:
    from dispatchkit.ledger.contents import Content

__all__ = ["MAX_NUMBER", "TABLES_OF_RUN", "SharedStore", "Store", "deleted_meanwhile"]

MAX_NUMBER = 2**31 - 1
"""Maximum integer of a database column."""
TABLES_OF_RUN = ("chunk", "target", "content", "sending", "outcome", "tally", "series", "plan_part")
"""The tables whose rows belong to a run, by their column ``run``."""


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

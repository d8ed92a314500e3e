"""`Ledger`: the durable record of launches, to launch, inspect and stop runs."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self, TypeVar, cast

from dispatchkit.core.claim import CLAIM_AGE
from dispatchkit.core.clock import SYSTEM, Clock, a_clock
from dispatchkit.core.context_managers import AsyncOnly
from dispatchkit.core.fanout.snapshot import Snapshot
from dispatchkit.core.loop import running_loop
from dispatchkit.core.reprs import RichRepr, describe
from dispatchkit.core.transport.patched import refuse_patched
from dispatchkit.core.validators import int_in_range, label, seconds
from dispatchkit.errors import LedgerError, RunHeldError
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.chunk import Chunk, Holder
from dispatchkit.ledger.journal import LedgerJournal
from dispatchkit.ledger.liveness import end_process
from dispatchkit.ledger.opening import Opening, make_store
from dispatchkit.ledger.pauses import PausedAccount, find_paused_accounts, paused_until
from dispatchkit.ledger.plan import no_such_run
from dispatchkit.ledger.prune import prune_runs
from dispatchkit.ledger.run import Counts, Run
from dispatchkit.ledger.series import Bucket
from dispatchkit.ledger.sqlite.store import SqliteStore
from dispatchkit.ledger.store import MAX_NUMBER, SharedStore, Store
from dispatchkit.ledger.target import Target
from dispatchkit.ledger.watch import RunStatus, watch_run

if TYPE_CHECKING:
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.call.context import RunSettings

__all__ = ["Ledger"]

W = TypeVar("W")

_EPOCH = datetime.fromtimestamp(0, UTC)

_END_TIMEOUT = 10.0
"""Seconds to wait for the end of a killed process."""


class Ledger(AsyncOnly):
    """The durable record of launches: each launch is written before its request leaves, so a killed run can resume.

    Pass it to a fan-out: ``direct.start_many(ids, ledger=Ledger("launch.db"), run="black-friday")``. The same line
    again resumes the run. It skips done and rejected targets, settles unclear ones, and launches all others.

    A ledger opens on first use, and belongs to the event loop of that use. A ledger in a file serves one machine.
    Several processes may inspect and stop a run, each with its own ``Ledger``, also after a fork. A ledger stores ids,
    contents and files of commands, never a token.

    Args:
        where: A file, ``"postgresql://user@host/database"`` or libpq's ``"host=... dbname=..."`` (extra ``ledger``).
        schema: The schema of the tables in PostgreSQL; it is made if it does not exist. Default: that of ``where``
            (``?schema=...``), else ``dispatchkit``.
        clock: The clock, for tests.

    Raises:
        TypeError: ``where`` is neither text nor a path.
        ValueError: ``where`` is empty, or another kind of address; it is not shown.
        ImportError: The extra ``ledger`` is not installed.
        RuntimeError: gevent or eventlet has replaced this process's sockets or threads.

    Example:
        >>> async with Sandbox() as sandbox, Ledger("launch.db") as ledger:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         report = await direct.start_many(range(1, 11), ledger=ledger, run="black-friday").finish()
        ...     report.done, (await ledger.counts("black-friday")).done
        (10, 10)
    """

    def __init__(
        self, where: str | os.PathLike[str] | Address, *, schema: str | None = None, clock: Clock = SYSTEM
    ) -> None:
        address = Address.of(where)
        del where  # a traceback would show it
        self._where = str(address)
        """The file, or the database without a password."""
        self._schema = schema
        refuse_patched()
        self._clock = a_clock(clock)
        self._store = make_store(address, schema, clock)
        self._opening = Opening(self._store)

    @property
    def is_shared(self) -> bool:
        """Whether the ledger is a database for many machines, not a file on this one."""
        return not isinstance(self._store, SqliteStore)

    def journal(self, run: str, settings: RunSettings) -> LedgerJournal:
        """The journal of one run, for a fan-out.

        Args:
            run: The run's name, with at most 200 characters.
            settings: The client's settings. A run of another provider, host or account is refused.

        Raises:
            TypeError: The name is not text.
            ValueError: The name is empty or too long.
        """
        return self._create_journal(run, settings)

    def chunk(self, run: str, number: int) -> PartOfLedger:
        """One chunk of a planned run, for one of its workers.

        Pass it instead of the ledger: ``FanOut(client, None, ledger=ledger.chunk(run, number), run=run)``.

        Raises:
            TypeError: The number is not an integer.
            ValueError: The number is out of range.
        """
        int_in_range("number", number, minimum=0, maximum=MAX_NUMBER)
        return PartOfLedger(self, run, chunk=number)

    def resuming(self, run: str) -> PartOfLedger:
        """A run that is resumed even if it was stopped. The stop is cleared once this process holds the run.

        Pass it instead of the ledger: ``FanOut(client, None, ledger=ledger.resuming(run), run=run)``.
        """
        return PartOfLedger(self, run, resumes=True)

    def _create_journal(
        self, run: str, settings: RunSettings, *, chunk: int | None = None, resumes: bool = False
    ) -> LedgerJournal:
        """The journal of a run, or of one of its chunks. See `journal`."""
        name = label("run", run)
        return LedgerJournal(self._open_store, name, settings, chunk=chunk, resumes=resumes, clock=self._clock)

    async def runs(self) -> list[Run]:
        """All runs, newest first.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        return await (await self._open_store()).runs()

    async def run(self, name: str) -> Run:
        """The run with this name.

        Raises:
            LedgerError: The run does not exist, or the ledger cannot be read.
        """
        store = await self._open_store()
        run = await store.run(name)
        if run is None:
            raise no_such_run(name, await store.runs())
        return run

    async def counts(self, name: str) -> Counts:
        """The numbers of a run's targets by state.

        Raises:
            LedgerError: The run does not exist, or the ledger cannot be read.
        """
        return await self._store.counts((await self.run(name)).number)

    async def series(self, name: str, since: datetime | None = None) -> list[Bucket]:
        """A run's outcomes over time, with their latencies, in buckets of ten seconds.

        It costs as much as the run was long, and reads no targets. Buckets without an outcome are left out.

        Args:
            name: The run's name.
            since: Only the buckets from this moment on, for a page that knows the earlier ones. The first one is that
                of the moment itself. Default: all.

        Raises:
            ValueError: ``since`` has no time zone.
            LedgerError: The run does not exist, or the ledger cannot be read.
        """
        if since is not None and since.tzinfo is None:
            raise ValueError("since must have a time zone, such as datetime.now(UTC)")
        return await self._store.series((await self.run(name)).number, since=_EPOCH if since is None else since)

    async def chunks(self, name: str) -> list[Chunk]:
        """The unfinished chunks of a run, with their current holders.

        Raises:
            LedgerError: The run does not exist, or the ledger cannot be read.
        """
        return await self._store.chunks((await self.run(name)).number)

    async def targets(self, name: str, states: Collection[str] = ()) -> AsyncIterator[Target]:
        """Iterate over the targets of a run in the order of its plan, read in pages.

        Args:
            name: The run's name.
            states: Only targets in these states: ``planned``, ``sending``, or a `State`. Default: all.

        Raises:
            LedgerError: The run does not exist, or the ledger cannot be read.
        """
        number = (await self.run(name)).number
        async for target in self._store.targets(number, states=states):
            yield target

    def watch(self, name: str, every: float = 1.0) -> AsyncIterator[Snapshot]:
        """Watch a run that any process performs: a `Snapshot` now, then one after each ``every`` seconds.

        The last one comes once the run is over. A run that no process performs, and that is neither stopped nor
        finished, is not over. Another process may resume it.

        Args:
            name: The run's name.
            every: Seconds between two snapshots. They are longer if a look takes more than a fifth of them. Default:
                1.0.

        Raises:
            TypeError: ``every`` is not a number.
            ValueError: ``every`` is not positive.
            LedgerError: While it is iterated: the run does not exist, or the ledger cannot be read.
        """
        return watch_run(lambda: self._look(name), seconds("every", every), self._clock)

    async def _look(self, name: str) -> RunStatus:
        run = await self.run(name)
        chunks, counts = await self._store.chunks(run.number), await self._store.counts(run.number)
        until = await paused_until(await self._shared_store(), run) if self.is_shared else None
        is_held = any(chunk.holder is not None for chunk in chunks)
        return RunStatus(run, counts, is_held, paused_until=until, knows_pauses=self.is_shared)

    async def stop(self, name: str) -> datetime:
        """Stop a run in all processes. It stays stopped until `clear_stop`.

        Running processes start nothing new after one second. A suspended process may still hold a claim, so the
        guarantee is `CLAIM_AGE`, 5 s.

        Returns:
            The moment from which on no process launches any target of the run.

        Raises:
            LedgerError: The run does not exist, the ledger is a copy, or it cannot be written.
        """
        number = (await self.run(name)).number
        await self._store.check_identity()  # a stop in a copy would not reach the original's processes
        await self._store.stop(number)
        return self._clock.now() + timedelta(seconds=CLAIM_AGE)

    async def clear_stop(self, name: str) -> None:
        """Allow a stopped run to be run again.

        Raises:
            LedgerError: The run does not exist, or the ledger cannot be written.
        """
        await self._store.clear_stop((await self.run(name)).number)

    async def paused_accounts(self) -> list[PausedAccount]:
        """The accounts that are paused by their provider, longest pause first.

        Only a database has pauses, which all processes with this ledger share. A pause lasts at most `Pace.max_pause`,
        one hour by default.

        Raises:
            LedgerError: The ledger is a file, or cannot be read.
        """
        return await find_paused_accounts(await self._shared_store())

    async def lift_pauses(self, keys: Collection[str]) -> list[str]:
        """Lift pauses of accounts. Every waiting process continues within a second.

        Another HTTP 429 pauses the account again.

        Args:
            keys: Keys of accounts, from `paused_accounts`.

        Returns:
            The keys of the accounts that were paused.

        Raises:
            LedgerError: The ledger is a file, or cannot be written.
        """
        return await (await self._shared_store()).lift_pauses(keys)

    async def _shared_store(self) -> SharedStore:
        if not self.is_shared:
            raise LedgerError(
                "a ledger in a file stores no pauses: a pause ends with its process. To end it early, stop that "
                "process and resume the run"
            )
        return cast("SharedStore", await self._open_store())

    async def change_account(self, name: str, client: Client[W]) -> None:
        """Accept a client's token as the rotated token of a run's account.

        Raises:
            RunHeldError: A process holds the run, or a part of it.
            LedgerError: The run does not exist, or the ledger cannot be written.
            ValueError: The token callable returned no valid token.
        """
        run = await self.run(name)
        if client._has_renewable_token:
            await client._have_token()
        settings = client._run_settings()
        for chunk in await self._store.chunks(run.number):
            if chunk.holder is not None:
                raise RunHeldError(name, pid=chunk.holder.pid, host=chunk.holder.host)
        fingerprint = await asyncio.to_thread(settings.fingerprint)
        account = run.account if settings.account is None else settings.account
        await self._store.set_account(run.number, account=account, fingerprint=fingerprint)

    async def end_holder(self, name: str) -> Holder | None:
        """End a run's holder that sends no heartbeats (SIGKILL), and wait for its end.

        A process that sends heartbeats is never ended: `stop` the run instead. Without a holder, nothing happens. A
        hold in a database ends with its lease, so no process is ended there.

        Returns:
            The holder whose process was ended; None if there was none.

        Raises:
            RunHeldError: The holder sends heartbeats.
            LedgerError: The process cannot be ended from here, or does not end; or the ledger cannot be read.
        """
        ended = None
        for chunk in await self.chunks(name):
            holder = chunk.holder
            if holder is None or not holder.exists:
                continue
            if holder.lease_left >= 0:
                raise RunHeldError(name, pid=holder.pid, host=holder.host)
            await asyncio.to_thread(end_process, holder, timeout=_END_TIMEOUT)
            ended = holder
        return ended

    async def prune(self, *, older_than: float, runs: bool = False) -> list[str]:
        """Delete the contents of old runs, such as attached files; with ``runs``, the whole runs.

        Only a run with nothing left to launch or to settle is touched, and none that a process holds. Ids, keys and
        outcomes stay, so repeats of its targets are still found. Fields below 256 characters stay, too.

        A run that is deleted whole may also be a stopped one. Its targets no longer count as repeats.

        Args:
            older_than: Seconds since the run was made.
            runs: Whether to delete the runs themselves. Default: False.

        Returns:
            The names of the runs that were pruned, newest first.

        Raises:
            TypeError: ``older_than`` is not a number.
            ValueError: ``older_than`` is not positive.
            LedgerError: The ledger is a copy, or cannot be written.
        """
        before = self._clock.now() - timedelta(seconds=seconds("older_than", older_than))
        return await prune_runs(await self._open_store(), before, whole=runs)

    async def accept_copy(self) -> None:
        """Accept a copied or restored ledger file whose original is no longer used.

        Its planned targets may have been launched since the copy was made, so they are settled before a launch.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        await (await self._open_store()).accept_copy()

    async def _open_store(self) -> Store:
        """Open the store, once, and return it.

        Raises:
            LedgerError: The store cannot be opened.
        """
        await self._opening.wait()
        return self._store

    async def close(self) -> None:
        """Close the store, after its fan-outs. A second call does nothing.

        Raises:
            LedgerError: The store reports an error.
        """
        await self._opening.close()

    async def __aenter__(self) -> Self:
        running_loop("Ledger")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __rich_repr__(self) -> RichRepr:
        # A traceback may show a ledger whose constructor raised.
        opening: Opening | None = getattr(self, "_opening", None)
        yield getattr(self, "_where", "***")
        yield "schema", getattr(self, "_schema", None), None
        yield "closed", opening is not None and opening.is_closed, False

    def __repr__(self) -> str:
        return describe(self)


class PartOfLedger:
    """A ledger for one chunk, or for the resume of one run. See `Ledger.chunk` and `Ledger.resuming`."""

    def __init__(self, ledger: Ledger, run: str, *, chunk: int | None = None, resumes: bool = False) -> None:
        self._ledger = ledger
        self._run = run
        self._chunk = chunk
        self._resumes = resumes

    def journal(self, run: str, settings: RunSettings) -> LedgerJournal:
        """The journal of the run. See `Ledger.journal`.

        Raises:
            ValueError: The run is another one.
        """
        if run != self._run:
            raise ValueError(f"run must be {self._run!r}, as in Ledger.chunk or Ledger.resuming, not {run!r}")
        return self._ledger._create_journal(run, settings, chunk=self._chunk, resumes=self._resumes)

"""`Ledger`: the durable memory of launches, for those who launch, look on, and stop."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections.abc import AsyncIterator, Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Never, Self, cast

from dispatchkit.core.call.context import RunSettings
from dispatchkit.core.claim import CLAIM_AGE
from dispatchkit.core.clock import SYSTEM, Clock, a_clock
from dispatchkit.core.secret import account_key
from dispatchkit.core.validators import int_in_range, label
from dispatchkit.errors import LedgerError, RunHeldError
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.journal import LedgerJournal
from dispatchkit.ledger.liveness import end_process
from dispatchkit.ledger.sqlite.store import SqliteStore
from dispatchkit.ledger.store import MAX_NUMBER, Chunk, Counts, Holder, PausedAccount, Run, SharedStore, Store, Target

if TYPE_CHECKING:
    from dispatchkit.core.call.client import Client

__all__ = ["Ledger"]

_END_TIMEOUT = 10.0
"""Seconds to wait for the end of a process that was told to end."""


class Ledger:
    """The durable memory of launches: each is written down before it leaves, so a run that was killed can go on.

    Give it to a fan-out, ``direct.start_many(ids, ledger=Ledger("launch.db"), run="black-friday")``: the same line
    again resumes the run. What is done or rejected is left alone, what is unclear is settled, the rest is launched.

    It opens on first use, and belongs to the event loop of that. A ledger in a file serves one machine; several of its
    processes may look on and stop a run, and each of them makes its own ``Ledger``, after a fork too. It holds ids,
    contents and files of commands, never a token.

    Args:
        where: A file, ``"postgresql://user@host/database"`` or libpq's ``"host=... dbname=..."`` (extra ``ledger``).
        schema: The schema of the tables in PostgreSQL, which is made if it is not there. Default: what ``where`` says
            (``?schema=...``), else ``dispatchkit``.
        clock: Time; for tests.

    Raises:
        TypeError: ``where`` is no text and no path.
        ValueError: ``where`` is empty, or another kind of address; it is not shown.
        ImportError: The extra ``ledger`` is not installed.

    Example:
        ``Ledger("postgresql://app@standby,primary/launches?sslmode=verify-full", schema="marketing")``
    """

    def __init__(
        self, where: str | os.PathLike[str] | Address, *, schema: str | None = None, clock: Clock = SYSTEM
    ) -> None:
        address = Address.of(where)
        del where  # a traceback would show it
        self._clock = a_clock(clock)
        self._store = _store(address, schema, clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_shared(self) -> bool:
        """Whether it is a database, which many machines can use; else it is a file on this one."""
        return not isinstance(self._store, SqliteStore)

    def journal(self, run: str, settings: RunSettings) -> LedgerJournal:
        """The memory of one run, as a fan-out uses it.

        Args:
            run: Its name, of at most 200 characters.
            settings: How the client carries it out. A run of another provider, host or account is refused.

        Raises:
            TypeError: The name is no text.
            ValueError: The name is empty, or too long.
        """
        return self.create_journal(run, settings)

    def chunk(self, run: str, number: int) -> PartOfLedger:
        """One chunk of a run that is planned already, for one of the workers that share it.

        It takes the ledger's place: ``FanOut(client, None, ledger=ledger.chunk(run, number), run=run)``.

        Raises:
            TypeError: The number is no integer.
            ValueError: The number is out of range.
        """
        int_in_range("number", number, minimum=0, maximum=MAX_NUMBER)
        return PartOfLedger(self, run, chunk=number)

    def resuming(self, run: str) -> PartOfLedger:
        """A run that goes on also if it was stopped: the stop is taken back once this process holds the run.

        It takes the ledger's place: ``FanOut(client, None, ledger=ledger.resuming(run), run=run)``.
        """
        return PartOfLedger(self, run, resumes=True)

    def create_journal(
        self, run: str, settings: RunSettings, *, chunk: int | None = None, resumes: bool = False
    ) -> LedgerJournal:
        """What `journal` gives, of one chunk or of all."""
        name = label("run", run)
        return LedgerJournal(self.open_store, name, settings, chunk=chunk, resumes=resumes, clock=self._clock)

    async def runs(self) -> list[Run]:
        """All runs, the newest first.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        return await (await self.open_store()).runs()

    async def run(self, name: str) -> Run:
        """The run of this name.

        Raises:
            LedgerError: There is none; or the ledger cannot be read.
        """
        store = await self.open_store()
        run = await store.run(name)
        if run is None:
            names = [repr(each.name) for each in await store.runs()]
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            raise LedgerError(
                f"the ledger holds no run {name!r}; "
                + (f"it holds {', '.join(names[:10])}{more}" if names else "it holds none")
            )
        return run

    async def counts(self, name: str) -> Counts:
        """How far a run has come.

        Raises:
            LedgerError: There is no such run; or the ledger cannot be read.
        """
        return await self._store.counts((await self.run(name)).number)

    async def chunks(self, name: str) -> list[Chunk]:
        """The chunks of a run that are not finished, each with whoever holds it now.

        Raises:
            LedgerError: There is no such run; or the ledger cannot be read.
        """
        return await self._store.chunks((await self.run(name)).number)

    async def targets(self, name: str, states: Collection[str] = ()) -> AsyncIterator[Target]:
        """The targets of a run, in the order of its plan, read as they are taken.

        Args:
            name: The run.
            states: Only those in one of these states: ``planned``, ``sending``, or a `State`. None: all.

        Raises:
            LedgerError: There is no such run; or the ledger cannot be read.
        """
        number = (await self.run(name)).number
        async for target in self._store.targets(number, states=states):
            yield target

    async def stop(self, name: str) -> datetime:
        """Stop a run, wherever it goes on. It stays stopped until `clear_stop`.

        A process that works on it starts nothing new within a second. One that was suspended may still hold a claim, so
        the promise is `CLAIM_AGE`, 5 s.

        Returns:
            From when on no process launches anything of the run.

        Raises:
            LedgerError: There is no such run; the ledger is a copy; or it cannot be written.
        """
        number = (await self.run(name)).number
        await self._store.check_identity()  # a stop of a copy would not reach who works on the original
        await self._store.stop(number)
        return self._clock.now() + timedelta(seconds=CLAIM_AGE)

    async def clear_stop(self, name: str) -> None:
        """Let a run that was stopped be run again.

        Raises:
            LedgerError: There is no such run; or the ledger cannot be written.
        """
        await self._store.clear_stop((await self.run(name)).number)

    async def paused_accounts(self) -> list[PausedAccount]:
        """The accounts on which nothing is started now, as a provider asked for a pause, the longest pause first.

        Only a database holds pauses: all processes that launch through it share them. None is longer than
        `Pace.max_pause`, one hour by default.

        Raises:
            LedgerError: The ledger is a file, or cannot be read.
        """
        store = await self._shared_store()
        pauses, runs = await store.pauses(), await store.runs()
        keys = [_account_key(run) for run in runs]
        return [
            PausedAccount(key, until, tuple(run for run, other in zip(runs, keys, strict=True) if other == key))
            for key, until in pauses
        ]

    async def lift_pauses(self, keys: Collection[str]) -> list[str]:
        """End pauses that a provider asked for by mistake. Every process that waits goes on within a second.

        Another answer 429 pauses the account again.

        Args:
            keys: Of the accounts, as `paused_accounts` gives them.

        Returns:
            The keys of those that were paused.

        Raises:
            LedgerError: The ledger is a file, or cannot be written.
        """
        return await (await self._shared_store()).lift_pauses(keys)

    async def _shared_store(self) -> SharedStore:
        if not self.is_shared:
            raise LedgerError(
                "a ledger in a file holds no pause: it ends with the process that waits. To go on before its end, stop "
                "that process and resume the run"
            )
        return cast("SharedStore", await self.open_store())

    async def change_account(self, name: str, client: Client[Never]) -> None:
        """Take the token of a client for that of the account that a run was planned for: it was rotated.

        Raises:
            RunHeldError: A process holds the run, or a part of it, with the account that it has now.
            LedgerError: There is no such run; or the ledger cannot be written.
            ValueError: A callable returned something that is not a token.
        """
        run, settings = await self.run(name), client.run_settings()
        for chunk in await self._store.chunks(run.number):
            if chunk.holder is not None:
                raise RunHeldError(name, pid=chunk.holder.pid, host=chunk.holder.host)
        fingerprint = await asyncio.to_thread(settings.fingerprint)
        account = run.account if settings.account is None else settings.account
        await self._store.set_account(run.number, account=account, fingerprint=fingerprint)

    async def end_holder(self, name: str) -> Holder | None:
        """End the process that holds a run and gives no heartbeats any more (SIGKILL), and wait for its end.

        A process that gives heartbeats is never ended: `stop` the run instead. Where nothing holds the run, it does
        nothing. A hold in a database ends with its lease, so nothing is ended there.

        Returns:
            The holder whose process has ended, if there was one.

        Raises:
            RunHeldError: The process that holds the run gives heartbeats.
            LedgerError: It cannot be ended from here, or does not end; or the ledger cannot be read.
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

    async def accept_copy(self) -> None:
        """Go on with a ledger file that was copied or restored, and whose original is not used any more.

        What looks planned in it may have been launched since the copy was made, so it is settled before it is launched.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        await (await self.open_store()).accept_copy()

    async def open_store(self) -> Store:
        """The database, once it is open.

        Raises:
            LedgerError: It cannot be opened.
        """
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("this Ledger belongs to another event loop: make one for each")
        if self._closed:
            raise RuntimeError("this Ledger is closed: make a new one")
        if self._opening is None or (self._opening.done() and (self._opening.cancelled() or self._opening.exception())):
            self._opening = asyncio.create_task(self._store.open())
        await asyncio.shield(self._opening)  # others wait for it too
        return self._store

    async def close(self) -> None:
        """Close the database, after the fan-outs that use it. Closing twice does nothing.

        Raises:
            LedgerError: The database says no.
        """
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()  # it may wait for a database that is away
            await asyncio.wait([self._opening])
            await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class PartOfLedger:
    """Gives the journal of one run in a special way. Made by `Ledger.chunk` and `Ledger.resuming`."""

    def __init__(self, ledger: Ledger, run: str, *, chunk: int | None = None, resumes: bool = False) -> None:
        self._ledger = ledger
        self._run = run
        self._chunk = chunk
        self._resumes = resumes

    def journal(self, run: str, settings: RunSettings) -> LedgerJournal:
        """The journal, as `Ledger.journal` gives it.

        Raises:
            ValueError: It was made for another run.
        """
        if run != self._run:
            raise ValueError(f"run must be {self._run!r}, for which this was made, not {run!r}")
        return self._ledger.create_journal(run, settings, chunk=self._chunk, resumes=self._resumes)


def _account_key(run: Run) -> str:
    """The key of the account that a run was planned for, as `Client.account` makes it."""
    if run.account is None:
        return run.fingerprint
    settings: dict[str, str] = json.loads(run.settings)
    return account_key(settings.get("provider", ""), settings.get("base_url", ""), run.account)


def _store(address: Address, schema: str | None, clock: Clock) -> Store:
    address.check()
    if not address.is_database:
        if schema is not None:
            raise ValueError("schema= is for a ledger in PostgreSQL, and this one is a file")
        return SqliteStore(Path(address.file), clock=clock)
    try:
        module = importlib.import_module("dispatchkit.ledger.postgres.store")
    except ImportError as missing:
        raise ImportError("a ledger in PostgreSQL needs its extra: pip install 'dispatchkit[ledger]'") from missing
    store: Store = module.PostgresStore(address, schema=schema, clock=clock)
    return store

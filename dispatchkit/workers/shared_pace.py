"""The shared pace of an account: its leases and its pause, in the ledger's database.

Four times a second, this process writes its new pauses (429) to the database. It also applies the pauses of the other
processes to its pacer. A pause that a claim finds is applied at once.

The database's pause is authoritative: lifting it there ends it here, too. No pause in the database lasts longer than
`Pace.max_pause` from now on. A renewal shortens a longer one, for example of an earlier release.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import uuid
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
import attrs
from tenacity import AsyncRetrying, retry_if_exception_type

from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.core.log import log
from dispatchkit.core.pacing.pace import Pace
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.postgres.connection import Connection, ReconnectingConnection, Row
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.ledger.postgres.write import Account
from dispatchkit.workers import sql
from dispatchkit.workers.fair_share import ANSWER_LIMIT, EXPIRES, RENEW, Share

__all__ = ["STOP_TIMEOUT", "SharedAccount", "release_leases", "share_pace", "until_stopped"]

T = TypeVar("T")

logger = logging.getLogger("dispatchkit.ledger")

_LOOK = 0.25
_LINGER = 2.0
_EPSILON = 0.05
"""Maximum difference, in seconds, of two readings of one pause."""
_JITTER = 0.05
"""Maximum seconds before the retry of a statement after a serialization failure."""
STOP_TIMEOUT = 0.5
"""Seconds that stopped work still waits for the database."""


class SharedAccount:
    """This process's share of an account.

    Args:
        connection: A connection for this account alone.
        key: The account key.
        pacer: The account's pacer in this process.
        clock: The clock.
    """

    def __init__(self, connection: ReconnectingConnection, key: str, pacer: Pacer, *, clock: Clock = SYSTEM) -> None:
        self._connection = connection
        self._key = key
        self._pacer = pacer
        self._clock = clock
        self._worker = uuid.uuid4().hex
        self._own = pacer.pace
        self._held = Share(0, 0)
        self._fair = False
        self._wanted = Share()
        self._renewed = -math.inf
        """Start of the latest successful renewal, on the boot clock, which also counts while the machine sleeps."""
        self._until = clock.boottime() + EXPIRES
        """End of the lease, on the boot clock."""
        self._suspended = False
        """Whether starts are suspended because of the database, and that was logged."""
        self._asking_since = clock.boottime()
        """Start of the latest statement, on the boot clock."""
        self._refused: LedgerError | None = None
        """Error of the latest statement."""
        self._isolated: Connection | None = None
        """The connection whose isolation level is set."""
        self.wanted: dict[object, Share] = {}
        """The limits over all workers, for each chunk that is launched here."""
        self.launching = 0
        """Number of chunks that are launched here now."""

    @property
    def key(self) -> str:
        """The account key, a hash."""
        return self._key

    @property
    def held(self) -> Share:
        """The current share of this process."""
        return self._held

    @property
    def _known(self) -> float:
        """End of the pause that the database also has, on the clock's ``monotonic``."""
        return _known.get(self._pacer, -math.inf)

    @_known.setter
    def _known(self, until: float) -> None:
        _known[self._pacer] = until

    def pause(self, seconds: float) -> None:
        """Apply a pause of another process, in seconds."""
        self._known = max(self._known, self._clock.monotonic() + seconds)
        if seconds > self._pacer.throttled_for() + _EPSILON:
            self._pacer.throttle(seconds, by="Retry-After, as another process was told")

    def _follow(self, left: float, known: float) -> None:
        """Apply the database's pause: extend or lift the local one.

        Args:
            left: Seconds left of the database's pause; negative if it has ended.
            known: End of the local pause at the time of the query, if the database had it.
        """
        left, now = max(0.0, left), self._clock.monotonic()
        # A slow answer makes two readings of one pause differ by its delay.
        if known > now + left + ANSWER_LIMIT and now + self._pacer.throttled_for() <= known + _EPSILON:
            self._known = now + left
            self._pacer.lift(left)
        if left:
            self.pause(left)

    async def renew(self) -> None:
        """Take, renew or change this process's lease.

        Raises:
            LedgerError: The database refused the statement.
        """
        await self._connection.run(self._renew)

    async def _renew(self, connection: Connection) -> None:
        wanted = self._wanted = functools.reduce(_less, self.wanted.values()) if self.wanted else self._wanted
        used = self._held
        new, until, known = self._pause_here()
        # Attempts in flight use their concurrency until they end.
        in_flight = self._pacer.statistics().in_flight
        asked = self._clock.boottime()
        limits = (wanted.rate, wanted.concurrency, self._own.max_pause)
        values = (EXPIRES, used.rate, used.concurrency, in_flight, *limits)
        row = await self._serialized(connection, sql.RENEW, self._key, new, self._worker, *values)
        assert row is not None  # noqa: S101 - an aggregate always has a row
        rate, concurrency, fair, paused = row
        held = Share(rate, concurrency)
        self._known = max(self._known, until)
        self._renewed = asked
        self._refused = None
        if self._is_late(asked):
            return
        self._until = asked + EXPIRES
        self._suspended = False
        self._fair = fair and used == _less(used, held)  # else renew again at once, to give up the excess
        self._apply(held)
        self._follow(paused, known)

    async def _serialized(self, connection: Connection, statement: str, *values: object) -> Row | None:
        """Run a statement with the isolation of `sql.ISOLATION`, and retry it after conflicts."""
        if connection is not self._isolated:
            await connection.execute(sql.ISOLATION)
            self._isolated = connection
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(asyncpg.SerializationError),  # the other one succeeded: no stop is needed
            wait=lambda _: _JITTER * self._clock.random(),
            sleep=self._clock.sleep,
        )
        return await retrying(connection.fetchrow, statement, *values)

    def _is_late(self, asked: float) -> bool:
        """Whether an answer took longer than `ANSWER_LIMIT`. Then suspend all starts."""
        elapsed = self._clock.boottime() - asked
        if elapsed > ANSWER_LIMIT:
            self._suspend(f"the database answers in {elapsed:.0f} s; the limit is {ANSWER_LIMIT:.0f} s")
        return elapsed > ANSWER_LIMIT

    def _suspend(self, reason: str) -> None:
        """Start nothing until a renewal is answered in time. Logs the reason once."""
        if not self._suspended and self.wanted:
            log(logger, logging.WARNING, "the run pauses: %s", reason)
            self._suspended = True
        self._apply(Share(0, 0))

    def _apply(self, held: Share) -> None:
        self._held = held
        if held.nothing:
            if self.launching:
                self._pacer.hold(RENEW + 2 * _LOOK)  # longer than the interval to the next call
            return
        rates = [rate for rate in (self._own.rate, held.rate) if rate is not None]
        concurrency = self._own.concurrency
        if held.concurrency is not None:
            concurrency = held.concurrency if concurrency == "auto" else min(concurrency, held.concurrency)
        pace: Pace = attrs.evolve(self._own, rate=min(rates, default=None), concurrency=concurrency)
        if pace != self._pacer.pace:
            self._pacer.set(pace)

    def _pause_here(self) -> tuple[float, float, float]:
        """The local pause that the provider asked for.

        Returns:
            Three values: seconds of a pause that the database does not have, else 0. The end of that pause. The end of
            a pause that the database has.
        """
        paused = self._pacer.throttled_for()
        until = self._clock.monotonic() + paused
        if paused and until > self._known + _EPSILON:
            return paused, until, -math.inf
        return 0.0, -math.inf, until

    async def look(self) -> None:
        """Write a new pause to the database, and apply the database's pause.

        Raises:
            LedgerError: The database refused a statement.
        """
        await self._connection.run(self._look)

    async def _look(self, connection: Connection) -> None:
        new, until, known = self._pause_here()
        most = self._own.max_pause
        asked = self._clock.boottime()
        row = None if new else await self._serialized(connection, sql.PAUSED, self._key)
        if new or (row is not None and row[0] > most + _EPSILON):
            row = await self._serialized(connection, sql.TELL, self._key, new, most)
        self._known = max(self._known, until)
        self._is_late(asked)
        self._follow(0.0 if row is None else row[0], known)

    async def keep(self) -> None:
        """Renew the lease and read the pause while chunks are launched here, and for `_LINGER` after the last one.

        A slow statement is awaited: a cancellation would close its connection, and delay the next statement.
        """
        used = self._clock.monotonic()
        asking: asyncio.Task[None] | None = None
        try:
            while self._clock.monotonic() < used + _LINGER:
                await self._clock.sleep(_LOOK)
                used = self._clock.monotonic() if self.wanted else used
                if asking is None or asking.done():
                    asking = asyncio.create_task(self._ask())
                self._check_lease()
        finally:
            if asking is not None:
                await asyncio.wait([asking], timeout=STOP_TIMEOUT)
                asking.cancel()
                await asyncio.wait([asking])
            await self._leave(asks=asking is None or not asking.cancelled())

    async def _ask(self) -> None:
        self._asking_since = self._clock.boottime()
        try:
            if not self._fair or self._clock.boottime() >= self._renewed + RENEW:
                await self.renew()
            else:
                await self.look()
        except LedgerError as error:
            self._refused = error

    def _check_lease(self) -> None:
        left = self._until - self._clock.boottime()
        if left < RENEW:  # other processes may take the share soon
            silent = self._clock.boottime() - self._asking_since
            if self._refused is not None:
                self._suspend(str(self._refused))
            elif silent > ANSWER_LIMIT:
                self._suspend(f"the database has not answered for {silent:.0f} s; the limit is {ANSWER_LIMIT:.0f} s")
            else:  # this process was suspended: the current renewal ends the pause, or reports an error
                self._apply(Share(0, 0))
        elif self._held.nothing:
            self._apply(self._held)

    async def _leave(self, *, asks: bool = True) -> None:
        """Restore the pace, and delete the lease. If the database does not answer, the lease expires."""
        self._pacer.set(self._own)
        if asks:
            with contextlib.suppress(LedgerError, TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT):
                    await self._connection.run(
                        lambda connection: self._serialized(connection, sql.FORGET, self._key, self._worker)
                    )
        await self._connection.close()


def _less(one: Share, other: Share) -> Share:
    return Share(_smaller(one.rate, other.rate), _smaller(one.concurrency, other.concurrency))


_N = TypeVar("_N", int, float)


def _smaller(one: _N | None, other: _N | None) -> _N | None:
    return min((value for value in (one, other) if value is not None), default=None)


_known: WeakKeyDictionary[Pacer, float] = WeakKeyDictionary()
"""End of the pause that the database also has, by pacer: it outlives a `SharedAccount`."""
_shared: WeakKeyDictionary[PostgresStore, dict[str, tuple[SharedAccount, asyncio.Task[None]]]] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def share_pace(
    store: PostgresStore, key: str, pacer: Pacer, *, run: int, stop: asyncio.Event, rate: float | None = None
) -> AsyncGenerator[SharedAccount]:
    """Launch a run or a chunk within the pace that all processes of an account share.

    All launches through one store share one lease of the account.

    Args:
        store: The ledger's store.
        key: The account key.
        pacer: The account's pacer in this process.
        run: The number of the run.
        stop: Once the event is set, no share is waited for.
        rate: Another limit of launches a second over all processes, beside the one of the run's plan.
    """
    limits = await until_stopped(stop, store.get_limits(run))
    planned = Share() if limits is None else Share(*limits)
    wanted = _less(planned, Share(rate))
    accounts = _shared.setdefault(store, {})
    account, keeping = accounts.get(key, (None, None))
    if account is None or keeping is None or keeping.done():
        account = SharedAccount(store.new_connection(), key, pacer)
        accounts[key] = account, asyncio.create_task(account.keep())
    delivery = object()  # one chunk may be delivered twice at a time
    account.wanted[delivery] = wanted
    try:
        await until_stopped(stop, account.renew())
        while account.held.nothing and not stop.is_set():
            # The others hold the whole pace, and shrink when they renew. `keep` renews here meanwhile.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK / 4)
        store.bind_account(run, Account(key, account.pause))
        account.launching += 1
        try:
            yield account
        finally:
            account.launching -= 1
    finally:
        del account.wanted[delivery]


async def until_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Run database work, and cancel it `STOP_TIMEOUT` after ``stop`` is set.

    Returns:
        The result of the work; None if it was cancelled.
    """
    task, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait([task], timeout=STOP_TIMEOUT)
        return task.result() if task.done() else None
    finally:
        stopping.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def release_leases(store: PostgresStore) -> None:
    """Release all leases of this process at once."""
    keeping = [task for _, task in _shared.pop(store, {}).values()]
    for task in keeping:
        task.cancel()
    if keeping:
        await asyncio.wait(keeping)

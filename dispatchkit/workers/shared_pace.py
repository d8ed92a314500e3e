"""The shared pace of an account: its leases and its pause, in the ledger's database.

What this process learns of the account (a 429, and until when) is told to the others, and what they learnt is told to
the pacer here, four times a second. What a claim finds out about a pause reaches the pacer at once.

The database's pause holds for all: when a person lifts it there, it ends here too. No pause in the database is longer
than `Pace.max_pause` from now on; a renewal shortens one that is, such as an earlier release wrote.
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

from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.core.log import log
from dispatchkit.core.pacing.pace import Pace
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.postgres.connection import Connection, ReconnectingConnection, Row
from dispatchkit.ledger.postgres.store import Account, PostgresStore
from dispatchkit.workers.fair_share import ANSWER_LIMIT, EXPIRES, RENEW, Share

__all__ = ["STOP_TIMEOUT", "SharedAccount", "release_leases", "share_pace", "until_stopped"]

T = TypeVar("T")

logger = logging.getLogger("dispatchkit.ledger")

_LOOK = 0.25
_LINGER = 2.0
_EPSILON = 0.05
"""Seconds by which two readings of one pause may differ."""
_JITTER = 0.05
"""Seconds until a statement that overlapped another one is tried again, at most."""
STOP_TIMEOUT = 0.5
"""Seconds that whatever is stopped still waits for the database."""

_TELL = """
INSERT INTO dispatchkit.account (key, paused_until)
VALUES ($1, clock_timestamp() + make_interval(secs => $2::float8))
ON CONFLICT (key) DO UPDATE SET paused_until = least(
    greatest(account.paused_until, excluded.paused_until), clock_timestamp() + make_interval(secs => $3::float8)
)
RETURNING extract(epoch FROM paused_until - clock_timestamp())::float8
"""
_PAUSED = """
SELECT extract(epoch FROM paused_until - clock_timestamp())::float8 FROM dispatchkit.account WHERE key = $1
"""
# Each renewal changes the account's row. At the isolation of `_ISOLATION` the database refuses the later one of two
# renewals that overlap, so each sees the leases of all renewals before it. No lock waits for an answer on its way.
_ISOLATION = "SET default_transaction_isolation TO 'repeatable read'"
# `share` of the leases, in SQL. A lease gives up nothing that its worker may still use ($5, $6, $7): the worker learns
# of less by this answer, and its next renewal writes it. So the sum of the leases covers what all workers use.
_RENEW = f"""
WITH account AS ({_TELL.rstrip().replace("$3", "$10")} AS paused), others AS MATERIALIZED (
    SELECT count(*)::int AS number, (count(*) FILTER (WHERE worker < $3))::int AS rank,
        coalesce(sum(coalesce(rate, 'Infinity')), 0) AS rate,
        coalesce(sum(coalesce(concurrency, 'Infinity'::float8)), 0) AS concurrency,
        least(min(wanted_rate), $8::float8) AS wanted_rate,
        least(min(wanted_concurrency), $9::int) AS wanted_concurrency
    FROM dispatchkit.lease WHERE account = $1 AND worker <> $3 AND expires > clock_timestamp()
), fair AS MATERIALIZED (
    SELECT *, wanted_rate / (number + 1) AS fair_rate,
        wanted_concurrency / (number + 1) + (rank < wanted_concurrency % (number + 1))::int AS fair_concurrency
    FROM others
), share AS MATERIALIZED (
    SELECT fair_rate, fair_concurrency,
        -- What is left after a division may be a hair more than what is left.
        CASE WHEN number = 0 OR wanted_rate IS NULL THEN wanted_rate
            ELSE greatest(0, least(fair_rate, wanted_rate - rate - 1e-9 * wanted_rate)) END AS rate,
        CASE WHEN wanted_concurrency IS NOT NULL
            THEN greatest(0, least(fair_concurrency, wanted_concurrency - concurrency))::int END AS concurrency
    FROM fair
), renewed AS (
    INSERT INTO dispatchkit.lease
    SELECT $1, $3, CASE WHEN rate IS NOT NULL AND $5::float8 IS NOT NULL THEN greatest(rate, $5) END,
        CASE WHEN concurrency IS NOT NULL AND $6::int IS NOT NULL THEN greatest(concurrency, $6, $7::int) END,
        $8, $9, clock_timestamp() + make_interval(secs => $4::float8)
    FROM share
    ON CONFLICT (account, worker) DO UPDATE SET rate = excluded.rate, concurrency = excluded.concurrency,
        wanted_rate = excluded.wanted_rate, wanted_concurrency = excluded.wanted_concurrency, expires = excluded.expires
)
SELECT rate, concurrency, rate IS NOT DISTINCT FROM fair_rate AND concurrency IS NOT DISTINCT FROM fair_concurrency,
    paused
FROM share CROSS JOIN account
"""  # noqa: S608 - put together from constants
_FORGET = "DELETE FROM dispatchkit.lease WHERE account = $1 AND (worker = $2 OR expires < clock_timestamp())"


class SharedAccount:
    """This process's part of an account.

    Args:
        connection: A connection of its own.
        key: The account's.
        pacer: What paces the account in this process.
        clock: Time.
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
        """When the latest renewal was requested, on the boot clock: it runs while the machine sleeps."""
        self._until = clock.boottime() + EXPIRES
        """When the lease ends, on the boot clock."""
        self._suspended = False
        """Whether a pause because of the database goes on, and was told of."""
        self._asking_since = clock.boottime()
        """When the latest statement was requested, on the boot clock."""
        self._refused: LedgerError | None = None
        """Why the database refused the latest statement."""
        self._isolated: Connection | None = None
        """The connection that is set to `_ISOLATION`."""
        self.wanted: dict[object, Share] = {}
        """What all workers together may use, as each delivery of a chunk that is launched here was told."""
        self.launching = 0
        """How many chunks are launched here just now."""

    @property
    def key(self) -> str:
        """The account's, a hash."""
        return self._key

    @property
    def held(self) -> Share:
        """What this process may use now."""
        return self._held

    @property
    def _known(self) -> float:
        """Until when the account is paused, as far as all others know too."""
        return _known.get(self._pacer, -math.inf)

    @_known.setter
    def _known(self, until: float) -> None:
        _known[self._pacer] = until

    def pause(self, seconds: float) -> None:
        """The account is paused for so long, as others say."""
        self._known = max(self._known, self._clock.monotonic() + seconds)
        if seconds > self._pacer.throttled_for() + _EPSILON:
            self._pacer.throttle(seconds, by="Retry-After, as another process was told")

    def _follow(self, left: float, known: float) -> None:
        """Follow the database, by which so many seconds of the pause are left.

        Args:
            left: Seconds, or less than nothing.
            known: Until when the account was paused here, when the database was asked, if the others knew.
        """
        left, now = max(0.0, left), self._clock.monotonic()
        # A slow answer makes two readings of one pause differ by as much.
        if known > now + left + ANSWER_LIMIT and now + self._pacer.throttled_for() <= known + _EPSILON:
            self._known = now + left
            self._pacer.lift(left)
        if left:
            self.pause(left)

    async def renew(self) -> None:
        """Take, keep or change this process's part.

        Raises:
            LedgerError: The database refuses it.
        """
        await self._connection.run(self._renew)

    async def _renew(self, connection: Connection) -> None:
        wanted = self._wanted = functools.reduce(_less, self.wanted.values()) if self.wanted else self._wanted
        used = self._held
        new, until, known = self._pause_here()
        # What is in flight is used until it comes back.
        in_flight = self._pacer.statistics().in_flight
        asked = self._clock.boottime()
        limits = (wanted.rate, wanted.concurrency, self._own.max_pause)
        values = (EXPIRES, used.rate, used.concurrency, in_flight, *limits)
        row = await self._serialized(connection, _RENEW, self._key, new, self._worker, *values)
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
        self._fair = fair and used == _less(used, held)  # else the next renewal gives up what is too much
        self._apply(held)
        self._follow(paused, known)

    async def _serialized(self, connection: Connection, statement: str, *values: object) -> Row | None:
        """Run a statement as if no other process ran one at the same time."""
        if connection is not self._isolated:
            await connection.execute(_ISOLATION)
            self._isolated = connection
        while True:
            try:
                return await connection.fetchrow(statement, *values)
            except asyncpg.SerializationError:  # another process was first, so one of both always gets on
                await self._clock.sleep(_JITTER * self._clock.random())

    def _is_late(self, asked: float) -> bool:
        """Whether an answer took longer than the limit. Then nothing is started any more."""
        elapsed = self._clock.boottime() - asked
        if elapsed > ANSWER_LIMIT:
            self._suspend(f"the database answers in {elapsed:.0f} s; the limit is {ANSWER_LIMIT:.0f} s")
        return elapsed > ANSWER_LIMIT

    def _suspend(self, reason: str) -> None:
        """Start nothing until a renewal is answered in time. Say why, once."""
        if not self._suspended and self.wanted:
            log(logger, logging.WARNING, "the run pauses: %s", reason)
            self._suspended = True
        self._apply(Share(0, 0))

    def _apply(self, held: Share) -> None:
        self._held = held
        if held.nothing:
            if self.launching:
                self._pacer.hold(RENEW + 2 * _LOOK)  # until the next look, however long that one takes
            return
        rates = [rate for rate in (self._own.rate, held.rate) if rate is not None]
        concurrency = self._own.concurrency
        if held.concurrency is not None:
            concurrency = held.concurrency if concurrency == "auto" else min(concurrency, held.concurrency)
        pace: Pace = attrs.evolve(self._own, rate=min(rates, default=None), concurrency=concurrency)
        if pace != self._pacer.pace:
            self._pacer.set(pace)

    def _pause_here(self) -> tuple[float, float, float]:
        """The pause that the provider asked for.

        Returns:
            Its seconds if the other processes have not been told of it, else 0; its end; its end if they know it.
        """
        paused = self._pacer.throttled_for()
        until = self._clock.monotonic() + paused
        if paused and until > self._known + _EPSILON:
            return paused, until, -math.inf
        return 0.0, -math.inf, until

    async def look(self) -> None:
        """Tell the others of a pause that is new, and learn of theirs.

        Raises:
            LedgerError: The database refuses it.
        """
        await self._connection.run(self._look)

    async def _look(self, connection: Connection) -> None:
        new, until, known = self._pause_here()
        most = self._own.max_pause
        asked = self._clock.boottime()
        row = None if new else await self._serialized(connection, _PAUSED, self._key)
        if new or (row is not None and row[0] > most + _EPSILON):
            row = await self._serialized(connection, _TELL, self._key, new, most)
        self._known = max(self._known, until)
        self._is_late(asked)
        self._follow(0.0 if row is None else row[0], known)

    async def keep(self) -> None:
        """Renew and look for as long as chunks are launched here, and a while longer: the next may come at once.

        A statement that takes long is awaited, not cancelled: that would break its connection, and make it longer.
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
        if left < RENEW:  # before long, others may have it
            silent = self._clock.boottime() - self._asking_since
            if self._refused is not None:
                self._suspend(str(self._refused))
            elif silent > ANSWER_LIMIT:
                self._suspend(f"the database has not answered for {silent:.0f} s; the limit is {ANSWER_LIMIT:.0f} s")
            else:  # this process itself was suspended: the renewal under way ends the pause, or says why not
                self._apply(Share(0, 0))
        elif self._held.nothing:
            self._apply(self._held)

    async def _leave(self, *, asks: bool = True) -> None:
        """Give the pace back, and the lease unless the database does not answer: then it expires."""
        self._pacer.set(self._own)
        if asks:
            with contextlib.suppress(LedgerError, TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT):
                    await self._connection.run(
                        lambda connection: self._serialized(connection, _FORGET, self._key, self._worker)
                    )
        await self._connection.close()


def _less(one: Share, other: Share) -> Share:
    return Share(_smaller(one.rate, other.rate), _smaller(one.concurrency, other.concurrency))


_N = TypeVar("_N", int, float)


def _smaller(one: _N | None, other: _N | None) -> _N | None:
    return min((each for each in (one, other) if each is not None), default=None)


_known: WeakKeyDictionary[Pacer, float] = WeakKeyDictionary()
"""Until when an account is paused as far as all processes know. A later part of the account's pace goes on with it."""
_shared: WeakKeyDictionary[PostgresStore, dict[str, tuple[SharedAccount, asyncio.Task[None]]]] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def share_pace(
    store: PostgresStore, key: str, pacer: Pacer, *, run: int, stop: asyncio.Event, rate: float | None = None
) -> AsyncGenerator[SharedAccount]:
    """Launch a run, or a chunk of it, within the pace that all processes of an account share.

    All that is launched through one store has one part of it together.

    Args:
        store: The ledger's database.
        key: The account's key.
        pacer: What paces the account in this process.
        run: The number of the run.
        stop: Once it is set, no part of the pace is waited for.
        rate: Launches a second that all processes together may make, beside what the plan of the run says.
    """
    limits = await until_stopped(stop, store.get_limits(run))
    planned = Share() if limits is None else Share(*limits)
    wanted = _less(planned, Share(rate))
    accounts = _shared.setdefault(store, {})
    account, keeping = accounts.get(key, (None, None))
    if account is None or keeping is None or keeping.done():
        account = SharedAccount(store.new_connection(), key, pacer)
        accounts[key] = account, asyncio.create_task(account.keep())
    delivery = object()  # of one chunk there may be two at a time
    account.wanted[delivery] = wanted
    try:
        await until_stopped(stop, account.renew())
        while account.held.nothing and not stop.is_set():
            # All is taken. The others make room when they renew; `keep` goes on asking.
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
    """Do something with the database. Once ``stop`` is set it has `STOP_TIMEOUT` left.

    Returns:
        What came of it, or None if it was given up.
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
    """Give back at once what this process has of any account."""
    keeping = [task for _, task in _shared.pop(store, {}).values()]
    for task in keeping:
        task.cancel()
    if keeping:
        await asyncio.wait(keeping)

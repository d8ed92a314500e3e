"""The shared pace of an account: its leases and its pause, in the ledger's database.

What this process learns of the account (a 429, and until when) is told to the others, and what they learnt is told to
the pacer here, four times a second. What a claim finds out about a pause reaches the pacer at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import uuid
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import attrs

from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.core.pace import Pace
from dispatchkit.core.pacer import Pacer
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.link import Connection, Link
from dispatchkit.ledger.postgres import Account, PostgresStore
from dispatchkit.spread.share import EXPIRES, RENEW, Lease, Share, share

__all__ = ["STOP_TIMEOUT", "SharedAccount", "leave", "shared", "until_stopped"]

T = TypeVar("T")

_LOOK = 0.25
_LINGER = 2.0
_SAME = 0.05
"""Seconds by which two readings of one pause may differ."""
STOP_TIMEOUT = 0.5
"""Seconds that whatever is stopped still waits for the database."""

_LOCK = """
INSERT INTO dispatchkit.account (key) VALUES ($1) ON CONFLICT (key) DO UPDATE SET key = excluded.key
RETURNING extract(epoch FROM paused_until - clock_timestamp())::float8
"""
_OTHERS = """
SELECT worker, rate, concurrency, wanted_rate, wanted_concurrency FROM dispatchkit.lease
WHERE account = $1 AND worker <> $2 AND expires > clock_timestamp()
"""
_RENEW = """
INSERT INTO dispatchkit.lease VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7))
ON CONFLICT (account, worker) DO UPDATE SET rate = excluded.rate, concurrency = excluded.concurrency,
    wanted_rate = excluded.wanted_rate, wanted_concurrency = excluded.wanted_concurrency, expires = excluded.expires
"""
_PAUSE = """
UPDATE dispatchkit.account SET paused_until = greatest(paused_until, clock_timestamp() + make_interval(secs => $2))
WHERE key = $1
"""
_PAUSED = """
SELECT extract(epoch FROM paused_until - clock_timestamp())::float8 FROM dispatchkit.account WHERE key = $1
"""
_FORGET = "DELETE FROM dispatchkit.lease WHERE account = $1 AND (worker = $2 OR expires < clock_timestamp())"


class SharedAccount:
    """This process's part of an account.

    Args:
        link: A connection of its own.
        key: The account's.
        pacer: What paces the account in this process.
        clock: Time.
    """

    def __init__(self, link: Link, key: str, pacer: Pacer, *, clock: Clock = SYSTEM) -> None:
        self._link = link
        self._key = key
        self._pacer = pacer
        self._clock = clock
        self._worker = uuid.uuid4().hex
        self._own = pacer.pace
        self._held = Share(0, 0)
        self._fair = False
        self._wanted = Share()
        self._until = 0.0
        """When the lease ends, on our clock."""
        self._known = 0.0
        """Until when the account is paused, as far as all others know too."""
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

    def pause(self, seconds: float) -> None:
        """The account is paused for so long, as others say."""
        self._known = max(self._known, self._clock.monotonic() + seconds)
        if seconds > self._pacer.paused_for() + _SAME:
            self._pacer.throttle(seconds)

    async def renew(self) -> None:
        """Take, keep or change this process's part.

        Raises:
            LedgerError: The database refuses it.
        """
        asked = self._clock.monotonic()
        held, fair, paused = await self._link.ask(self._renew)
        self._until = asked + EXPIRES
        self._fair = fair
        self._apply(held)
        if paused > 0:
            self.pause(paused)

    async def _renew(self, connection: Connection) -> tuple[Share, bool, float]:
        wanted = self._wanted = functools.reduce(_less, self.wanted.values()) if self.wanted else self._wanted
        async with connection.transaction():
            paused: float = await connection.fetchval(_LOCK, self._key)  # the account's row is ours until the end
            others = [
                Lease(worker, Share(rate, concurrency), Share(*wants))
                for worker, rate, concurrency, *wants in await connection.fetch(_OTHERS, self._key, self._worker)
            ]
            held = share(self._worker, wanted, others)
            # What is in flight is used until it comes back.
            in_flight = self._pacer.statistics().in_flight
            booked = None if held.concurrency is None else max(held.concurrency, in_flight)
            less = _less(held, self._held)
            if less != self._held:
                self._apply(less)  # before anybody else can have it; what is more counts only once it is ours
            values = (held.rate, booked, wanted.rate, wanted.concurrency, EXPIRES)
            await connection.execute(_RENEW, self._key, self._worker, *values)
        fair = share(self._worker, wanted, [attrs.evolve(other, held=Share(0, 0)) for other in others])
        return held, held == fair, paused

    def _apply(self, held: Share) -> None:
        self._held = held
        if held.nothing:
            if self.launching:
                self.pause(RENEW + 2 * _LOOK)  # until the next look, however long that one takes
            return
        rates = [rate for rate in (self._own.rate, held.rate) if rate is not None]
        concurrency = self._own.concurrency
        if held.concurrency is not None:
            concurrency = held.concurrency if concurrency == "auto" else min(concurrency, held.concurrency)
        pace: Pace = attrs.evolve(self._own, rate=min(rates, default=None), concurrency=concurrency)
        if pace != self._pacer.pace:
            self._pacer.set(pace)

    async def look(self) -> None:
        """Tell the others of a pause that is new, and learn of theirs.

        Raises:
            LedgerError: The database refuses it.
        """
        paused = self._pacer.paused_for()
        until = self._clock.monotonic() + paused
        # An open breaker is this machine's own: another's way to the provider may be free.
        if paused and until > self._known + _SAME and self._pacer.statistics().breaker == "closed":
            self._known = until
            await self._link.ask(lambda connection: connection.execute(_PAUSE, self._key, paused))
        theirs = await self._link.ask(lambda connection: connection.fetchval(_PAUSED, self._key))
        if isinstance(theirs, float) and theirs > 0:
            self.pause(theirs)

    async def keep(self) -> None:
        """Renew and look for as long as chunks are launched here, and a while longer: the next may come at once."""
        renewed = used = self._clock.monotonic()
        try:
            while self._clock.monotonic() < used + _LINGER:
                await self._clock.sleep(_LOOK)
                used = self._clock.monotonic() if self.wanted else used
                with contextlib.suppress(LedgerError, TimeoutError):  # claims tell what is wrong
                    async with asyncio.timeout(RENEW):
                        await self.look()
                        if not self._fair or self._clock.monotonic() >= renewed + RENEW:
                            renewed = self._clock.monotonic()
                            await self.renew()
                if self._held.nothing or self._clock.monotonic() > self._until - RENEW:
                    self._apply(Share(0, 0))  # before long, others may have it
        finally:
            await self._leave()

    async def _leave(self) -> None:
        self._pacer.set(self._own)
        values = (self._key, self._worker)
        with contextlib.suppress(LedgerError, TimeoutError):  # then it expires
            async with asyncio.timeout(STOP_TIMEOUT):
                await self._link.ask(lambda connection: connection.execute(_FORGET, *values))
        await self._link.close()


def _less(one: Share, other: Share) -> Share:
    return Share(_smaller(one.rate, other.rate), _smaller(one.concurrency, other.concurrency))


_N = TypeVar("_N", int, float)


def _smaller(one: _N | None, other: _N | None) -> _N | None:
    return min((each for each in (one, other) if each is not None), default=None)


_shared: WeakKeyDictionary[PostgresStore, dict[str, tuple[SharedAccount, asyncio.Task[None]]]] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def shared(
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
    bounds = await until_stopped(stop, store.bounds(run))
    planned = Share() if bounds is None else Share(*bounds)
    wanted = _less(planned, Share(rate))
    accounts = _shared.setdefault(store, {})
    account, keeping = accounts.get(key, (None, None))
    if account is None or keeping is None or keeping.done():
        account = SharedAccount(store.another(), key, pacer)
        accounts[key] = account, asyncio.create_task(account.keep())
    delivery = object()  # of one chunk there may be two at a time
    account.wanted[delivery] = wanted
    try:
        await until_stopped(stop, account.renew())
        while account.held.nothing and not stop.is_set():
            # All is taken. The others make room when they renew; `keep` goes on asking.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK / 4)
        store.charge(run, Account(key, account.pause))
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


async def leave(store: PostgresStore) -> None:
    """Give back at once what this process has of any account."""
    keeping = [task for _, task in _shared.pop(store, {}).values()]
    for task in keeping:
        task.cancel()
    if keeping:
        await asyncio.wait(keeping)

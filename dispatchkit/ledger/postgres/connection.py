"""A connection to PostgreSQL that comes back by itself.

While the database is away (it restarts, fails over, or the network is broken) whoever asks waits. So everything that
is asked must do no harm if it is done twice: of a connection that broke, nobody knows how far it came.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.errors import LedgerError

__all__ = ["TRANSIENT_ERRORS", "Connection", "ReconnectingConnection", "Row"]

T = TypeVar("T")

_CONNECT = 10.0
"""Seconds to connect."""
_ANSWER = 30.0
"""Seconds for one statement: a machine that is gone says nothing at all."""
_MIN_WAIT, _MAX_WAIT = 0.05, 2.0
"""Seconds between two tries to come back: they double."""
_CLOSE = 0.5
"""Seconds that a close waits for the statement under way, and for the database's goodbye."""


class Row(Protocol):
    """One row of an answer."""

    def __getitem__(self, name: str | int, /) -> Any:
        """One column of it."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Its columns, in order."""
        ...


class Connection(Protocol):
    """As much of asyncpg's connection as is needed here. It comes without types of its own."""

    async def execute(self, statement: str, *values: object) -> str:
        """Run a statement."""
        ...

    async def fetch(self, statement: str, *values: object) -> list[Row]:
        """Run a statement, and return its rows."""
        ...

    async def fetchrow(self, statement: str, *values: object) -> Row | None:
        """Run a statement, and return its first row."""
        ...

    async def fetchval(self, statement: str, *values: object) -> Any:
        """Run a statement, and return the first column of its first row."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """All or nothing of what is run inside."""
        ...

    def is_closed(self) -> bool:
        """Whether it is of no use any more."""
        ...

    def terminate(self) -> None:
        """Close it without a word."""
        ...

    async def close(self, *, timeout: float | None = None) -> None:
        """Close it."""
        ...


TRANSIENT_ERRORS = (
    OSError,  # a timeout too
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.QueryCanceledError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,  # a primary that has become a standby
    asyncpg.TransactionRollbackError,  # not away, but to be asked again
)
"""What is over some time later."""


class ReconnectingConnection:
    """One connection. Those who ask take turns.

    Args:
        dsn: Where the database is.
        clock: What waits.
    """

    def __init__(self, dsn: str, *, clock: Clock = SYSTEM) -> None:
        self._dsn = dsn
        self._clock = clock
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None
        self._closed = False

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, timeout: float = math.inf) -> T:
        """Do something with the connection, again and again until it is done.

        Args:
            work: What to do: twice, if need be.
            timeout: Seconds to wait for a database that is away.

        Raises:
            LedgerError: The database refuses it, or was away for longer than that.
        """
        until = self._clock.monotonic() + timeout
        wait = _MIN_WAIT
        async with self._turn:
            while True:
                try:
                    async with asyncio.timeout(_CONNECT + _ANSWER):
                        return await self._once(work)
                except ValueError as error:
                    # Of the URL, or of a value. Its own words may quote a password.
                    raise LedgerError(_describe_error(error)) from None
                except TRANSIENT_ERRORS as error:
                    self._drop()
                    reason = error
                except asyncpg.PostgresError as error:
                    raise LedgerError(_describe_error(error)) from error
                except BaseException:
                    self._drop()  # cancelled: nobody knows what the connection is in the middle of
                    raise
                if self._clock.monotonic() + wait > until:
                    raise LedgerError(_describe_error(reason)) from reason
                await self._clock.sleep(wait * (0.5 + self._clock.random() / 2))
                wait = min(_MAX_WAIT, wait * 2)

    async def _once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        if self._closed:
            raise LedgerError("the ledger is closed")
        if self._connection is None or self._connection.is_closed():
            self._connection = await _connect(self._dsn)
        return await work(self._connection)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Disconnect. A database that does not answer is left without a goodbye."""
        self._closed = True
        try:
            async with asyncio.timeout(_CLOSE):
                await self._turn.acquire()
        except TimeoutError:
            self._drop()  # the statement under way fails, and is not repeated
            return
        self._turn.release()
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=_CLOSE)
            except (*TRANSIENT_ERRORS, asyncpg.PostgresError):
                connection.terminate()


class _Transaction:
    """A transaction that a cancelled statement ends by closing the connection.

    asyncpg's own rolls back first, and waits for an answer. A database that is away gives none.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> None:
        await self._connection.execute("BEGIN")

    async def __aexit__(self, exc_type: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            await self._connection.execute("COMMIT")
        elif isinstance(error, asyncpg.PostgresError) and not self._connection.is_closed():
            await self._connection.execute("ROLLBACK")
        else:
            self._connection.terminate()


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    def transaction(self) -> _Transaction:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Transaction(cast("Connection", self))


_open = cast("Callable[..., Awaitable[Connection]]", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]


async def _connect(dsn: str) -> Connection:
    connection = await _open(
        dsn,
        connection_class=_Connection,
        timeout=_CONNECT,
        command_timeout=_ANSWER,
        # What a failover has left behind takes no writes.
        target_session_attrs="read-write",
        server_settings={
            "application_name": "dispatchkit",
            "timezone": "UTC",
            "jit": "off",
            # Tables grow from nothing to millions of rows within one run, while plans are kept: what is best for an
            # empty table would read the whole of it for every row.
            "enable_seqscan": "off",
            "plan_cache_mode": "force_generic_plan",
        },
    )
    if await connection.fetchval("SHOW synchronous_commit") == "off":
        # What is told to be written must be on disk.
        await connection.execute("SET synchronous_commit TO on")
    return connection


def _describe_error(error: Exception) -> str:
    """What happened, and what to do about it. It never quotes the URL, which may hold a password."""
    name = type(error).__name__
    text = " ".join(str(error).split()) or name
    if isinstance(error, asyncpg.DiskFullError):
        return f"the ledger's database has no room left ({text}): make room, then resume the run"
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError | asyncpg.InvalidCatalogNameError):
        return f"the ledger's database lets nobody in ({text}): check user, password and database in its URL"
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return f"the ledger's database allows too little ({text}): its user must be the owner of the schema dispatchkit"
    if name == "DataError":
        return f"the ledger's database does not take a value ({name}): this may be a mistake of dispatchkit"
    if isinstance(error, ValueError):
        return "the ledger's URL is not one of PostgreSQL: postgresql://user@host:port/database"
    if isinstance(error, TRANSIENT_ERRORS):
        return f"the ledger's database cannot be reached ({text}): nothing is launched without it; resume the run later"
    return f"the ledger's database refused a statement ({name}: {text}): this may be a mistake of dispatchkit"

"""A PostgreSQL connection that reconnects by itself.

While the database is unreachable (a restart, a failover, a network failure), all work waits and is then repeated. A
broken connection does not tell how far it came, so the work must be idempotent.
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

__all__ = ["TRANSIENT_ERRORS", "Connection", "ReconnectingConnection", "Row", "fetching"]

T = TypeVar("T")

_CONNECT = 10.0
"""Seconds to connect."""
_ANSWER = 30.0
"""Seconds for one statement: a lost machine never answers."""
_MIN_WAIT, _MAX_WAIT = 0.05, 2.0
"""First and longest wait between reconnects, in seconds. The wait doubles."""
_CLOSE = 0.5
"""Seconds that a close waits for the current statement, and for the database's answer."""


class Row(Protocol):
    """One row of a result."""

    def __getitem__(self, name: str | int, /) -> Any:
        """A column, by name or position."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """The columns in order."""
        ...


class Connection(Protocol):
    """The methods of asyncpg's connection that are used here. asyncpg has no type hints."""

    async def execute(self, statement: str, *values: object) -> str:
        """Run a statement."""
        ...

    async def fetch(self, statement: str, *values: object) -> list[Row]:
        """Run a statement and return its rows."""
        ...

    async def fetchrow(self, statement: str, *values: object) -> Row | None:
        """Run a statement and return its first row."""
        ...

    async def fetchval(self, statement: str, *values: object) -> Any:
        """Run a statement and return the first column of its first row."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A transaction for the statements inside."""
        ...

    def is_closed(self) -> bool:
        """Whether the connection is closed."""
        ...

    def terminate(self) -> None:
        """Close the connection at once, without telling the database."""
        ...

    async def close(self, *, timeout: float | None = None) -> None:
        """Close the connection gracefully."""
        ...


TRANSIENT_ERRORS = (
    OSError,  # includes TimeoutError
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
    asyncpg.TransactionRollbackError,  # deadlocks and serialization failures: repeat the transaction
)
"""Transient errors."""


class ReconnectingConnection:
    """One connection, for one piece of work at a time.

    Args:
        dsn: The database's URL.
        clock: The clock for waits.
    """

    def __init__(self, dsn: str, *, clock: Clock = SYSTEM) -> None:
        self._dsn = dsn
        self._clock = clock
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None
        self._closed = False

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, timeout: float = math.inf) -> T:
        """Run work with the connection, and repeat it after transient errors.

        Args:
            work: Idempotent work.
            timeout: Seconds to wait for an unreachable database. Default: no limit.

        Raises:
            LedgerError: The database refused the work, or was unreachable for longer than the timeout.
        """
        until = self._clock.monotonic() + timeout
        wait = _MIN_WAIT
        async with self._turn:
            while True:
                try:
                    async with asyncio.timeout(_CONNECT + _ANSWER):
                        return await self._once(work)
                except ValueError as error:
                    # The URL or a value is invalid. The error's own text may quote a password.
                    raise LedgerError(_describe_error(error)) from None
                except TRANSIENT_ERRORS as error:
                    self._drop()
                    reason = error
                except asyncpg.PostgresError as error:
                    raise LedgerError(_describe_error(error)) from error
                except BaseException:
                    self._drop()  # cancelled: the state of the connection is unknown
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
        """Disconnect. If the database does not answer, the connection is terminated."""
        self._closed = True
        try:
            async with asyncio.timeout(_CLOSE):
                await self._turn.acquire()
        except TimeoutError:
            self._drop()  # the current statement fails, and is not repeated
            return
        self._turn.release()
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=_CLOSE)
            except (*TRANSIENT_ERRORS, asyncpg.PostgresError):
                connection.terminate()


def fetching(statement: str, *values: object) -> Callable[[Connection], Awaitable[list[Row]]]:
    """Work for `ReconnectingConnection.run` that fetches the rows of a statement."""
    return lambda connection: connection.fetch(statement, *values)


class _Transaction:
    """A transaction that closes the connection if its work is cancelled.

    asyncpg's own transaction would roll back first, and wait for an unreachable database.
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
        # After a failover, the former primary is read-only.
        target_session_attrs="read-write",
        server_settings={
            "application_name": "dispatchkit",
            "timezone": "UTC",
            "jit": "off",
            # Tables grow from zero to millions of rows within one run, while query plans are cached. The best plan for
            # an empty table is a sequential scan.
            "enable_seqscan": "off",
            "plan_cache_mode": "force_generic_plan",
        },
    )
    if await connection.fetchval("SHOW synchronous_commit") == "off":
        # A committed claim must be on disk.
        await connection.execute("SET synchronous_commit TO on")
    return connection


def _describe_error(error: Exception) -> str:
    """Describe the error and what to do, without the URL, which may hold a password."""
    name = type(error).__name__
    text = " ".join(str(error).split()) or name
    if isinstance(error, asyncpg.DiskFullError):
        return f"the ledger's database has no room left ({text}): make room, then resume the run"
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError | asyncpg.InvalidCatalogNameError):
        return f"cannot log in to the ledger's database ({text}): check user, password and database in its URL"
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return f"the ledger's database denies access ({text}): its user must be the owner of the schema dispatchkit"
    if name == "DataError":
        return f"the ledger's database refused a value ({name}): this may be a bug in dispatchkit, please report it"
    if isinstance(error, ValueError):
        return "the ledger's URL is no PostgreSQL URL: write postgresql://user@host:port/database"
    if isinstance(error, TRANSIENT_ERRORS):
        return f"the ledger's database cannot be reached ({text}): nothing is launched without it; resume the run later"
    return f"the ledger's database refused a statement ({name}: {text}): this may be a bug in dispatchkit"

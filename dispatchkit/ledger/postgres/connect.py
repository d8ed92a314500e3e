"""Open a connection to PostgreSQL for the ledger: to the host that takes writes, with its session set up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

from dispatchkit.ledger.postgres.adapt import adapted
from dispatchkit.ledger.postgres.describe import TRANSIENT_ERRORS, NoServerConnectionError, ReadOnlyServerError
from dispatchkit.ledger.postgres.driver_settings import DriverSettings
from dispatchkit.ledger.postgres.protocol import Connection, Row

__all__ = ["ANSWER_TIMEOUT", "connect", "without_tracebacks"]

E = TypeVar("E", bound=BaseException)

ANSWER_TIMEOUT = 30.0
"""Seconds for one statement: a machine that is gone says nothing at all."""

# With SET, not as parameters of the startup, which PgBouncer refuses unless it knows them.
_SET_UP = """
SELECT pg_backend_pid() AS pid, current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS is_read_only,
    set_config('jit', 'off', false),
    -- Tables grow from nothing to millions of rows within one run, while plans are kept: what is best for an empty
    -- table would read the whole of it for every row.
    set_config('enable_seqscan', 'off', false), set_config('plan_cache_mode', 'force_generic_plan', false),
    -- What is reported as written must be on disk.
    set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
        ELSE current_setting('synchronous_commit') END, false)
"""


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

    def set_socket_options(self, settings: DriverSettings) -> None:
        transport = cast("asyncio.Transport", self._transport)  # pyright: ignore[reportUnknownMemberType]
        connected: socket.socket | None = transport.get_extra_info("socket")
        if connected is not None and connected.family != getattr(socket, "AF_UNIX", None):
            for option in settings.socket_options():
                connected.setsockopt(*option)


_open = cast("Callable[..., Awaitable[_Connection]]", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]


async def connect(settings: DriverSettings) -> Connection:
    """Connect to the first host that takes writes.

    No traceback of what it raises shows the frames of asyncpg: their locals hold the password.

    Raises:
        OSError: No host can be reached, or none takes writes.
        asyncpg.PostgresError: A host refuses the user.
    """
    reason: BaseException | None = None
    for host in settings.hosts:
        try:
            connection = await _connect_to(host, settings)
        except TRANSIENT_ERRORS as error:
            if reason is None or isinstance(reason, ReadOnlyServerError):
                reason = without_tracebacks(error)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            raise without_tracebacks(error)  # noqa: B904 - the same one
        else:
            settings.prefer(host)
            return connection
    raise reason or ReadOnlyServerError("there is no host")


async def _connect_to(host: tuple[str, int], settings: DriverSettings) -> Connection:
    timeout = settings.connect_timeout
    given = settings.for_asyncpg(host)
    opened = await _open(connection_class=_Connection, timeout=timeout, command_timeout=ANSWER_TIMEOUT, **given)
    connection = cast("Connection", opened)
    try:
        opened.set_socket_options(settings)
        async with asyncio.timeout(timeout):
            row = cast("Row", await connection.fetchrow(_SET_UP))
    except TimeoutError:
        connection.terminate()
        raise NoServerConnectionError(f"no answer within {timeout:.0f} s after the connection was accepted") from None
    except BaseException:
        connection.terminate()
        raise
    settings.is_pooled = row["pid"] != connection.get_server_pid()
    if row["is_read_only"]:
        connection.terminate()
        raise ReadOnlyServerError("it takes no writes: a standby, or default_transaction_read_only is on")
    encoding: Any = row["encoding"]
    return adapted(connection, schema=settings.schema, encoding=str(encoding))


def without_tracebacks(error: E) -> E:
    """An error, and all that it hangs together with, without the frames that they came by."""
    chain, seen = [cast("BaseException", error)], set[int]()
    while chain:
        one = chain.pop()
        if id(one) not in seen:
            seen.add(id(one))
            one.with_traceback(None)
            chain += [linked for linked in (one.__cause__, one.__context__) if linked is not None]
    return error

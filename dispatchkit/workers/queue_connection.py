"""Connect Procrastinate to the ledger's database: the same address, a schema of its own, and no log lines of others."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import socket
from collections.abc import AsyncGenerator, Generator
from typing import Any, Self
from weakref import WeakSet

import procrastinate
import psycopg
from procrastinate.schema import SchemaManager
from psycopg.conninfo import make_conninfo

from dispatchkit.ledger.dsn import create_schema_sql
from dispatchkit.ledger.postgres.connection import Connection
from dispatchkit.ledger.postgres.describe import is_out_of_connections, out_of_connections
from dispatchkit.ledger.postgres.driver_settings import DEFAULT_SCHEMA
from dispatchkit.ledger.postgres.store import PostgresStore

__all__ = ["QueueConnections", "create_tables", "creation_sql", "queue", "quiet_libraries"]

_POOL_TIMEOUT = 10.0
"""Seconds to wait for a connection, at least."""
_LIBRARIES = ("procrastinate", "psycopg")


class QueueConnections:
    """The connections of a queue, and why the latest one could not be made."""

    def __init__(self) -> None:
        self._made = WeakSet[psycopg.AsyncConnection[Any]]()
        self.error: psycopg.Error | None = None

    def add(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Take note of a connection."""
        self._made.add(connection)

    def shortage(self) -> str | None:
        """What to do about too few connections, if that is why none could be made."""
        if self.error is None or not is_out_of_connections(self.error):
            return None
        return out_of_connections(" ".join(str(self.error).split()))

    def cut(self) -> None:
        """Break all connections, so that whatever waits for an answer fails at once."""
        for connection in list(self._made):
            with contextlib.suppress(OSError, psycopg.Error):
                end = socket.socket(fileno=connection.fileno())
                try:
                    end.shutdown(socket.SHUT_RDWR)
                finally:
                    end.detach()


def _tables(schema: str) -> tuple[str, str]:
    """Procrastinate's tables, in a schema of their own: another release with other tables has another one."""
    text = SchemaManager.get_schema()
    name = f"{schema}_queue_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name, text.encode("ascii", "replace").decode()  # a dash in a comment, which not every database can read


def creation_sql(schema: str = DEFAULT_SCHEMA) -> str:
    """What makes the queue's schema and tables, for psql.

    Args:
        schema: That of the ledger.
    """
    name, text = _tables(schema)
    return f'BEGIN;\n{create_schema_sql(name)}\nSET LOCAL search_path TO "{name}";\n{text}\nCOMMIT;\n'


@contextlib.asynccontextmanager
async def queue(store: PostgresStore, connections: QueueConnections) -> AsyncGenerator[procrastinate.App]:
    """The queue, open.

    Raises:
        LedgerError: Its tables cannot be made.
        psycopg.Error: It cannot be connected to.
    """
    settings = store.settings
    schema, _ = _tables(settings.schema)

    class Connected(psycopg.AsyncConnection[Any]):
        def __init__(self, *values: Any, **settings: Any) -> None:
            super().__init__(*values, **settings)
            connections.add(self)

        @classmethod
        async def connect(cls, *values: Any, **settings: Any) -> Self:
            try:
                connection = await super().connect(*values, **settings)
            except psycopg.Error as error:
                connections.error = error.with_traceback(None)  # its frames hold the password
                raise
            connections.error = None
            return connection

    async def set_up(connection: psycopg.AsyncConnection[Any]) -> None:
        # With SET, not in the parameter `options`, which PgBouncer refuses.
        await connection.execute("SELECT set_config('search_path', %s, false)", [schema])
        await connection.commit()

    with quiet_libraries():
        await create_tables(store)
        connector = procrastinate.PsycopgConnector(
            conninfo=make_conninfo(**settings.for_libpq()),
            connection_class=Connected,
            configure=set_up,
            min_size=1,
            max_size=4,
            timeout=max(_POOL_TIMEOUT, settings.connect_timeout * len(settings.hosts) + 1),
        )
        app = procrastinate.App(connector=connector)
        async with app.open_async():
            yield app


async def create_tables(store: PostgresStore) -> None:
    """Make the tables if they are not there. A schema that is there already, and empty, is used.

    Raises:
        LedgerError: They cannot be made.
    """
    schema, text = _tables(store.settings.schema)
    await store.connection.run(lambda connection: _create(connection, schema, text))


async def _create(connection: Connection, schema: str, text: str) -> None:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('dispatchkit queue', 0))")
        exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = $1)"
        if await connection.fetchval(exists, schema):
            return
        await connection.execute(create_schema_sql(schema))
        await connection.execute(f'SET LOCAL search_path TO "{schema}"; {text}')


@contextlib.contextmanager
def quiet_libraries() -> Generator[None]:
    """Keep the libraries from logging each try to reach a database that is away: that is reported once, by us."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)

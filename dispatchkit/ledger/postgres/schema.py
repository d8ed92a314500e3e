"""Make and upgrade the tables of a ledger in PostgreSQL, or give an administrator the SQL for them."""

from __future__ import annotations

from dispatchkit._version import __version__
from dispatchkit.ledger.chunk import LEASE_TIMEOUT
from dispatchkit.ledger.dsn import create_schema_sql
from dispatchkit.ledger.migrations import check_known, held, latest, pending
from dispatchkit.ledger.postgres.adapt import in_schema
from dispatchkit.ledger.postgres.protocol import Connection

__all__ = ["creation_sql", "prepare"]

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('dispatchkit', 0))"
_LEDGER = "the ledger in the database"


async def prepare(connection: Connection, schema: str) -> None:
    """Make the tables, or upgrade them. A schema that is there already is used, so its user need not make one.

    Raises:
        LedgerError: They are of a newer release, or are to be upgraded and in use.
    """
    if await _version(connection, schema) == latest():
        return
    async with connection.transaction():
        await connection.execute(_LOCK)
        version = await _version(connection, schema)  # another process may have come first
        if version == latest():
            return
        if version and await connection.fetchval(
            "SELECT EXISTS (SELECT FROM dispatchkit.chunk WHERE token IS NOT NULL "
            "AND seen >= clock_timestamp() - make_interval(secs => $1))",
            LEASE_TIMEOUT,
        ):
            raise held(_LEDGER, version)
        await connection.execute(create_schema_sql(schema))
        for migration in pending(version):
            await connection.execute(migration.postgres)
        await connection.execute("DELETE FROM dispatchkit.about")
        await connection.execute(
            "INSERT INTO dispatchkit.about (version, release) VALUES ($1, $2)", latest(), __version__
        )


async def _version(connection: Connection, schema: str) -> int:
    """The version of the tables; 0 if there are none.

    Raises:
        LedgerError: They are of a newer release.
    """
    # Not to_regclass(): it may return a cached result from before the wait for a lock.
    statement = "SELECT FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'about'"
    if await connection.fetchrow(statement, schema) is None:
        return 0
    row = await connection.fetchrow("SELECT version, to_jsonb(a) ->> 'release' AS release FROM dispatchkit.about a")
    if row is None:
        return 0
    version, release = row
    check_known(version, release, _LEDGER)
    return int(version)


def creation_sql(schema: str) -> str:
    """The SQL that makes the schema and the tables, for psql. The ledger's database user must own them."""
    tables = "\n".join(migration.postgres for migration in pending(0))
    about = f"INSERT INTO dispatchkit.about (version, release) VALUES ({latest()}, '{__version__}');"
    text = in_schema(f"{tables.strip()}\n{about}", schema)
    return f"BEGIN;\n{create_schema_sql(schema)}\n{text}\nCOMMIT;\n"

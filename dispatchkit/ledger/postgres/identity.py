"""Identify a PostgreSQL database, so that a copy, a restore or a failover is noticed."""

from __future__ import annotations

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

from dispatchkit.ledger.postgres.connection import Connection

__all__ = ["identity_expression"]

# A database is identified by three parts. A failover or a restore of its files changes the system or its timeline.
# Restoring a dump changes the ids of the database and of a table. Restoring the rows alone (TRUNCATE, then `pg_dump
# --data-only`) changes the file of the table. VACUUM FULL changes it, too, which only makes earlier runs slower.
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_TIMELINE = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
_IDENTITY = """ARRAY[$system, $timeline, (
    SELECT oid::text FROM pg_database WHERE datname = current_database()
) || '.' || 'dispatchkit.run'::regclass::oid::text || '.' || pg_relation_filenode('dispatchkit.sending')::text]"""


async def identity_expression(connection: Connection) -> str:
    """An SQL expression that identifies the database, from the parts that this user may read."""
    parts = dict[str, str]()
    for name, statement in {"$system": _SYSTEM, "$timeline": _TIMELINE}.items():
        try:
            await connection.fetchval(statement)
            parts[name] = f"({statement})"
        except (
            asyncpg.InsufficientPrivilegeError,
            asyncpg.FeatureNotSupportedError,
            asyncpg.UndefinedFunctionError,
        ):
            parts[name] = "NULL"
    expression = _IDENTITY
    for name, part in parts.items():
        expression = expression.replace(name, part)
    return expression

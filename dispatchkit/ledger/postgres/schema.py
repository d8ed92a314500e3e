"""The tables of a ledger in PostgreSQL: create them, check their version, and identify the database."""

from __future__ import annotations

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

from dispatchkit.errors import LedgerError
from dispatchkit.ledger.postgres.connection import Connection

__all__ = ["check_version", "create_tables", "find_version", "identity_expression"]

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('dispatchkit', 0))"

_VERSION = 3
"""Version of the tables."""

_TABLES = """
CREATE SCHEMA IF NOT EXISTS dispatchkit;
CREATE TABLE dispatchkit.about (version int NOT NULL);
CREATE TABLE dispatchkit.run (
    number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    settings text NOT NULL,
    created timestamptz NOT NULL,
    total int NOT NULL DEFAULT 0,
    plan_complete boolean NOT NULL DEFAULT false,
    stopped boolean NOT NULL DEFAULT false,
    stops int NOT NULL DEFAULT 0, -- how often it was stopped
    repeat_window double precision, -- seconds
    rate double precision, -- limit of the account over all workers
    concurrency int,
    host text NOT NULL,
    account text, -- name of the account, if the client has one
    fingerprint text NOT NULL,
    attempt_timeout double precision NOT NULL, -- the longest of all holders
    database_id text[] NOT NULL -- see IDENTITY
);
CREATE TABLE dispatchkit.chunk (
    run int NOT NULL,
    number int NOT NULL,
    start_index int NOT NULL,
    end_index int NOT NULL,
    over boolean NOT NULL DEFAULT false, -- all of its targets are final
    token text,
    pid int,
    host text,
    boot_id text,
    process_started bigint, -- in clock ticks since the boot
    pid_namespace bigint,
    since timestamptz, -- start of the hold
    seen timestamptz, -- the latest heartbeat
    PRIMARY KEY (run, number)
);
CREATE TABLE dispatchkit.target (
    run int NOT NULL,
    index int NOT NULL,
    key bytea NOT NULL,
    command text NOT NULL,
    log_key bigint, -- the log that alone shows the command, if there is one
    PRIMARY KEY (run, index),
    UNIQUE (run, key) -- not (key, run): runs would share index pages, and each run would slow down planning
);
CREATE INDEX target_of_log ON dispatchkit.target (log_key) WHERE log_key IS NOT NULL;
CREATE TABLE dispatchkit.sending (
    run int NOT NULL,
    index int NOT NULL,
    send_no int NOT NULL,
    token text NOT NULL,
    request_id text,
    since timestamptz NOT NULL,
    claimed_at timestamptz NOT NULL, -- of the latest claim
    PRIMARY KEY (run, index, send_no)
);
CREATE TABLE dispatchkit.outcome (
    run int NOT NULL,
    index int NOT NULL,
    send_no int NOT NULL,
    state text NOT NULL,
    summary text NOT NULL,
    code text, -- as JSON: a number or a text
    request_id text,
    attempts int NOT NULL,
    at timestamptz NOT NULL,
    final boolean NOT NULL DEFAULT false, -- an unknown outcome that nothing can settle
    PRIMARY KEY (run, index, send_no)
);
CREATE TABLE dispatchkit.account (
    key text PRIMARY KEY, -- a hash
    paused_until timestamptz NOT NULL DEFAULT 'epoch'
);
CREATE TABLE dispatchkit.lease (
    account text NOT NULL,
    worker text NOT NULL,
    rate double precision, -- limit of this worker; null: none
    concurrency int,
    wanted_rate double precision, -- limit of all workers, as this worker was told
    wanted_concurrency int,
    expires timestamptz NOT NULL,
    PRIMARY KEY (account, worker)
);
"""

# A database is identified by three parts. A failover or a restore of its files changes the system or its timeline.
# Restoring a dump changes the ids of the database and of a table. Restoring the rows alone (TRUNCATE, then `pg_dump
# --data-only`) changes the file of the table. VACUUM FULL changes it, too, which only makes earlier runs slower.
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_TIMELINE = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
_IDENTITY = """ARRAY[$system, $timeline, (
    SELECT oid::text FROM pg_database WHERE datname = current_database()
) || '.' || 'dispatchkit.run'::regclass::oid::text || '.' || pg_relation_filenode('dispatchkit.sending')::text]"""


async def find_version(connection: Connection) -> int | None:
    """The version of the tables; None if there are none."""
    # Not to_regclass(): it may return a cached result from before the wait for a lock.
    statement = "SELECT FROM pg_catalog.pg_tables WHERE schemaname = 'dispatchkit' AND tablename = 'about'"
    if await connection.fetchrow(statement) is None:
        return None
    version: int | None = await connection.fetchval("SELECT version FROM dispatchkit.about")
    return version


async def create_tables(connection: Connection) -> int | None:
    """Create the tables, unless another process has. Returns their version."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        if (version := await find_version(connection)) is not None:
            return version
        await connection.execute(_TABLES)
        await connection.execute("INSERT INTO dispatchkit.about VALUES ($1)", _VERSION)
    return _VERSION


def check_version(version: int | None) -> None:
    """Check that this release can use the tables.

    Raises:
        LedgerError: Another release made them.
    """
    if version is not None and version < _VERSION:
        raise LedgerError(
            f"the ledger's tables were made by an earlier release of dispatchkit (version {version}; this release "
            f"needs {_VERSION}): finish its runs with that release, and use another database with this release"
        )
    if version != _VERSION:
        raise LedgerError(
            f"the ledger's tables were made by a newer release of dispatchkit (version {version}; this release needs "
            f"{_VERSION}): upgrade dispatchkit"
        )


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

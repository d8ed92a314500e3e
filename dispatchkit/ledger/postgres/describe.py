"""What an error of the ledger's database means, and what to do about it."""

from __future__ import annotations

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

__all__ = [
    "LEDGER_CONNECTIONS",
    "TRANSACTION_POOLER",
    "TRANSIENT_ERRORS",
    "WORKER_CONNECTIONS",
    "NoServerConnectionError",
    "ReadOnlyServerError",
    "describe_error",
    "is_out_of_connections",
    "out_of_connections",
]

LEDGER_CONNECTIONS = 4
"""Connections of a process that launches: three of its ledger, and one of its account's shared pace."""
WORKER_CONNECTIONS = 9
"""Connections of a worker: those of a process that launches, and five of its queue."""
TRANSACTION_POOLER = (
    "the ledger's database is behind a pooler in transaction or statement mode: nothing was launched. A ledger needs "
    "a session that lasts. Connect to the database, or to a pool in session mode (PgBouncer: pool_mode = session)"
)


class ReadOnlyServerError(ConnectionError):
    """The server takes no writes."""


class NoServerConnectionError(ConnectionError):
    """A pooler accepted the connection, and had no connection to the server for it."""


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
"""Errors that end by themselves, as when the database is back."""

# Texts of errors without a code. PgBouncer has no code for this error. libpq gives no code for a failed connection to
# PostgreSQL.
_NONE_LEFT = (
    "no more connections allowed",
    "query_wait_timeout",
    "max_client_conn",
    "max_user_connections",
    "too many connections",
    "too many clients",
    "remaining connection slots",
)


def is_out_of_connections(error: BaseException) -> bool:
    """Whether the database, or a pooler in front of it, has no connection left."""
    if isinstance(error, asyncpg.TooManyConnectionsError | NoServerConnectionError):
        return True
    return any(words in str(error) for words in _NONE_LEFT)


def out_of_connections(text: str) -> str:
    """What to do about too few connections, in one line."""
    return (
        f"the ledger's database has no connection left ({text}): each process that launches needs "
        f"{LEDGER_CONNECTIONS}, and each worker {WORKER_CONNECTIONS}. Raise max_connections, the limit of the role or "
        "the size of the pool"
    )


def describe_error(error: Exception) -> str:
    """What happened, and what to do about it. It never quotes the address, which may hold a password."""
    name = type(error).__name__
    text = " ".join(str(error).split()) or name
    if is_out_of_connections(error):
        return out_of_connections(text)
    if isinstance(error, asyncpg.InvalidSQLStatementNameError | asyncpg.DuplicatePreparedStatementError):
        return TRANSACTION_POOLER
    if isinstance(error, asyncpg.DiskFullError):
        return f"the ledger's database is full ({text}): free disk space, then resume the run"
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError | asyncpg.InvalidCatalogNameError):
        return f"cannot log in to the ledger's database ({text}): check user, password and database in its address"
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return (
            f"the ledger's database allows too little ({text}). Its user must own the ledger's schema, or be allowed "
            "to create it. 'dispatchkit ledger init LEDGER --sql' prints what an administrator can run instead"
        )
    if name == "DataError":
        return f"the ledger's database refuses a value ({name}): this may be a bug in dispatchkit"
    if isinstance(error, asyncpg.ClientConfigurationError):
        return f"the ledger's database cannot be connected to as its address says ({text})"
    if isinstance(error, ValueError):
        return f"the ledger's database refuses a value ({name}): this may be a bug in dispatchkit"
    if isinstance(error, TRANSIENT_ERRORS):
        return f"the ledger's database cannot be reached ({text}): nothing is launched without it; resume the run later"
    return f"the ledger's database refused a statement ({name}: {text}): this may be a bug in dispatchkit"

"""Refuse a pooler that gives each transaction another session, such as PgBouncer in transaction mode.

In this mode, the settings of a session do not last, and the next transaction lacks a prepared statement. The queue's
LISTEN receives nothing. No pooler reports its mode, so two connections test it.
"""

from __future__ import annotations

from dispatchkit.errors import LedgerError
from dispatchkit.ledger.postgres.connect import connect
from dispatchkit.ledger.postgres.describe import TRANSACTION_POOLER, TRANSIENT_ERRORS
from dispatchkit.ledger.postgres.driver_settings import DriverSettings
from dispatchkit.ledger.postgres.protocol import Connection

__all__ = ["check_session"]

_TRIES = 3
_PID = "SELECT pg_backend_pid()"


async def check_session(connection: Connection, settings: DriverSettings) -> None:
    """See that each connection keeps a session of its own.

    A second connection opens a transaction. If it has the session of the first one, or takes it away, sessions are
    shared. A pool with idle sessions may give it another one, so this is tried three times.

    Raises:
        LedgerError: Sessions are shared.
    """
    if not settings.is_pooled:
        return
    other = await connect(settings)
    try:
        for _ in range(_TRIES):
            before = await connection.fetchval(_PID)
            await _begin(other)
            other_pid = await other.fetchval(_PID)
            after = before if other_pid == before else await connection.fetchval(_PID)
            await other.execute("ROLLBACK")
            if other_pid == before or after != before:
                raise LedgerError(TRANSACTION_POOLER)
    finally:
        other.terminate()


async def _begin(connection: Connection) -> None:
    try:
        await connection.execute("BEGIN")
    except TRANSIENT_ERRORS as error:
        if "pooling mode" in str(error):  # PgBouncer in statement mode
            raise LedgerError(TRANSACTION_POOLER) from None
        raise

"""Delete what a finished run of a PostgreSQL ledger holds.

A process may take the run, add targets or clear its stop until a transaction locks it. So the same transaction decides
and deletes.
"""

from __future__ import annotations

from datetime import datetime

from dispatchkit.ledger.chunk import LEASE_TIMEOUT
from dispatchkit.ledger.postgres.protocol import Connection
from dispatchkit.ledger.store import TABLES_OF_RUN

__all__ = ["delete_contents", "delete_run"]

_LOCK_RUN = "SELECT FROM dispatchkit.run WHERE number = $1 FOR UPDATE"
_LOCK_CHUNKS = "SELECT FROM dispatchkit.chunk WHERE run = $1 FOR UPDATE"
_IS_PRUNABLE = """
SELECT (($2 AND stopped) OR (plan_complete AND total <= (
    SELECT coalesce(sum(done + rejected + final), 0) FROM dispatchkit.tally WHERE run = $1
))) AND NOT EXISTS (
    SELECT FROM dispatchkit.chunk
    WHERE run = $1 AND token IS NOT NULL AND seen >= clock_timestamp() - make_interval(secs => $3)
) FROM dispatchkit.run WHERE number = $1
"""


async def delete_contents(connection: Connection, run: int, *, now: datetime) -> bool:
    """Delete the contents of a run. See `Store.prune_contents`."""
    async with connection.transaction():
        if not await _lock_prunable(connection, run, whole=False):
            return False
        await connection.execute("DELETE FROM dispatchkit.content WHERE run = $1", run)
        await connection.execute("UPDATE dispatchkit.run SET contents_pruned = $2 WHERE number = $1", run, now)
        return True


async def delete_run(connection: Connection, run: int) -> bool:
    """Delete a run. See `Store.delete`."""
    async with connection.transaction():
        if not await _lock_prunable(connection, run, whole=True):
            return False
        for table in TABLES_OF_RUN:
            await connection.execute(f"DELETE FROM dispatchkit.{table} WHERE run = $1", run)
        await connection.execute("DELETE FROM dispatchkit.run WHERE number = $1", run)
        return True


async def _lock_prunable(connection: Connection, run: int, *, whole: bool) -> bool:
    await connection.execute(_LOCK_RUN, run)
    await connection.execute(_LOCK_CHUNKS, run)
    return bool(await connection.fetchval(_IS_PRUNABLE, run, whole, float(LEASE_TIMEOUT)))

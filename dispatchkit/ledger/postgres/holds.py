"""The holds of a PostgreSQL ledger: a row with a token, and a lease on the database's clock.

Only the lease decides whether a holder keeps its chunk. Host names and process ids do not.
"""

from __future__ import annotations

from collections.abc import Collection

from dispatchkit.errors import LedgerError
from dispatchkit.ledger.chunk import LEASE_TIMEOUT, Chunk, HeartbeatStatus, Holder
from dispatchkit.ledger.postgres.connection import Connection, ReconnectingConnection, Row, fetching
from dispatchkit.ledger.postgres.sql import latest_of

__all__ = ["Holds"]

_RELEASE_TIMEOUT = 30.0
"""Seconds that a release waits for an unreachable database."""

_HOLDER = """
SELECT token, pid, host, since, boot_id, process_started, pid_namespace,
    $3::float8 - extract(epoch FROM clock_timestamp() - seen)::float8 AS lease_left
FROM dispatchkit.chunk WHERE run = $1 AND number = $2
"""

_RAISE_TIMEOUT = "UPDATE dispatchkit.run SET attempt_timeout = $2 WHERE number = $1 AND attempt_timeout < $2"

_ACQUIRE = """
WITH locked AS MATERIALIZED (
    SELECT run, number FROM dispatchkit.chunk
    WHERE run = $1 AND number = $2 AND token IS NOT DISTINCT FROM $9 FOR UPDATE
)
UPDATE dispatchkit.chunk c SET token = $3, pid = $4, host = $5, boot_id = $6, process_started = $7, pid_namespace = $8,
    seen = clock_timestamp(), since = CASE WHEN c.token = $3 THEN c.since ELSE clock_timestamp() END
FROM locked l WHERE c.run = l.run AND c.number = l.number RETURNING 1
"""

_HEARTBEAT = """
WITH mine AS (
    UPDATE dispatchkit.chunk SET seen = clock_timestamp() WHERE run = $1 AND number = $2 AND token = $3 RETURNING 1
)
SELECT EXISTS (SELECT 1 FROM mine) AS mine, stopped FROM dispatchkit.run WHERE number = $1
"""

_RELEASE = "UPDATE dispatchkit.chunk SET token = NULL WHERE run = $1 AND number = $2 AND token = $3"

# Whether a chunk has a target that is neither done nor rejected.
_UNFINISHED = """
c.end_index - c.start_index > (
    SELECT coalesce(sum(y.done + y.rejected), 0) FROM dispatchkit.tally y WHERE y.run = c.run AND y.chunk = c.number
)
""".strip()

_CHUNKS = f"""
SELECT number, start_index, end_index, token, pid, host, since, boot_id, process_started, pid_namespace,
    $2::float8 - extract(epoch FROM clock_timestamp() - seen)::float8 AS lease_left
FROM dispatchkit.chunk c WHERE run = $1 AND {_UNFINISHED} ORDER BY number
"""

# A target that was claimed but not tried, because its worker was stopped, counts as planned.
_CLAIMABLE_CHUNKS = f"""
SELECT r.name, c.number
FROM dispatchkit.run r JOIN dispatchkit.chunk c ON c.run = r.number
WHERE r.plan_complete AND NOT r.stopped AND r.name <> ALL($3::text[])
    AND (c.token IS NULL OR c.seen < clock_timestamp() - make_interval(secs => $1)) AND {_UNFINISHED}
    AND EXISTS (
        SELECT 1 FROM dispatchkit.target t {latest_of("t")}
        WHERE t.run = c.run AND t.index >= c.start_index AND t.index < c.end_index
            AND (o.state IS NULL OR (o.state = 'not_sent' AND o.send_no > 0 AND o.attempts = 0))
    )
ORDER BY c.run, c.number LIMIT $2
"""


class Holds:
    """The holds of one database.

    Args:
        connection: The connection for heartbeats. A run waits for a database that is unreachable.
    """

    def __init__(self, connection: ReconnectingConnection) -> None:
        self._connection = connection

    async def chunks(self, run: int) -> list[Chunk]:
        """The chunks of a run with targets that are neither done nor rejected."""
        rows = await self._connection.run(fetching(_CHUNKS, run, LEASE_TIMEOUT))
        holders = [_holder(row) for row in rows]
        return [
            Chunk(
                row["number"],
                row["start_index"],
                row["end_index"],
                holder if holder and holder.lease_left >= 0 else None,
            )
            for row, holder in zip(rows, holders, strict=True)
        ]

    async def acquire(self, run: int, chunk: int, holder: Holder, *, attempt_timeout: float) -> Holder | None:
        """Acquire a chunk. See `Store.acquire`.

        Raises:
            LedgerError: The run has no such chunk, or the database refused a statement.
        """

        async def work(connection: Connection) -> Holder | None:
            while True:
                row = await connection.fetchrow(_HOLDER, run, chunk, LEASE_TIMEOUT)
                if row is None:
                    raise LedgerError(f"the ledger has no chunk {chunk} of this run: plan the run first")
                other = _holder(row)
                if other is not None and other.token != holder.token and other.lease_left >= 0:
                    return other
                # Before the hold, so that no hold has a longer timeout than its run.
                await connection.execute(_RAISE_TIMEOUT, run, attempt_timeout)
                process = (holder.pid, holder.host, holder.boot_id, holder.process_started, holder.pid_namespace)
                values = (run, chunk, holder.token, *process, row["token"])
                if await connection.fetchval(_ACQUIRE, *values) is not None:
                    return None

        return await self._connection.run(work)

    async def holder(self, run: int, chunk: int) -> Holder | None:
        """The holder of a chunk, unless its lease has ended.

        Raises:
            LedgerError: The run has no such chunk.
        """
        row = await self._connection.run(lambda connection: connection.fetchrow(_HOLDER, run, chunk, LEASE_TIMEOUT))
        if row is None:
            raise LedgerError(f"the ledger has no chunk {chunk} of this run: plan the run first")
        holder = _holder(row)
        return holder if holder is not None and holder.lease_left >= 0 else None

    async def heartbeat(self, run: int, chunk: int, token: str) -> HeartbeatStatus:
        """Extend the lease of a chunk, and read the run's stop."""
        row = await self._connection.run(lambda connection: connection.fetchrow(_HEARTBEAT, run, chunk, token))
        return (
            HeartbeatStatus(mine=False, stopped=False)
            if row is None
            else HeartbeatStatus(mine=row["mine"], stopped=row["stopped"])
        )

    async def release(self, run: int, chunk: int, token: str) -> None:
        """Release a chunk, if the token still holds it."""
        await self._connection.run(
            lambda connection: connection.execute(_RELEASE, run, chunk, token), timeout=_RELEASE_TIMEOUT
        )

    async def claimable_chunks(self, limit: int, *, but: Collection[str] = ()) -> list[tuple[str, int]]:
        """Orphaned chunks that a worker should take, as pairs of run name and chunk number.

        They have no holder, and targets that are planned or in flight. Unknown and unsent targets are left to a resume
        of the run.

        Args:
            limit: Maximum number of chunks.
            but: Names of runs to leave out.
        """
        rows = await self._connection.run(fetching(_CLAIMABLE_CHUNKS, LEASE_TIMEOUT, limit, [*but]))
        return [(row["name"], row["number"]) for row in rows]


def _holder(row: Row) -> Holder | None:
    if row["token"] is None:
        return None
    return Holder(
        row["token"],
        row["pid"],
        row["host"],
        row["since"],
        row["boot_id"],
        row["process_started"],
        row["pid_namespace"],
        row["lease_left"],
    )

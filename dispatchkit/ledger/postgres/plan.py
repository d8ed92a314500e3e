"""Plan a run in a PostgreSQL ledger: add its targets, and divide them into chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dispatchkit.ledger.chunk import Chunk, divide
from dispatchkit.ledger.contents import Content
from dispatchkit.ledger.files import batches
from dispatchkit.ledger.postgres.protocol import Connection
from dispatchkit.ledger.store import deleted_meanwhile

__all__ = ["add_part", "complete_plan"]

_PLAN = """
WITH fresh AS (
    SELECT g.key, g.command, g.log_key, row_number() OVER (ORDER BY g.place) - 1 AS place
    FROM unnest($2::bytea[], $3::text[], $5::bigint[]) WITH ORDINALITY AS g(key, command, log_key, place)
    WHERE NOT EXISTS (SELECT 1 FROM dispatchkit.target t WHERE t.run = $1 AND t.key = g.key)
), planned AS (
    INSERT INTO dispatchkit.target (run, index, key, command, log_key)
    SELECT $1, $4::int + place, key, command, log_key FROM fresh ORDER BY place RETURNING 1
)
UPDATE dispatchkit.run SET total = total + (SELECT count(*) FROM planned) WHERE number = $1
"""

_KNOWN_CONTENTS = """
SELECT hash FROM dispatchkit.content WHERE run = $1 AND hash = ANY($2::text[]) AND number = 0
"""
_PLAN_CONTENTS = """
INSERT INTO dispatchkit.content (run, hash, number, piece)
SELECT $1, * FROM unnest($2::text[], $3::int[], $4::bytea[])
ON CONFLICT (run, hash, number) DO UPDATE SET piece = excluded.piece
"""

_PLAN_PART = """
INSERT INTO dispatchkit.plan_part (run, number, digest) VALUES ($1, $2, $3)
ON CONFLICT (run, number) DO UPDATE SET digest = excluded.digest
"""


async def add_part(
    connection: Connection,
    run: int,
    rows: Sequence[tuple[bytes, str]],
    *,
    log_keys: Mapping[bytes, int],
    contents: Mapping[str, Content],
    part: tuple[int, bytes] | None,
) -> None:
    """Add a part of a plan. See `Store.plan`."""
    new: dict[bytes, str] = {}
    for key, command in rows:
        new.setdefault(key, command)
    async with connection.transaction():
        # A concurrent plan of the same run waits here, and then sees the targets of the first one.
        await connection.execute("SELECT FROM dispatchkit.run WHERE number = $1 FOR UPDATE", run)
        total = await _total_of(connection, run)
        logs = [log_keys.get(key) for key in new] if log_keys else [None] * len(new)
        await connection.execute(_PLAN, run, [*new], [*new.values()], total, logs)
        if contents:
            await _add_contents(connection, run, contents)
        if part is not None:
            await connection.execute(_PLAN_PART, run, *part)


async def _total_of(connection: Connection, run: int) -> int:
    total: int | None = await connection.fetchval("SELECT total FROM dispatchkit.run WHERE number = $1", run)
    if total is None:
        raise deleted_meanwhile()
    return total


async def _add_contents(connection: Connection, run: int, contents: Mapping[str, Content]) -> None:
    """Write contents, in statements of at most `PIECE_BYTES`: the driver encodes each on the event loop."""
    known = {row["hash"] for row in await connection.fetch(_KNOWN_CONTENTS, run, [*contents])}
    new = {name: content for name, content in contents.items() if name not in known}
    for batch in batches(new):
        await connection.execute(_PLAN_CONTENTS, run, *_columns(batch, 3))


async def complete_plan(connection: Connection, run: int, *, size: int | None) -> list[Chunk]:
    """Mark the plan of a run as complete, and divide it into chunks.

    Args:
        connection: The connection.
        run: The number of the run.
        size: Targets of a chunk; None makes one chunk.

    Returns:
        The chunks of the run.
    """
    async with connection.transaction():
        await connection.execute("UPDATE dispatchkit.run SET plan_complete = true WHERE number = $1", run)
        total = await _total_of(connection, run)
        rows = await connection.fetch(
            "SELECT number, start_index, end_index FROM dispatchkit.chunk WHERE run = $1 ORDER BY number", run
        )
        chunks = [Chunk(*row) for row in rows]
        new_chunks = divide(chunks, total, size)
        await connection.execute(
            "INSERT INTO dispatchkit.chunk (run, number, start_index, end_index) "
            "SELECT $1, * FROM unnest($2::int[], $3::int[], $4::int[]) "
            "ON CONFLICT (run, number) DO UPDATE SET end_index = excluded.end_index",
            run,
            *_columns([(chunk.number, chunk.start, chunk.end) for chunk in new_chunks], 3),
        )
        numbers = {chunk.number for chunk in new_chunks}
        return [*(chunk for chunk in chunks if chunk.number not in numbers), *new_chunks]


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(count)]

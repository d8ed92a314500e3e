"""Search a PostgreSQL ledger for targets that other runs launched a short time ago."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator

from dispatchkit.ledger.chunk import LEASE_TIMEOUT
from dispatchkit.ledger.postgres.connection import ReconnectingConnection, Row, fetching
from dispatchkit.ledger.postgres.sql import STATE, latest_of
from dispatchkit.ledger.repeat import MAX_COMMANDS, RECORDED_LATE, Launched, Repeat
from dispatchkit.ledger.run import RunPlan

__all__ = ["find_launched", "find_repeats"]

_PAGE = 100_000
"""Targets that one statement compares."""
_ROWS = 10_000
"""Launched targets that one statement returns."""

# Other runs on the same account that a process held in the last $2 seconds. Accounts are compared by name, or by token
# if one of them has no name.
_OTHERS = """
SELECT x.number, x.name, x.total FROM dispatchkit.run r JOIN dispatchkit.run x
    ON x.number <> r.number AND x.host = r.host
    AND CASE WHEN x.account IS NULL OR r.account IS NULL THEN x.fingerprint = r.fingerprint
        ELSE x.account = r.account END
WHERE r.number = $1 AND EXISTS (
    SELECT FROM dispatchkit.chunk c
    WHERE c.run = x.number AND c.seen >= clock_timestamp() - make_interval(secs => $2)
) ORDER BY x.number
"""

_OTHERS_OF_PLAN = """
SELECT x.number, x.name FROM dispatchkit.run x
WHERE x.name <> $1 AND x.host = $2
    AND CASE WHEN x.account IS NULL OR $3::text IS NULL THEN x.fingerprint = $4 ELSE x.account = $3 END
    AND EXISTS (
        SELECT FROM dispatchkit.chunk c
        WHERE c.run = x.number AND c.seen >= clock_timestamp() - make_interval(secs => $5)
    )
ORDER BY x.number DESC
"""

# Targets of a run ($1), by key after $2 and before $3, that it launched in the last $4 seconds. Those that are planned
# in a held chunk (lease of $5) count, too.
_LAUNCHED = f"""
SELECT t.key, {STATE} AS state, greatest(s.claimed_at, o.at, h.now) AS latest
FROM dispatchkit.target t
{latest_of("t")}
LEFT JOIN LATERAL (
    SELECT clock_timestamp() AS now FROM dispatchkit.chunk c
    WHERE c.run = t.run AND c.start_index <= t.index AND c.end_index > t.index AND c.token IS NOT NULL
        AND c.seen >= clock_timestamp() - make_interval(secs => $5)
) h ON {STATE} = 'planned'
WHERE t.run = $1 AND t.key > $2 AND t.key < $3
    AND {STATE} IN ('planned', 'sending', 'done', 'unknown')
    AND greatest(s.claimed_at, o.at, h.now) >= clock_timestamp() - make_interval(secs => $4)
ORDER BY t.key LIMIT $6
"""

# Targets (g) from $5 to $6 of this run that another run (t) launched in the last $7 seconds. Targets that are planned
# in a held chunk (lease of $8) count, too. A page ($2 to $3) of one run ($1) is looked up in the index of the other
# ($4).
_REPEATS_OF = f"""
WITH page AS MATERIALIZED (
    SELECT run, index, key, command FROM dispatchkit.target WHERE run = $1 AND index >= $2 AND index < $3
), found AS MATERIALIZED (
    SELECT g.index, g.command, greatest(s.claimed_at, o.at, h.now) AS latest
    FROM page $first CROSS JOIN LATERAL (
        SELECT run, index, command FROM dispatchkit.target WHERE run = $4 AND key = $first.key OFFSET 0
    ) $second
    {latest_of("t")}
    LEFT JOIN LATERAL (
        SELECT clock_timestamp() AS now FROM dispatchkit.chunk c
        WHERE c.run = t.run AND c.start_index <= t.index AND c.end_index > t.index AND c.token IS NOT NULL
            AND c.seen >= clock_timestamp() - make_interval(secs => $8)
    ) h ON {STATE} = 'planned'
    WHERE g.index >= $5 AND g.index < $6
        AND NOT EXISTS (
            SELECT FROM dispatchkit.outcome f
            WHERE f.run = g.run AND f.index = g.index AND (f.state IN ('done', 'rejected') OR f.final)
        )
        AND {STATE} IN ('planned', 'sending', 'done', 'unknown')
        AND greatest(s.claimed_at, o.at, h.now) >= clock_timestamp() - make_interval(secs => $7)
)
SELECT array_agg(index ORDER BY index) AS indexes, max(latest) AS latest,
    (SELECT array_agg(command ORDER BY index) FROM (SELECT * FROM found ORDER BY index LIMIT $9) f) AS commands
FROM found HAVING count(*) > 0
"""
_REPEATS = _REPEATS_OF.replace("$first", "g").replace("$second", "t")
_REPEATS_IN_SMALLER = _REPEATS_OF.replace("$first", "t").replace("$second", "g")


async def find_repeats(
    connection: ReconnectingConnection, run: int, *, chunk: int | None, within: float
) -> list[Repeat]:
    """The repeats of a run, or of one of its chunks. See `Store.repeats`.

    Raises:
        LedgerError: The database refused a statement.
    """
    sizes = "SELECT 0, total FROM dispatchkit.run WHERE number = $1 AND $2::int IS NULL"
    if chunk is not None:
        sizes = "SELECT start_index, end_index FROM dispatchkit.chunk WHERE run = $1 AND number = $2"
    others = await connection.run(fetching(_OTHERS, run, within + RECORDED_LATE))
    repeats: list[Repeat] = []
    for start, end in await connection.run(fetching(sizes, run, chunk)):
        for other, name, total in others:
            # Scan the smaller run, and look its targets up in the other run's index.
            statement, scanned, indexed, first, last = _REPEATS, run, other, start, end
            if total < end - start:
                statement, scanned, indexed, first, last = _REPEATS_IN_SMALLER, other, run, 0, total
            limits = (start, end, within, LEASE_TIMEOUT, MAX_COMMANDS)
            pages = [
                await connection.run(fetching(statement, scanned, page, min(last, page + _PAGE), indexed, *limits))
                for page in range(first, last, _PAGE)
            ]
            repeats += _merge(name, pages)
    return repeats


async def find_launched(
    connection: ReconnectingConnection, plan: RunPlan, *, low: bytes, high: bytes, within: float
) -> AsyncIterator[Launched]:
    """What other runs launched. See `Store.launched`.

    Raises:
        LedgerError: The database refused a statement.
    """
    account = (plan.name, plan.host, plan.account, plan.fingerprint)
    for number, name in await connection.run(fetching(_OTHERS_OF_PLAN, *account, within + RECORDED_LATE)):
        after: bytes | None = low
        while after is not None:
            rows = await connection.run(fetching(_LAUNCHED, number, after, high, within, float(LEASE_TIMEOUT), _ROWS))
            for row in rows:
                yield Launched(name, bytes(row["key"]), row["state"], row["latest"])
            after = bytes(rows[-1]["key"]) if len(rows) == _ROWS else None


def _merge(run: str, pages: list[list[Row]]) -> list[Repeat]:
    rows = [page[0] for page in pages if page]  # a page of targets has one row, or none without repeats
    if not rows:
        return []
    # A page of the other run has any of this run's targets.
    indexes = array("q", sorted(index for row in rows for index in row["indexes"]))
    first = sorted(pair for row in rows for pair in zip(row["indexes"], row["commands"], strict=False))
    commands = [command for _, command in first[:MAX_COMMANDS]]
    return [Repeat(run, len(indexes), commands, max(row["latest"] for row in rows), indexes)]

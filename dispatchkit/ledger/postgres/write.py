"""Write batches of claims and outcomes to a PostgreSQL ledger.

One statement handles a batch of claims. It checks holders, stops and pauses, and writes `sending`. Outcomes are rows of
their own, since an UPDATE costs twice as much as an INSERT.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
import attrs

from dispatchkit.core.claim import ClaimResult
from dispatchkit.errors import State
from dispatchkit.ledger.blocks import BLOCK
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.postgres.connection import Connection, ReconnectingConnection, Row
from dispatchkit.ledger.postgres.sql import STATE, latest_of
from dispatchkit.ledger.series import BUCKET_SECONDS, slot_of

__all__ = ["Account", "write_claims", "write_records"]

T = TypeVar("T")

_MICROSECOND = timedelta(microseconds=1)
_CLAIM_RESULTS = {claim_result.value: claim_result for claim_result in ClaimResult}


@attrs.frozen
class Account:
    """A provider's account, for the claims of a run."""

    key: str
    """The account key, a hash."""
    pause: Callable[[float], None]
    """Called with the remaining seconds if a claim finds that another process has paused the account."""


# Add to the tally what a statement changed. A version tells whether a concurrent statement of the same part changed the
# block. The states in this statement's snapshot are then not the latest. Then `_CHECK` divides by zero, so that the
# whole statement is undone, and its caller repeats it. Claims and outcomes have different parts, and do not wait for
# each other.
_TALLY = """
counted AS (
    INSERT INTO dispatchkit.tally AS t (
        run, chunk, block, part, sending, done, rejected, not_sent, unknown, final, version
    )
    SELECT c.run, c.chunk, c.block, p.part, c.sending * (p.part = $own)::int, c.done * (p.part = $own)::int,
        c.rejected * (p.part = $own)::int, c.not_sent * (p.part = $own)::int, c.unknown * (p.part = $own)::int,
        c.final * (p.part = $own)::int, coalesce(y.version, 0) + 1
    FROM changed c CROSS JOIN unnest(ARRAY[$parts]) AS p(part)
    LEFT JOIN dispatchkit.tally y ON y.run = c.run AND y.chunk = c.chunk AND y.block = c.block AND y.part = p.part
    ORDER BY c.run, c.chunk, c.block, p.part
    ON CONFLICT (run, chunk, block, part) DO UPDATE SET
        sending = t.sending + excluded.sending, done = t.done + excluded.done,
        rejected = t.rejected + excluded.rejected,
        not_sent = t.not_sent + excluded.not_sent, unknown = t.unknown + excluded.unknown,
        final = t.final + excluded.final, version = excluded.version
    WHERE t.version = excluded.version - 1
    RETURNING 1
)
""".replace("$own", "(SELECT max(part) FROM unnest(ARRAY[$parts]) AS m(part))").strip()
_CHECK = """
1 / ((SELECT count(*) FROM counted) = (SELECT count(*) * cardinality(ARRAY[$parts]) FROM changed))::int AS counted
""".strip()

# The lock on the chunk's row conflicts with that of an acquisition, not with a heartbeat. So the next holder sees every
# row written here, and a presumed-dead holder writes none. The statement may run concurrently with its own retry, after
# a lost answer. Rows are inserted by index, so that the two cannot deadlock. An existing claim gets a new time, also by
# index and after all inserts, for the same reason. The answer is one row: most often, all claims are granted. It tells
# of the others, by their place from 1.
_CLAIM = f"""
WITH asked AS (
    SELECT $1::int AS run, coalesce(chunk, $3[1]) AS chunk, index, $2::text AS token, request_id,
        coalesce(since, $6[1]) AS since, $7::text AS account, place
    FROM unnest($3::int[], $4::text::int[], $5::text[], $6::timestamptz[])
    WITH ORDINALITY AS a(chunk, index, request_id, since, place)
), held AS MATERIALIZED (
    SELECT run, number, token FROM dispatchkit.chunk
    WHERE (run, number) IN (SELECT run, chunk FROM asked) FOR KEY SHARE
), judged AS MATERIALIZED (
    SELECT a.*, coalesce(s.send_no, 0) + 1 AS send_no, CASE
        WHEN h.token IS DISTINCT FROM a.token OR r.stopped IS NOT false THEN 'stopped'
        WHEN o.final THEN 'taken'
        WHEN s.token = a.token AND o.send_no IS NULL THEN 'granted'
        WHEN c.paused_until > clock_timestamp() THEN 'deferred'
        ELSE 'fresh' END AS result, {STATE} AS state, coalesce(o.for_good, false) AS for_good,
        extract(epoch FROM c.paused_until - clock_timestamp())::float8 AS pause
    FROM asked a
    LEFT JOIN dispatchkit.run r ON r.number = a.run -- missing once the run is deleted
    LEFT JOIN held h ON h.run = a.run AND h.number = a.chunk
    LEFT JOIN dispatchkit.account c ON c.key = a.account
    {latest_of("a")}
), written AS (
    INSERT INTO dispatchkit.sending (run, index, send_no, token, request_id, since, claimed_at)
    SELECT run, index, send_no, token, request_id, since, clock_timestamp() FROM judged
    WHERE result = 'fresh' ORDER BY run, index
    ON CONFLICT DO NOTHING RETURNING run, index
), known AS MATERIALIZED (
    SELECT s.run, s.index, s.send_no FROM dispatchkit.sending s
    JOIN judged j ON s.run = j.run AND s.index = j.index AND s.send_no = j.send_no - 1
    WHERE j.result = 'granted' AND (SELECT count(*) FROM written) >= 0
    ORDER BY s.run, s.index FOR UPDATE OF s
), renewed AS (
    UPDATE dispatchkit.sending s SET claimed_at = clock_timestamp() FROM known k
    WHERE s.run = k.run AND s.index = k.index AND s.send_no = k.send_no
), changed AS MATERIALIZED (
    SELECT run, chunk, index / {BLOCK} AS block, (count(*) FILTER (WHERE state <> 'sending'))::int AS sending,
        0 AS done, 0 AS rejected, -(count(*) FILTER (WHERE state = 'not_sent'))::int AS not_sent,
        -(count(*) FILTER (WHERE state = 'unknown'))::int AS unknown,
        -(count(*) FILTER (WHERE for_good))::int AS final
    FROM judged JOIN written USING (run, index) GROUP BY 1, 2, 3
), {_TALLY}
SELECT array_agg(place::int) AS places, array_agg(result) AS results, max(pause) AS pause, {_CHECK}
FROM (
    SELECT place, pause,
        CASE WHEN result <> 'fresh' THEN result WHEN w.index IS NULL THEN 'again' ELSE 'granted' END AS result
    FROM judged j LEFT JOIN written w ON w.run = j.run AND w.index = j.index
) answered WHERE result <> 'granted'
""".replace("$parts", "0")

_RECORD_ANY = f"""
WITH told AS (
    SELECT $1::int AS run, coalesce(chunk, $3[1]) AS chunk, index, $2::text AS token, coalesce(state, $5[1]) AS state,
        coalesce(summary, $6[1]) AS summary, code, request_id, coalesce(attempts, $9[1]) AS attempts,
        $13::timestamptz + at * interval '1 microsecond' AS at, coalesce(final, $11[1]) AS final, slot
    FROM unnest(
        $3::int[], $4::text::int[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int[], $10::text::bigint[],
        $11::boolean[], $12::text::int[]
    ) AS g(chunk, index, state, summary, code, request_id, attempts, at, final, slot)
), held AS MATERIALIZED (
    SELECT run, number, token FROM dispatchkit.chunk
    WHERE (run, number) IN (SELECT run, chunk FROM told) FOR KEY SHARE
), judged AS MATERIALIZED (
    SELECT g.*, coalesce(h.token = g.token, false) AS mine, {STATE} AS before, coalesce(o.for_good, false) AS for_good,
        o.state IS NOT DISTINCT FROM g.state AND o.at IS NOT DISTINCT FROM g.at AS known
    FROM told g LEFT JOIN held h ON h.run = g.run AND h.number = g.chunk
    {latest_of("g")}
    WHERE o.final IS NOT TRUE
), written AS (
    INSERT INTO dispatchkit.outcome AS o (run, index, send_no, state, summary, code, request_id, attempts, at, final)
    SELECT g.run, g.index, coalesce((
        -- The latest sending of the same hold. If that hold sent nothing, its outcome settles an earlier sending.
        SELECT send_no FROM dispatchkit.sending s WHERE s.run = g.run AND s.index = g.index
        ORDER BY s.token = g.token DESC, send_no DESC LIMIT 1
    ), 0), g.state, g.summary, g.code, g.request_id, g.attempts, g.at, g.final
    FROM judged g WHERE $whose
    ORDER BY g.run, g.index
    ON CONFLICT (run, index, send_no) DO UPDATE SET
        state = excluded.state, summary = excluded.summary, code = excluded.code, request_id = excluded.request_id,
        attempts = excluded.attempts, at = excluded.at, final = excluded.final
    WHERE o.state NOT IN ('done', 'rejected')
    RETURNING run, index
), changed AS MATERIALIZED (
    SELECT run, chunk, index / {BLOCK} AS block,
        ((count(*) FILTER (WHERE state = 'sending')) - count(*) FILTER (WHERE before = 'sending'))::int AS sending,
        ((count(*) FILTER (WHERE state = 'done')) - count(*) FILTER (WHERE before = 'done'))::int AS done,
        ((count(*) FILTER (WHERE state = 'rejected')) - count(*) FILTER (WHERE before = 'rejected'))::int AS rejected,
        ((count(*) FILTER (WHERE state = 'not_sent')) - count(*) FILTER (WHERE before = 'not_sent'))::int AS not_sent,
        ((count(*) FILTER (WHERE state = 'unknown')) - count(*) FILTER (WHERE before = 'unknown'))::int AS unknown,
        ((count(*) FILTER (WHERE final)) - count(*) FILTER (WHERE for_good))::int AS final
    FROM judged JOIN written USING (run, index) GROUP BY 1, 2, 3
), timed AS (
    -- Not those that the same statement has written before, whose answer was lost.
    INSERT INTO dispatchkit.series AS x (run, start, chunk, state, slot, count)
    SELECT run, to_timestamp(floor(extract(epoch FROM at)::float8 / {BUCKET_SECONDS}) * {BUCKET_SECONDS}), chunk,
        state, slot, count(*)
    FROM judged JOIN written USING (run, index) WHERE NOT known GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (run, start, chunk, state, slot) DO UPDATE SET count = x.count + excluded.count
), {_TALLY}
SELECT (SELECT count(*) FROM judged WHERE NOT mine AND state = 'done') AS late, {_CHECK}
"""
_RECORD = _RECORD_ANY.replace("$whose", "g.mine").replace("$parts", "1")
"""Outcomes of the current holder. It returns the number of *done* outcomes of another one, for `_RECORD_LATE`."""
_RECORD_LATE = _RECORD_ANY.replace("$whose", "NOT g.mine AND g.state = 'done'").replace("$parts", "0, 1")
"""Outcomes of a holder that lost its chunk. Concurrent claims and outcomes of the same blocks are repeated."""


async def write_claims(
    connection: ReconnectingConnection, claims: Sequence[Claim], accounts: Mapping[int, Account]
) -> list[ClaimResult]:
    """Write claims, with one statement for each hold. See `Store.claim`.

    Args:
        connection: The connection for claims.
        claims: The claims.
        accounts: The accounts by run, as far as they are known.

    Raises:
        LedgerError: The database refused the statement.
    """
    claim_results = [ClaimResult.GRANTED] * len(claims)
    for (run, token), positions in _by_hold(claims).items():
        account = accounts.get(run)
        key, left = account and account.key, positions
        while left:
            _, chunks, indexes, _, request_ids, since = zip(*(claims[position] for position in left), strict=True)
            columns = (_packed(chunks), _array(indexes), _sparse(request_ids), _packed(since))
            [(places, results, pause, _)] = await connection.run(_counting(_CLAIM, run, token, *columns, key))
            again: list[int] = []
            for place, claim_result in zip(places or (), results or (), strict=True):
                position = left[place - 1]
                if claim_result == "again":
                    again.append(position)  # another process wrote it at the same time: look again
                else:
                    claim_results[position] = _CLAIM_RESULTS[claim_result]
            if account is not None and "deferred" in (results or ()):
                account.pause(pause)
            left = again
    return claim_results


async def write_records(connection: ReconnectingConnection, records: Sequence[Record]) -> None:
    """Write outcomes, with one statement for each hold. See `Store.record`.

    Raises:
        LedgerError: The database refused the statement.
    """
    kept = records
    if len({(record[0], record[2]) for record in records}) < len(records):
        latest = dict[tuple[int, int], Record]()
        for record in records:
            before = latest.get((record.run, record.index))
            if before is None or before.state not in {State.DONE, State.REJECTED}:
                latest[record.run, record.index] = record
        kept = [*latest.values()]
    for (run, token), positions in _by_hold(kept).items():
        columns = zip(*(kept[position] for position in positions), strict=True)
        _, chunks, indexes, _, states, summaries, codes, request_ids, attempts, at, final, since = columns
        first = at[0]
        values = (
            _packed(chunks),
            _array(indexes),
            _packed(states),
            _packed([summary.replace("\0", "") for summary in summaries]),  # PostgreSQL's text has no NUL
            _sparse([None if code is None else json.dumps(code) for code in codes]),
            _sparse(request_ids),
            _packed(attempts),
            _array([(moment - first) // _MICROSECOND for moment in at]),
            _packed(final),
            _array(map(slot_of, since, at)),
            first,
        )
        [(late, _)] = await connection.run(_counting(_RECORD, run, token, *values))
        if late:
            await connection.run(_counting(_RECORD_LATE, run, token, *values))


def _by_hold(rows: Sequence[Claim | Record]) -> dict[tuple[int, str], list[int]]:
    """The positions of claims or outcomes by run and token, in order. Usually all have the same."""
    holds = {(row[0], row[3]) for row in rows}  # by place: by name takes three times as long
    if len(holds) == 1:
        return {holds.pop(): [*range(len(rows))]}
    groups: dict[tuple[int, str], list[int]] = {}
    for position, row in enumerate(rows):
        groups.setdefault((row.run, row.token), []).append(position)
    return groups


def _packed(column: Sequence[T]) -> Sequence[T]:
    """A column of a statement that repeats its first value for missing ones."""
    return column[:1] if column.count(column[0]) == len(column) else column


def _array(numbers: Iterable[int]) -> str:
    """An array of numbers as PostgreSQL's text. asyncpg takes five times as long for each."""
    return f"{{{','.join(map(str, numbers))}}}"


def _sparse(column: Sequence[T | None]) -> Sequence[T | None]:
    """A column whose missing values are None."""
    return () if column.count(None) == len(column) else column


def _counting(statement: str, *values: object) -> Callable[[Connection], Awaitable[list[Row]]]:
    """The work of a statement that changes the tally: repeated after a concurrent change of the same blocks."""

    async def work(connection: Connection) -> list[Row]:
        while True:  # no `AsyncRetrying`: there is no wait and no limit, and it would cost each batch of claims 25 us
            with contextlib.suppress(asyncpg.DivisionByZeroError):
                return await connection.fetch(statement, *values)

    return work

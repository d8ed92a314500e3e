"""Search an SQLite ledger for targets that other runs launched a short time ago."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Protocol, TypeVar

from dispatchkit.ledger.repeat import MAX_COMMANDS, RECORDED_LATE, Launched, Repeat
from dispatchkit.ledger.run import RunPlan
from dispatchkit.ledger.sqlite.holds import Holds
from dispatchkit.ledger.sqlite.read import fetching
from dispatchkit.ledger.sqlite.sql import STATE, TARGETS
from dispatchkit.ledger.sqlite.write import Moment

__all__ = ["find_launched", "find_repeats"]

T = TypeVar("T")

_ROWS = 1000
"""Launched targets that one statement returns."""

# Other runs on the same account that a process held in the last :within seconds. Accounts are compared by name, or by
# token if one of them has no name.
_IS_RECENT = """
EXISTS (
  SELECT 1 FROM chunk h WHERE h.run = x.number
  AND (h.token IS NOT NULL OR h.seen >= :now - :within OR h.boot = :boot AND h.seen_boot >= :boot_now - :within))
"""
_OTHERS = f"""
SELECT x.number, x.name, x.total FROM run r JOIN run x
  ON x.number <> r.number AND x.host = r.host
  AND CASE WHEN x.account IS NULL OR r.account IS NULL THEN x.fingerprint = r.fingerprint
           ELSE x.account = r.account END
WHERE r.number = :run AND {_IS_RECENT}
ORDER BY x.number
"""
_OTHERS_OF_PLAN = f"""
SELECT x.number, x.name FROM run x
WHERE x.name <> :name AND x.host = :host
  AND CASE WHEN x.account IS NULL OR :account IS NULL THEN x.fingerprint = :fingerprint ELSE x.account = :account END
  AND {_IS_RECENT}
ORDER BY x.number DESC
"""
_HELD = """
WITH held AS MATERIALIZED (SELECT json_extract(value, '$[0]') AS start_index, json_extract(value, '$[1]') AS end_index
                           FROM json_each(:held))
"""
_COLUMNS_OF_ACT = f"""
{STATE} AS state, s.claimed_at, s.claimed_boot, s.boot, (julianday(o.at) - 2440587.5) * 86400 AS told,
EXISTS (SELECT 1 FROM held WHERE t."index" >= held.start_index AND t."index" < held.end_index) AS held
"""
_HAS_ACTED = """
WHERE state = 'planned' AND held
   OR state IN ('done', 'sending', 'unknown') AND (
      claimed_at >= :now - :within OR told >= :now - :within
      OR boot = :boot AND claimed_boot >= :boot_now - :within)
"""
# Targets of another run, by key, that it launched in the last :within seconds.
_LAUNCHED = f"""{_HELD}
SELECT key, state, max(coalesce(claimed_at, 0), coalesce(told, 0), held * :now) FROM (
  SELECT t.key, {_COLUMNS_OF_ACT} {TARGETS} WHERE t.run = :other AND t.key > :low AND t.key < :high)
{_HAS_ACTED} ORDER BY key LIMIT :limit
"""

# Targets of this run (g) that the other run (t) launched in the last :within seconds. Planned targets in held chunks
# (:held) count, too. The smaller run goes first: each of its targets costs one look-up in the index of the other.
_REPEATS_OF = f"""{_HELD}
SELECT "index", command, max(coalesce(claimed_at, 0), coalesce(told, 0), held * :now) FROM (
  SELECT g."index", g.command, {_COLUMNS_OF_ACT}
  FROM target {{first}} CROSS JOIN target {{second}} ON t.key = g.key
  LEFT JOIN outcome final ON final.run = g.run AND final."index" = g."index"
    AND (final.state IN ('done', 'rejected') OR final.final)
  {TARGETS.replace("FROM target t", "")}
  WHERE g.run = :run AND t.run = :other AND g."index" >= :start AND g."index" < :end AND final.run IS NULL
)
{_HAS_ACTED} ORDER BY "index"
"""
_REPEATS = _REPEATS_OF.format(first="g", second="t")
_REPEATS_IN_SMALLER = _REPEATS_OF.format(first="t", second="g")


class _Read(Protocol):
    """Performs work in the reader's thread."""

    async def __call__(self, work: Callable[[sqlite3.Connection], T], /) -> T:
        """The result of the work."""
        ...


def find_repeats(
    holds: Holds, db: sqlite3.Connection, *, run: int, chunk: int | None, within: float, moment: Moment
) -> list[Repeat]:
    """The repeats of a run, or of one of its chunks, in the reader's thread. See `Store.repeats`."""
    start, end = 0, 2**62
    if chunk is not None:
        ends = "SELECT start_index, end_index FROM chunk WHERE run = ? AND number = ?"
        start, end = db.execute(ends, (run, chunk)).fetchone() or (0, 0)
    (total,) = db.execute("SELECT total FROM run WHERE number = ?", (run,)).fetchone()
    size = min(end, total) - start
    given = {**moment.given, "run": run, "start": start, "end": end, "within": within}
    others = db.execute(_OTHERS, {**given, "within": within + RECORDED_LATE}).fetchall()
    repeats: list[Repeat] = []
    for other, name, targets in others:
        statement = _REPEATS if size <= targets else _REPEATS_IN_SMALLER
        rows = db.execute(statement, {**given, "other": other, "held": _held(holds, db, other)})
        repeats += _repeats_of(name, rows)
    return repeats


async def find_launched(
    read: _Read, holds: Holds, plan: RunPlan, *, low: bytes, high: bytes, within: float, moment: Moment
) -> AsyncIterator[Launched]:
    """What other runs launched. See `Store.launched`.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    account = {"name": plan.name, "host": plan.host, "account": plan.account, "fingerprint": plan.fingerprint}
    others = fetching(_OTHERS_OF_PLAN, {**moment.given, **account, "within": within + RECORDED_LATE})
    given = {**moment.given, "within": within, "high": high, "limit": _ROWS}
    for number, name in await read(others):
        held = await read(partial(_held, holds, run=number))
        after: bytes | None = low
        while after is not None:
            rows = await read(fetching(_LAUNCHED, {**given, "other": number, "held": held, "low": after}))
            for key, state, at in rows:
                yield Launched(name, key, state, datetime.fromtimestamp(at, UTC))
            after = rows[-1][0] if len(rows) == _ROWS else None


def _held(holds: Holds, db: sqlite3.Connection, run: int) -> str:
    """The ranges of the chunks of a run that are held now, as JSON."""
    chunks = holds.chunks(db, run, "AND token IS NOT NULL")
    return json.dumps([(chunk.start, chunk.end) for chunk in chunks if chunk.holder is not None])


def _repeats_of(run: str, rows: Iterable[tuple[int, str, float]]) -> list[Repeat]:
    """The repeats in another run, from indexes, commands and launch times; an empty list without rows."""
    latest = 0.0
    commands: list[str] = []
    indexes = array("q")
    for index, command, at in rows:
        indexes.append(index)
        latest = max(latest, at)
        if len(indexes) <= MAX_COMMANDS:
            commands.append(command)
    if not indexes:
        return []
    return [Repeat(run, len(indexes), commands, datetime.fromtimestamp(latest, UTC), indexes)]

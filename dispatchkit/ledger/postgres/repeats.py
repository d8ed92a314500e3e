"""Search a PostgreSQL ledger for targets that other runs launched a short time ago."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator

from dispatchkit.ledger.chunk import LEASE_TIMEOUT
from dispatchkit.ledger.postgres import sql
from dispatchkit.ledger.postgres.connection import ReconnectingConnection, Row, fetching
from dispatchkit.ledger.repeat import Launched, Repeat
from dispatchkit.ledger.run import RunPlan

__all__ = ["find_launched", "find_repeats"]

_PAGE = 100_000
"""Targets that one statement compares."""
_ROWS = 10_000
"""Launched targets that one statement returns."""
_RECORDED_LATE = 3600.0
"""Maximum seconds from the end of a hold to the write of its last outcome."""
_MANY_COMMANDS = 10
"""Maximum number of commands in a `Repeat`."""


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
    others = await connection.run(fetching(sql.OTHERS, run, within + _RECORDED_LATE))
    repeats: list[Repeat] = []
    for start, end in await connection.run(fetching(sizes, run, chunk)):
        for other, name, total in others:
            # Scan the smaller run, and look its targets up in the other run's index.
            statement, scanned, indexed, first, last = sql.REPEATS, run, other, start, end
            if total < end - start:
                statement, scanned, indexed, first, last = sql.REPEATS_IN_SMALLER, other, run, 0, total
            limits = (start, end, within, LEASE_TIMEOUT, _MANY_COMMANDS)
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
    for number, name in await connection.run(fetching(sql.OTHERS_OF_PLAN, *account, within + _RECORDED_LATE)):
        after: bytes | None = low
        while after is not None:
            rows = await connection.run(
                fetching(sql.LAUNCHED, number, after, high, within, float(LEASE_TIMEOUT), _ROWS)
            )
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
    commands = [command for _, command in first[:_MANY_COMMANDS]]
    return [Repeat(run, len(indexes), commands, max(row["latest"] for row in rows), indexes)]

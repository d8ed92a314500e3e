"""Ledgers in PostgreSQL: for runs that more than one machine works on.

One statement takes a whole batch of claims: it sees whose the chunks are, whether the runs were stopped and the
accounts are paused, and writes `sending`. Nothing that is written a thousand times a second is ever changed: outcomes
are rows of their own, since changing a row costs twice as much as a new one.

While the database is away, whatever a run asks waits, so nothing is launched; once it is back the run goes on by
itself. Everything may therefore be asked twice, and changes nothing the second time.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any

import attrs

from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.core.journal import Leave
from dispatchkit.errors import LedgerError, State
from dispatchkit.ledger import statements
from dispatchkit.ledger.alive import gone
from dispatchkit.ledger.link import Connection, Link, Row
from dispatchkit.ledger.store import STALE, Chunk, Claim, Counts, Holder, Pulse, Record, Run, Target, Unsettled

__all__ = ["Account", "PostgresStore"]

_PAGE = 1000
_HELD_HERE = 100
"""More chunks than are ever held on one host."""
_PATIENCE = 5.0
"""Seconds for which whoever looks, or comes, or goes, waits for a database that is away. A run waits without end."""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('dispatchkit', 0))"


@attrs.frozen
class Account:
    """A provider's account, as far as claims need to know it."""

    key: str
    """A hash."""
    pause: Callable[[float], None]
    """Called when a claim finds that the account is paused elsewhere, with the seconds that are left of it."""


class PostgresStore:
    """See `Store`. It needs a direct connection, or a pooler in session mode.

    Args:
        dsn: ``postgresql://user@host:port/database``; what it leaves out is taken from the environment as psql does.
        clock: What waits while the database is away.
    """

    def __init__(self, dsn: str, *, clock: Clock = SYSTEM) -> None:
        self.another: Callable[[], Link] = lambda: Link(dsn, clock=clock)
        """One connection more, for who has something else to do there, and closes it."""
        # Three connections, so that neither claims nor outcomes wait behind each other, or behind a long list.
        self._claims, self._records, self.link = (self.another() for _ in range(3))
        self._clock = clock
        self._accounts: dict[tuple[int, int], Account] = {}

    async def open(self) -> None:
        """See `Store.open`."""
        try:
            version = await self.link.ask(_version, patience=_PATIENCE)
            if version is None:
                version = await self.link.ask(_create, patience=_PATIENCE)
            if version != statements.VERSION:
                raise LedgerError(
                    f"the ledger was made by another release (its tables are of version {version}, this release has "
                    f"{statements.VERSION}): use the newer of the two everywhere"
                )
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `Store.close`."""
        await asyncio.gather(self._claims.close(), self._records.close(), self.link.close())

    async def begin(self, name: str, settings: str) -> Run:
        """See `Store.begin`."""

        async def work(connection: Connection) -> Run | None:
            await connection.execute(
                "INSERT INTO dispatchkit.run (name, settings, created) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                name,
                settings,
                self._clock.now(),
            )
            return await _run(connection, name)

        run = await self.link.ask(work, patience=_PATIENCE)
        if run is None:
            raise LedgerError(f"the run {name!r} vanished while it was begun: somebody deletes from the tables")
        return run

    async def run(self, name: str) -> Run | None:
        """See `Store.run`."""
        return await self.link.ask(lambda connection: _run(connection, name), patience=_PATIENCE)

    async def runs(self) -> list[Run]:
        """See `Store.runs`."""
        statement = f"SELECT {statements.RUN} FROM dispatchkit.run ORDER BY number DESC"  # noqa: S608
        rows = await self.link.ask(_fetching(statement), patience=_PATIENCE)
        return [Run(*row) for row in rows]

    async def plan(self, run: int, rows: Sequence[tuple[bytes, str]]) -> None:
        """See `Store.plan`."""
        fresh: dict[bytes, str] = {}
        for key, command in rows:
            fresh.setdefault(key, command)

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                # Whoever plans the same run at the same time waits here, and then sees what was planned.
                await connection.execute("SELECT FROM dispatchkit.run WHERE number = $1 FOR UPDATE", run)
                total = await connection.fetchval("SELECT total FROM dispatchkit.run WHERE number = $1", run)
                await connection.execute(statements.PLAN, run, [*fresh], [*fresh.values()], total)

        await self.link.ask(work)

    async def planned(self, run: int, *, size: int | None = None) -> list[Chunk]:
        """See `Store.planned`."""

        async def work(connection: Connection) -> list[Chunk]:
            async with connection.transaction():
                await connection.execute("UPDATE dispatchkit.run SET whole = true WHERE number = $1", run)
                total: int = await connection.fetchval("SELECT total FROM dispatchkit.run WHERE number = $1", run)
                found = await connection.fetch(
                    "SELECT number, first, beyond FROM dispatchkit.chunk WHERE run = $1 ORDER BY number", run
                )
                chunks = [Chunk(*row) for row in found]
                fresh = _divided(chunks, total, size)
                await connection.execute(
                    "INSERT INTO dispatchkit.chunk (run, number, first, beyond) "
                    "SELECT $1, * FROM unnest($2::int[], $3::int[], $4::int[]) "
                    "ON CONFLICT (run, number) DO UPDATE SET beyond = excluded.beyond, over = false",
                    run,
                    *_columns([(chunk.number, chunk.first, chunk.end) for chunk in fresh], 3),
                )
                numbers = {chunk.number for chunk in fresh}
                return [*(chunk for chunk in chunks if chunk.number not in numbers), *fresh]

        return await self.link.ask(work)

    async def chunks(self, run: int) -> list[Chunk]:
        """See `Store.chunks`."""
        here = socket.gethostname()
        return [
            Chunk(row["number"], row["first"], row["beyond"], None if _is_gone(row, here) else _holder(row))
            for row in await self.link.ask(_fetching(statements.CHUNKS, run, STALE))
        ]

    async def hold(self, run: int, chunk: int, holder: Holder) -> Holder | None:
        """See `Store.hold`."""

        async def work(connection: Connection) -> Holder | None:
            while True:
                row = await connection.fetchrow(statements.HOLDER, run, chunk, STALE)
                if row is None:
                    raise LedgerError(f"the ledger knows no chunk {chunk} of this run: plan it first")
                other = _holder(row)
                if (
                    other is not None
                    and other.token != holder.token
                    and not row["stale"]
                    and not gone(other, socket.gethostname())
                ):
                    return other
                values = (run, chunk, holder.token, holder.pid, holder.host, row["token"])
                if await connection.fetchval(statements.HOLD, *values) is not None:
                    return None

        return await self.link.ask(work)

    async def beat(self, run: int, chunk: int, token: str) -> Pulse:
        """See `Store.beat`."""
        row = await self.link.ask(lambda connection: connection.fetchrow(statements.BEAT, run, chunk, token))
        return Pulse(mine=False, stopped=False) if row is None else Pulse(mine=row["mine"], stopped=row["stopped"])

    async def let_go(self, run: int, chunk: int, token: str) -> None:
        """See `Store.let_go`."""
        await self.link.ask(lambda connection: connection.execute(statements.LET_GO, run, chunk, token), patience=30.0)

    async def unsettled(self, run: int, chunk: int, *, after: int, limit: int) -> list[Unsettled]:
        """See `Store.unsettled`."""
        rows = await self.link.ask(_fetching(statements.UNSETTLED, run, chunk, after, limit))
        return [Unsettled(*row) for row in rows]

    async def bound(self, run: int, *, rate: float | None, concurrency: int | None) -> None:
        """Set what all workers together may use of the account of a run: launches a second, attempts in flight."""
        statement = "UPDATE dispatchkit.run SET rate = $2, concurrency = $3 WHERE number = $1"
        await self.link.ask(_fetching(statement, run, rate, concurrency), patience=_PATIENCE)

    async def bounds(self, run: int) -> tuple[float | None, int | None]:
        """What `bound` has set."""
        [(rate, concurrency)] = await self.link.ask(
            _fetching("SELECT rate, concurrency FROM dispatchkit.run WHERE number = $1", run)
        )
        return rate, concurrency

    async def idle(self, limit: int, *, but: Collection[str] = ()) -> list[tuple[str, int]]:
        """Chunks that somebody should take: the name of the run, and the number of the chunk.

        Nobody holds them, and some of their targets were never begun, or were left in flight. Chunks of which all is
        told, if only that it is unknown or could not be sent, are left to whoever resumes the run.

        Args:
            limit: How many at most.
            but: Runs to leave out.
        """
        here = socket.gethostname()
        # Those that are held on this host are listed too: whether their holders are alive is seen only here.
        rows = await self.link.ask(_fetching(statements.IDLE, STALE, limit + _HELD_HERE, [*but], here))
        idle = [(row["name"], row["number"]) for row in rows if row["stale"] is not False or _is_gone(row, here)]
        return idle[:limit]

    def charge(self, run: int, chunk: int, account: Account) -> None:
        """Say on whose account a chunk is launched from here. Its claims are put off while that account is paused."""
        self._accounts[run, chunk] = account

    async def claim(self, claims: Sequence[Claim]) -> list[Leave]:
        """See `Store.claim`."""
        leaves: list[Leave | None] = [None] * len(claims)
        while left := [place for place, leave in enumerate(leaves) if leave is None]:
            asked = [claims[place] for place in left]
            accounts = [self._accounts.get((claim.run, claim.chunk)) for claim in asked]
            columns = _columns([attrs.astuple(claim, recurse=False) for claim in asked], 6)
            keys = [account and account.key for account in accounts]
            rows = await self._claims.ask(_fetching(statements.CLAIM, *columns, keys))
            for place, account, (leave, pause) in zip(left, accounts, rows, strict=True):
                if leave == "again":
                    continue  # somebody else was just writing it: see who it was
                leaves[place] = Leave(leave)
                if leave == "later" and account is not None:
                    account.pause(pause)
        return [leave for leave in leaves if leave is not None]

    async def record(self, records: Sequence[Record]) -> None:
        """See `Store.record`."""
        latest = dict[tuple[int, int], Record]()
        for record in records:
            before = latest.get((record.run, record.index))
            if before is None or before.state not in {State.DONE, State.REJECTED}:
                latest[record.run, record.index] = record
        columns = _columns(
            [
                (
                    record.run,
                    record.chunk,
                    record.index,
                    record.token,
                    record.state.value,
                    record.summary.replace("\0", ""),  # which PostgreSQL does not take
                    None if record.code is None else json.dumps(record.code),
                    record.request_id,
                    record.attempts,
                    record.at,
                )
                for record in latest.values()
            ],
            10,
        )
        await self._records.ask(lambda connection: connection.execute(statements.RECORD, *columns))

    async def counts(self, run: int, *, chunk: int | None = None) -> Counts:
        """See `Store.counts`."""

        async def work(connection: Connection) -> list[Row]:
            first, beyond = 0, 2**31 - 1
            if chunk is not None:
                ends = "SELECT first, beyond FROM dispatchkit.chunk WHERE run = $1 AND number = $2"
                first, beyond = await connection.fetchrow(ends, run, chunk) or (0, 0)
            return await connection.fetch(statements.COUNTS, run, first, beyond)

        rows = await self.link.ask(work, patience=_PATIENCE)
        return Counts(**{row["state"]: row["count"] for row in rows})

    async def targets(self, run: int, *, states: Collection[str] = ()) -> AsyncIterator[Target]:
        """See `Store.targets`."""
        after = -1
        while True:
            statement = _fetching(statements.TARGETS, run, after, [*states], _PAGE)
            rows = await self.link.ask(statement, patience=_PATIENCE)
            for row in rows:
                index, command, state, summary, code, *rest = row
                yield Target(index, command, state, summary, None if code is None else json.loads(code), *rest)
            if len(rows) < _PAGE:
                return
            after = rows[-1]["index"]

    async def stop(self, run: int, *, stopped: bool) -> None:
        """See `Store.stop`."""
        statement = "UPDATE dispatchkit.run SET stopped = $2 WHERE number = $1"
        await self.link.ask(lambda connection: connection.execute(statement, run, stopped), patience=_PATIENCE)


def _fetching(statement: str, *values: object) -> Callable[[Connection], Awaitable[list[Row]]]:
    return lambda connection: connection.fetch(statement, *values)


async def _version(connection: Connection) -> int | None:
    # Not to_regclass(): it may remember, from before the wait for a lock, that there was none.
    statement = "SELECT FROM pg_catalog.pg_tables WHERE schemaname = 'dispatchkit' AND tablename = 'about'"
    if await connection.fetchrow(statement) is None:
        return None
    version: int | None = await connection.fetchval(statements.OPEN)
    return version


async def _create(connection: Connection) -> int | None:
    async with connection.transaction():
        await connection.execute(_LOCK)
        if (version := await _version(connection)) is not None:
            return version  # somebody else came first
        await connection.execute(statements.TABLES)
        await connection.execute("INSERT INTO dispatchkit.about VALUES ($1)", statements.VERSION)
    return statements.VERSION


async def _run(connection: Connection, name: str) -> Run | None:
    row = await connection.fetchrow(f"SELECT {statements.RUN} FROM dispatchkit.run WHERE name = $1", name)  # noqa: S608
    return None if row is None else Run(*row)


def _holder(row: Row) -> Holder | None:
    return None if row["token"] is None else Holder(row["token"], row["pid"], row["host"], row["since"])


def _is_gone(row: Row, here: str) -> bool:
    holder = _holder(row)
    return holder is None or gone(holder, here)


def _divided(chunks: Sequence[Chunk], total: int, size: int | None) -> list[Chunk]:
    """The chunks that are new, or reach further than before."""
    end = chunks[-1].end if chunks else 0
    if end == total:
        return []
    if size is None:
        if len(chunks) == 1:
            return [attrs.evolve(chunks[0], end=total)]
        size = max(1, total - end)
    first = len(chunks)
    return [
        Chunk(first + place, begin, min(total, begin + size)) for place, begin in enumerate(range(end, total, size))
    ]


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [[row[place] for row in rows] for place in range(count)]

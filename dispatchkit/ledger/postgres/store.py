"""Ledgers in PostgreSQL: for runs that more than one machine works on.

One statement takes a whole batch of claims: it sees whose the chunks are, whether the runs were stopped and the
accounts are paused, and writes `sending`. Nothing that is written a thousand times a second is ever changed: outcomes
are rows of their own, since changing a row costs twice as much as a new one.

While the database is away, whatever a run asks waits, so nothing is launched; once it is back the run goes on by
itself. Everything may therefore be asked twice, and changes nothing the second time.

Only its lease, on the database's clock, tells whether a holder keeps its chunk: hosts and process ids tell nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
import attrs

from dispatchkit.core.claim import CLAIM_AGE, ClaimResult
from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.errors import LedgerError, State
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.postgres import sql
from dispatchkit.ledger.postgres.connection import Connection, ReconnectingConnection, Row
from dispatchkit.ledger.postgres.driver_settings import DriverSettings
from dispatchkit.ledger.postgres.pooler import check_session
from dispatchkit.ledger.postgres.schema import prepare
from dispatchkit.ledger.store import (
    LEASE_TIMEOUT,
    Chunk,
    Claim,
    Counts,
    HeartbeatStatus,
    Holder,
    Record,
    Repeat,
    Run,
    RunPlan,
    Target,
    Unsettled,
)

__all__ = ["Account", "PostgresStore"]

_PAGE = 1000
_REPEATS_PAGE = 100_000
"""Targets of which one statement looks for repeats."""
_RECORDED_LATE = 3600.0
"""Seconds between the end of a hold and an outcome that is still recorded, at most."""
_MANY_COMMANDS = 10
"""Commands that a `Repeat` shows."""
_RECONNECT_TIMEOUT = 5.0
"""Seconds for which whoever looks, or comes, or goes, waits for a database that is away. A run waits without end."""


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
        where: The address; what it leaves out is taken from the environment as psql does.
        schema: The schema of the tables; None takes that of the address.
        clock: What waits while the database is away.
    """

    def __init__(self, where: str | Address, *, schema: str | None = None, clock: Clock = SYSTEM) -> None:
        address = Address.of(where)
        del where  # a traceback would show it
        settings = self.settings = DriverSettings(address, schema=schema)
        self.new_connection: Callable[[], ReconnectingConnection] = lambda: ReconnectingConnection(
            settings, clock=clock
        )
        """One connection more, for who has something else to do there, and closes it."""
        # Three connections, so that neither claims nor outcomes wait behind each other, or behind a long list.
        self._claims, self._records, self.connection = (self.new_connection() for _ in range(3))
        self._clock = clock
        self._accounts: dict[int, Account] = {}
        self._identity = ""
        """The expression by which the database says which one it is."""

    async def open(self) -> None:
        """See `Store.open`."""
        try:
            await self.connection.run(self._prepare, timeout=_RECONNECT_TIMEOUT)
            self._identity = await self.connection.run(_identity, timeout=_RECONNECT_TIMEOUT)
        except BaseException:
            await self.close()
            raise

    async def _prepare(self, connection: Connection) -> None:
        await check_session(connection, self.settings)
        await prepare(connection, self.settings.schema)

    async def close(self) -> None:
        """See `Store.close`."""
        await asyncio.gather(self._claims.close(), self._records.close(), self.connection.close())

    async def check_identity(self) -> None:
        """See `Store.check_identity`. A database is told from its copy by each run: `Run.restored`."""

    async def accept_copy(self) -> None:
        """See `Store.accept_copy`."""

    async def begin(self, plan: RunPlan) -> Run:
        """See `Store.begin`."""
        begin = self._with_identity(sql.BEGIN)
        values = (plan.host, plan.account, plan.fingerprint, plan.attempt_timeout, plan.repeat_window)

        async def work(connection: Connection) -> Run | None:
            await connection.execute(begin, plan.name, plan.settings, self._clock.now(), *values)
            return await self._run(connection, plan.name)

        run = await self.connection.run(work, timeout=_RECONNECT_TIMEOUT)
        if run is None:
            raise LedgerError(f"the run {plan.name!r} vanished while it was begun: somebody deletes from the tables")
        return run

    async def set_account(self, run: int, *, account: str | None, fingerprint: str) -> None:
        """See `Store.set_account`."""
        statement = "UPDATE dispatchkit.run SET account = $2, fingerprint = $3 WHERE number = $1"
        await self.connection.run(_fetching(statement, run, account, fingerprint), timeout=_RECONNECT_TIMEOUT)

    async def run(self, name: str) -> Run | None:
        """See `Store.run`."""
        return await self.connection.run(lambda connection: self._run(connection, name), timeout=_RECONNECT_TIMEOUT)

    async def runs(self) -> list[Run]:
        """See `Store.runs`."""
        statement = f"{self._with_identity(sql.RUNS)} ORDER BY number DESC"
        rows = await self.connection.run(_fetching(statement), timeout=_RECONNECT_TIMEOUT)
        return [Run(*row) for row in rows]

    async def _run(self, connection: Connection, name: str) -> Run | None:
        row = await connection.fetchrow(f"{self._with_identity(sql.RUNS)} WHERE name = $1", name)
        return None if row is None else Run(*row)

    def _with_identity(self, statement: str) -> str:
        return statement.replace("$identity", self._identity)

    async def plan(
        self, run: int, rows: Sequence[tuple[bytes, str]], *, log_keys: Mapping[bytes, int] | None = None
    ) -> None:
        """See `Store.plan`."""
        new: dict[bytes, str] = {}
        for key, command in rows:
            new.setdefault(key, command)
        logs = [log_keys.get(key) for key in new] if log_keys else [None] * len(new)

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                # Whoever plans the same run at the same time waits here, and then sees what was planned.
                await connection.execute("SELECT FROM dispatchkit.run WHERE number = $1 FOR UPDATE", run)
                total = await connection.fetchval("SELECT total FROM dispatchkit.run WHERE number = $1", run)
                await connection.execute(sql.PLAN, run, [*new], [*new.values()], total, logs)

        await self.connection.run(work)

    async def planned(self, run: int, *, size: int | None = None) -> list[Chunk]:
        """See `Store.planned`."""

        async def work(connection: Connection) -> list[Chunk]:
            async with connection.transaction():
                await connection.execute("UPDATE dispatchkit.run SET plan_complete = true WHERE number = $1", run)
                total: int = await connection.fetchval("SELECT total FROM dispatchkit.run WHERE number = $1", run)
                found = await connection.fetch(
                    "SELECT number, start_index, end_index FROM dispatchkit.chunk WHERE run = $1 ORDER BY number", run
                )
                chunks = [Chunk(*row) for row in found]
                new_chunks = _divided(chunks, total, size)
                await connection.execute(
                    "INSERT INTO dispatchkit.chunk (run, number, start_index, end_index) "
                    "SELECT $1, * FROM unnest($2::int[], $3::int[], $4::int[]) "
                    "ON CONFLICT (run, number) DO UPDATE SET end_index = excluded.end_index, over = false",
                    run,
                    *_columns([(chunk.number, chunk.start, chunk.end) for chunk in new_chunks], 3),
                )
                numbers = {chunk.number for chunk in new_chunks}
                return [*(chunk for chunk in chunks if chunk.number not in numbers), *new_chunks]

        return await self.connection.run(work)

    async def chunks(self, run: int) -> list[Chunk]:
        """See `Store.chunks`."""
        rows = await self.connection.run(_fetching(sql.CHUNKS, run, LEASE_TIMEOUT))
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
        """See `Store.acquire`."""

        async def work(connection: Connection) -> Holder | None:
            while True:
                row = await connection.fetchrow(sql.HOLDER, run, chunk, LEASE_TIMEOUT)
                if row is None:
                    raise LedgerError(f"the ledger knows no chunk {chunk} of this run: plan it first")
                other = _holder(row)
                if other is not None and other.token != holder.token and other.lease_left >= 0:
                    return other
                # Before the hold, so that there is none with a longer timeout than the run's.
                await connection.execute(sql.RAISE_TIMEOUT, run, attempt_timeout)
                process = (holder.pid, holder.host, holder.boot_id, holder.process_started, holder.pid_namespace)
                values = (run, chunk, holder.token, *process, row["token"])
                if await connection.fetchval(sql.ACQUIRE, *values) is not None:
                    return None

        return await self.connection.run(work)

    async def holder(self, run: int, chunk: int) -> Holder | None:
        """The holder of a chunk, if its lease has not ended.

        Raises:
            LedgerError: The run has no such chunk.
        """
        row = await self.connection.run(lambda connection: connection.fetchrow(sql.HOLDER, run, chunk, LEASE_TIMEOUT))
        if row is None:
            raise LedgerError(f"the ledger knows no chunk {chunk} of this run: plan it first")
        holder = _holder(row)
        return holder if holder is not None and holder.lease_left >= 0 else None

    async def heartbeat(self, run: int, chunk: int, token: str) -> HeartbeatStatus:
        """See `Store.heartbeat`."""
        row = await self.connection.run(lambda connection: connection.fetchrow(sql.HEARTBEAT, run, chunk, token))
        return (
            HeartbeatStatus(mine=False, stopped=False)
            if row is None
            else HeartbeatStatus(mine=row["mine"], stopped=row["stopped"])
        )

    async def release(self, run: int, chunk: int, token: str) -> None:
        """See `Store.release`."""
        await self.connection.run(lambda connection: connection.execute(sql.RELEASE, run, chunk, token), timeout=30.0)

    async def unsettled(self, run: int, chunk: int, *, after: int, limit: int) -> list[Unsettled]:
        """See `Store.unsettled`."""
        statement = self._with_identity(sql.UNSETTLED)
        rows = await self.connection.run(_fetching(statement, run, chunk, after, limit, CLAIM_AGE))
        return [Unsettled(*row) for row in rows]

    async def set_limits(self, run: int, *, rate: float | None, concurrency: int | None) -> None:
        """Set what all workers together may use of the account of a run: launches a second, attempts in flight."""
        statement = "UPDATE dispatchkit.run SET rate = $2, concurrency = $3 WHERE number = $1"
        await self.connection.run(_fetching(statement, run, rate, concurrency), timeout=_RECONNECT_TIMEOUT)

    async def get_limits(self, run: int) -> tuple[float | None, int | None]:
        """What `set_limits` has set."""
        [(rate, concurrency)] = await self.connection.run(
            _fetching("SELECT rate, concurrency FROM dispatchkit.run WHERE number = $1", run)
        )
        return rate, concurrency

    async def claimable_chunks(self, limit: int, *, but: Collection[str] = ()) -> list[tuple[str, int]]:
        """Chunks that somebody should take: the name of the run, and the number of the chunk.

        Nobody holds them, and some of their targets were never begun, or were left in flight. Chunks of which all is
        told, if only that it is unknown or could not be sent, are left to whoever resumes the run.

        Args:
            limit: How many at most.
            but: Runs to leave out.
        """
        rows = await self.connection.run(_fetching(sql.CLAIMABLE_CHUNKS, LEASE_TIMEOUT, limit, [*but]))
        return [(row["name"], row["number"]) for row in rows]

    async def pauses(self) -> list[tuple[str, datetime]]:
        """See `SharedStore.pauses`."""
        rows = await self.connection.run(_fetching(sql.PAUSES), timeout=_RECONNECT_TIMEOUT)
        return [(row["key"], row["paused_until"]) for row in rows]

    async def lift_pauses(self, keys: Collection[str]) -> list[str]:
        """See `SharedStore.lift_pauses`."""
        rows = await self.connection.run(_fetching(sql.LIFT_PAUSES, [*keys]), timeout=_RECONNECT_TIMEOUT)
        return [row["key"] for row in rows]

    def bind_account(self, run: int, account: Account) -> None:
        """Say on whose account a run is launched from here. Its claims are put off while that account is paused."""
        self._accounts[run] = account

    async def claim(self, claims: Sequence[Claim]) -> list[ClaimResult]:
        """See `Store.claim`."""
        claim_results: list[ClaimResult | None] = [None] * len(claims)
        while left := [place for place, claim_result in enumerate(claim_results) if claim_result is None]:
            asked = [claims[place] for place in left]
            accounts = [self._accounts.get(claim.run) for claim in asked]
            columns = _columns([attrs.astuple(claim, recurse=False) for claim in asked], 6)
            keys = [account and account.key for account in accounts]
            rows = await self._claims.run(_fetching(sql.CLAIM, *columns, keys))
            for place, account, (claim_result, pause) in zip(left, accounts, rows, strict=True):
                if claim_result == "again":
                    continue  # somebody else was just writing it: see who it was
                claim_results[place] = ClaimResult(claim_result)
                if claim_result == "deferred" and account is not None:
                    account.pause(pause)
        return [claim_result for claim_result in claim_results if claim_result is not None]

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
                    record.is_final,
                )
                for record in latest.values()
            ],
            11,
        )
        await self._records.run(lambda connection: connection.execute(sql.RECORD, *columns))

    async def counts(self, run: int, *, chunk: int | None = None) -> Counts:
        """See `Store.counts`."""

        async def work(connection: Connection) -> list[Row]:
            start, end = 0, 2**31 - 1
            if chunk is not None:
                ends = "SELECT start_index, end_index FROM dispatchkit.chunk WHERE run = $1 AND number = $2"
                start, end = await connection.fetchrow(ends, run, chunk) or (0, 0)
            return await connection.fetch(sql.COUNTS, run, start, end)

        rows = await self.connection.run(work, timeout=_RECONNECT_TIMEOUT)
        counts = {row["state"]: row["count"] for row in rows}
        return Counts(**counts, unknown_for_good=sum(row["for_good"] for row in rows))

    async def targets(self, run: int, *, states: Collection[str] = ()) -> AsyncIterator[Target]:
        """See `Store.targets`."""
        after = -1
        while True:
            statement = _fetching(sql.TARGETS, run, after, [*states], _PAGE)
            rows = await self.connection.run(statement, timeout=_RECONNECT_TIMEOUT)
            for row in rows:
                index, command, state, summary, code, *rest = row
                yield Target(index, command, state, summary, None if code is None else json.loads(code), *rest)
            if len(rows) < _PAGE:
                return
            after = rows[-1]["index"]

    async def stop(self, run: int) -> None:
        """See `Store.stop`. If the answer is lost, one stop counts twice, which does no harm."""
        statement = "UPDATE dispatchkit.run SET stopped = true, stops = stops + 1 WHERE number = $1"
        await self.connection.run(_fetching(statement, run), timeout=_RECONNECT_TIMEOUT)

    async def clear_stop(self, run: int, *, stops: int | None = None) -> bool:
        """See `Store.clear_stop`."""
        statement = (
            "UPDATE dispatchkit.run SET stopped = false WHERE number = $1 AND stops = coalesce($2, stops) RETURNING 1"
        )
        return bool(await self.connection.run(_fetching(statement, run, stops), timeout=_RECONNECT_TIMEOUT))

    async def has_rival(self, run: int, index: int, log_key: int, *, within: float) -> bool:
        """See `Store.has_rival`."""
        asking = _fetching(sql.RIVAL, run, index, log_key, within, CLAIM_AGE)
        [(found,)] = await self.connection.run(asking, timeout=_RECONNECT_TIMEOUT)
        return bool(found)

    async def repeats(self, run: int, *, chunk: int | None = None, within: float) -> list[Repeat]:
        """See `Store.repeats`."""
        sizes = "SELECT 0, total FROM dispatchkit.run WHERE number = $1 AND $2::int IS NULL"
        if chunk is not None:
            sizes = "SELECT start_index, end_index FROM dispatchkit.chunk WHERE run = $1 AND number = $2"
        others = await self.connection.run(_fetching(sql.OTHERS, run, within + _RECORDED_LATE))
        repeats: list[Repeat] = []
        for start, end in await self.connection.run(_fetching(sizes, run, chunk)):
            for other, name, total in others:
                # The smaller one is read, and looked up in the index of the other.
                pages = (sql.REPEATS, run, other, start, end)
                if total < end - start:
                    pages = (sql.REPEATS_IN_SMALLER, other, run, 0, total)
                limits = (start, end, within, LEASE_TIMEOUT, _MANY_COMMANDS)
                repeats += _repeats(name, await self._repeats(*pages, *limits))
        return repeats

    async def _repeats(
        self, statement: str, run: int, other: int, start: int, end: int, *limits: object
    ) -> list[list[Row]]:
        return [
            await self.connection.run(_fetching(statement, run, page, min(end, page + _REPEATS_PAGE), other, *limits))
            for page in range(start, end, _REPEATS_PAGE)
        ]


def _repeats(run: str, pages: list[list[Row]]) -> list[Repeat]:
    rows = sorted(row for page in pages for row in map(tuple, page))[:_MANY_COMMANDS]
    found = [page[0] for page in pages if page]
    if not found:
        return []
    count, latest = sum(row["count"] for row in found), max(row["latest"] for row in found)
    return [Repeat(run, count, [row[1] for row in rows], latest)]


def _fetching(statement: str, *values: object) -> Callable[[Connection], Awaitable[list[Row]]]:
    return lambda connection: connection.fetch(statement, *values)


async def _identity(connection: Connection) -> str:
    """The expression by which the database says which one it is, as far as this user may know."""
    parts = dict[str, str]()
    for name, statement in {"$system": sql.SYSTEM, "$timeline": sql.TIMELINE}.items():
        try:
            await connection.fetchval(statement)
            parts[name] = f"({statement})"
        except (
            asyncpg.InsufficientPrivilegeError,
            asyncpg.FeatureNotSupportedError,
            asyncpg.UndefinedFunctionError,
        ):
            parts[name] = "NULL"
    expression = sql.IDENTITY
    for name, part in parts.items():
        expression = expression.replace(name, part)
    return expression


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

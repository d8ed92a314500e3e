"""Ledgers in PostgreSQL: for runs on more than one machine.

One statement handles a batch of claims. It checks holders, stops and pauses, and writes `sending`. Outcomes are rows of
their own, since an UPDATE costs twice as much as an INSERT.

While the database is unreachable, all statements of a run wait, so nothing is launched. Afterwards, the run continues.
Every statement is therefore idempotent.

Only the lease, on the database's clock, decides whether a holder keeps its chunk. Host names and process ids do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
import attrs

from dispatchkit.core.claim import CLAIM_AGE, ClaimResult
from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.errors import LedgerError, State
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.blocks import BLOCK, counts_of, keys_of, stretches, stretches_with
from dispatchkit.ledger.contents import Content, ContentCache
from dispatchkit.ledger.files import PIECE_BYTES, batches, joined
from dispatchkit.ledger.postgres import sql
from dispatchkit.ledger.postgres.connection import Connection, ReconnectingConnection, Row, fetching
from dispatchkit.ledger.postgres.driver_settings import DriverSettings
from dispatchkit.ledger.postgres.identity import identity_expression
from dispatchkit.ledger.postgres.pooler import check_session
from dispatchkit.ledger.postgres.repeats import find_launched, find_repeats
from dispatchkit.ledger.postgres.schema import prepare
from dispatchkit.ledger.series import Bucket, buckets_of, slot_of
from dispatchkit.ledger.store import (
    LEASE_TIMEOUT,
    MAX_NUMBER,
    TABLES_OF_RUN,
    Chunk,
    Claim,
    Counts,
    HeartbeatStatus,
    Holder,
    Launched,
    Record,
    Repeat,
    Run,
    RunPlan,
    SharedStore,
    StoredClaim,
    StoredOutcome,
    Story,
    Target,
    TargetRow,
    Unsettled,
    deleted_meanwhile,
)

__all__ = ["Account", "PostgresStore"]

T = TypeVar("T")

_PAGE = 1000
_MICROSECOND = timedelta(microseconds=1)
_CLAIM_RESULTS = {claim_result.value: claim_result for claim_result in ClaimResult}
_RECONNECT_TIMEOUT = 5.0
"""Seconds that open, close and reads wait for an unreachable database; a fan-out waits indefinitely."""


@attrs.frozen
class Account:
    """A provider's account, for the claims of a run."""

    key: str
    """The account key, a hash."""
    pause: Callable[[float], None]
    """Called with the remaining seconds if a claim finds that another process has paused the account."""


class PostgresStore(SharedStore):
    """A `Store` in PostgreSQL. It needs a direct connection, or a pooler in session mode.

    Args:
        where: The address; missing parts come from the environment, as with psql.
        schema: The schema of the tables; None takes that of the address.
        clock: The clock for waits while the database is unreachable.
    """

    def __init__(self, where: str | Address, *, schema: str | None = None, clock: Clock = SYSTEM) -> None:
        address = Address.of(where)
        del where  # a traceback would show it
        settings = self.settings = DriverSettings(address, schema=schema)
        self.new_connection: Callable[[], ReconnectingConnection] = lambda: ReconnectingConnection(
            settings, clock=clock
        )
        """Makes another connection. The caller closes it."""
        # Three connections, so that claims, outcomes and long reads do not wait for each other.
        self._claims, self._records, self.connection = (self.new_connection() for _ in range(3))
        self._clock = clock
        self._contents = ContentCache()
        self._accounts: dict[int, Account] = {}
        self._identity = ""
        """SQL expression that identifies the database."""

    async def open(self) -> None:
        try:
            await self.connection.run(self._prepare, timeout=_RECONNECT_TIMEOUT)
            self._identity = await self.connection.run(identity_expression, timeout=_RECONNECT_TIMEOUT)
        except BaseException:
            await self.close()
            raise

    async def _prepare(self, connection: Connection) -> None:
        await check_session(connection, self.settings)
        await prepare(connection, self.settings.schema)

    async def close(self) -> None:
        await asyncio.gather(self._claims.close(), self._records.close(), self.connection.close())

    async def check_identity(self) -> None:
        """Nothing to check: each run detects a copy by itself (`Run.restored`)."""

    async def accept_copy(self) -> None:
        """Nothing to do: each run detects a copy by itself (`Run.restored`)."""

    async def begin(self, plan: RunPlan) -> Run:
        begin = self._with_identity(sql.BEGIN)
        planned = (plan.canary, plan.planned_by, plan.planned_on, plan.profile, plan.launch_options)
        values = (plan.host, plan.account, plan.fingerprint, plan.attempt_timeout, plan.repeat_window, *planned)

        async def work(connection: Connection) -> Run | None:
            await connection.execute(begin, plan.name, plan.settings, self._clock.now(), *values)
            return await self._run(connection, plan.name)

        run = await self.connection.run(work, timeout=_RECONNECT_TIMEOUT)
        if run is None:
            raise LedgerError(
                f"the run {plan.name!r} vanished while it was begun: another program deletes rows from the ledger's "
                "tables. Stop that program, then run the same again"
            )
        return run

    async def set_account(self, run: int, *, account: str | None, fingerprint: str) -> None:
        statement = "UPDATE dispatchkit.run SET account = $2, fingerprint = $3 WHERE number = $1"
        await self.connection.run(fetching(statement, run, account, fingerprint), timeout=_RECONNECT_TIMEOUT)

    async def run(self, name: str) -> Run | None:
        return await self.connection.run(lambda connection: self._run(connection, name), timeout=_RECONNECT_TIMEOUT)

    async def runs(self) -> list[Run]:
        statement = f"{self._with_identity(sql.RUNS)} ORDER BY number DESC"
        rows = await self.connection.run(fetching(statement), timeout=_RECONNECT_TIMEOUT)
        return [Run(*row) for row in rows]

    async def _run(self, connection: Connection, name: str) -> Run | None:
        row = await connection.fetchrow(f"{self._with_identity(sql.RUNS)} WHERE name = $1", name)
        return None if row is None else Run(*row)

    def _with_identity(self, statement: str) -> str:
        return statement.replace("$identity", self._identity)

    async def plan(
        self,
        run: int,
        rows: Sequence[tuple[bytes, str]],
        *,
        log_keys: Mapping[bytes, int] | None = None,
        contents: Mapping[str, Content] | None = None,
        part: tuple[int, bytes] | None = None,
    ) -> None:
        new: dict[bytes, str] = {}
        for key, command in rows:
            new.setdefault(key, command)
        logs = [log_keys.get(key) for key in new] if log_keys else [None] * len(new)

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                # A concurrent plan of the same run waits here, and then sees the targets of the first one.
                await connection.execute("SELECT FROM dispatchkit.run WHERE number = $1 FOR UPDATE", run)
                total = await connection.fetchval("SELECT total FROM dispatchkit.run WHERE number = $1", run)
                if total is None:
                    raise deleted_meanwhile()
                await connection.execute(sql.PLAN, run, [*new], [*new.values()], total, logs)
                if contents:
                    await _plan_contents(connection, run, contents)
                if part is not None:
                    await connection.execute(sql.PLAN_PART, run, *part)

        # One second more for each piece: the database may be far away.
        more = sum(map(len, contents.values())) / PIECE_BYTES if contents else 0.0
        await self.connection.run(work, more_time=more)

    async def plan_parts(self, run: int) -> dict[int, bytes]:
        statement = "SELECT number, digest FROM dispatchkit.plan_part WHERE run = $1"
        return {row["number"]: row["digest"] for row in await self.connection.run(fetching(statement, run))}

    async def planned(self, run: int, *, size: int | None = None) -> list[Chunk]:
        async def work(connection: Connection) -> list[Chunk]:
            async with connection.transaction():
                await connection.execute("UPDATE dispatchkit.run SET plan_complete = true WHERE number = $1", run)
                total = await connection.fetchval("SELECT total FROM dispatchkit.run WHERE number = $1", run)
                if total is None:
                    raise deleted_meanwhile()
                rows = await connection.fetch(
                    "SELECT number, start_index, end_index FROM dispatchkit.chunk WHERE run = $1 ORDER BY number", run
                )
                chunks = [Chunk(*row) for row in rows]
                new_chunks = _divided(chunks, total, size)
                await connection.execute(
                    "INSERT INTO dispatchkit.chunk (run, number, start_index, end_index) "
                    "SELECT $1, * FROM unnest($2::int[], $3::int[], $4::int[]) "
                    "ON CONFLICT (run, number) DO UPDATE SET end_index = excluded.end_index",
                    run,
                    *_columns([(chunk.number, chunk.start, chunk.end) for chunk in new_chunks], 3),
                )
                numbers = {chunk.number for chunk in new_chunks}
                return [*(chunk for chunk in chunks if chunk.number not in numbers), *new_chunks]

        return await self.connection.run(work)

    async def chunks(self, run: int) -> list[Chunk]:
        rows = await self.connection.run(fetching(sql.CHUNKS, run, LEASE_TIMEOUT))
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
        async def work(connection: Connection) -> Holder | None:
            while True:
                row = await connection.fetchrow(sql.HOLDER, run, chunk, LEASE_TIMEOUT)
                if row is None:
                    raise LedgerError(f"the ledger has no chunk {chunk} of this run: plan the run first")
                other = _holder(row)
                if other is not None and other.token != holder.token and other.lease_left >= 0:
                    return other
                # Before the hold, so that no hold has a longer timeout than its run.
                await connection.execute(sql.RAISE_TIMEOUT, run, attempt_timeout)
                process = (holder.pid, holder.host, holder.boot_id, holder.process_started, holder.pid_namespace)
                values = (run, chunk, holder.token, *process, row["token"])
                if await connection.fetchval(sql.ACQUIRE, *values) is not None:
                    return None

        return await self.connection.run(work)

    async def holder(self, run: int, chunk: int) -> Holder | None:
        """The holder of a chunk, unless its lease has ended.

        Raises:
            LedgerError: The run has no such chunk.
        """
        row = await self.connection.run(lambda connection: connection.fetchrow(sql.HOLDER, run, chunk, LEASE_TIMEOUT))
        if row is None:
            raise LedgerError(f"the ledger has no chunk {chunk} of this run: plan the run first")
        holder = _holder(row)
        return holder if holder is not None and holder.lease_left >= 0 else None

    async def heartbeat(self, run: int, chunk: int, token: str) -> HeartbeatStatus:
        row = await self.connection.run(lambda connection: connection.fetchrow(sql.HEARTBEAT, run, chunk, token))
        return (
            HeartbeatStatus(mine=False, stopped=False)
            if row is None
            else HeartbeatStatus(mine=row["mine"], stopped=row["stopped"])
        )

    async def release(self, run: int, chunk: int, token: str) -> None:
        await self.connection.run(lambda connection: connection.execute(sql.RELEASE, run, chunk, token), timeout=30.0)

    async def unsettled(self, run: int, chunk: int, *, after: int, limit: int) -> list[Unsettled]:
        statement = self._with_identity(sql.UNSETTLED)

        async def work(connection: Connection) -> list[Row]:
            blocks = await connection.fetch(sql.OVER, run, chunk, (after + 1) // BLOCK)
            if not blocks:
                return []
            start, end, *_ = blocks[0]
            tallied = {row["block"]: row["over"] for row in blocks if row["block"] is not None}
            for stretch in stretches(start, end, tallied, first=after + 1):
                rows = await connection.fetch(statement, run, chunk, stretch.start, limit, CLAIM_AGE, stretch.stop)
                if rows:
                    return rows
            return []

        rows = await self.connection.run(work)
        commands = await self._contents.attach(run, [row["command"] for row in rows], self._read_contents)
        return [Unsettled(index, command, *rest) for command, (index, _, *rest) in zip(commands, rows, strict=True)]

    async def _read_contents(self, run: int, hashes: Sequence[str]) -> list[tuple[str, bytes]]:
        rows = await self.connection.run(fetching(sql.CONTENTS, run, hashes), timeout=_RECONNECT_TIMEOUT)
        return joined((row["hash"], row["piece"]) for row in rows)

    async def read_file(self, run: int, name: str) -> list[bytes]:
        # A statement for each piece: a heartbeat of the run comes between two of them.
        pieces: list[bytes] = []
        while rows := await self.connection.run(fetching(sql.PIECE, run, name, len(pieces))):
            pieces.append(rows[0]["piece"])
        return pieces

    async def set_limits(self, run: int, *, rate: float | None, concurrency: int | None) -> None:
        """Set the limits of a run's account over all workers: launches a second and attempts in flight."""
        statement = "UPDATE dispatchkit.run SET rate = $2, concurrency = $3 WHERE number = $1"
        await self.connection.run(fetching(statement, run, rate, concurrency), timeout=_RECONNECT_TIMEOUT)

    async def get_limits(self, run: int) -> tuple[float | None, int | None]:
        """The rate and the concurrency of `set_limits`."""
        [(rate, concurrency)] = await self.connection.run(
            fetching("SELECT rate, concurrency FROM dispatchkit.run WHERE number = $1", run)
        )
        return rate, concurrency

    async def claimable_chunks(self, limit: int, *, but: Collection[str] = ()) -> list[tuple[str, int]]:
        """Orphaned chunks that a worker should take, as pairs of run name and chunk number.

        They have no holder, and targets that are planned or in flight. Unknown and unsent targets are left to a resume
        of the run.

        Args:
            limit: Maximum number of chunks.
            but: Names of runs to leave out.
        """
        rows = await self.connection.run(fetching(sql.CLAIMABLE_CHUNKS, LEASE_TIMEOUT, limit, [*but]))
        return [(row["name"], row["number"]) for row in rows]

    async def pauses(self) -> list[tuple[str, datetime]]:
        rows = await self.connection.run(fetching(sql.PAUSES), timeout=_RECONNECT_TIMEOUT)
        return [(row["key"], row["paused_until"]) for row in rows]

    async def lift_pauses(self, keys: Collection[str]) -> list[str]:
        rows = await self.connection.run(fetching(sql.LIFT_PAUSES, [*keys]), timeout=_RECONNECT_TIMEOUT)
        return [row["key"] for row in rows]

    def bind_account(self, run: int, account: Account) -> None:
        """Bind a run to its account. Its claims are deferred while the account is paused."""
        self._accounts[run] = account

    async def claim(self, claims: Sequence[Claim]) -> list[ClaimResult]:
        claim_results = [ClaimResult.GRANTED] * len(claims)
        for (run, token), positions in _by_hold(claims).items():
            account = self._accounts.get(run)
            key, left = account and account.key, positions
            while left:
                _, chunks, indexes, _, request_ids, since = zip(*(claims[position] for position in left), strict=True)
                columns = (_packed(chunks), _array(indexes), _sparse(request_ids), _packed(since))
                [(places, results, pause, _)] = await self._claims.run(_counting(sql.CLAIM, run, token, *columns, key))
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

    async def record(self, records: Sequence[Record]) -> None:
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
            [(late, _)] = await self._records.run(_counting(sql.RECORD, run, token, *values))
            if late:
                await self._records.run(_counting(sql.RECORD_LATE, run, token, *values))

    async def counts(self, run: int, *, chunk: int | None = None) -> Counts:
        statement = fetching(sql.COUNTS, run) if chunk is None else fetching(sql.COUNTS_OF_CHUNK, run, chunk)
        [(total, *sums)] = await self.connection.run(statement, timeout=_RECONNECT_TIMEOUT)
        return counts_of(total, sums)

    async def series(self, run: int, *, since: datetime) -> list[Bucket]:
        rows = await self.connection.run(fetching(sql.SERIES, run, since), timeout=_RECONNECT_TIMEOUT)
        return buckets_of((start, state, slot, count) for start, state, slot, count in rows)

    async def times(self, run: int) -> tuple[datetime | None, datetime | None]:
        statement = (
            "SELECT (SELECT min(since) FROM dispatchkit.sending WHERE run = $1) AS first, "
            "(SELECT max(at) FROM dispatchkit.outcome WHERE run = $1) AS last"
        )
        [(first, last)] = await self.connection.run(fetching(statement, run), timeout=_RECONNECT_TIMEOUT)
        return first, last

    async def blocks(self, run: int) -> list[tuple[int, ...]]:
        rows = await self.connection.run(fetching(sql.COUNTS_OF_BLOCKS, run), timeout=_RECONNECT_TIMEOUT)
        return [tuple(row) for row in rows]

    async def pages(
        self, run: int, *, states: Collection[str] = (), start: int = 0, end: int = MAX_NUMBER
    ) -> AsyncIterator[list[Target]]:
        async for rows, commands in self._pages(run, states, start, end):
            yield [
                Target(index, command, state, summary, None if code is None else json.loads(code), *rest)
                for command, (index, _, state, summary, code, *rest) in zip(commands, rows, strict=True)
            ]

    async def rows(self, run: int) -> AsyncIterator[Sequence[TargetRow]]:
        async for rows, commands in self._pages(run):
            yield [
                (
                    index,
                    command,
                    state,
                    summary,
                    None if code is None else json.loads(code),
                    request_id,
                    attempts,
                    None if at is None else at.isoformat(),
                    is_final,
                )
                for command, (index, _, state, summary, code, request_id, attempts, at, is_final, _) in zip(
                    commands, rows, strict=True
                )
            ]

    async def _pages(
        self, run: int, states: Collection[str] = (), start: int = 0, end: int = MAX_NUMBER
    ) -> AsyncIterator[tuple[list[Row], Sequence[str]]]:
        """Iterate over pages of targets: their columns, and their commands with contents."""
        for stretch in await self._stretches(run, states, start, end):
            first = stretch.start
            while first < stretch.stop:
                statement = fetching(sql.TARGETS, run, first, [*states], _PAGE, stretch.stop)
                rows = await self.connection.run(statement, timeout=_RECONNECT_TIMEOUT)
                commands = await self._contents.attach(run, [row["command"] for row in rows], self._read_contents)
                yield rows, commands
                first = rows[-1]["index"] + 1 if len(rows) == _PAGE else stretch.stop

    async def indexes_of(self, run: int, target: int, *, limit: int) -> list[int]:
        statement = fetching(sql.INDEXES_OF_TARGET, run, *keys_of(target), limit)
        return sorted(row["index"] for row in await self.connection.run(statement, timeout=_RECONNECT_TIMEOUT))

    async def story(self, run: int, index: int) -> Story:
        claims = await self.connection.run(fetching(sql.CLAIMS_OF_TARGET, run, index), timeout=_RECONNECT_TIMEOUT)
        outcomes = await self.connection.run(fetching(sql.OUTCOMES_OF_TARGET, run, index), timeout=_RECONNECT_TIMEOUT)
        return Story(
            [StoredClaim(*row) for row in claims],
            [
                StoredOutcome(send_no, state, summary, None if code is None else json.loads(code), *rest)
                for send_no, state, summary, code, *rest in outcomes
            ],
        )

    async def _stretches(self, run: int, states: Collection[str], start: int, end: int) -> Sequence[range]:
        """The stretches of a run's indexes that may hold targets in these states."""

        async def work(connection: Connection) -> tuple[int, list[Row]]:
            total = await connection.fetchval("SELECT total FROM dispatchkit.run WHERE number = $1", run)
            return total or 0, await connection.fetch(sql.COUNTS_OF_BLOCKS, run) if states else []

        total, rows = await self.connection.run(work, timeout=_RECONNECT_TIMEOUT)
        return stretches_with(total, [tuple(row) for row in rows], states, start=start, end=end)

    async def stop(self, run: int) -> None:
        # If the answer is lost, the retry counts the stop twice, which is harmless.
        statement = "UPDATE dispatchkit.run SET stopped = true, stops = stops + 1 WHERE number = $1"
        await self.connection.run(fetching(statement, run), timeout=_RECONNECT_TIMEOUT)

    async def clear_stop(self, run: int, *, stops: int | None = None) -> bool:
        statement = (
            "UPDATE dispatchkit.run SET stopped = false WHERE number = $1 AND stops = coalesce($2, stops) RETURNING 1"
        )
        return bool(await self.connection.run(fetching(statement, run, stops), timeout=_RECONNECT_TIMEOUT))

    async def has_contents(self, run: int) -> bool:
        statement = fetching("SELECT EXISTS (SELECT FROM dispatchkit.content WHERE run = $1)", run)
        [(exists,)] = await self.connection.run(statement, timeout=_RECONNECT_TIMEOUT)
        return bool(exists)

    async def prune_contents(self, run: int) -> bool:
        now = self._clock.now()

        async def work(connection: Connection) -> bool:
            async with connection.transaction():
                if not await _lock_prunable(connection, run, whole=False):
                    return False
                await connection.execute("DELETE FROM dispatchkit.content WHERE run = $1", run)
                await connection.execute("UPDATE dispatchkit.run SET contents_pruned = $2 WHERE number = $1", run, now)
                return True

        return await self.connection.run(work, timeout=_RECONNECT_TIMEOUT)

    async def delete(self, run: int) -> bool:
        async def work(connection: Connection) -> bool:
            async with connection.transaction():
                if not await _lock_prunable(connection, run, whole=True):
                    return False
                for table in TABLES_OF_RUN:
                    await connection.execute(f"DELETE FROM dispatchkit.{table} WHERE run = $1", run)  # noqa: S608
                await connection.execute("DELETE FROM dispatchkit.run WHERE number = $1", run)
                return True

        return await self.connection.run(work, timeout=_RECONNECT_TIMEOUT)

    async def has_rival(self, run: int, index: int, log_key: int, *, within: float) -> bool:
        statement = fetching(sql.RIVAL, run, index, log_key, within, CLAIM_AGE)
        [(exists,)] = await self.connection.run(statement, timeout=_RECONNECT_TIMEOUT)
        return bool(exists)

    async def repeats(self, run: int, *, chunk: int | None = None, within: float) -> list[Repeat]:
        repeats = await find_repeats(self.connection, run, chunk=chunk, within=within)
        return [
            attrs.evolve(each, commands=await self._contents.attach(run, each.commands, self._read_contents))
            for each in repeats
        ]

    def launched(self, plan: RunPlan, *, low: bytes, high: bytes, within: float) -> AsyncIterator[Launched]:
        return find_launched(self.connection, plan, low=low, high=high, within=within)


async def _plan_contents(connection: Connection, run: int, contents: Mapping[str, Content]) -> None:
    """Write contents, in statements of at most `PIECE_BYTES`: the driver encodes each on the event loop."""
    known = {row["hash"] for row in await connection.fetch(sql.KNOWN_CONTENTS, run, [*contents])}
    new = {name: content for name, content in contents.items() if name not in known}
    for batch in batches(new):
        await connection.execute(sql.PLAN_CONTENTS, run, *_columns(batch, 3))


async def _lock_prunable(connection: Connection, run: int, *, whole: bool) -> bool:
    """Lock a run, for the transaction, and tell whether it may be pruned: not before, as it may change until then."""
    await connection.execute(sql.LOCK_RUN, run)
    await connection.execute(sql.LOCK_CHUNKS, run)
    return bool(await connection.fetchval(sql.IS_PRUNABLE, run, whole, float(LEASE_TIMEOUT)))


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
    """The new or extended chunks that cover the targets after the present ones."""
    end = chunks[-1].end if chunks else 0
    if end == total:
        return []
    if size is None:
        if len(chunks) == 1:
            return [attrs.evolve(chunks[0], end=total)]
        size = max(1, total - end)
    first = len(chunks)
    return [
        Chunk(number, begin, min(total, begin + size)) for number, begin in enumerate(range(end, total, size), first)
    ]


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
        while True:
            with contextlib.suppress(asyncpg.DivisionByZeroError):
                return await connection.fetch(statement, *values)

    return work


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(count)]

"""Ledgers in PostgreSQL: for runs on more than one machine.

While the database is unreachable, all statements of a run wait, so nothing is launched. Afterwards, the run continues.
Every statement is therefore idempotent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial

import attrs

from dispatchkit.core.claim import CLAIM_AGE, ClaimResult
from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.blocks import BLOCK, counts_of, stretches, stretches_with
from dispatchkit.ledger.chunk import Chunk, HeartbeatStatus, Holder
from dispatchkit.ledger.claim import Claim, Record, StoredClaim, StoredOutcome, Story
from dispatchkit.ledger.contents import Content, ContentCache
from dispatchkit.ledger.files import PIECE_BYTES, joined
from dispatchkit.ledger.keys import keys_of
from dispatchkit.ledger.postgres import sql
from dispatchkit.ledger.postgres.connection import Connection, ReconnectingConnection, Row, fetching
from dispatchkit.ledger.postgres.driver_settings import DriverSettings
from dispatchkit.ledger.postgres.holds import Holds
from dispatchkit.ledger.postgres.identity import identity_expression
from dispatchkit.ledger.postgres.plan import add_part, complete_plan
from dispatchkit.ledger.postgres.pooler import check_session
from dispatchkit.ledger.postgres.prune import delete_contents, delete_run
from dispatchkit.ledger.postgres.repeats import find_launched, find_repeats
from dispatchkit.ledger.postgres.schema import prepare
from dispatchkit.ledger.postgres.write import Account, write_claims, write_records
from dispatchkit.ledger.repeat import Launched, Repeat
from dispatchkit.ledger.run import Counts, Run, RunPlan
from dispatchkit.ledger.series import Bucket, buckets_of
from dispatchkit.ledger.store import MAX_NUMBER, SharedStore
from dispatchkit.ledger.target import Target, TargetRow, Unsettled

__all__ = ["PostgresStore"]

_PAGE = 1000
_RECONNECT_TIMEOUT = 5.0
"""Seconds that open, close and reads wait for an unreachable database; a fan-out waits indefinitely."""


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
        self._holds = Holds(self.connection)
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
        work = partial(add_part, run=run, rows=rows, log_keys=log_keys or {}, contents=contents or {}, part=part)
        # One second more for each piece: the database may be far away.
        more = sum(map(len, contents.values())) / PIECE_BYTES if contents else 0.0
        await self.connection.run(work, more_time=more)

    async def plan_parts(self, run: int) -> dict[int, bytes]:
        statement = "SELECT number, digest FROM dispatchkit.plan_part WHERE run = $1"
        return {row["number"]: row["digest"] for row in await self.connection.run(fetching(statement, run))}

    async def planned(self, run: int, *, size: int | None = None) -> list[Chunk]:
        return await self.connection.run(partial(complete_plan, run=run, size=size))

    async def chunks(self, run: int) -> list[Chunk]:
        return await self._holds.chunks(run)

    async def claimable_chunks(self, limit: int, *, but: Collection[str] = ()) -> list[tuple[str, int]]:
        """Orphaned chunks that a worker should take. See `Holds.claimable_chunks`."""
        return await self._holds.claimable_chunks(limit, but=but)

    async def acquire(self, run: int, chunk: int, holder: Holder, *, attempt_timeout: float) -> Holder | None:
        return await self._holds.acquire(run, chunk, holder, attempt_timeout=attempt_timeout)

    async def holder(self, run: int, chunk: int) -> Holder | None:
        """The holder of a chunk, unless its lease has ended. See `Holds.holder`."""
        return await self._holds.holder(run, chunk)

    async def heartbeat(self, run: int, chunk: int, token: str) -> HeartbeatStatus:
        return await self._holds.heartbeat(run, chunk, token)

    async def release(self, run: int, chunk: int, token: str) -> None:
        await self._holds.release(run, chunk, token)

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
        return await write_claims(self._claims, claims, self._accounts)

    async def record(self, records: Sequence[Record]) -> None:
        await write_records(self._records, records)

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
        work = partial(delete_contents, run=run, now=self._clock.now())
        return await self.connection.run(work, timeout=_RECONNECT_TIMEOUT)

    async def delete(self, run: int) -> bool:
        return await self.connection.run(partial(delete_run, run=run), timeout=_RECONNECT_TIMEOUT)

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

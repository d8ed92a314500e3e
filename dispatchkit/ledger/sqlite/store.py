"""A ledger in one file, for one machine: SQLite, with a write-ahead log that is synced at every commit.

One thread writes, another reads. Work that arrives during a transaction goes into the next one, so that all of it
shares one sync. A batch of claims is one statement, since each statement costs a switch of Python threads.

Several processes may use one file: one launches, others read or stop the run. A process that holds a chunk keeps a lock
on a file beside the ledger. The system releases the lock when the process ends; see `hold_lock`.

Times of one boot of the machine are compared by the boot clock. Only times of different boots are compared by the wall
clock, which may be set.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs

from dispatchkit.core.claim import CLAIM_AGE, ClaimResult
from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.blocks import BLOCK, counts_of, stretches, stretches_with
from dispatchkit.ledger.chunk import Chunk, HeartbeatStatus, Holder
from dispatchkit.ledger.claim import Claim, Record, Story
from dispatchkit.ledger.contents import Content, ContentCache
from dispatchkit.ledger.files import joined
from dispatchkit.ledger.keys import keys_of
from dispatchkit.ledger.liveness import boot_id as this_boot
from dispatchkit.ledger.repeat import Launched, Repeat
from dispatchkit.ledger.run import Counts, Run, RunPlan
from dispatchkit.ledger.series import BUCKET_SECONDS, Bucket, buckets_of
from dispatchkit.ledger.sqlite.file import add_boot, check, connect_writer, empty_log, explain, find_boot
from dispatchkit.ledger.sqlite.holds import Holds
from dispatchkit.ledger.sqlite.identity import accept, check_copy, settle
from dispatchkit.ledger.sqlite.plan import add_part, complete_plan
from dispatchkit.ledger.sqlite.prune import delete_contents, delete_run
from dispatchkit.ledger.sqlite.read import Reading, fetching
from dispatchkit.ledger.sqlite.repeats import find_launched, find_repeats
from dispatchkit.ledger.sqlite.rows import rows_of, run_of, story_of, target_of
from dispatchkit.ledger.sqlite.sql import (
    BEGIN,
    CLAIMS_OF_TARGET,
    COUNTS,
    COUNTS_OF_BLOCKS,
    COUNTS_OF_CHUNK,
    FRESH,
    IS_FINAL,
    OUTCOMES_OF_TARGET,
    RIVAL,
    RUNS,
    SERIES_OF_RUN,
    STATE,
    TARGETS,
    UNSETTLED,
)
from dispatchkit.ledger.sqlite.thread import DatabaseThread
from dispatchkit.ledger.sqlite.write import Afterwards, Batch, Writing
from dispatchkit.ledger.store import MAX_NUMBER, Store
from dispatchkit.ledger.target import Target, TargetRow, Unsettled

__all__ = ["SqliteStore"]

T = TypeVar("T")

_PAGE = 1000
_LOCK_TRIES, _LOCK_WAIT = 5, 0.005
"""Number of tries for a lock, and seconds between them. A process that only reads it has it for microseconds."""


class SqliteStore(Store):
    """A `Store` in an SQLite file.

    Args:
        path: The file. It is created if it does not exist.
        clock: Wall clock and boot clock.
        boot_id: The id of this boot, for tests. Default: the system's.
    """

    def __init__(self, path: Path, *, clock: Clock = SYSTEM, boot_id: str | None = None) -> None:
        self._path = path
        self._file = path
        """The absolute path, since the process may change its working directory."""
        self._clock = clock
        self._boot_id = this_boot() if boot_id is None else boot_id
        self._writing = Writing(clock)
        self._writer: DatabaseThread | None = None
        self._reader: DatabaseThread | None = None
        self._holds = Holds(path, self._writing)
        self._contents = ContentCache()

    async def open(self) -> None:
        path, boot_id = self._path, self._boot_id
        file = self._file = self._holds.file = path.absolute()

        reading = Reading(file)
        self._reader = DatabaseThread(reading.connect, reading.perform, partial(explain, path))
        self._writer = DatabaseThread(lambda: connect_writer(file), self._writing.perform, partial(explain, path))
        try:
            # Read first: a process that is suspended within a transaction blocks writers, not readers.
            boot = await self._read(lambda db: find_boot(db, boot_id))
            if boot is None and not reading.is_read_only:
                await self._write(lambda db: check(db, path))
                boot = await self._write(lambda db: add_boot(db, boot_id))
            self._writing.boot = boot or 0
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        threads, self._reader, self._writer = (self._reader, self._writer), None, None
        try:
            for thread in threads:
                if thread is not None:
                    await thread.close()
        finally:
            self._holds.close()

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return cast("T", await _opened(self._writer).run(work))

    async def _settled(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Write work that renews the ledger's identity, and settle the identity afterwards."""
        path = self._file
        return cast("T", await _opened(self._writer).run(Afterwards(lambda db: settle(db, path), work)))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return cast("T", await _opened(self._reader).run(work))

    async def check_identity(self) -> None:
        path = self._file
        await self._read(lambda db: check_copy(db, path))

    async def accept_copy(self) -> None:
        path = self._file
        await _opened(self._writer).run(Afterwards(lambda db: accept(db, path)))

    async def begin(self, plan: RunPlan) -> Run:
        given = {**attrs.asdict(plan), "created": self._clock.now().isoformat()}

        def work(db: sqlite3.Connection) -> Run:
            db.execute(BEGIN, given)
            return _runs(db, "WHERE name = ?", plan.name)[0]

        return await self._write(work)

    async def set_account(self, run: int, *, account: str | None, fingerprint: str) -> None:
        sql = "UPDATE run SET account = ?, fingerprint = ? WHERE number = ?"
        await self._write(lambda db: db.execute(sql, (account, fingerprint, run)))

    async def run(self, name: str) -> Run | None:
        runs = await self._read(lambda db: _runs(db, "WHERE name = ?", name))
        return runs[0] if runs else None

    async def runs(self) -> list[Run]:
        return await self._read(lambda db: _runs(db, "ORDER BY number DESC"))

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
        await self._write(work)

    async def plan_parts(self, run: int) -> dict[int, bytes]:
        sql = "SELECT number, digest FROM plan_part WHERE run = ?"
        return dict(await self._read(fetching(sql, (run,))))

    async def planned(self, run: int, *, size: int | None = None) -> list[Chunk]:
        chunks = await self._write(partial(complete_plan, self._holds, run=run, size=size))
        await _opened(self._writer).run(Afterwards(empty_log))
        return chunks

    async def chunks(self, run: int) -> list[Chunk]:
        unfinished = (
            "AND end_index - start_index > (SELECT coalesce(sum(done + rejected), 0) FROM tally y "
            "WHERE y.run = chunk.run AND y.chunk = chunk.number)"
        )
        return await self._read(lambda db: self._holds.chunks(db, run, unfinished))

    async def acquire(self, run: int, chunk: int, holder: Holder, *, attempt_timeout: float) -> Holder | None:
        def write(db: sqlite3.Connection) -> Holder | None:
            return self._holds.acquire(db, run, chunk, holder, attempt_timeout)

        before = self._holds.lock_of(run, chunk)
        tries = _LOCK_TRIES
        while True:
            try:
                # Read first: a holder that is suspended within a transaction blocks all writers.
                locked_by = partial(self._holds.locked_by, run=run, chunk=chunk, token=holder.token)
                other = await self._read(locked_by) or await self._write(write)
                if other is None:
                    await self._settled(lambda _: None)
            except LedgerError:
                if self._holds.lock_of(run, chunk) is not before:
                    self._holds.unlock(run, chunk, holder.token)  # the hold was rolled back, or the file is a copy
                raise
            tries -= 1
            if other is None or not other.exists or not tries:
                return other
            await asyncio.sleep(_LOCK_WAIT)

    async def heartbeat(self, run: int, chunk: int, token: str) -> HeartbeatStatus:
        return await self._settled(lambda db: self._holds.heartbeat(db, run, chunk, token))

    async def release(self, run: int, chunk: int, token: str) -> None:
        try:
            await self._settled(lambda db: self._holds.release(db, run, chunk, token))
        except LedgerError:
            self._holds.unlock(run, chunk, token)
            raise

    async def unsettled(self, run: int, chunk: int, *, after: int, limit: int) -> list[Unsettled]:
        given = {**self._writing.moment().given, "run": run, "chunk": chunk, "limit": limit, "age": CLAIM_AGE}

        def work(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
            ends = "SELECT start_index, end_index FROM chunk WHERE run = ? AND number = ?"
            start, end = db.execute(ends, (run, chunk)).fetchone() or (0, 0)
            over = "SELECT block, done + rejected + final FROM tally WHERE run = ? AND chunk = ? AND block >= ?"
            tallied = dict(db.execute(over, (run, chunk, (after + 1) // BLOCK)).fetchall())
            for stretch in stretches(start, end, tallied, first=after + 1):
                page = {**given, "start": stretch.start, "end": stretch.stop}
                rows = db.execute(FRESH, page).fetchall() or db.execute(UNSETTLED, page).fetchall()
                if rows:
                    return rows
            return []

        rows = await self._read(work)
        commands = await self._contents.attach(run, [row[1] for row in rows], self._read_contents)
        return [
            Unsettled(index, command, request_id, since and datetime.fromisoformat(since), *more)
            for command, (index, _, request_id, since, *more) in zip(commands, rows, strict=True)
        ]

    async def _read_contents(self, run: int, hashes: Sequence[str]) -> list[tuple[str, bytes]]:
        sql = """
            SELECT hash, CAST(piece AS BLOB) FROM content WHERE run = ? AND hash IN (SELECT value FROM json_each(?))
            ORDER BY hash, number"""
        return await self._read(lambda db: joined(db.execute(sql, (run, json.dumps(hashes)))))

    async def read_file(self, run: int, name: str) -> list[bytes]:
        # A damaged piece may be text by now, and not even that.
        sql = "SELECT CAST(piece AS BLOB) FROM content WHERE run = ? AND hash = ? ORDER BY number"
        return await self._read(lambda db: [piece for (piece,) in db.execute(sql, (run, name))])

    async def claim(self, claims: Sequence[Claim]) -> list[ClaimResult]:
        return cast("list[ClaimResult]", await _opened(self._writer).run(Batch(claims=claims)))

    async def record(self, records: Sequence[Record]) -> None:
        await _opened(self._writer).run(Batch(records=records), deferrable=True)

    async def counts(self, run: int, *, chunk: int | None = None) -> Counts:
        sql, given = COUNTS if chunk is None else COUNTS_OF_CHUNK, {"run": run, "chunk": chunk}
        total, *sums = await self._read(lambda db: db.execute(sql, given).fetchone())
        return counts_of(total, sums)

    async def series(self, run: int, *, since: datetime) -> list[Bucket]:
        after = (since.astimezone(UTC) - timedelta(seconds=BUCKET_SECONDS)).isoformat(timespec="seconds")
        rows = await self._read(fetching(SERIES_OF_RUN, (run, after)))
        return buckets_of((datetime.fromisoformat(start), state, slot, count) for start, state, slot, count in rows)

    async def times(self, run: int) -> tuple[datetime | None, datetime | None]:
        sql = "SELECT (SELECT min(since) FROM sending WHERE run = ?), (SELECT max(at) FROM outcome WHERE run = ?)"
        first, last = await self._read(lambda db: db.execute(sql, (run, run)).fetchone())
        return first and datetime.fromisoformat(first), last and datetime.fromisoformat(last)

    async def blocks(self, run: int) -> list[tuple[int, ...]]:
        return await self._read(fetching(COUNTS_OF_BLOCKS, (run,)))

    async def pages(
        self, run: int, *, states: Collection[str] = (), start: int = 0, end: int = MAX_NUMBER
    ) -> AsyncIterator[list[Target]]:
        async for rows, commands in self._pages(run, states, start, end):
            yield [*map(target_of, rows, commands)]

    async def rows(self, run: int) -> AsyncIterator[Sequence[TargetRow]]:
        async for rows, commands in self._pages(run):
            yield rows_of(rows, commands)

    async def _pages(
        self, run: int, states: Collection[str] = (), start: int = 0, end: int = MAX_NUMBER
    ) -> AsyncIterator[tuple[list[tuple[Any, ...]], Sequence[str]]]:
        """Iterate over pages of targets: their columns, and their commands with contents."""
        chosen = f"AND {STATE} IN ({','.join('?' * len(states))})" if states else ""
        sql = f"""
            SELECT t."index", t.command, {STATE}, o.summary, o.code, coalesce(s.request_id, o.request_id),
                   o.attempts, o.at, s.since, {IS_FINAL}
            {TARGETS} WHERE t.run = ? AND t."index" >= ? AND t."index" < ? {chosen}
            ORDER BY t."index" LIMIT {_PAGE}"""
        stretches = await self._read(lambda db: _stretches(db, run, states, start, end))
        for stretch in stretches:
            first = stretch.start
            while first < stretch.stop:
                rows = await self._read(fetching(sql, (run, first, stretch.stop, *states)))
                commands = await self._contents.attach(run, [row[1] for row in rows], self._read_contents)
                yield rows, commands
                first = rows[-1][0] + 1 if len(rows) == _PAGE else stretch.stop

    async def indexes_of(self, run: int, target: int, *, limit: int) -> list[int]:
        first, after = keys_of(target)
        sql = 'SELECT "index" FROM target WHERE run = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?'
        rows = await self._read(fetching(sql, (run, first, after, limit)))
        return sorted(index for (index,) in rows)

    async def story(self, run: int, index: int) -> Story:
        def work(db: sqlite3.Connection) -> Story:
            claims = db.execute(CLAIMS_OF_TARGET, (run, index)).fetchall()
            outcomes = db.execute(OUTCOMES_OF_TARGET, (run, index)).fetchall()
            return story_of(claims, outcomes)

        return await self._read(work)

    async def stop(self, run: int) -> None:
        statement = "UPDATE run SET stopped = 1, stops = stops + 1 WHERE number = ?"
        await self._write(lambda db: db.execute(statement, (run,)))

    async def clear_stop(self, run: int, *, stops: int | None = None) -> bool:
        statement = "UPDATE run SET stopped = 0 WHERE number = ? AND stops = coalesce(?, stops)"
        return await self._write(lambda db: bool(db.execute(statement, (run, stops)).rowcount))

    async def has_contents(self, run: int) -> bool:
        sql = "SELECT EXISTS (SELECT 1 FROM content WHERE run = ?)"
        return bool(await self._read(lambda db: db.execute(sql, (run,)).fetchone()[0]))

    async def prune_contents(self, run: int) -> bool:
        return await self._write(partial(delete_contents, self._holds, run=run, now=self._clock.now()))

    async def delete(self, run: int) -> bool:
        return await self._write(partial(delete_run, self._holds, run=run))

    async def has_rival(self, run: int, index: int, log_key: int, *, within: float) -> bool:
        given = {
            **self._writing.moment().given,
            "run": run,
            "index": index,
            "log_key": log_key,
            "within": within,
            "age": CLAIM_AGE,
        }
        return bool(await self._read(lambda db: db.execute(RIVAL, given).fetchone()[0]))

    async def repeats(self, run: int, *, chunk: int | None = None, within: float) -> list[Repeat]:
        moment = self._writing.moment()
        work = partial(find_repeats, self._holds, run=run, chunk=chunk, within=within, moment=moment)
        repeats = await self._read(work)
        return [
            attrs.evolve(each, commands=await self._contents.attach(run, each.commands, self._read_contents))
            for each in repeats
        ]

    def launched(self, plan: RunPlan, *, low: bytes, high: bytes, within: float) -> AsyncIterator[Launched]:
        moment = self._writing.moment()
        return find_launched(self._read, self._holds, plan, low=low, high=high, within=within, moment=moment)


def _runs(db: sqlite3.Connection, clause: str, *values: str) -> list[Run]:
    return [run_of(row) for row in db.execute(f"{RUNS} {clause}", values)]


def _stretches(db: sqlite3.Connection, run: int, states: Collection[str], start: int, end: int) -> Sequence[range]:
    """The stretches of a run's indexes that may hold targets in these states."""
    (total,) = db.execute("SELECT total FROM run WHERE number = ?", (run,)).fetchone() or (0,)
    rows = db.execute(COUNTS_OF_BLOCKS, (run,)).fetchall() if states else ()
    return stretches_with(total, rows, states, start=start, end=end)


def _opened(thread: DatabaseThread | None) -> DatabaseThread:
    if thread is None:
        raise LedgerError("the ledger is closed: make a new one")
    return thread

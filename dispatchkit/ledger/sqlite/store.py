"""A ledger in one file, for one machine: SQLite, with a write-ahead log that is synced at every commit.

One thread writes, another reads. Whatever was asked of the writer while it wrote goes into its next transaction, so the
cost of a sync is shared by all who wait for it; and a batch is one statement, whatever its size, since a statement is
what a thread of Python pays for.

Several processes may use one file: one launches, others look on or stop it. A process that holds a chunk keeps a lock
on a file beside the ledger, which the system gives up when the process ends; see `hold_lock`.

Times are compared by the boot clock if they are of one boot of the machine. Only times of different boots are compared
by the wall clock, which may be set.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar, cast

from dispatchkit.core.claim import CLAIM_AGE, ClaimResult
from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.hold_lock import HoldLock, LockState, lock_state
from dispatchkit.ledger.liveness import boot_id as this_boot
from dispatchkit.ledger.sqlite.file import add_boot, check, connect, connect_writer, empty_log, explain, find_boot
from dispatchkit.ledger.sqlite.identity import accept, check_copy, renew, settle
from dispatchkit.ledger.sqlite.rows import HOLD, holder_of, repeats_of, run_of, target_of
from dispatchkit.ledger.sqlite.sql import (
    IS_FINAL,
    OTHERS,
    REPEATS,
    REPEATS_IN_SMALLER,
    RIVAL,
    STATE,
    TARGETS,
    UNSETTLED,
)
from dispatchkit.ledger.sqlite.thread import DatabaseThread
from dispatchkit.ledger.sqlite.write import Afterwards, Batch, Writing, read_all
from dispatchkit.ledger.store import (
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

__all__ = ["SqliteStore"]

T = TypeVar("T")

_json = json.JSONEncoder(separators=(",", ":")).encode

_FIELDS_OF_RECORD = attrgetter(
    "run", "chunk", "index", "token", "state", "summary", "code", "request_id", "attempts", "is_final"
)

_PAGE = 1000
_ROWS = 400
"""How many targets one statement plans. An older SQLite takes 999 parameters."""
_LOCK_TRIES, _LOCK_WAIT = 5, 0.005
"""How often a lock is tried, and seconds between: a process that only looks has it for microseconds."""
_RECORDED_LATE = 3600.0
"""Seconds between the end of a hold and an outcome that is still recorded, at most."""


class SqliteStore:
    """See `Store`, whose methods these are.

    Args:
        path: The file. It is made if it is not there.
        clock: Wall clock and boot clock.
        boot_id: The boot of this machine; for tests. None: what the system says.
    """

    def __init__(self, path: Path, *, clock: Clock = SYSTEM, boot_id: str | None = None) -> None:
        self._path = path
        self._file = path
        """The same, absolute: the process may change its folder."""
        self._clock = clock
        self._boot_id = this_boot() if boot_id is None else boot_id
        self._writing = Writing(clock)
        self._writer: DatabaseThread | None = None
        self._reader: DatabaseThread | None = None
        self._locks: dict[tuple[int, int], tuple[str, HoldLock | None]] = {}
        """Of each chunk that is held here, the token and the lock; None where the system has none."""

    async def open(self) -> None:
        """See `Store.open`."""
        path, boot_id = self._path, self._boot_id
        file = self._file = path.absolute()

        self._reader = DatabaseThread(lambda: connect(file), read_all, partial(explain, path))
        self._writer = DatabaseThread(lambda: connect_writer(file), self._writing.perform, partial(explain, path))
        try:
            # A process that is suspended within a transaction keeps the file from being written, not from being read.
            boot = await self._read(lambda db: find_boot(db, boot_id))
            if boot is None:
                await self._write(lambda db: check(db, path))
                boot = await self._write(lambda db: add_boot(db, boot_id))
            self._writing.boot = boot
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `Store.close`."""
        threads, self._reader, self._writer = (self._reader, self._writer), None, None
        try:
            for thread in threads:
                if thread is not None:
                    await thread.close()
        finally:
            for _, lock in self._locks.values():
                if lock is not None:
                    lock.release()
            self._locks.clear()

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return cast("T", await _opened(self._writer).run(work))

    async def _settled(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Write something that renews the ledger's identity."""
        path = self._file
        return cast("T", await _opened(self._writer).run(Afterwards(lambda db: settle(db, path), work)))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return cast("T", await _opened(self._reader).run(work))

    async def check_identity(self) -> None:
        """See `Store.check_identity`."""
        path = self._file
        await self._read(lambda db: check_copy(db, path))

    async def accept_copy(self) -> None:
        """See `Store.accept_copy`."""
        path = self._file
        await _opened(self._writer).run(Afterwards(lambda db: accept(db, path)))

    async def begin(self, plan: RunPlan) -> Run:
        """See `Store.begin`."""
        created = self._clock.now().isoformat()

        def work(db: sqlite3.Connection) -> Run:
            db.execute(
                "INSERT INTO run (name, settings, created, host, account, fingerprint, attempt_timeout, repeat_window, "
                "database_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, (SELECT database_id FROM about)) ON CONFLICT DO NOTHING",
                (
                    plan.name,
                    plan.settings,
                    created,
                    plan.host,
                    plan.account,
                    plan.fingerprint,
                    plan.attempt_timeout,
                    plan.repeat_window,
                ),
            )
            return self._runs(db, "WHERE name = ?", plan.name)[0]

        return await self._write(work)

    async def set_account(self, run: int, *, account: str | None, fingerprint: str) -> None:
        """See `Store.set_account`."""
        sql = "UPDATE run SET account = ?, fingerprint = ? WHERE number = ?"
        await self._write(lambda db: db.execute(sql, (account, fingerprint, run)))

    async def run(self, name: str) -> Run | None:
        """See `Store.run`."""
        found = await self._read(lambda db: self._runs(db, "WHERE name = ?", name))
        return found[0] if found else None

    async def runs(self) -> list[Run]:
        """See `Store.runs`."""
        return await self._read(lambda db: self._runs(db, "ORDER BY number DESC"))

    def _runs(self, db: sqlite3.Connection, which: str, *given: str) -> list[Run]:
        fields = (
            "number, name, settings, created, total, plan_complete, stopped, account, fingerprint, attempt_timeout, "
            "stops"
        )
        restored = "database_id <> (SELECT database_id FROM about)"
        sql = f"SELECT {fields}, repeat_window, {restored} FROM run {which}"  # noqa: S608 - constants
        return [run_of(row) for row in db.execute(sql, given)]

    async def plan(
        self, run: int, rows: Sequence[tuple[bytes, str]], *, log_keys: Mapping[bytes, int] | None = None
    ) -> None:
        """See `Store.plan`."""
        once: dict[bytes, str] = {}
        for key, command in rows:
            once.setdefault(key, command)
        new = list(once.items())

        def work(db: sqlite3.Connection) -> None:
            (total,) = db.execute("SELECT total FROM run WHERE number = ?", (run,)).fetchone()
            for start in range(0, len(new), _ROWS):
                some = new[start : start + _ROWS]
                values = ",".join(f"({order},?,?)" for order in range(len(some)))
                total += db.execute(
                    'INSERT INTO target (run, "index", key, command) '  # noqa: S608 - the values are parameters
                    "SELECT ?, ? + row_number() OVER (ORDER BY column1) - 1, column2, column3 "
                    f"FROM (VALUES {values}) WHERE NOT EXISTS "
                    "(SELECT 1 FROM target t WHERE t.run = ? AND t.key = column2)",
                    [run, total, *(field for row in some for field in row), run],
                ).rowcount
            db.execute("UPDATE run SET total = ? WHERE number = ?", (total, run))
            if log_keys:
                db.executemany(
                    "UPDATE target SET log_key = ? WHERE run = ? AND key = ? AND log_key IS NULL",
                    [(log_key, run, key) for key, log_key in log_keys.items()],
                )

        await self._write(work)

    async def planned(self, run: int, *, size: int | None = None) -> list[Chunk]:
        """See `Store.planned`."""

        def work(db: sqlite3.Connection) -> list[Chunk]:
            db.execute("UPDATE run SET plan_complete = 1 WHERE number = ?", (run,))
            (total,) = db.execute("SELECT total FROM run WHERE number = ?", (run,)).fetchone()
            chunks = self._chunks(db, run)
            end = chunks[-1].end if chunks else 0
            if end < total:
                if len(chunks) == 1 and size is None:
                    db.execute("UPDATE chunk SET end_index = ? WHERE run = ?", (total, run))
                else:
                    step = size or total - end
                    new = enumerate(range(end, total, step), chunks[-1].number + 1 if chunks else 0)
                    db.executemany(
                        "INSERT INTO chunk (run, number, start_index, end_index) VALUES (?, ?, ?, ?)",
                        [(run, number, start, min(start + step, total)) for number, start in new],
                    )
            return self._chunks(db, run)

        chunks = await self._write(work)
        await _opened(self._writer).run(Afterwards(empty_log))
        return chunks

    async def chunks(self, run: int) -> list[Chunk]:
        """See `Store.chunks`."""
        unfinished = (
            'AND EXISTS (SELECT 1 FROM target t LEFT JOIN outcome o ON o.run = t.run AND o."index" = t."index" '
            'WHERE t.run = chunk.run AND t."index" >= start_index AND t."index" < end_index '
            "AND coalesce(o.state, '') NOT IN ('done', 'rejected'))"
        )
        return await self._read(lambda db: self._chunks(db, run, unfinished))

    def _chunks(self, db: sqlite3.Connection, run: int, which: str = "") -> list[Chunk]:
        sql = f"SELECT chunk.number, start_index, end_index, {HOLD} WHERE run = ? {which} ORDER BY 1"
        return [
            Chunk(number, start, end, self._current_holder(run, number, hold))
            for number, start, end, *hold in db.execute(sql, (run,)).fetchall()
        ]

    def _current_holder(self, run: int, chunk: int, hold: Sequence[Any]) -> Holder | None:
        """The holder of a chunk, whose columns are ``hold``, if it keeps the chunk now."""
        if hold[0] is None:
            return None
        state = lock_state(self._lock_path(run, chunk))
        moment = self._writing.moment()
        if state is LockState.FREE and moment.is_same_boot(hold[-1]):
            return None
        holder = holder_of(hold, moment, exists=state is LockState.TAKEN)
        return holder if holder.exists or holder.lease_left >= 0 else None

    def _lock_path(self, run: int, chunk: int) -> Path:
        # As SQLite does with its own files: beside the file itself, not beside a link to it.
        return Path(f"{os.path.realpath(self._file)}-hold-{run}-{chunk}")

    async def acquire(self, run: int, chunk: int, holder: Holder, *, attempt_timeout: float) -> Holder | None:
        """See `Store.acquire`."""

        def work(db: sqlite3.Connection) -> Holder | None:
            return self._acquire(db, run, chunk, holder, attempt_timeout)

        before = self._locks.get((run, chunk))
        tries = _LOCK_TRIES
        while True:
            try:
                # Read first: a holder that is suspended within a transaction keeps the file from being written.
                other = await self._read(partial(self._locked_by, run, chunk, holder.token)) or await self._write(work)
                if other is None:
                    await self._settled(lambda _: None)
            except LedgerError:
                if self._locks.get((run, chunk)) is not before:
                    self._unlock(run, chunk, holder.token)  # the hold was rolled back, or the file is a copy
                raise
            tries -= 1
            if other is None or not other.exists or not tries:
                return other
            await asyncio.sleep(_LOCK_WAIT)

    def _locked_by(self, run: int, chunk: int, token: str, db: sqlite3.Connection) -> Holder | None:
        """The other holder whose lock shows that its process exists."""
        if self._locks.get((run, chunk), ("", None))[0] == token:
            return None
        if lock_state(self._lock_path(run, chunk)) is not LockState.TAKEN:
            return None
        hold = db.execute(f"SELECT {HOLD} WHERE run = ? AND chunk.number = ?", (run, chunk)).fetchone()
        return None if hold is None else holder_of(hold, self._writing.moment(), exists=True)

    def _acquire(
        self, db: sqlite3.Connection, run: int, chunk: int, holder: Holder, attempt_timeout: float
    ) -> Holder | None:
        """In the transaction that writes the hold: a lock that another process has means a hold that is written."""
        sql = f"SELECT {HOLD} WHERE run = ? AND chunk.number = ?"
        hold = db.execute(sql, (run, chunk)).fetchone()
        if hold is None:
            raise LedgerError(f"the ledger knows no chunk {chunk} of this run: plan it first")
        mine = self._locks.get((run, chunk), ("", None))
        lock = mine[1] if mine[0] == holder.token else HoldLock.acquire(self._lock_path(run, chunk))
        moment = self._writing.moment()
        if lock is LockState.TAKEN:
            return holder_of(hold, moment, exists=True)
        if not isinstance(lock, HoldLock):
            lock = None
        if hold[0] not in {None, holder.token}:
            other = holder_of(hold, moment, exists=False)
            has_ended = lock is not None and moment.is_same_boot(hold[-1])
            if not has_ended and other.lease_left >= 0:
                if lock is not None:
                    lock.release()
                return other
        self._locks[run, chunk] = (holder.token, lock)
        renew(db, self._file)
        db.execute(
            "UPDATE chunk SET since = CASE WHEN token = :token THEN since ELSE :now END, "
            "since_boot = CASE WHEN token = :token THEN since_boot ELSE :boot_now END, "
            "token = :token, pid = :pid, host = :host, process_started = :started, pid_namespace = :namespace, "
            "seen = :now, seen_boot = :boot_now, boot = :number WHERE run = :run AND number = :chunk",
            {
                **moment.given,
                "number": moment.boot,
                "token": holder.token,
                "pid": holder.pid,
                "host": holder.host,
                "started": holder.process_started,
                "namespace": holder.pid_namespace,
                "run": run,
                "chunk": chunk,
            },
        )
        db.execute(
            "UPDATE run SET attempt_timeout = ? WHERE number = ? AND attempt_timeout < ?",
            (attempt_timeout, run, attempt_timeout),
        )
        return None

    def _unlock(self, run: int, chunk: int, token: str) -> None:
        mine, lock = self._locks.get((run, chunk), ("", None))
        if mine == token:
            del self._locks[run, chunk]
            if lock is not None:
                lock.release()

    async def heartbeat(self, run: int, chunk: int, token: str) -> HeartbeatStatus:
        """See `Store.heartbeat`."""
        path = self._file

        def work(db: sqlite3.Connection) -> HeartbeatStatus:
            renew(db, path)
            moment = self._writing.moment()
            mine = db.execute(
                "UPDATE chunk SET seen = ?, seen_boot = ?, boot = ? WHERE run = ? AND number = ? AND token = ?",
                (moment.wall, moment.boot_time, moment.boot, run, chunk, token),
            ).rowcount
            (stopped,) = db.execute("SELECT stopped FROM run WHERE number = ?", (run,)).fetchone()
            return HeartbeatStatus(bool(mine), bool(stopped))

        return await self._settled(work)

    async def release(self, run: int, chunk: int, token: str) -> None:
        """See `Store.release`."""
        path = self._file
        sql = "UPDATE chunk SET token = NULL, pid = NULL, host = NULL WHERE run = ? AND number = ?"

        def work(db: sqlite3.Connection) -> None:
            # First: a token without a lock is taken over at once, a lock without a token is not.
            self._unlock(run, chunk, token)
            db.execute(f"{sql} AND token = ?", (run, chunk, token))
            renew(db, path)

        try:
            await self._settled(work)
        except LedgerError:
            self._unlock(run, chunk, token)
            raise

    async def unsettled(self, run: int, chunk: int, *, after: int, limit: int) -> list[Unsettled]:
        """See `Store.unsettled`."""
        given = {
            **self._writing.moment().given,
            "run": run,
            "chunk": chunk,
            "after": after,
            "limit": limit,
            "age": CLAIM_AGE,
        }
        rows = await self._read(lambda db: db.execute(UNSETTLED, given).fetchall())
        return [
            Unsettled(index, command, request_id, since and datetime.fromisoformat(since), *more)
            for index, command, request_id, since, *more in rows
        ]

    async def claim(self, claims: Sequence[Claim]) -> list[ClaimResult]:
        """See `Store.claim`."""
        rows = _rows([(c.run, c.chunk, c.index, c.token, c.request_id, c.since.isoformat()) for c in claims])
        return cast("list[ClaimResult]", await _opened(self._writer).run(Batch(rows, claims=claims)))

    async def record(self, records: Sequence[Record]) -> None:
        """See `Store.record`."""
        rows = _rows([(*_FIELDS_OF_RECORD(record), record.at.isoformat()) for record in records])
        await _opened(self._writer).run(Batch(rows, records=len(records)), deferrable=True)

    async def counts(self, run: int, *, chunk: int | None = None) -> Counts:
        """See `Store.counts`."""
        part = "" if chunk is None else "JOIN chunk h ON h.run = t.run AND h.number = ?"
        bounds = "" if chunk is None else 'AND t."index" >= h.start_index AND t."index" < h.end_index'
        sql = f"SELECT {STATE} AS state, count(*), sum({IS_FINAL}) {TARGETS} {part} WHERE t.run = ? {bounds} GROUP BY 1"
        given = (run,) if chunk is None else (chunk, run)
        rows = await self._read(lambda db: db.execute(sql, given).fetchall())
        return Counts(**{state: count for state, count, _ in rows}, unknown_for_good=sum(final for *_, final in rows))

    async def targets(self, run: int, *, states: Collection[str] = ()) -> AsyncIterator[Target]:
        """See `Store.targets`."""
        chosen = f"AND {STATE} IN ({','.join('?' * len(states))})" if states else ""
        sql = f"""
            SELECT t."index", t.command, {STATE}, o.summary, o.code, coalesce(s.request_id, o.request_id),
                   o.attempts, o.at, s.since, {IS_FINAL}
            {TARGETS} WHERE t.run = ? AND t."index" > ? {chosen} ORDER BY t."index" LIMIT {_PAGE}"""
        after = -1
        while True:
            rows = await self._read(partial(_fetch, sql, (run, after, *states)))
            for row in rows:
                yield target_of(row)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    async def stop(self, run: int) -> None:
        """See `Store.stop`."""
        statement = "UPDATE run SET stopped = 1, stops = stops + 1 WHERE number = ?"
        await self._write(lambda db: db.execute(statement, (run,)))

    async def clear_stop(self, run: int, *, stops: int | None = None) -> bool:
        """See `Store.clear_stop`."""
        statement = "UPDATE run SET stopped = 0 WHERE number = ? AND stops = coalesce(?, stops)"
        return await self._write(lambda db: bool(db.execute(statement, (run, stops)).rowcount))

    async def has_rival(self, run: int, index: int, log_key: int, *, within: float) -> bool:
        """See `Store.has_rival`."""
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
        """See `Store.repeats`."""
        moment = self._writing.moment()

        def work(db: sqlite3.Connection) -> list[Repeat]:
            start, end = 0, 2**62
            if chunk is not None:
                ends = "SELECT start_index, end_index FROM chunk WHERE run = ? AND number = ?"
                start, end = db.execute(ends, (run, chunk)).fetchone() or (0, 0)
            (total,) = db.execute("SELECT total FROM run WHERE number = ?", (run,)).fetchone()
            size = min(end, total) - start
            given = {**moment.given, "run": run, "start": start, "end": end, "within": within}
            others = db.execute(OTHERS, {**given, "within": within + _RECORDED_LATE}).fetchall()
            repeats: list[Repeat] = []
            for other, name, targets in others:
                held = [
                    (each.start, each.end)
                    for each in self._chunks(db, other, "AND token IS NOT NULL")
                    if each.holder is not None
                ]
                statement = REPEATS if size <= targets else REPEATS_IN_SMALLER
                rows = db.execute(statement, {**given, "other": other, "held": json.dumps(held)})
                repeats += repeats_of(name, rows)
            return repeats

        return await self._read(work)


def _fetch(sql: str, given: tuple[object, ...], db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return db.execute(sql, given).fetchall()


def _rows(rows: list[tuple[object, ...]]) -> str:
    """JSON arrays, with commas between them."""
    return _json(rows)[1:-1]


def _opened(thread: DatabaseThread | None) -> DatabaseThread:
    if thread is None:
        raise LedgerError("the ledger is closed: make a new one")
    return thread

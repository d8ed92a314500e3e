"""A ledger in one file, for one machine: SQLite, with a write-ahead log that is synced at every commit.

One thread writes, another reads. Whatever was asked of the writer while it wrote goes into its next transaction, so the
cost of a sync is shared by all who wait for it; and a batch is one statement, whatever its size, since a statement is
what a thread of Python pays for.

Several processes may use one file: one launches, others look on or stop it.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs

from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.core.journal import Leave
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.sqlite_file import check, connect, explain, prepare
from dispatchkit.ledger.sqlite_statements import ANSWER, STATE, TARGETS
from dispatchkit.ledger.store import STALE, Chunk, Claim, Counts, Holder, Pulse, Record, Run, Target, Unsettled
from dispatchkit.ledger.thread import DatabaseThread

__all__ = ["SqliteStore"]

T = TypeVar("T")

_json = json.JSONEncoder(separators=(",", ":")).encode

_FIELDS_OF_RECORD = attrgetter("run", "chunk", "index", "token", "state", "summary", "code", "request_id", "attempts")

_PAGE = 1000
_ROWS = 400
"""How many targets one statement plans. An older SQLite takes 999 parameters."""


@attrs.frozen(eq=False)
class _Batch:
    """Claims, or records, on their way into one statement with others of their kind."""

    rows: str
    """JSON arrays, with commas between them."""
    claims: Sequence[Claim] = ()
    records: int = 0


_Work = Callable[[sqlite3.Connection], object]


class SqliteStore:
    """See `Store`, whose methods these are.

    Args:
        path: The file. It is made if it is not there.
        clock: The time of day, by which a holder is taken for dead.
    """

    def __init__(self, path: Path, *, clock: Clock = SYSTEM) -> None:
        self._path = path
        self._clock = clock
        self._writer: DatabaseThread | None = None
        self._reader: DatabaseThread | None = None

    async def open(self) -> None:
        """See `Store.open`."""
        path = self._path

        # The writer first: it makes the file.
        self._writer = DatabaseThread(lambda: connect(path), _write_all, partial(explain, path))
        try:
            await self._write(lambda db: check(db, path))
            await self._write(prepare)
        except BaseException:
            await self.close()
            raise
        self._reader = DatabaseThread(lambda: connect(path), _read_all, partial(explain, path))

    async def close(self) -> None:
        """See `Store.close`."""
        threads, self._reader, self._writer = (self._reader, self._writer), None, None
        for thread in threads:
            if thread is not None:
                await thread.close()

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return cast("T", await _opened(self._writer).run(work))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return cast("T", await _opened(self._reader).run(work))

    async def begin(self, name: str, settings: str) -> Run:
        """See `Store.begin`."""
        created = self._clock.now().isoformat()

        def work(db: sqlite3.Connection) -> Run:
            db.execute(
                "INSERT INTO run (name, settings, created) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (name, settings, created),
            )
            return _runs(db, "WHERE name = ?", name)[0]

        return await self._write(work)

    async def run(self, name: str) -> Run | None:
        """See `Store.run`."""
        found = await self._read(lambda db: _runs(db, "WHERE name = ?", name))
        return found[0] if found else None

    async def runs(self) -> list[Run]:
        """See `Store.runs`."""
        return await self._read(lambda db: _runs(db, "ORDER BY number DESC"))

    async def plan(self, run: int, rows: Sequence[tuple[bytes, str]]) -> None:
        """See `Store.plan`."""
        once: dict[bytes, str] = {}
        for key, command in rows:
            once.setdefault(key, command)
        fresh = list(once.items())

        def work(db: sqlite3.Connection) -> None:
            (total,) = db.execute("SELECT total FROM run WHERE number = ?", (run,)).fetchone()
            for start in range(0, len(fresh), _ROWS):
                some = fresh[start : start + _ROWS]
                values = ",".join(f"({order},?,?)" for order in range(len(some)))
                total += db.execute(
                    "INSERT INTO target (run, place, key, command) "  # noqa: S608 - the values are parameters
                    "SELECT ?, ? + row_number() OVER (ORDER BY column1) - 1, column2, column3 "
                    f"FROM (VALUES {values}) WHERE NOT EXISTS "
                    "(SELECT 1 FROM target t WHERE t.run = ? AND t.key = column2)",
                    [run, total, *(field for row in some for field in row), run],
                ).rowcount
            db.execute("UPDATE run SET total = ? WHERE number = ?", (total, run))

        await self._write(work)

    async def planned(self, run: int, *, size: int | None = None) -> list[Chunk]:
        """See `Store.planned`."""
        now = self._now()

        def work(db: sqlite3.Connection) -> list[Chunk]:
            db.execute("UPDATE run SET whole = 1 WHERE number = ?", (run,))
            (total,) = db.execute("SELECT total FROM run WHERE number = ?", (run,)).fetchone()
            chunks = _chunks(db, run, now)
            end = chunks[-1].end if chunks else 0
            if end < total:
                if len(chunks) == 1 and size is None:
                    db.execute("UPDATE chunk SET beyond = ? WHERE run = ?", (total, run))
                else:
                    step = size or total - end
                    new = enumerate(range(end, total, step), chunks[-1].number + 1 if chunks else 0)
                    db.executemany(
                        "INSERT INTO chunk (run, number, first, beyond) VALUES (?, ?, ?, ?)",
                        [(run, number, first, min(first + step, total)) for number, first in new],
                    )
            return _chunks(db, run, now)

        return await self._write(work)

    async def chunks(self, run: int) -> list[Chunk]:
        """See `Store.chunks`."""
        unfinished = (
            "AND EXISTS (SELECT 1 FROM target t LEFT JOIN outcome o ON o.run = t.run AND o.place = t.place "
            "WHERE t.run = chunk.run AND t.place >= first AND t.place < beyond "
            "AND coalesce(o.state, '') NOT IN ('done', 'rejected'))"
        )
        return await self._read(lambda db: _chunks(db, run, self._now(), unfinished))

    async def hold(self, run: int, chunk: int, holder: Holder) -> Holder | None:
        """See `Store.hold`."""
        now = self._now()

        def work(db: sqlite3.Connection) -> Holder | None:
            (found,) = _chunks(db, run, now, "AND number = ?", chunk)
            if found.holder is not None and found.holder.token != holder.token:
                return found.holder
            since = now if found.holder is None or found.holder.since is None else found.holder.since.timestamp()
            db.execute(
                "UPDATE chunk SET token = ?, pid = ?, host = ?, since = ?, seen = ? WHERE run = ? AND number = ?",
                (holder.token, holder.pid, holder.host, since, now, run, chunk),
            )
            return None

        return await self._write(work)

    async def beat(self, run: int, chunk: int, token: str) -> Pulse:
        """See `Store.beat`."""
        now = self._now()

        def work(db: sqlite3.Connection) -> Pulse:
            mine = db.execute(
                "UPDATE chunk SET seen = ? WHERE run = ? AND number = ? AND token = ?", (now, run, chunk, token)
            ).rowcount
            (stopped,) = db.execute("SELECT stopped FROM run WHERE number = ?", (run,)).fetchone()
            return Pulse(bool(mine), bool(stopped))

        return await self._write(work)

    async def let_go(self, run: int, chunk: int, token: str) -> None:
        """See `Store.let_go`."""
        sql = "UPDATE chunk SET token = NULL, pid = NULL, host = NULL, seen = NULL WHERE run = ? AND number = ?"
        await self._write(lambda db: db.execute(f"{sql} AND token = ?", (run, chunk, token)))

    async def unsettled(self, run: int, chunk: int, *, after: int, limit: int) -> list[Unsettled]:
        """See `Store.unsettled`."""
        sql = f"""
            SELECT t.place, t.command, {STATE} IN ('sending', 'unknown'), coalesce(s.request_id, o.request_id),
                   coalesce(s.since, o.at)
            {TARGETS} JOIN chunk h ON h.run = t.run AND h.number = ?
            WHERE t.run = ? AND t.place > ? AND t.place >= h.first AND t.place < h.beyond
              AND coalesce(o.state, '') NOT IN ('done', 'rejected')
            ORDER BY t.place LIMIT ?"""
        rows = await self._read(lambda db: db.execute(sql, (chunk, run, after, limit)).fetchall())
        return [
            Unsettled(place, command, request_id, datetime.fromisoformat(since))
            if unclear
            else Unsettled(place, command)
            for place, command, unclear, request_id, since in rows
        ]

    async def claim(self, claims: Sequence[Claim]) -> list[Leave]:
        """See `Store.claim`."""
        rows = _rows([(c.run, c.chunk, c.index, c.token, c.request_id, c.since.isoformat()) for c in claims])
        return cast("list[Leave]", await _opened(self._writer).run(_Batch(rows, claims=claims)))

    async def record(self, records: Sequence[Record]) -> None:
        """See `Store.record`."""
        rows = _rows([(*_FIELDS_OF_RECORD(record), record.at.isoformat()) for record in records])
        await _opened(self._writer).run(_Batch(rows, records=len(records)), rides=True)

    async def counts(self, run: int, *, chunk: int | None = None) -> Counts:
        """See `Store.counts`."""
        part = "" if chunk is None else "JOIN chunk h ON h.run = t.run AND h.number = ?"
        bounds = "" if chunk is None else "AND t.place >= h.first AND t.place < h.beyond"
        sql = f"SELECT {STATE} AS state, count(*) {TARGETS} {part} WHERE t.run = ? {bounds} GROUP BY 1"
        given = (run,) if chunk is None else (chunk, run)
        return Counts(**dict(await self._read(lambda db: db.execute(sql, given).fetchall())))

    async def targets(self, run: int, *, states: Collection[str] = ()) -> AsyncIterator[Target]:
        """See `Store.targets`."""
        chosen = f"AND {STATE} IN ({','.join('?' * len(states))})" if states else ""
        sql = f"""
            SELECT t.place, t.command, {STATE}, o.summary, o.code, coalesce(s.request_id, o.request_id),
                   o.attempts, o.at, s.since
            {TARGETS} WHERE t.run = ? AND t.place > ? {chosen} ORDER BY t.place LIMIT {_PAGE}"""
        after = -1
        while True:
            rows = await self._read(partial(_fetch, sql, (run, after, *states)))
            for row in rows:
                yield _target(row)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    async def stop(self, run: int, *, stopped: bool) -> None:
        """See `Store.stop`."""
        await self._write(lambda db: db.execute("UPDATE run SET stopped = ? WHERE number = ?", (stopped, run)))

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _fetch(sql: str, given: tuple[object, ...], db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return db.execute(sql, given).fetchall()


def _rows(rows: list[tuple[object, ...]]) -> str:
    """JSON arrays, with commas between them."""
    return _json(rows)[1:-1]


def _opened(thread: DatabaseThread | None) -> DatabaseThread:
    if thread is None:
        raise LedgerError("the ledger is closed: make a new one")
    return thread


def _runs(db: sqlite3.Connection, which: str, *given: str) -> list[Run]:
    sql = f"SELECT number, name, settings, created, total, whole, stopped FROM run {which}"  # noqa: S608 - constants
    return [
        Run(number, name, settings, datetime.fromisoformat(created), total, bool(whole), bool(stopped))
        for number, name, settings, created, total, whole, stopped in db.execute(sql, given)
    ]


def _chunks(db: sqlite3.Connection, run: int, now: float, which: str = "", *given: int) -> list[Chunk]:
    fields = "number, first, beyond, token, pid, host, since, seen"
    sql = f"SELECT {fields} FROM chunk WHERE run = ? {which} ORDER BY number"  # noqa: S608 - constants
    return [
        Chunk(
            number,
            first,
            beyond,
            Holder(token, pid, host, datetime.fromtimestamp(since, UTC))
            if _lives(token, pid, host, seen, now)
            else None,
        )
        for number, first, beyond, token, pid, host, since, seen in db.execute(sql, (run, *given))
    ]


def _lives(token: str | None, pid: int, host: str, seen: float, now: float) -> bool:
    if token is None or now - seen > STALE:
        return False
    if host != socket.gethostname() or os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        pass
    return True


def _read_all(db: sqlite3.Connection, works: Sequence[object]) -> list[object]:
    return [cast("_Work", work)(db) for work in works]


def _write_all(db: sqlite3.Connection, works: Sequence[object]) -> list[object]:
    """One transaction for all of them."""
    batches = [work for work in works if isinstance(work, _Batch)]
    if len(batches) == len(works):
        return _write_batches(db, batches)
    db.execute("BEGIN IMMEDIATE")
    results = [_write_batches(db, [work])[0] if isinstance(work, _Batch) else cast("_Work", work)(db) for work in works]
    db.execute("COMMIT")
    return results


def _write_batches(db: sqlite3.Connection, batches: Sequence[_Batch]) -> list[object]:
    claims = ",".join([batch.rows for batch in batches if batch.claims])
    records = ",".join([batch.rows for batch in batches if batch.records])
    before = db.total_changes
    db.execute("INSERT INTO batch VALUES (?, ?)", (f"[{claims}]", f"[{records}]"))
    written = db.total_changes - before
    if written == sum(len(batch.claims) + batch.records for batch in batches):
        return [[Leave.GRANTED] * len(batch.claims) for batch in batches]
    return [[_leave(db, claim) for claim in batch.claims] for batch in batches]


def _leave(db: sqlite3.Connection, claim: Claim) -> Leave:
    """Why a claim was not written; or that it was, now or when it was first asked for."""
    given = {"run": claim.run, "chunk": claim.chunk, "place": claim.index, "token": claim.token}
    held, final, granted = db.execute(ANSWER, given).fetchone()
    if held and granted:
        return Leave.GRANTED
    return Leave.GONE if held and final else Leave.STOPPED


def _target(row: tuple[Any, ...]) -> Target:
    index, command, state, summary, code, request_id, attempts, at, since = row
    if state == "sending":  # an earlier outcome does not speak of it
        return Target(index, command, state, request_id=request_id, at=datetime.fromisoformat(since))
    moment = None if at is None else datetime.fromisoformat(at)
    return Target(index, command, state, summary or "", code, request_id, attempts or 0, moment)

"""The holds of a SQLite ledger: a row with a token, and a lock while the holder's process exists.

`Holds` runs in the threads of the database: each method gets the connection, within a transaction where it writes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dispatchkit.errors import LedgerError
from dispatchkit.ledger.chunk import Chunk, HeartbeatStatus, Holder
from dispatchkit.ledger.hold_lock import HoldLock, LockState, lock_state
from dispatchkit.ledger.sqlite.identity import renew
from dispatchkit.ledger.sqlite.rows import HOLD, holder_of
from dispatchkit.ledger.sqlite.write import Writing

__all__ = ["Holds"]


class Holds:
    """The holds of one ledger file, and the locks of this process.

    Args:
        file: The ledger file.
        writing: Tells the time.
    """

    def __init__(self, file: Path, writing: Writing) -> None:
        self.file = file
        self._writing = writing
        self._locks: dict[tuple[int, int], tuple[str, HoldLock | None]] = {}
        """By run and chunk: token and lock of each chunk held here. The lock is None on a system without `flock`."""

    def chunks(self, db: sqlite3.Connection, run: int, where: str = "") -> list[Chunk]:
        """The chunks of a run, with their current holders."""
        sql = f"SELECT chunk.number, start_index, end_index, {HOLD} WHERE run = ? {where} ORDER BY 1"
        return [
            Chunk(number, start, end, self._current_holder(run, number, hold))
            for number, start, end, *hold in db.execute(sql, (run,)).fetchall()
        ]

    def _current_holder(self, run: int, chunk: int, hold: Sequence[Any]) -> Holder | None:
        """The current holder of a chunk, from the columns of `HOLD`; None if the hold is over."""
        if hold[0] is None:
            return None
        state = lock_state(self._lock_path(run, chunk))
        moment = self._writing.moment()
        if state is LockState.FREE and moment.is_same_boot(hold[-1]):
            return None
        holder = holder_of(hold, moment, exists=state is LockState.TAKEN)
        return holder if holder.exists or holder.lease_left >= 0 else None

    def _lock_path(self, run: int, chunk: int) -> Path:
        # Beside the real file, not beside a symlink, like SQLite's own files.
        return Path(f"{os.path.realpath(self.file)}-hold-{run}-{chunk}")

    def lock_of(self, run: int, chunk: int) -> tuple[str, HoldLock | None] | None:
        """Token and lock of a chunk that this process holds; None if it does not hold it."""
        return self._locks.get((run, chunk))

    def locked_by(self, db: sqlite3.Connection, *, run: int, chunk: int, token: str) -> Holder | None:
        """The other holder of a chunk whose lock shows that its process exists."""
        if self._locks.get((run, chunk), ("", None))[0] == token:
            return None
        if lock_state(self._lock_path(run, chunk)) is not LockState.TAKEN:
            return None
        hold = db.execute(f"SELECT {HOLD} WHERE run = ? AND chunk.number = ?", (run, chunk)).fetchone()
        return None if hold is None else holder_of(hold, self._writing.moment(), exists=True)

    def acquire(
        self, db: sqlite3.Connection, run: int, chunk: int, holder: Holder, attempt_timeout: float
    ) -> Holder | None:
        """Acquire a chunk. Returns None, or the other holder that keeps it.

        The lock is taken in the transaction that writes the hold. So a lock of another process implies a written hold.

        Raises:
            LedgerError: The run has no such chunk, the file is a copy, or the lock cannot be created.
        """
        sql = f"SELECT {HOLD} WHERE run = ? AND chunk.number = ?"
        hold = db.execute(sql, (run, chunk)).fetchone()
        if hold is None:
            raise LedgerError(f"the ledger has no chunk {chunk} of this run: plan the run first")
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
        renew(db, self.file)
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

    def heartbeat(self, db: sqlite3.Connection, run: int, chunk: int, token: str) -> HeartbeatStatus:
        """Extend the lease of a chunk, and read the run's stop.

        Raises:
            LedgerError: The file is a copy.
        """
        renew(db, self.file)
        moment = self._writing.moment()
        mine = db.execute(
            "UPDATE chunk SET seen = ?, seen_boot = ?, boot = ? WHERE run = ? AND number = ? AND token = ?",
            (moment.wall, moment.boot_time, moment.boot, run, chunk, token),
        ).rowcount
        row = db.execute("SELECT stopped FROM run WHERE number = ?", (run,)).fetchone()
        return HeartbeatStatus(bool(mine), row is not None and bool(row[0]))

    def release(self, db: sqlite3.Connection, run: int, chunk: int, token: str) -> None:
        """Release a chunk.

        Raises:
            LedgerError: The file is a copy.
        """
        # Unlock first: another process takes over a token without a lock at once, but not a lock without a token.
        self.unlock(run, chunk, token)
        sql = "UPDATE chunk SET token = NULL, pid = NULL, host = NULL WHERE run = ? AND number = ? AND token = ?"
        db.execute(sql, (run, chunk, token))
        renew(db, self.file)

    def unlock(self, run: int, chunk: int, token: str) -> None:
        """Release the lock of a chunk, if the token is still the one of its hold."""
        mine, lock = self._locks.get((run, chunk), ("", None))
        if mine == token:
            del self._locks[run, chunk]
            if lock is not None:
                lock.release()

    def close(self) -> None:
        """Release all locks of this process."""
        for _, lock in self._locks.values():
            if lock is not None:
                lock.release()
        self._locks.clear()

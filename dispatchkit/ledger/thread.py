"""A thread that owns one SQLite connection, and takes whatever is asked of it together into one transaction.

The connection is made, used and closed in that thread alone. It is a daemon, so a ledger that nobody closed does not
keep the interpreter alive, and it ends when its owner is forgotten. A forked child has no such thread, and must not
touch the connection that it inherited: it is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar, cast

import attrs

from dispatchkit.core.fork import forgets_in_child
from dispatchkit.errors import LedgerError

__all__ = ["DatabaseThread"]

T = TypeVar("T")


@attrs.frozen(eq=False)
class _Job(Generic[T]):
    work: Callable[[sqlite3.Connection], T]
    done: asyncio.Future[T]
    loop: asyncio.AbstractEventLoop


@attrs.frozen(eq=False)
class _Told(Generic[T]):
    """What came of a job: told to its loop, together with the others of its batch."""

    job: _Job[T]
    result: T | None = None
    error: LedgerError | None = None

    def tell(self) -> None:
        if self.job.done.done():
            return  # nobody waits any more
        if self.error is not None:
            self.job.done.set_exception(self.error)
        else:
            self.job.done.set_result(cast("T", self.result))  # T itself may be None


class DatabaseThread:
    """A thread with a connection of its own.

    Args:
        connect: Makes the connection, in the thread.
        explain: Says what an error of the database means.
        transactions: Whether jobs are taken together into transactions; else each stands for itself.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        explain: Callable[[sqlite3.Error], LedgerError],
        *,
        transactions: bool,
    ) -> None:
        self._pid = os.getpid()
        self._jobs: SimpleQueue[_Job[object] | None] = SimpleQueue()
        self._connections: list[sqlite3.Connection] = []
        worker = _Worker(self._jobs, self._connections, connect, explain, transactions=transactions)
        self._thread = threading.Thread(target=worker.run, name="dispatchkit-ledger", daemon=True)
        self._thread.start()
        weakref.finalize(self, self._jobs.put, None).atexit = False
        forgets_in_child(self)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have something done in the thread. It goes on if whoever waits for it is cancelled.

        Raises:
            LedgerError: The database did not do it; or this process is a fork of the one that opened the ledger.
        """
        if os.getpid() != self._pid:
            raise LedgerError(
                f"this ledger was opened in process {self._pid}, of which this one is a fork: make a new Ledger here"
            )
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        job = _Job(work, done, loop)
        self._jobs.put(cast("_Job[object]", job))  # a queue of jobs of all kinds
        return await done

    async def close(self) -> None:
        """Close the connection, once what was asked before is done, and end the thread."""
        if os.getpid() == self._pid:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def forget(self) -> object:
        """What a forked child must not finalise: it would close the connection of its parent."""
        return list(self._connections)


class _Worker:
    """What the thread does. It knows nothing of the `DatabaseThread`, so that one can be forgotten."""

    def __init__(
        self,
        jobs: SimpleQueue[_Job[object] | None],
        connections: list[sqlite3.Connection],
        connect: Callable[[], sqlite3.Connection],
        explain: Callable[[sqlite3.Error], LedgerError],
        *,
        transactions: bool,
    ) -> None:
        self._jobs = jobs
        self._connections = connections
        self._connect = connect
        self._explain = explain
        self._transactions = transactions

    def run(self) -> None:
        """Do jobs until there is the end among them."""
        goes_on = True
        while goes_on:
            batch, goes_on = self._next()
            if batch:
                _tell(self._perform(batch))
            del batch  # while the thread waits, it keeps nothing alive
        for connection in self._connections:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self._connections.clear()

    def _next(self) -> tuple[list[_Job[object]], bool]:
        batch: list[_Job[object]] = []
        job = self._jobs.get()
        try:
            while job is not None:
                batch.append(job)
                if not self._transactions:
                    return batch, True
                job = self._jobs.get_nowait()
        except Empty:
            return batch, True
        return batch, False

    def _perform(self, batch: list[_Job[object]]) -> list[_Told[object]]:
        try:
            return self._try(batch)
        except sqlite3.Error as error:
            problem = self._explain(error)
        except LedgerError as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            problem = LedgerError(f"the ledger broke: {error!r}")
        for connection in self._connections:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
        # Each its own: an error that is raised in two places gets the traceback of both.
        return [_Told(job, error=type(problem)(*problem.args)) for job in batch]

    def _try(self, batch: list[_Job[object]]) -> list[_Told[object]]:
        if not self._connections:
            self._connections.append(self._connect())
        connection = self._connections[0]
        if not self._transactions:
            return [_Told(job, job.work(connection)) for job in batch]
        connection.execute("BEGIN IMMEDIATE")
        told = [_Told(job, job.work(connection)) for job in batch]
        connection.execute("COMMIT")
        return told


def _tell(told: list[_Told[object]]) -> None:
    """One wake-up of the loop for a whole batch."""

    def tell() -> None:
        for each in told:
            each.tell()

    # A store serves one loop. It may have been closed meanwhile: then nobody waits.
    with contextlib.suppress(RuntimeError):
        told[0].job.loop.call_soon_threadsafe(tell)

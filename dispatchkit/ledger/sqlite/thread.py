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
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

import attrs

from dispatchkit.core.transport.fork import register_fork_reset
from dispatchkit.errors import LedgerError

__all__ = ["DatabaseThread"]

_DEFER_TIME = 0.01
"""Seconds for which what can wait waits for a transaction to go along with."""


@attrs.frozen(eq=False)
class _Job:
    work: object
    done: asyncio.Future[object]
    loop: asyncio.AbstractEventLoop
    deferrable: bool
    """Whether it can wait for the transaction of somebody else."""


class DatabaseThread:
    """A thread with a connection of its own.

    Args:
        connect: Makes the connection, in the thread.
        perform: Does what was asked for, all of it or nothing, and says what came of each.
        explain: Says what an error of the database means.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        perform: Callable[[sqlite3.Connection, Sequence[object]], Sequence[object]],
        explain: Callable[[sqlite3.Error], LedgerError],
    ) -> None:
        self._pid = os.getpid()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._connections: list[sqlite3.Connection] = []
        worker = _Worker(self._jobs, self._connections, connect, perform, explain)
        self._thread = threading.Thread(target=worker.run, name="dispatchkit-ledger", daemon=True)
        self._thread.start()
        weakref.finalize(self, self._jobs.put, None).atexit = False
        register_fork_reset(self)

    async def run(self, work: object, *, deferrable: bool = False) -> object:
        """Have something done in the thread. It goes on if whoever waits for it is cancelled.

        Args:
            work: What to do, as ``perform`` takes it.
            deferrable: Whether it can wait a moment for the transaction of somebody else.

        Raises:
            LedgerError: The database did not do it; or this process is a fork of the one that opened the ledger.
        """
        if os.getpid() != self._pid:
            raise LedgerError(
                f"this ledger was opened in process {self._pid}, of which this one is a fork: make a new Ledger here"
            )
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()
        self._jobs.put(_Job(work, done, loop, deferrable))
        return await done

    async def close(self) -> None:
        """Close the connection, once what was asked before is done, and end the thread."""
        if os.getpid() == self._pid:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def reset_after_fork(self) -> object:
        """What a forked child must not finalise: it would close the connection of its parent."""
        return list(self._connections)


class _Worker:
    """What the thread does. It knows nothing of the `DatabaseThread`, so that one can be forgotten."""

    def __init__(
        self,
        jobs: SimpleQueue[_Job | None],
        connections: list[sqlite3.Connection],
        connect: Callable[[], sqlite3.Connection],
        perform: Callable[[sqlite3.Connection, Sequence[object]], Sequence[object]],
        explain: Callable[[sqlite3.Error], LedgerError],
    ) -> None:
        self._jobs = jobs
        self._connections = connections
        self._connect = connect
        self._do = perform
        self._explain = explain

    def run(self) -> None:
        """Do jobs until there is the end among them."""
        goes_on = True
        while goes_on:
            batch, goes_on = self._next()
            if batch:
                _tell(batch, *self._perform(batch))
            del batch  # while the thread waits, it keeps nothing alive
        for connection in self._connections:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self._connections.clear()

    def _next(self) -> tuple[list[_Job], bool]:
        """What goes into the next transaction, and whether more may follow."""
        batch: list[_Job] = []
        job = self._jobs.get()
        try:
            while job is not None:
                batch.append(job)
                waits = all(each.deferrable for each in batch)
                job = self._jobs.get(timeout=_DEFER_TIME) if waits else self._jobs.get_nowait()
        except Empty:
            return batch, True
        return batch, False

    def _perform(self, batch: list[_Job]) -> tuple[Sequence[object], LedgerError | None]:
        try:
            if not self._connections:
                self._connections.append(self._connect())
            return self._do(self._connections[0], [job.work for job in batch]), None
        except sqlite3.Error as error:
            problem = self._explain(error)
        except LedgerError as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            problem = LedgerError(f"the ledger broke: {error!r}")
        for connection in self._connections:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
        return [None] * len(batch), problem


def _tell(batch: list[_Job], results: Sequence[object], problem: LedgerError | None) -> None:
    """One wake-up of the loop for a whole batch."""

    def tell() -> None:
        for job, result in zip(batch, results, strict=True):
            if job.done.done():
                continue  # nobody waits any more
            if problem is None:
                job.done.set_result(result)
            else:
                # Each its own: an error that is raised in two places gets the traceback of both.
                job.done.set_exception(type(problem)(*problem.args))

    # A store serves one loop. It may have been closed meanwhile: then nobody waits.
    with contextlib.suppress(RuntimeError):
        batch[0].loop.call_soon_threadsafe(tell)

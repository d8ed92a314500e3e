"""A thread that owns one SQLite connection, and performs all pending jobs in one transaction.

Only this thread opens, uses and closes the connection. It is a daemon thread, so an unclosed ledger does not keep the
interpreter alive. It ends when its owner is garbage-collected. A forked child has no such thread and must not use the
inherited connection, so its calls raise.
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
"""Seconds a deferrable write waits to join another transaction."""


@attrs.frozen(eq=False)
class _Job:
    work: object
    done: asyncio.Future[object]
    loop: asyncio.AbstractEventLoop
    deferrable: bool
    """Whether the job may wait to join another transaction."""


class DatabaseThread:
    """A thread with its own connection.

    Args:
        connect: Makes the connection, in the thread.
        perform: Performs all work or none, and returns one result for each.
        explain: Converts an error of the database.
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
        """Run work in the thread. A cancellation of the caller does not stop the work.

        Args:
            work: An argument of ``perform``.
            deferrable: Whether the work may wait to join another transaction.

        Raises:
            LedgerError: The database failed, or this process is a fork of the one that opened the ledger.
        """
        if os.getpid() != self._pid:
            raise LedgerError(
                f"this ledger was opened in process {self._pid}, and this process is a fork of it: make a new Ledger "
                "here"
            )
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()
        self._jobs.put(_Job(work, done, loop, deferrable))
        return await done

    async def close(self) -> None:
        """Finish the pending jobs, close the connection, and end the thread."""
        if os.getpid() == self._pid:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def reset_after_fork(self) -> object:
        """Return the connections: a finaliser in the child would close them for the parent."""
        return list(self._connections)


class _Worker:
    """The thread's loop. It has no reference to the `DatabaseThread`, which can thus be garbage-collected."""

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
        """Perform jobs until the end marker."""
        goes_on = True
        while goes_on:
            batch, goes_on = self._next()
            if batch:
                _tell(batch, *self._perform(batch))
            del batch  # keep nothing alive while the thread waits
        for connection in self._connections:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self._connections.clear()

    def _next(self) -> tuple[list[_Job], bool]:
        """The jobs of the next transaction, and whether more may follow."""
        batch: list[_Job] = []
        job = self._jobs.get()
        try:
            while job is not None:
                batch.append(job)
                waits = all(pending.deferrable for pending in batch)
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
        except Exception as error:  # noqa: BLE001 - the callers get it
            problem = LedgerError(f"the ledger failed: {error!r}")
        for connection in self._connections:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
        return [None] * len(batch), problem


def _tell(batch: list[_Job], results: Sequence[object], problem: LedgerError | None) -> None:
    """Complete the futures of a batch, with one wake-up of the event loop."""

    def tell() -> None:
        for job, result in zip(batch, results, strict=True):
            if job.done.done():
                continue  # its caller was cancelled
            if problem is None:
                job.done.set_result(result)
            else:
                # One exception object per job: a shared one would collect the tracebacks of all callers.
                job.done.set_exception(type(problem)(*problem.args))

    # A store belongs to one event loop, which may be closed by now.
    with contextlib.suppress(RuntimeError):
        batch[0].loop.call_soon_threadsafe(tell)

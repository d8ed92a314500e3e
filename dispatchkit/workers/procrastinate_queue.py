"""Procrastinate delivers chunks to workers, through the ledger's PostgreSQL. Only this module imports it.

The queue is only a hint. An idle worker polls the ledger and re-enqueues orphaned chunks: those of killed workers, and
those that were never enqueued. A chunk that is delivered twice is held or done at the second delivery.

A run that fails here is skipped for a minute, and other runs continue. A run of an account whose token another worker
has goes back into the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator

import procrastinate
import psycopg
from procrastinate.exceptions import AlreadyEnqueued, ProcrastinateException

from dispatchkit.core.fanout.outcome import Report
from dispatchkit.errors import (
    AccountMismatchError,
    AuthenticationError,
    ChunkHeldError,
    LedgerError,
    ProviderSilentError,
    RunStoppedError,
)
from dispatchkit.ledger.postgres.connect import without_tracebacks
from dispatchkit.ledger.postgres.connection import TRANSIENT_ERRORS
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.workers.queue_connection import QueueConnections, queue, quiet_libraries
from dispatchkit.workers.shared_pace import STOP_TIMEOUT

__all__ = ["Launch", "enqueue", "work"]

Launch = Callable[[str, int], Awaitable[Report]]
"""Launches a chunk: the name of a run, and the number of the chunk."""

logger = logging.getLogger("dispatchkit")

_TASK = "dispatchkit.launch_chunk"
_LOOK_EVERY = 5.0
_AVOID = 60.0
"""Seconds for which a failed run is skipped."""
_AGAIN = 1.0
"""Seconds before a worker reconnects to the database."""
_SHOWN = 60
"""Maximum characters of a run's name in a message."""
_AWAY = ("08", "25", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE for errors of the database, not of a row."""


async def _put(app: procrastinate.App, run: str, chunk: int, *, priority: int = 0, delay: float | None = None) -> None:
    # The hash of the name: the name itself may be too long for an index.
    lock = f"{chunk} {hashlib.sha256(run.encode(errors='surrogatepass')).hexdigest()}"
    later = None if delay is None else {"seconds": delay}
    job = app.configure_task(_TASK, queue="dispatchkit", queueing_lock=lock, priority=priority, schedule_in=later)
    with contextlib.suppress(AlreadyEnqueued):
        await job.defer_async(run=json.dumps(run), chunk=chunk)  # a database may lack letters of its name


def _is_away(error: BaseException) -> bool:
    """Whether an error is the database's, not that of a row."""
    if isinstance(error, ProcrastinateException):
        cause = error.__cause__
        state = cause.sqlstate if isinstance(cause, psycopg.Error) else None
        return state is None or state.startswith(_AWAY)
    if isinstance(error, LedgerError):
        return isinstance(error.__cause__, TRANSIENT_ERRORS)
    return isinstance(error, OSError | psycopg.OperationalError)


async def enqueue(store: PostgresStore, chunks: Iterable[tuple[str, int]]) -> None:
    """Enqueue chunks, as pairs of run name and chunk number.

    Raises:
        LedgerError: The database cannot be reached, or refused a statement.
    """
    connections = QueueConnections()
    try:
        async with queue(store, connections) as app:
            for run, chunk in chunks:
                await _put(app, run, chunk)
    except (ProcrastinateException, psycopg.Error, OSError) as error:
        reason = connections.shortage() or f"the chunks could not be enqueued ({type(error).__name__})"
        raise LedgerError(f"{reason}: run the same again") from without_tracebacks(error)


class _Avoided:
    """Runs that failed here: each is skipped for `_AVOID`, and reported once."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._until = dict[str, tuple[float, bool]]()
        self._told = dict[str, str]()
        self._now = asyncio.get_running_loop().time

    def __contains__(self, run: str) -> bool:
        return self._until.get(run, (0.0, False))[0] > self._now()

    def __iter__(self) -> Iterator[str]:
        return (run for run in self._until if run in self)

    def is_elsewhere(self, run: str) -> bool:
        """Whether another worker may be able to launch the run."""
        return self._until[run][1]

    def add(self, run: str, error: Exception) -> None:
        """Skip a run from now on, and report why, unless that was reported before."""
        self._until[run] = self._now() + _AVOID, isinstance(error, AccountMismatchError)
        self.tell_once(run, error)

    def tell_once(self, run: str, error: Exception) -> None:
        """Report why a run is not launched here, unless that was reported before."""
        is_plain = isinstance(error, LedgerError | ProviderSilentError | ValueError)
        reason = str(error) if is_plain else f"{type(error).__name__}: {error}"
        if self._told.get(run) != reason:
            self._told[run] = reason
            self._tell(f"the run {_shown(run)} is not launched here: {reason}")


def _shown(run: str) -> str:
    """A run's name, shortened for a message."""
    return repr(run if len(run) <= _SHOWN else f"{run[:_SHOWN]}...")


async def work(
    store: PostgresStore,
    launch: Launch,
    stop: asyncio.Event,
    *,
    chunks: int = 1,
    tell: Callable[[str], None] = logger.info,
) -> None:
    """Take and launch chunks until a stop, and wait for an unreachable database.

    Args:
        dsn: The database's URL.
        store: The ledger's store.
        launch: Launches a chunk. It must return once ``stop`` is set.
        stop: Ends the work.
        chunks: Number of chunks at a time. Default: 1.
        tell: Called with a line about each chunk. Default: the log, at INFO.

    Raises:
        AuthenticationError: The provider does not accept this worker's token.
    """
    await _Worker(store, launch, stop, chunks=chunks, tell=tell).run()


class _Worker:
    """See `work`."""

    def __init__(
        self,
        store: PostgresStore,
        launch: Launch,
        stop: asyncio.Event,
        *,
        chunks: int,
        tell: Callable[[str], None],
    ) -> None:
        self._store = store
        self._launch = launch
        self._stop = stop
        self._chunks = chunks
        self._tell = tell
        self._avoided = _Avoided(tell)
        self._refused: AuthenticationError | None = None
        self._served = False
        self._wake = asyncio.Event()
        """Set when a chunk failed, to look for another one at once."""
        self._delivering = set[asyncio.Future[None]]()
        self._connections = QueueConnections()

    async def run(self) -> None:
        """Serve until the stop, and start again after an error of the database."""
        with quiet_libraries():
            await self._run()

    async def _run(self) -> None:
        last_text = ""
        stopping = asyncio.create_task(self._stop.wait())
        # No `AsyncRetrying`: a stop ends the wait, and after a wait tenacity always makes another attempt.
        while not self._stop.is_set():
            serving = asyncio.create_task(self._serve())
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            await self._finish(serving)
            error = None if serving.cancelled() else serving.exception()
            if error is not None and not self._stop.is_set():
                text = f"the queue failed ({type(error).__name__}: {error}): retrying"
                if _is_away(error):
                    away = "the ledger's database cannot be reached: nothing is launched until it is back"
                    text = self._connections.shortage() or away
                if text != last_text or self._served:
                    self._tell(text)
                last_text, self._served = text, False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _AGAIN)
        stopping.cancel()
        if self._refused is not None:
            raise self._refused

    async def _finish(self, serving: asyncio.Task[None]) -> None:
        """Wait for the chunks in progress, then for the queue, up to `STOP_TIMEOUT` if the database does not answer."""
        while self._delivering and not serving.done():
            await asyncio.wait(self._delivering)
        await asyncio.wait([serving], timeout=STOP_TIMEOUT)
        if not serving.done():
            self._connections.cut()
            await asyncio.wait([serving], timeout=STOP_TIMEOUT / 2)
        while not serving.done():
            serving.cancel()
            await asyncio.wait([serving], timeout=0.1)

    async def _serve(self) -> None:
        async with queue(self._store, self._connections) as app:
            self._served = True

            async def take(run: str, chunk: int) -> None:
                await self._deliver(app, json.loads(run), chunk)

            app.task(name=_TASK, queue="dispatchkit")(take)
            worker = app.run_worker_async(
                queues=["dispatchkit"],
                concurrency=self._chunks,
                fetch_job_polling_interval=_LOOK_EVERY,
                install_signal_handlers=False,
                delete_jobs="always",
            )
            tasks = [asyncio.create_task(coroutine) for coroutine in (worker, self._look(app), self._stop.wait())]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                # The chunks in progress are awaited, never cancelled.
                await asyncio.wait(tasks)
            for error in [task.exception() for task in tasks if not task.cancelled()]:
                if error is not None:
                    raise error

    async def _deliver(self, app: procrastinate.App, run: str, chunk: int) -> None:
        delivery: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._delivering.add(delivery)
        try:
            if run not in self._avoided and not self._stop.is_set():
                await self._attempt(run, chunk)
        finally:
            self._delivering.discard(delivery)
            delivery.set_result(None)
        if run in self._avoided and not self._stop.is_set():
            self._wake.set()
            if self._avoided.is_elsewhere(run):
                await _put(app, run, chunk, priority=-1, delay=_LOOK_EVERY)

    async def _attempt(self, run: str, chunk: int) -> None:
        try:
            report = await self._launch(run, chunk)
            if report.total > report.previously_finished:
                counts = f"{report.done} done, {report.rejected} rejected, {report.not_sent} not sent"
                left = f"{report.unknown} unknown, {report.not_started} left"
                self._tell(f"chunk {chunk} of the run {_shown(run)}: {counts}, {left}")
        except AuthenticationError as error:
            self._refused = error  # the other chunks would be refused here, too
            self._stop.set()
        except ChunkHeldError:
            pass  # if its process is dead, a worker finds the orphaned chunk in the ledger
        except RunStoppedError as error:
            self._avoided.tell_once(run, error)
        except Exception as error:  # noqa: BLE001 - an error of one run must not stop the others
            if self._stop.is_set() or _is_away(error):
                self._tell(f"chunk {chunk} of the run {_shown(run)}: {error}")
            else:
                self._avoided.add(run, error)

    async def _look(self, app: procrastinate.App) -> None:
        """Enqueue orphaned chunks whenever this worker is idle."""
        while True:
            self._wake.clear()
            free = self._chunks - len(self._delivering)
            for run, chunk in await self._store.claimable_chunks(free, but=list(self._avoided)) if free > 0 else ():
                try:
                    await _put(app, run, chunk)
                except Exception as error:
                    if _is_away(error):
                        raise
                    self._avoided.add(run, error)
                    self._wake.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._wake.wait()

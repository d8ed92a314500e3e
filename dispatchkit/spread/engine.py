"""Procrastinate brings chunks to workers, through the same PostgreSQL as the ledger. All of it that we use is here.

The queue is only a hint. A worker that has nothing to do looks into the ledger, and enqueues what lies about there: a
chunk whose worker was killed, or one that was never enqueued. What is delivered twice finds the chunk held, or done.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

import procrastinate
from procrastinate.exceptions import AlreadyEnqueued, ProcrastinateException
from procrastinate.schema import SchemaManager

from dispatchkit.core.outcome import Report
from dispatchkit.errors import AuthenticationError, LedgerError
from dispatchkit.ledger.link import Connection
from dispatchkit.ledger.postgres import PostgresStore

__all__ = ["Launch", "enqueue", "work"]

Launch = Callable[[str, int], Awaitable[Report]]
"""Launches a chunk: the name of a run, and the number of the chunk."""

logger = logging.getLogger("dispatchkit")

_TASK = "dispatchkit.launch_chunk"
_LOOK_EVERY = 5.0
_AVOID = 60.0
_AGAIN = 1.0
"""Seconds until a worker that the database has sent away comes back."""


def _tables() -> tuple[str, str]:
    """Procrastinate's tables, in a schema of their own: another release with other tables has another one."""
    text = SchemaManager.get_schema()
    return f"dispatchkit_queue_{hashlib.sha256(text.encode()).hexdigest()[:8]}", text


@contextlib.asynccontextmanager
async def _app(dsn: str, store: PostgresStore) -> AsyncGenerator[procrastinate.App]:
    schema, text = _tables()

    async def create(connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('dispatchkit queue', 0))")
            found = await connection.fetchrow("SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1", schema)
            if found is None:
                await connection.execute(f"CREATE SCHEMA {schema}; SET LOCAL search_path TO {schema}; {text}")

    await store.link.ask(create)
    connector = procrastinate.PsycopgConnector(
        conninfo=dsn, kwargs={"options": f"-c search_path={schema}"}, min_size=1, max_size=4, timeout=10.0
    )
    app = procrastinate.App(connector=connector)
    async with app.open_async():
        yield app


async def _put(app: procrastinate.App, chunks: Iterable[tuple[str, int]]) -> None:
    for run, chunk in chunks:
        job = app.configure_task(_TASK, queue="dispatchkit", queueing_lock=f"{chunk} {run}")
        with contextlib.suppress(AlreadyEnqueued):
            await job.defer_async(run=run, chunk=chunk)


async def enqueue(dsn: str, store: PostgresStore, chunks: Iterable[tuple[str, int]]) -> None:
    """Hand chunks, by run and number, over to whatever workers there are, or will be.

    Raises:
        LedgerError: The database cannot be reached, or says no.
    """
    try:
        async with _app(dsn, store) as app:
            await _put(app, chunks)
    except (ProcrastinateException, OSError) as error:
        raise LedgerError(f"the chunks could not be enqueued ({type(error).__name__}): run the same again") from error


async def work(
    dsn: str,
    store: PostgresStore,
    launch: Launch,
    stop: asyncio.Event,
    *,
    chunks: int = 1,
    tell: Callable[[str], None] = logger.info,
) -> None:
    """Take chunks, so many at a time, and launch them, until told to stop. While the database is away, wait for it.

    ``launch`` must come to an end once ``stop`` is set. ``tell`` is called with what came of each chunk.

    Raises:
        AuthenticationError: The provider does not accept this worker's token.
    """
    refused = list[AuthenticationError]()
    avoided = dict[str, float]()  # runs that are not for this worker, and until when it does not go and fetch them
    now = asyncio.get_running_loop().time
    busy = 0

    async def deliver(run: str, chunk: int) -> None:
        nonlocal busy
        busy += 1
        try:
            report = await launch(run, chunk)
            if report.total > report.earlier:
                counts = f"{report.done} done, {report.rejected} rejected, {report.not_sent} not sent"
                tell(f"chunk {chunk} of the run {run!r}: {counts}, {report.unknown} unknown, {report.not_started} left")
        except AuthenticationError as error:
            refused.append(error)  # every other chunk would fare no better here, and may elsewhere
            stop.set()
        except (LedgerError, ValueError, TypeError) as error:
            avoided[run] = now() + _AVOID
            tell(f"chunk {chunk} of the run {run!r} is not launched here: {error}")
        finally:
            busy -= 1

    async def look(app: procrastinate.App) -> None:
        while True:
            if busy < chunks:
                others = [run for run, until in avoided.items() if until > now()]
                await _put(app, await store.idle(chunks - busy, but=others))
            await asyncio.sleep(_LOOK_EVERY)

    while not stop.is_set():
        with contextlib.suppress(ProcrastinateException, OSError, LedgerError):
            async with _app(dsn, store) as app:
                app.task(name=_TASK, queue="dispatchkit")(deliver)
                worker = app.run_worker_async(
                    queues=["dispatchkit"], concurrency=chunks, install_signal_handlers=False, delete_jobs="always"
                )
                tasks = [asyncio.create_task(each) for each in (worker, look(app), stop.wait())]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    # The chunks under way come to their end; they are never cancelled.
                    await asyncio.wait(tasks)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _AGAIN)
    if refused:
        raise refused[0]

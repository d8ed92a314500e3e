"""Plan a run in chunks, and launch one chunk: the two functions for the tasks of a queue."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import Never, TypeVar, cast

import attrs

from dispatchkit.core.call.client import Client
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.command import Command
from dispatchkit.core.fanout.fan_out import FanOut
from dispatchkit.core.fanout.outcome import Report
from dispatchkit.core.validators import int_in_range
from dispatchkit.errors import ChunkHeldError, LedgerError, ProviderSilentError, RunStoppedError
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.chunk import HEARTBEAT_INTERVAL
from dispatchkit.ledger.ledger import Ledger
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.ledger.run import Run
from dispatchkit.ledger.store import MAX_NUMBER
from dispatchkit.providers import connect_run, parse_settings, provider_of
from dispatchkit.workers.shared_pace import release_leases, share_pace, until_stopped

__all__ = ["in_postgres", "launch_chunk", "plan_chunks"]

R = TypeVar("R")
W = TypeVar("W")


async def plan_chunks(
    ledger: Ledger | str,
    run: str,
    client: Client[W],
    commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]],
    *,
    size: int = 1000,
    rate: float | None = None,
    concurrency: int | None = None,
    repeat_window: float | None = None,
) -> list[int]:
    """Write a run into the ledger, in chunks, without launching anything. This is idempotent.

    Args:
        ledger: A ledger in PostgreSQL, or its address.
        run: The run's name.
        client: The client of the commands. It sends nothing.
        commands: The commands.
        size: Number of commands in a chunk. Default: 1000.
        rate: Limit of launches a second on the account over all workers. Default: no limit.
        concurrency: Limit of attempts in flight on the account over all workers. Default: no common limit.
        repeat_window: Seconds within which no other run may have launched one of the targets; see `FanOutOptions`.

    Returns:
        The numbers of the chunks, for `launch_chunk`.

    Raises:
        LedgerError: The ledger cannot be written, or the run was planned with other settings.
        TypeError: A setting or a command is of another type.
        ValueError: A setting or a command is out of range.
    """
    source = ledger if isinstance(ledger, Ledger) else Address.of(ledger)
    del ledger  # a traceback would show it
    int_in_range("size", size, minimum=1, maximum=MAX_NUMBER)
    if rate is not None and type(rate) not in {int, float}:
        raise TypeError(f"rate must be a number, not {type(rate).__name__} {rate!r}")
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"rate must be positive and finite, not {rate!r}")
    if concurrency is not None:
        int_in_range("concurrency", concurrency, minimum=1, maximum=MAX_NUMBER)
    async with _opened(source) as (opened, store):
        if client._has_renewable_token:
            await client._have_token()
        settings = attrs.evolve(client._run_settings(), repeat_window=repeat_window)
        chunks = await opened.journal(run, settings).plan_chunks(commands, size=size)
        await store.set_limits((await opened.run(run)).number, rate=rate, concurrency=concurrency)
    return [chunk.number for chunk in chunks]


async def launch_chunk(
    ledger: Ledger | str,
    run: str,
    chunk: int,
    *,
    client: Client[W] | None = None,
    concurrency: int = 64,
    retry: RetryPolicy | None = None,
    give_up_after: float | None = None,
    repeat_window: float | None = None,
    stop: asyncio.Event | None = None,
) -> Report:
    """Launch the rest of a chunk, within the pace that the account's workers share.

    Any number of processes may call it, any number of times: done and rejected targets are skipped. It never waits for
    another process. Retry a task that fails with `ChunkHeldError`: the process that holds the chunk may be dead.

    Args:
        ledger: The ledger in PostgreSQL, or its address.
        run: The run's name.
        chunk: The number of the chunk.
        client: A client of the provider and host that the run was planned for. Default: a client from this machine's
            environment variables. The token is never part of the task.
        concurrency: Number of calls at a time in this process. Default: 64.
        retry: When and how each call is retried. Default: the client's policy.
        give_up_after: Release the chunk if the provider answers nothing for so many seconds; see `FanOutOptions`.
        repeat_window: Seconds within which no other run may have launched one of the targets; see `FanOutOptions`.
        stop: Once the event is set, nothing new starts, and calls in flight are awaited.

    Returns:
        The report of the whole chunk. ``not_started`` counts the targets left after `stop` or a failure.

    Raises:
        ChunkHeldError: Another process holds the chunk. Its lease ends in ``retry_after`` seconds.
        RunStoppedError: The run was stopped.
        AccountMismatchError: The run was planned for another account.
        LedgerError: The ledger cannot be used, or the run was planned with other settings.
        ProviderSilentError: The provider answered nothing for ``give_up_after`` seconds.
        AuthenticationError: The provider does not accept the token.
        AccessDeniedError: The token may not do this.
        TariffLimitError: A limit of the account's tariff is reached.
        TypeError: A setting is of another type.
        ValueError: There is no token, or a setting is out of range.
    """
    source = ledger if isinstance(ledger, Ledger) else Address.of(ledger)
    del ledger  # a traceback would show it
    int_in_range("chunk", chunk, minimum=0, maximum=MAX_NUMBER)
    int_in_range("concurrency", concurrency, minimum=1, maximum=MAX_NUMBER)
    stop = stop or asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        prepared = await until_stopped(stop, _prepare(stack, source, run, chunk, client))
        if prepared is None:
            return Report()
        opened, store, planned, used = prepared
        key = await asyncio.to_thread(used._account_key)
        await stack.enter_async_context(share_pace(store, key, used._pacer, run=planned.number, stop=stop))
        while True:
            # The journal checks that the run's settings are the client's.
            fan_out = FanOut[object](
                used,
                None,
                concurrency=concurrency,
                retry=retry,
                give_up_after=give_up_after,
                ledger=opened.chunk(run, chunk),
                run=run,
                repeat_window=repeat_window,
            )
            stopping = asyncio.create_task(_stop(fan_out, stop))
            try:
                report = await fan_out.finish()
            finally:
                stopping.cancel()
            reason = fan_out.stop_reason
            if reason is not None and reason.silent_since is not None:
                left = report.not_sent + report.unknown + (report.not_started or 0)
                raise ProviderSilentError(run, chunk, since=reason.silent_since, left=left)
            if stop.is_set() or report.not_started == report.not_sent == report.unknown == 0:
                return report
            await until_stopped(stop, _check_stopped(store, planned, chunk, report))
            if stop.is_set() or report.not_started == 0:
                return report
            # The hold was lost. Take it again, or raise `ChunkHeldError` with the process that has it.


async def _prepare(
    stack: contextlib.AsyncExitStack,
    ledger: Ledger | Address,
    run: str,
    chunk: int,
    client: Client[W] | None,
) -> tuple[Ledger, PostgresStore, Run, Client[Never]]:
    """Find the chunk, and check that it can be launched now, before any wait."""
    opened, store = await stack.enter_async_context(_opened(ledger))
    found = await opened.run(run)
    given = cast("Client[Never] | None", client)
    if given is None:
        own_url = provider_of(parse_settings(found.settings)).own_url()
        given = await asyncio.to_thread(connect_run, found, base_url=own_url)  # it may take a tenth of a second
        stack.push_async_callback(given.close)
    if given._has_renewable_token:
        await given._have_token()  # it tells the account, whose pace the workers share
    found = await opened.chunk(run, chunk).journal(run, given._run_settings()).check()
    await _check_holder(store, found, chunk)
    return opened, store, found, given


async def _check_holder(store: PostgresStore, run: Run, chunk: int) -> None:
    if (holder := await store.holder(run.number, chunk)) is not None:
        retry_after = max(holder.lease_left, HEARTBEAT_INTERVAL)
        raise ChunkHeldError(run.name, chunk, pid=holder.pid, host=holder.host, retry_after=retry_after)


async def _check_stopped(store: PostgresStore, run: Run, chunk: int, report: Report) -> None:
    """Raise if the run was stopped meanwhile."""
    current = await store.run(run.name)
    if current is not None and current.stopped:
        raise RunStoppedError(
            f"the run {run.name!r} was stopped while chunk {chunk} was launched: {report.done:,} of it are done. "
            "Clear the stop before you launch it again"
        )


async def _stop(fan_out: FanOut[object], stop: asyncio.Event) -> None:
    await stop.wait()
    fan_out.stop()


@contextlib.asynccontextmanager
async def _opened(ledger: Ledger | Address) -> AsyncGenerator[tuple[Ledger, PostgresStore]]:
    async with contextlib.AsyncExitStack() as stack:
        opens_ledger = isinstance(ledger, Address)
        if isinstance(ledger, Address):
            ledger = await stack.enter_async_context(Ledger(ledger))
        store = await in_postgres(ledger)
        if opens_ledger:
            stack.push_async_callback(release_leases, store)
        yield ledger, store


async def in_postgres(ledger: Ledger) -> PostgresStore:
    """The PostgreSQL store of a ledger.

    Raises:
        LedgerError: The ledger is a file, or cannot be opened.
    """
    if not ledger.is_shared:  # check first: opening would create the file
        raise LedgerError("workers share a run through a ledger in PostgreSQL: postgresql://user@host:port/database")
    store = await ledger._open_store()
    assert isinstance(store, PostgresStore)  # noqa: S101 - there is no other database
    return store

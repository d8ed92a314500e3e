"""Plan a run in chunks, and launch a chunk of it: what an engine that spreads work over machines is given to call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import Never, TypeVar, cast

import attrs

from dispatchkit.altcraft.client import AltcraftClient
from dispatchkit.altcraft.codec import WireForm
from dispatchkit.core.call.client import Client
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.command import Command
from dispatchkit.core.fanout.fan_out import FanOut
from dispatchkit.core.fanout.outcome import Report
from dispatchkit.core.validators import int_in_range
from dispatchkit.direct.client import DirectClient
from dispatchkit.errors import ChunkHeldError, LedgerError, ProviderSilentError, RunStoppedError
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.ledger import Ledger
from dispatchkit.ledger.postgres.store import PostgresStore
from dispatchkit.ledger.store import HEARTBEAT_INTERVAL, MAX_NUMBER, Run
from dispatchkit.workers.shared_pace import release_leases, share_pace, until_stopped

__all__ = ["in_postgres", "launch_chunk", "plan_chunks", "provider_and_wire"]

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
    """Write a run into the ledger, in chunks. Nothing is launched. Done again, it plans nothing twice.

    Args:
        ledger: A ledger in PostgreSQL, or its address.
        run: The name of the run.
        client: Whose commands they are; it sends nothing.
        commands: What to do.
        size: How many commands make a chunk.
        rate: Launches a second that all workers together may make on the account; None sets no rate.
        concurrency: Attempts that all workers together may have in flight on the account; None leaves it to each.
        repeat_window: Seconds within which no other run may have launched one of the targets; see `FanOut`.

    Returns:
        The numbers of the chunks: what to give to `launch_chunk`.

    Raises:
        LedgerError: The ledger cannot be written, or the run is another client's.
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
        settings = attrs.evolve(client.run_settings(), repeat_window=repeat_window)
        chunks = await opened.journal(run, settings).plan_chunks(commands, size=size)
        await store.set_limits((await opened.run(run)).number, rate=rate, concurrency=concurrency)
    return [chunk.number for chunk in chunks]


async def launch_chunk(
    ledger: Ledger | str,
    run: str,
    chunk: int,
    *,
    client: DirectClient | AltcraftClient | None = None,
    concurrency: int = 64,
    retry: RetryPolicy | None = None,
    give_up_after: float | None = None,
    repeat_window: float | None = None,
    stop: asyncio.Event | None = None,
) -> Report:
    """Launch what is left of a chunk, within the pace that the account's workers share.

    It may be called at any time, by any number of processes, any number of times: what is done or rejected is left
    alone. It never waits for another process. An engine's task that fails with `ChunkHeldError` is to be retried: the
    process that holds the chunk may have been killed.

    Args:
        ledger: The ledger in PostgreSQL, or its address.
        run: The name of the run.
        chunk: The number of the chunk.
        client: What to launch it with, of the provider and host that the run was planned for. None makes one of what
            the environment says, as the clients do: the token never travels with the work.
        concurrency: How many workers there are here.
        retry: When and how each call is repeated; None takes the client's policy.
        give_up_after: Give the chunk back when the provider has answered nothing for so many seconds; see `FanOut`.
        repeat_window: Seconds within which no other run may have launched one of the targets; see `FanOut`.
        stop: Once it is set nothing new is started, and what is in flight is awaited.

    Returns:
        What came of the whole chunk. ``not_started`` counts what is left of it, after `stop` or a failure.

    Raises:
        ChunkHeldError: Another process holds the chunk. ``retry_after`` says when its lease ends.
        RunStoppedError: The run was stopped.
        AccountMismatchError: The run was planned for another account.
        LedgerError: The ledger cannot be used, or the run is another client's.
        ProviderSilentError: The provider answered nothing for ``give_up_after`` seconds.
        AuthenticationError: The provider does not accept the token.
        AccessDeniedError: The token may not do this, or `TariffLimitError`: the account may not.
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
        opened, store, found, client = prepared
        key = await asyncio.to_thread(client.account)
        await stack.enter_async_context(share_pace(store, key, client.pacer, run=found.number, stop=stop))
        while True:
            # Whose commands these are, the journal checks: the run's settings must be the client's.
            fan_out = FanOut[Never, object](
                cast("Client[Never]", client),
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
            await until_stopped(stop, _check_stopped(store, found, chunk, report))
            if stop.is_set() or report.not_started == 0:
                return report
            # The hold was lost. Take it again, or learn which process has it.


async def _prepare(
    stack: contextlib.AsyncExitStack,
    ledger: Ledger | Address,
    run: str,
    chunk: int,
    client: DirectClient | AltcraftClient | None,
) -> tuple[Ledger, PostgresStore, Run, DirectClient | AltcraftClient]:
    """Find the chunk, and refuse what cannot be launched now, before anything is waited for."""
    opened, store = await stack.enter_async_context(_opened(ledger))
    found = await opened.run(run)
    if client is None:
        client = _client(found.settings)
        stack.push_async_callback(client.close)
    found = await opened.chunk(run, chunk).journal(run, client.run_settings()).check()
    await _check_holder(store, found, chunk)
    return opened, store, found, client


async def _check_holder(store: PostgresStore, run: Run, chunk: int) -> None:
    if (holder := await store.holder(run.number, chunk)) is not None:
        retry_after = max(holder.lease_left, HEARTBEAT_INTERVAL)
        raise ChunkHeldError(run.name, chunk, pid=holder.pid, host=holder.host, retry_after=retry_after)


async def _check_stopped(store: PostgresStore, run: Run, chunk: int, report: Report) -> None:
    """Refuse to go on with what is left of a chunk if the run was stopped from elsewhere."""
    found = await store.run(run.name)
    if found is not None and found.stopped:
        raise RunStoppedError(
            f"the run {run.name!r} was stopped while chunk {chunk} was launched: {report.done:,} of it are done. "
            "Clear the stop before it is launched again"
        )


async def _stop(fan_out: FanOut[W, R], stop: asyncio.Event) -> None:
    await stop.wait()
    fan_out.stop()


def _client(settings: str) -> DirectClient | AltcraftClient:
    """A client of the provider that a run was planned for. Its host and token are this machine's own."""
    provider, wire = provider_and_wire(settings)
    if provider == "direct":
        return DirectClient()
    if provider == "altcraft" and wire in {"json", "xml"}:
        return AltcraftClient(wire=cast("WireForm", wire))
    raise LedgerError(f"the run is of a provider or a wire that this release does not know: {provider!r}, {wire!r}")


def provider_and_wire(settings: str) -> tuple[str, str]:
    """Provider and wire in the settings of a run, which another release may have written.

    Raises:
        LedgerError: They name no provider.
    """
    planned: object = None
    with contextlib.suppress(ValueError):
        planned = json.loads(settings)
    named = cast("dict[str, object]", planned) if isinstance(planned, dict) else {}
    provider, wire = named.get("provider"), named.get("wire", "")
    if not isinstance(provider, str) or not isinstance(wire, str):
        raise LedgerError("the settings of the run name no provider: another release may have planned it")
    return provider, wire


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
    """The database of a ledger that many machines can share.

    Raises:
        LedgerError: The ledger is a file, or cannot be opened.
    """
    if not ledger.is_shared:  # before it is opened: that would make the file
        raise LedgerError("workers share a run through a ledger in PostgreSQL: postgresql://user@host:port/database")
    store = await ledger.open_store()
    assert isinstance(store, PostgresStore)  # noqa: S101 - there is no other database
    return store

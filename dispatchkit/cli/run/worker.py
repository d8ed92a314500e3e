"""A worker at work: takes chunks, launches them, and ends in good order."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable

from dispatchkit import AltcraftClient, AuthenticationError, DirectClient, Ledger, LedgerError, Report, RetryPolicy
from dispatchkit.cli.loop import on_interrupt
from dispatchkit.cli.run.drive import show_warnings
from dispatchkit.cli.text import escape_control, write
from dispatchkit.ledger.address import Address
from dispatchkit.workers import launch_chunk
from dispatchkit.workers.chunk import in_postgres, provider_and_wire
from dispatchkit.workers.procrastinate_queue import work
from dispatchkit.workers.shared_pace import release_leases, until_stopped

__all__ = ["run_worker"]


async def run_worker(
    address: Address,
    connect: Callable[[str, str], DirectClient | AltcraftClient],
    *,
    chunks: int,
    concurrency: int,
    retry: RetryPolicy | None = None,
    give_up_after: float | None = None,
) -> Exception | None:
    """Launch chunks until Ctrl-C or SIGTERM. The second one gives up what is in flight.

    Args:
        address: The ledger's.
        connect: Makes a client, from provider and wire.
        chunks: How many chunks at the same time.
        concurrency: How many calls of each.
        retry: When and how each call is repeated; None takes the client's policy.
        give_up_after: Seconds without an answer of the provider after which a chunk is given back; None keeps it.

    Returns:
        Why it came to an end, if nobody asked for it.

    Raises:
        LedgerError: The ledger cannot be used, and nothing was begun.
    """
    stop = asyncio.Event()
    begun = False

    def tell(text: str) -> None:
        write(sys.stderr, f"{escape_control(text)}\n")

    launching = set[asyncio.Task[Report]]()

    def press() -> None:
        if not stop.is_set():
            tell("Interrupted: nothing new is started, what is in flight is awaited. Ctrl-C again gives it up.")
            stop.set()
            return
        for task in launching:
            task.cancel()

    try:
        async with contextlib.AsyncExitStack() as stack:
            ledger = await stack.enter_async_context(Ledger(address))
            store = await in_postgres(ledger)
            begun = True
            stack.push_async_callback(release_leases, store)
            clients = dict[tuple[str, str], "DirectClient | AltcraftClient"]()

            async def launch(run: str, chunk: int) -> Report:
                planned = await until_stopped(stop, ledger.run(run))
                if planned is None:
                    return Report()
                key = provider_and_wire(planned.settings)
                if key not in clients:
                    clients[key] = await stack.enter_async_context(connect(*key))
                task = asyncio.create_task(
                    launch_chunk(
                        ledger,
                        run,
                        chunk,
                        client=clients[key],
                        concurrency=concurrency,
                        retry=retry,
                        give_up_after=give_up_after,
                        stop=stop,
                    )
                )
                launching.add(task)
                try:
                    await asyncio.wait([task])
                finally:
                    launching.discard(task)
                if task.cancelled():
                    raise LedgerError("what was in flight is given up: the next launch of the chunk settles it")
                return task.result()

            with on_interrupt(press), show_warnings(tell, pauses=True):
                tell("Ready: launching what is planned with 'dispatchkit plan'. Ctrl-C ends it.")
                await work(store, launch, stop, chunks=chunks, tell=tell)
    except (AuthenticationError, LedgerError) as error:
        if not begun:
            raise
        return error
    return None

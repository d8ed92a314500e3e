"""A worker at work: takes chunks, launches them, and ends in good order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import typer

from dispatchkit import AltcraftClient, AuthenticationError, DirectClient, Ledger, LedgerError, Report, RetryPolicy
from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.loop import on_interrupt, run_loop
from dispatchkit.cli.options import give_up_seconds
from dispatchkit.cli.run.drive import show_warnings
from dispatchkit.cli.text import escape_control, write
from dispatchkit.cli.views.snapshot import resume_line
from dispatchkit.errors import AccountMismatchError
from dispatchkit.workers import launch_chunk
from dispatchkit.workers.chunk import in_postgres, provider_and_wire
from dispatchkit.workers.procrastinate_queue import work
from dispatchkit.workers.shared_pace import release_leases, until_stopped

if TYPE_CHECKING:
    from dispatchkit.cli.commands.worker import WorkerOptions
    from dispatchkit.ledger.store import Run

__all__ = ["run_worker", "work_until_stopped"]


def work_until_stopped(options: WorkerOptions) -> None:
    """Launch what is planned, until Ctrl-C or SIGTERM.

    Raises:
        typer.Exit: With status 1 if the work ended by itself, 2 if it could not begin.
    """

    def client(provider: str, wire: str) -> DirectClient | AltcraftClient:
        insecure, proxy, account = options.insecure, options.proxy, options.account
        if provider == "direct":
            return DirectClient(base_url=options.direct_url, insecure=insecure, proxy=proxy, account=account)
        if provider != "altcraft":
            raise ValueError(f"this release does not know the provider of the run: {provider!r}")
        if wire not in {"json", "xml"}:
            raise ValueError(f"this release does not know the format of the run: {wire!r}")
        return AltcraftClient(options.altcraft_url, wire=wire, insecure=insecure, proxy=proxy, account=account)  # type: ignore[arg-type]

    with exit_on_user_error():
        ended = run_loop(
            run_worker(
                LedgerRef(options.ledger, named=bool(options.invocation.given("ledger"))),
                client,
                chunks=options.chunks,
                concurrency=options.concurrency,
                retry=RetryPolicy(repeat_unclear=False) if options.never_repeat else None,
                give_up_after=give_up_seconds(options.give_up_after),
            )
        )
    if ended is not None:
        write(sys.stderr, f"dispatchkit: {escape_control(str(ended))}\n")
        raise typer.Exit(1)


@contextlib.contextmanager
def _explaining_account(ledger_ref: LedgerRef, run: Run) -> Generator[None]:
    """Add the line to type to the refusal of an account: ``worker`` itself has no option that accepts one."""
    try:
        yield
    except AccountMismatchError:
        raise AccountMismatchError(
            f"run {run.name!r} was planned for another account, or with another token: nothing was launched. If it is "
            f"the same account with a new token or name: {resume_line(ledger_ref, run, '--account-changed')}"
        ) from None


async def run_worker(
    ledger_ref: LedgerRef,
    connect: Callable[[str, str], DirectClient | AltcraftClient],
    *,
    chunks: int,
    concurrency: int,
    retry: RetryPolicy | None = None,
    give_up_after: float | None = None,
) -> Exception | None:
    """Launch chunks until Ctrl-C or SIGTERM. The second one cancels calls in flight.

    Args:
        ledger_ref: The ledger, in PostgreSQL.
        connect: Makes a client, from provider and wire.
        chunks: How many chunks at the same time.
        concurrency: How many calls of each.
        retry: When and how each call is repeated; None takes the client's policy.
        give_up_after: Seconds without an answer of the provider after which a chunk is given back; None keeps it.

    Returns:
        The error that ended the work; None if a signal ended it.

    Raises:
        LedgerError: The ledger cannot be used, and nothing was begun.
    """
    stop = asyncio.Event()
    begun = False
    for name in ("procrastinate", "psycopg"):  # they print a traceback for every try to reach a database that is away
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def tell(text: str) -> None:
        write(sys.stderr, f"{escape_control(text)}\n")

    launching = set[asyncio.Task[Report]]()

    def press() -> None:
        if not stop.is_set():
            tell("Interrupted: the worker starts nothing new and waits for calls in flight. Ctrl-C again cancels them.")
            stop.set()
            return
        for task in launching:
            task.cancel()

    try:
        async with contextlib.AsyncExitStack() as stack:
            ledger = await stack.enter_async_context(Ledger(ledger_ref.where))
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
                    raise LedgerError("calls in flight were cancelled: the next launch of the chunk settles them")
                with _explaining_account(ledger_ref, planned):
                    return task.result()

            with on_interrupt(press), show_warnings(tell, pauses=True):
                tell("Ready: the worker launches planned runs. Ctrl-C ends it.")
                await work(ledger_ref.where, store, launch, stop, chunks=chunks, tell=tell)
    except (AuthenticationError, LedgerError) as error:
        if not begun:
            raise
        return error
    return None

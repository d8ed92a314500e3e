"""A worker at work: takes chunks, launches them, and ends in good order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from ssl import SSLContext
from typing import TYPE_CHECKING, Never

import attrs
import typer

from dispatchkit import AuthenticationError, Ledger, LedgerError, Report, RetryPolicy, Run
from dispatchkit.cli.durations import give_up_seconds
from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.cli.input.shared_ledger import shared_ledger
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.loop import on_interrupt, run_loop
from dispatchkit.cli.output.log_file import with_log
from dispatchkit.cli.output.notify import Ending, Notifier, notifier_of
from dispatchkit.cli.output.reporter import exit_status
from dispatchkit.cli.run.drive import show_warnings
from dispatchkit.cli.run.liveness_file import keep_touching
from dispatchkit.cli.settings import ClientSettings
from dispatchkit.cli.text import escape_control, write
from dispatchkit.cli.tls import tls_context
from dispatchkit.cli.translate import _
from dispatchkit.cli.views.snapshot import resume_line, take_snapshot
from dispatchkit.core.log import log, logger
from dispatchkit.errors import AccountMismatchError
from dispatchkit.providers import connect_run, find_provider, parse_settings, provider_of
from dispatchkit.workers import launch_chunk
from dispatchkit.workers.chunk import in_postgres
from dispatchkit.workers.procrastinate_queue import work
from dispatchkit.workers.shared_pace import release_leases, until_stopped

if TYPE_CHECKING:
    from dispatchkit.cli.commands.worker import WorkerOptions
    from dispatchkit.core.call.client import Client

__all__ = ["Reach", "parse_urls", "run_worker", "work_until_stopped"]


def parse_urls(words: Sequence[str]) -> dict[str, str]:
    """The hosts that ``--url PROVIDER=URL`` gives.

    Raises:
        ValueError: A word has another form, names a provider that is not installed, or names one twice.
        ImportError: The package of a provider cannot be loaded.
    """
    urls = dict[str, str]()
    for word in words:
        name, equals, url = word.partition("=")
        if not equals or not url or "://" in name:
            raise ValueError(
                _("--url must be PROVIDER=URL, such as NAME=https://example.com, not {word!r}").format(word=word)
            )
        if find_provider(name) is None:
            raise ValueError(_("--url names the provider {name!r}, which is not installed").format(name=name))
        if name in urls:
            raise ValueError(_("--url names the provider {name!r} twice").format(name=name))
        urls[name] = url
    return urls


@attrs.frozen(kw_only=True)
class Reach:
    """Options for the connections of a worker to the providers."""

    urls: Mapping[str, str]
    """The hosts, by provider. Another provider's comes from the environment, or is its own."""
    insecure: bool
    """Whether plain http to another machine is allowed."""
    proxy: str | None
    """The URL of an HTTP proxy."""
    ssl: SSLContext | None
    """The certificates; None: the system's."""
    account: str | None
    """The name of the account of this worker's tokens."""


class _Clients:
    """The worker's clients: one for each account and settings of the runs."""

    def __init__(self, stack: contextlib.AsyncExitStack, reach: Reach) -> None:
        self._stack = stack
        self._reach = reach
        self._clients = dict[tuple[str, str | None, str], "Client[Never]"]()

    async def client_of(self, run: Run) -> Client[Never]:
        """The client for a run: for this machine's host, otherwise as the run was planned."""
        key = run.settings, run.account, run.fingerprint
        if key not in self._clients:
            client = await asyncio.to_thread(self._connect, run)  # it may take a tenth of a second
            self._stack.push_async_callback(client.close)
            self._clients.setdefault(key, client)
        return self._clients[key]

    def _connect(self, run: Run) -> Client[Never]:
        reach, provider = self._reach, provider_of(parse_settings(run.settings))
        own_url = provider.own_url(reach.urls.get(provider.name))
        settings = ClientSettings(account=reach.account, insecure=reach.insecure, proxy=reach.proxy)
        if reach.ssl is not None:
            settings["ssl"] = reach.ssl
        return connect_run(run, base_url=own_url, **settings)


def work_until_stopped(options: WorkerOptions) -> None:
    """Launch what is planned, until Ctrl-C or SIGTERM.

    Raises:
        typer.Exit: With status 1 if the work ended by itself, 2 if it could not begin.
    """
    with with_log(options.log_file):
        _work_until_stopped(options)


def _work_until_stopped(options: WorkerOptions) -> None:
    reports: dict[tuple[str, int], Report] = {}
    with exit_on_user_error():
        where = shared_ledger(options.ledger, options.invocation)
        notifier = notifier_of(options)
        reach = Reach(
            urls=parse_urls(options.url or []),
            insecure=options.insecure,
            proxy=options.proxy,
            ssl=tls_context(options.ca_file, options.client_cert, options.client_key),
            account=options.account,
        )
        ended = run_loop(
            run_worker(
                LedgerRef(where, named=bool(options.invocation.given("ledger"))),
                reach,
                chunks=options.chunks,
                concurrency=options.concurrency,
                retry=RetryPolicy(repeat_unclear=False) if options.never_repeat else None,
                give_up_after=give_up_seconds(options.give_up_after),
                liveness_file=options.liveness_file,
                notifier=notifier,
                reports=reports,
            )
        )
    if ended is not None:
        write(sys.stderr, f"dispatchkit: {escape_control(str(ended))}\n")
    if notifier is not None:
        status, reason = (0, "interrupted") if ended is None else (1, "error")
        notifier.run(_ending(None, _sum(reports.values()), status, reason), _tell)
    if ended is not None:
        raise typer.Exit(1)


def _tell(text: str) -> None:
    write(sys.stderr, f"{escape_control(text)}\n")


def _ending(run: str | None, report: Report, status: int, reason: str) -> Ending:
    return Ending(run=run, report=report, not_started=report.not_started or 0, exit_status=status, reason=reason)


def _sum(reports: Iterable[Report]) -> Report:
    """The outcomes of all chunks that a worker took, those of earlier processes included."""
    counts = ([report.done, report.rejected, report.not_sent, report.unknown] for report in reports)
    return Report(*map(sum, zip(*counts, strict=True)))


async def _notify_of_end(ledger: Ledger, run: Run, notifier: Notifier) -> None:
    """Run ``--notify`` if a run is over. Two workers that end its last chunks at the same moment may both run it."""
    try:
        snapshot = await take_snapshot(ledger, await ledger.run(run.name))
    except LedgerError:  # the worker itself meets it, too
        return
    counts = snapshot.counts
    if not snapshot.over or snapshot.run.stopped:
        return
    report = Report(counts.done, counts.rejected, counts.not_sent, counts.unknown, 0)
    ending = _ending(run.name, report, exit_status(report, 0, interrupted=False), "finished")
    await asyncio.to_thread(notifier.run, ending, _tell)


@contextlib.contextmanager
def _explaining_account(ledger_ref: LedgerRef, run: Run) -> Generator[None]:
    """Add the line to type to the refusal of an account: ``worker`` itself has no option that accepts one."""
    try:
        yield
    except AccountMismatchError:
        raise AccountMismatchError(
            _(
                "run {name!r} was planned for another account, or with another token: nothing was launched. If "
                "it is the same account with a new token or name: {line}"
            ).format(name=run.name, line=resume_line(ledger_ref, run, "--account-changed"))
        ) from None


async def run_worker(
    ledger_ref: LedgerRef,
    reach: Reach,
    *,
    chunks: int,
    concurrency: int,
    retry: RetryPolicy | None = None,
    give_up_after: float | None = None,
    liveness_file: Path | None = None,
    notifier: Notifier | None = None,
    reports: dict[tuple[str, int], Report] | None = None,
) -> Exception | None:
    """Launch chunks until Ctrl-C or SIGTERM. The second one cancels calls in flight.

    Args:
        ledger_ref: The ledger, in PostgreSQL.
        reach: How the providers are reached.
        chunks: How many chunks at the same time.
        concurrency: How many calls of each.
        retry: When and how each call is repeated; None takes the client's policy.
        give_up_after: Seconds without an answer of the provider after which a chunk is given back; None keeps it.
        liveness_file: What is touched while the event loop runs; None: nothing.
        notifier: What is run when a run is over.
        reports: Takes the reports of the chunks, by run and chunk.

    Returns:
        The error that ended the work; None if a signal ended it.

    Raises:
        LedgerError: The ledger cannot be used, and nothing was begun.
        OSError: The liveness file cannot be written, and nothing was begun.
    """
    stop = asyncio.Event()
    begun = False
    launching = set[asyncio.Task[Report]]()

    def press() -> None:
        if not stop.is_set():
            _tell(
                _(
                    "Interrupted: the worker starts nothing new and waits for calls in flight. Ctrl-C again "
                    "cancels them."
                )
            )
            stop.set()
            return
        for task in launching:
            task.cancel()

    try:
        async with contextlib.AsyncExitStack() as stack:
            if liveness_file is not None:
                await stack.enter_async_context(keep_touching(liveness_file, _tell))
            ledger = await stack.enter_async_context(Ledger(ledger_ref.address))
            store = await in_postgres(ledger)
            begun = True
            stack.push_async_callback(release_leases, store)
            clients = _Clients(stack, reach)

            async def launch(run: str, chunk: int) -> Report:
                planned = await until_stopped(stop, ledger.run(run))
                if planned is None:
                    return Report()
                client = await clients.client_of(planned)
                task = asyncio.create_task(
                    launch_chunk(
                        ledger,
                        run,
                        chunk,
                        client=client,
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
                    raise LedgerError(_("calls in flight were cancelled: the next launch of the chunk settles them"))
                with _explaining_account(ledger_ref, planned):
                    report = task.result()
                log(
                    logger,
                    logging.INFO,
                    "chunk %d is over: %r",
                    chunk,
                    report,
                    extra=lambda: {"run": run, "index": None},
                )
                if reports is not None:
                    reports[run, chunk] = report
                if notifier is not None:
                    await _notify_of_end(ledger, planned, notifier)
                return report

            with on_interrupt(press), show_warnings(_tell, pauses=True):
                _tell(_("Ready: the worker launches planned runs. Ctrl-C ends it."))
                await work(store, launch, stop, chunks=chunks, tell=_tell)
    except (AuthenticationError, LedgerError) as error:
        if not begun:
            raise
        return error
    return None

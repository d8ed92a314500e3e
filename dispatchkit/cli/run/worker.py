"""A worker at work: takes chunks, launches them, and ends in good order."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Never

from dispatchkit import AuthenticationError, Ledger, LedgerError, Report, RetryPolicy, Run
from dispatchkit.cli.loop import on_interrupt
from dispatchkit.cli.run.drive import show_warnings
from dispatchkit.cli.text import escape_control, write
from dispatchkit.core.call.client import Client
from dispatchkit.ledger.address import Address
from dispatchkit.providers import connect_run, find_provider, parse_settings, provider_of
from dispatchkit.workers import launch_chunk
from dispatchkit.workers.chunk import in_postgres
from dispatchkit.workers.procrastinate_queue import work
from dispatchkit.workers.shared_pace import release_leases, until_stopped

__all__ = ["parse_urls", "run_worker"]


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
            raise ValueError(f"--url must be PROVIDER=URL, such as NAME=https://example.com, not {word!r}")
        if find_provider(name) is None:
            raise ValueError(f"--url names the provider {name!r}, which is not installed")
        if name in urls:
            raise ValueError(f"--url names the provider {name!r} twice")
        urls[name] = url
    return urls


class _Clients:
    """The worker's clients: one for each account and settings of the runs."""

    def __init__(
        self,
        stack: contextlib.AsyncExitStack,
        urls: Mapping[str, str],
        *,
        account: str | None,
        insecure: bool,
        proxy: str | None,
    ) -> None:
        self._stack = stack
        self._urls = urls
        self._account = account
        self._insecure = insecure
        self._proxy = proxy
        self._clients = dict[tuple[str, str | None, str], Client[Never]]()

    async def client_of(self, run: Run) -> Client[Never]:
        """The client for a run: for this machine's host, otherwise as the run was planned."""
        key = run.settings, run.account, run.fingerprint
        if key not in self._clients:
            client = await asyncio.to_thread(self._connect, run)  # it may take a tenth of a second
            self._stack.push_async_callback(client.close)
            self._clients.setdefault(key, client)
        return self._clients[key]

    def _connect(self, run: Run) -> Client[Never]:
        provider = provider_of(parse_settings(run.settings))
        own_url = provider.own_url(self._urls.get(provider.name))
        return connect_run(run, base_url=own_url, account=self._account, insecure=self._insecure, proxy=self._proxy)


async def run_worker(
    address: Address,
    *,
    urls: Mapping[str, str],
    insecure: bool,
    proxy: str | None,
    account: str | None,
    chunks: int,
    concurrency: int,
    retry: RetryPolicy | None = None,
    give_up_after: float | None = None,
) -> Exception | None:
    """Launch chunks until Ctrl-C or SIGTERM. The second one gives up what is in flight.

    Args:
        address: The ledger's.
        urls: The hosts, by provider. Another provider's comes from the environment, or is its own.
        insecure: Whether plain http to another machine is allowed.
        proxy: URL of an HTTP proxy.
        account: The name of the account of this worker's tokens.
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
            clients = _Clients(stack, urls, insecure=insecure, proxy=proxy, account=account)

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

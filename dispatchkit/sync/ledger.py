"""The blocking ledger."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, NoReturn, ParamSpec, Self, TypeVar

from dispatchkit.core.call.client import Client
from dispatchkit.core.call.context import RunSettings
from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.core.context_managers import BlockingOnly
from dispatchkit.core.fanout.snapshot import Snapshot
from dispatchkit.core.reprs import RichRepr
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.journal import LedgerJournal
from dispatchkit.ledger.ledger import Ledger as AsyncLedger
from dispatchkit.ledger.ledger import PartOfLedger
from dispatchkit.ledger.target import Target
from dispatchkit.sync.client import SyncClient
from dispatchkit.sync.portal import PortalHandle
from dispatchkit.sync.portal_call import Work

__all__ = ["Ledger"]

C = TypeVar("C", bound=Client[Any])
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_PAGE = 500
"""The most targets that cross from the loop thread at once."""


def _blocking(
    method: Callable[Concatenate[AsyncLedger, P], Coroutine[object, object, R]],
) -> Callable[Concatenate[Ledger, P], R]:
    """Make a method that runs a method of the asynchronous ledger and waits for its result."""
    name = method.__name__

    def call(self: Ledger, /, *args: P.args, **kwargs: P.kwargs) -> R:
        # It becomes a method of the class.
        return self._run(Work(method, self._async_ledger, *args, **kwargs), name)  # pyright: ignore[reportPrivateUsage]

    functools.update_wrapper(call, method)
    return call


class Ledger(BlockingOnly):
    """The durable record of launches: each launch is written before its request leaves, so a killed run can resume.

    It is `dispatchkit.Ledger` for a caller that blocks, with the same arguments and methods. Pass it to a blocking
    fan-out: ``direct.start_many(ids, ledger=ledger, run="black-friday")``. It works on the loop thread of the blocking
    clients. So use it as ``with sync.Ledger("launch.db") as ledger:``, around the clients, or call `close` yourself.
    Any number of threads may use it. A forked process needs a ledger of its own.

    Example:
        >>> with sync.Ledger("launch.db") as ledger:
        ...     ledger.runs()
        []
    """

    def __init__(
        self, where: str | os.PathLike[str] | Address, *, schema: str | None = None, clock: Clock = SYSTEM
    ) -> None:
        address = Address.of(where)
        del where  # a traceback would show it
        self._async_ledger = AsyncLedger(address, schema=schema, clock=clock)
        self._handle = PortalHandle(self._async_ledger)
        self._process = os.getpid()
        weakref.finalize(self, self._handle.drop).atexit = False

    @property
    def is_shared(self) -> bool:
        """Whether the ledger is a database for many machines, not a file on this one."""
        return self._async_ledger.is_shared

    def journal(self, run: str, settings: RunSettings) -> LedgerJournal:
        """The journal of one run, for a fan-out.

        See `dispatchkit.Ledger.journal`.
        """
        self._hold()
        return self._async_ledger.journal(run, settings)

    def chunk(self, run: str, number: int) -> PartOfLedger:
        """One chunk of a planned run, for one of its workers.

        See `dispatchkit.Ledger.chunk`.
        """
        self._hold()
        return self._async_ledger.chunk(run, number)

    def resuming(self, run: str) -> PartOfLedger:
        """A run that is resumed even if it was stopped. The stop is cleared once this process holds the run.

        See `dispatchkit.Ledger.resuming`.
        """
        self._hold()
        return self._async_ledger.resuming(run)

    runs = _blocking(AsyncLedger.runs)
    run = _blocking(AsyncLedger.run)
    counts = _blocking(AsyncLedger.counts)
    series = _blocking(AsyncLedger.series)
    chunks = _blocking(AsyncLedger.chunks)
    stop = _blocking(AsyncLedger.stop)
    clear_stop = _blocking(AsyncLedger.clear_stop)
    prune = _blocking(AsyncLedger.prune)
    paused_accounts = _blocking(AsyncLedger.paused_accounts)
    lift_pauses = _blocking(AsyncLedger.lift_pauses)
    end_holder = _blocking(AsyncLedger.end_holder)
    accept_copy = _blocking(AsyncLedger.accept_copy)

    def targets(self, name: str, states: Collection[str] = ()) -> Iterator[Target]:
        """Iterate over the targets of a run in the order of its plan, read in pages.

        See `dispatchkit.Ledger.targets`.
        """
        return self._iterate(lambda: self._async_ledger.targets(name, states), "targets", _PAGE)

    def watch(self, name: str, every: float = 1.0) -> Iterator[Snapshot]:
        """Watch a run that any process performs: a `Snapshot` now, then one after each ``every`` seconds.

        See `dispatchkit.Ledger.watch`.
        """
        watching = self._async_ledger.watch(name, every)
        return self._iterate(lambda: watching, "watch", 1)

    def change_account(self, name: str, client: SyncClient[C]) -> None:
        """Accept a client's token as the rotated token of a run's account.

        See `dispatchkit.Ledger.change_account`.
        """
        self._run(lambda: self._async_ledger.change_account(name, client._async_client), "change_account")

    def close(self) -> None:
        """Close the store, after its fan-outs. A second call does nothing.

        Raises:
            LedgerError: The store reports an error.
        """
        try:
            if not self._handle.is_closed():
                self._run(self._async_ledger.close, "close")
        finally:
            self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a sync.Ledger is not pickled: make one in the process that uses it")

    def __rich_repr__(self) -> RichRepr:
        if hasattr(self, "_async_ledger"):
            yield from self._async_ledger.__rich_repr__()

    def __repr__(self) -> str:
        if not hasattr(self, "_async_ledger"):  # a traceback may show a ledger whose constructor raised
            return "sync.Ledger()"
        return f"sync.{self._async_ledger!r}"

    def _hold(self) -> None:
        """Keep the loop thread until the close: a fan-out opens the store there."""
        if os.getpid() != self._process:
            raise RuntimeError("this process was forked: make a sync.Ledger of its own")
        self._handle.register()

    def _run(self, work: Callable[[], Coroutine[object, object, R]], method: str) -> R:
        self._hold()
        return self._handle.run(work, method)

    def _iterate(self, start: Callable[[], AsyncIterator[T]], method: str, most: int) -> Iterator[T]:
        """The items of an asynchronous iterator, up to ``most`` at once."""
        items = start()
        try:
            while page := self._run(lambda: _page(items, most), method):
                yield from page
        finally:
            if not self._handle.is_closed():
                self._run(lambda: _end(items), method)


async def _page(items: AsyncIterator[T], most: int) -> list[T]:
    page: list[T] = []
    async for item in items:
        page.append(item)
        if len(page) >= most:
            break
    return page


async def _end(items: AsyncIterator[object]) -> None:
    close: Callable[[], Coroutine[object, object, None]] | None = getattr(items, "aclose", None)
    if close is not None:
        await close()

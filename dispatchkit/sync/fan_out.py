"""The blocking fan-out: outcomes cross the loop thread in batches, and an early exit is orderly."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, Unpack

from dispatchkit.core.call.client import Client
from dispatchkit.core.command import Command
from dispatchkit.core.context_managers import BlockingOnly
from dispatchkit.core.fanout.fan_out import FanOut as AsyncFanOut
from dispatchkit.core.fanout.guards import StopReason
from dispatchkit.core.fanout.options import FanOutOptions
from dispatchkit.core.fanout.outcome import Outcome, Report
from dispatchkit.core.fanout.snapshot import Snapshot
from dispatchkit.core.options import takes_options
from dispatchkit.core.reprs import RichRepr
from dispatchkit.core.validators import shown
from dispatchkit.sync.caller_items import CallerItems, hand_over
from dispatchkit.sync.portal import CANCEL_TIMEOUT, PortalHandle

__all__ = ["FanOut"]

T = TypeVar("T")
W = TypeVar("W")
R_co = TypeVar("R_co", covariant=True)
C_co = TypeVar("C_co", covariant=True)


class _BlockingClient(Protocol[C_co]):
    """The members of a blocking client that a fan-out uses."""

    @property
    def _async_client(self) -> C_co: ...

    @property
    def _handle(self) -> PortalHandle: ...


class FanOut(BlockingOnly, Generic[R_co]):
    """Many commands through one client: `dispatchkit.FanOut`, for a caller that blocks.

    ``for outcome in fan_out:`` yields each outcome as it comes; `finish` runs to the end. Leaving the loop early ends
    the run, and so does Ctrl-C. Nothing more is sent, and calls in flight are awaited. Calls that wait for a retry are
    given up. ``report`` counts all of them. ``with fan_out:`` closes the run at the end of the block.

    The arguments are those of `dispatchkit.FanOut`. A plain iterator of commands is read in the thread that iterates
    the fan-out or calls `finish`. It is read at most ``concurrency`` commands ahead. So a generator,
    an sqlite3 cursor or Django's ORM may be bound to that thread. An asynchronous
    iterable is read on the loop thread, and should not block.

    Raises:
        ValueError: An option is out of range, or the number of commands is not ``expected``, or not more than
            ``canary``.
        TypeError: An option is unknown or of another type.
    """

    @takes_options(AsyncFanOut)
    def __init__(
        self,
        client: _BlockingClient[Client[W]],
        commands: Iterable[Command[W, R_co]] | AsyncIterable[Command[W, R_co]] | None,
        **options: Unpack[FanOutOptions],
    ) -> None:
        if not hasattr(client, "_async_client"):  # callers without a type checker
            what = "a blocking client, such as those of dispatchkit.sync"
            raise TypeError(f"client must be {what}, not {shown(client)}")
        held: CallerItems[Any] | None = None
        if commands is not None:
            commands, held = hand_over(commands, options)
        self._bind(client, AsyncFanOut(client._async_client, commands, **options), held)

    @classmethod
    def _around(
        cls, client: _BlockingClient[object], async_fan_out: AsyncFanOut[R_co], held: CallerItems[Any] | None
    ) -> Self:
        """The blocking fan-out of an asynchronous one: for the ``*_many`` of the clients."""
        fan_out = cls.__new__(cls)
        fan_out._bind(client, async_fan_out, held)  # noqa: SLF001 - it is of this class
        return fan_out

    def _bind(
        self, client: _BlockingClient[object], async_fan_out: AsyncFanOut[R_co], held: CallerItems[Any] | None
    ) -> None:
        self._client = client  # a client closes itself once it is garbage
        self._handle = client._handle
        self._async_fan_out = async_fan_out
        self._held = held
        """The items that this thread reads; None if the loop thread reads them."""
        self._turn = threading.RLock()
        self._in_turn: int | None = None
        """The thread that has the turn."""
        self._process = os.getpid()

    @property
    def report(self) -> Report:
        """The outcomes so far, counted, whether or not they were taken."""
        return self._async_fan_out.report

    @property
    def in_flight(self) -> int:
        """The number of calls that are under way now, waits and retries included."""
        return self._async_fan_out.in_flight

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the run ended, or ends, before its last command; None if it does not."""
        return self._async_fan_out.stop_reason

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way and nothing starts any more. Outcomes may still wait to be taken."""
        return self._async_fan_out.is_over

    def watch(self, every: float = 1.0) -> Iterator[Snapshot]:
        """Watch the run: a `Snapshot` now, one after each ``every`` seconds, and the last one once the run is over.

        See `dispatchkit.FanOut.watch`. Iterate it in another thread than the one that takes the outcomes. It ends when
        the client is closed, too.
        """
        return self._snapshots(self._async_fan_out.watch(every))

    def _snapshots(self, watching: AsyncIterator[Snapshot]) -> Iterator[Snapshot]:
        shown: Snapshot | None = None
        while shown is None or not shown.is_over:
            try:
                shown = self._handle.run(lambda: _next(watching), "watch", owner="FanOut")
            except RuntimeError:
                if not self._handle.is_closed():
                    raise
                # The client was closed while this thread waited: nothing starts any more.
                rate = None if shown is None else shown.rate
                shown = Snapshot(self.report, rate, self.in_flight, settling=0, time_left=0.0, is_over=True)
            yield shown

    def __rich_repr__(self) -> RichRepr:
        if hasattr(self, "_async_fan_out"):
            yield from self._async_fan_out.__rich_repr__()

    def __repr__(self) -> str:
        if not hasattr(self, "_async_fan_out"):  # a traceback may show a fan-out whose constructor raised
            return "<sync.FanOut>"
        return f"<sync.{repr(self._async_fan_out).removeprefix('<')}"

    def __iter__(self) -> Iterator[Outcome[R_co]]:
        try:
            while batch := self.batch():
                yield from batch
        except GeneratorExit:  # the caller left the loop
            self._end(None)
            raise

    def batch(self, most: int = 1024) -> list[Outcome[R_co]]:
        """Wait for an outcome and take all that are ready. Empty at the end of the run.

        Args:
            most: The most outcomes to take.
        """
        taken = self._call(lambda: self._async_fan_out.batch(most), "batch")
        if not taken and self._held is not None:
            self._held.close()
        return taken

    def finish(self) -> Report:
        """Run to the end and return the report. The outcomes themselves are dropped.

        Raises:
            AuthenticationError: The provider does not accept the token, so the run was stopped.
            AccessDeniedError: The token may not do this, or `TariffLimitError`: the account may not. It was the
                provider's first answer, so the run was stopped.
            BaseException: The error of the iterator of commands, once every call in flight has its outcome.
        """
        report = self._call(self._async_fan_out.finish, "finish")
        if self._held is not None:
            self._held.close()
        return report

    def stop(self) -> None:
        """Start nothing new. Calls in flight are awaited, and their outcomes still come."""
        if self._held is not None and self._held.is_calling():
            self._held.stop_here(self._async_fan_out.stop)
        elif self._handle.on_loop_thread():  # an asynchronous iterator of commands may ask for it
            self._async_fan_out.stop()
        elif not self._handle.is_closed():
            self._handle.run(self._stop, "stop", owner="FanOut")

    def close(self, *, timeout: float | None = 0.0) -> None:
        """Start nothing new, and wait until the run is over. Not needed after the end.

        The outcomes can still be read from `report`, or taken.

        Args:
            timeout: Seconds that calls in flight are awaited before they are cancelled; None sets no bound but
                ``grace_period``.
        """
        self._end(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def _stop(self) -> None:
        self._async_fan_out.stop()

    async def _close(self, timeout: float | None) -> None:
        if self._held is not None:
            self._async_fan_out.stop()  # before the wait for items ends: that is no failure of the run
            self._held.abandon()
        await self._async_fan_out.close(timeout=timeout)
        if self._held is not None:
            await self._held.end()

    def _call(self, work: Callable[[], Coroutine[object, object, T]], method: str) -> T:
        """Run work of the run on the loop thread. In between, this thread reads the items that it asks for."""
        if self._held is None:
            return self._run(work, method)
        if self._held.is_calling():
            raise RuntimeError(f"the iterator of commands called sync.FanOut.{method} of its own run")
        held, here = self._held, threading.get_ident()
        if self._in_turn == here:
            raise RuntimeError(f"a signal handler called sync.FanOut.{method} inside another call of the same run")
        with self._turn:
            self._in_turn = here
            try:
                while (over := self._run(lambda: held.work_or_ask(work), method)) is None:
                    self._read(held)
            except Exception:
                with contextlib.suppress(Exception):  # the first error is the one to raise
                    held.close()
                raise
            finally:
                self._in_turn = None
            return over[0]

    def _read(self, held: CallerItems[Any]) -> None:
        try:
            held.read()
        except BaseException as interrupt:  # Ctrl-C, for example
            self._interrupt(interrupt)
            raise

    def _run(self, work: Callable[[], Coroutine[object, object, T]], method: str) -> T:
        if os.getpid() != self._process:
            raise RuntimeError("this process was forked out of the run, which goes on in the parent")
        try:
            return self._handle.run(work, method, owner="FanOut", on_interrupt=self._interrupt)
        except RuntimeError as error:
            if self._handle.is_closed():  # by another thread, perhaps in the middle of the run
                error.add_note(repr(self))
            raise

    def _interrupt(self, interrupt: BaseException) -> None:
        """End the run for an exception that ended the wait. A note on it says what is known of the run."""
        self._end(CANCEL_TIMEOUT)
        interrupt.add_note(repr(self))

    def _end(self, timeout: float | None) -> None:
        if os.getpid() != self._process or self._handle.is_closed():
            return
        self._handle.run(lambda: self._close(timeout), "close", owner="FanOut")
        if self._held is not None:
            with contextlib.suppress(Exception):  # a closed run raises nothing
                self._held.close()


async def _next(watching: AsyncIterator[Snapshot]) -> Snapshot:
    return await anext(watching)

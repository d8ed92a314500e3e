"""A blocking fan-out's way over the loop thread: in batches going, and in good order when it is ended early."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Coroutine, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from dispatchkit.core.call.client import Client
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.command import Command
from dispatchkit.core.fanout.fan_out import FanOut as AsyncFanOut
from dispatchkit.core.fanout.guards import StopReason
from dispatchkit.core.fanout.journal import JournalProvider
from dispatchkit.core.fanout.outcome import Outcome, Report
from dispatchkit.core.fanout.repeats import RepeatMode
from dispatchkit.core.validators import shown
from dispatchkit.sync.portal import CANCEL_TIMEOUT, PortalHandle

__all__ = ["FanOut", "FanOutDriver", "StartedFanOut"]

R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W")
W_co = TypeVar("W_co", covariant=True)
P_co = TypeVar("P_co", covariant=True)


class _FanOut(Protocol[T, P_co]):
    async def batch(self, most: int = ...) -> list[T]: ...
    async def finish(self) -> P_co: ...
    async def close(self, *, timeout: float | None = ...) -> None: ...
    def stop(self) -> None: ...


class FanOutDriver(Generic[T, P_co]):
    """Drives a fan-out for a caller that blocks.

    Ended early, by leaving its loop or by Ctrl-C, it sends nothing any more. What has been sent is awaited, what waits
    to be repeated is given up, and all of it is in the report.
    """

    def __init__(self, handle: PortalHandle, async_fan_out: _FanOut[T, P_co]) -> None:
        self._handle = handle
        self._async_fan_out = async_fan_out
        self._process = os.getpid()

    def __iter__(self) -> Iterator[T]:
        try:
            while batch := self._call(self._async_fan_out.batch(), "__iter__"):
                yield from batch
        except GeneratorExit:  # the caller left the loop
            self._end(None)
            raise

    def finish(self) -> P_co:
        """Go to the end and return the report.

        Raises:
            AuthenticationError: The provider does not accept the token, so the run was stopped.
            AccessDeniedError: The token may not do this, or `TariffLimitError`: the account may not. It was the
                provider's first answer, so the run was stopped.
            BaseException: What the iterator of commands raised, once everything in flight has come to its outcome.
        """
        return self._call(self._async_fan_out.finish(), "finish")

    def stop(self) -> None:
        """Start nothing new."""
        if self._handle.on_loop_thread():  # the iterator of commands may ask for it
            self._async_fan_out.stop()
        elif not self._handle.is_closed():
            self._handle.run(self._stop(), "stop", owner="FanOut")

    def close(self) -> None:
        """Start nothing new, cancel what is in flight and wait until it is over."""
        self._end(0.0)

    async def _stop(self) -> None:
        self._async_fan_out.stop()

    def _call(self, work: Coroutine[object, object, R], method: str) -> R:
        if os.getpid() != self._process:
            work.close()
            raise RuntimeError("this process was forked out of the run, which goes on in the parent")
        return self._handle.run(work, method, owner="FanOut", on_interrupt=lambda: self._end(CANCEL_TIMEOUT))

    def _end(self, timeout: float | None) -> None:
        if os.getpid() == self._process and not self._handle.is_closed():
            self._handle.run(self._async_fan_out.close(timeout=timeout), "close", owner="FanOut")


class _Blocking(Protocol[W_co]):
    """What the blocking clients have in common."""

    @property
    def async_client(self) -> W_co: ...

    @property
    def handle(self) -> PortalHandle: ...


class StartedFanOut(FanOutDriver[Outcome[R], Report], Generic[W, R]):
    """A blocking fan-out, around one that is there already."""

    def __init__(self, client: _Blocking[object], async_fan_out: AsyncFanOut[W, R]) -> None:
        super().__init__(client.handle, async_fan_out)
        self._client = client  # which closes itself when nobody holds it any more
        self._fan_out = async_fan_out

    @property
    def report(self) -> Report:
        """What has come of the commands so far. It can be read after the run was ended as well."""
        return self._fan_out.report

    @property
    def in_flight(self) -> int:
        """Calls that are under way now, waits and retries included."""
        return self._fan_out.in_flight

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the run ended, or ends, before its last command; None if it does not."""
        return self._fan_out.stop_reason


class FanOut(StartedFanOut[W, R]):
    """Many commands through one client: `dispatchkit.FanOut`, for a caller that blocks.

    ``for outcome in run:`` gives each outcome as it comes, `finish` goes to the end. Whoever leaves the loop early, or
    presses Ctrl-C, ends the run: nothing more is sent, what has been sent is awaited, and ``report`` has all of it.

    The arguments are those of `dispatchkit.FanOut`. The commands are taken on the loop thread, so their iterator should
    not block.

    Raises:
        ValueError: A setting is out of range, or there are not as many commands as ``expected``.
        TypeError: A setting is of another type.
    """

    def __init__(
        self,
        client: _Blocking[Client[W]],
        commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None,
        *,
        concurrency: int = 64,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        expected: int | None = None,
        max_launches: int | None = None,
        stop_after_failures: int | None = None,
        give_up_after: float | None = None,
        grace_period: float = 30.0,
        ledger: JournalProvider | None = None,
        run: str | None = None,
        repeat_window: float | None = None,
        repeats: RepeatMode | None = None,
    ) -> None:
        if not hasattr(client, "async_client"):  # callers without a type checker
            what = "a DirectClient or an AltcraftClient of dispatchkit.sync"
            raise TypeError(f"client must be {what}, not {shown(client)}")
        async_fan_out = AsyncFanOut(
            client.async_client,
            commands,
            concurrency=concurrency,
            timeout=timeout,
            retry=retry,
            expected=expected,
            max_launches=max_launches,
            stop_after_failures=stop_after_failures,
            give_up_after=give_up_after,
            grace_period=grace_period,
            ledger=ledger,
            run=run,
            repeat_window=repeat_window,
            repeats=repeats,
        )
        super().__init__(client, async_fan_out)

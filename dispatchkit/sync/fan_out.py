"""The blocking fan-out: outcomes cross the loop thread in batches, and an early exit is orderly."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Coroutine, Iterable, Iterator
from typing import Generic, Protocol, Self, TypeVar, Unpack

from dispatchkit.core.call.client import Client
from dispatchkit.core.command import Command
from dispatchkit.core.fanout.fan_out import FanOut as AsyncFanOut
from dispatchkit.core.fanout.guards import StopReason
from dispatchkit.core.fanout.options import FanOutOptions
from dispatchkit.core.fanout.outcome import Outcome, Report
from dispatchkit.core.options import takes_options
from dispatchkit.core.validators import shown
from dispatchkit.sync.portal import CANCEL_TIMEOUT, PortalHandle

__all__ = ["FanOut"]

T = TypeVar("T")
W = TypeVar("W")
R_co = TypeVar("R_co", covariant=True)
C_co = TypeVar("C_co", covariant=True)


class _BlockingClient(Protocol[C_co]):
    """The members of a blocking client that a fan-out uses."""

    @property
    def async_client(self) -> C_co: ...

    @property
    def handle(self) -> PortalHandle: ...


class FanOut(Generic[R_co]):
    """Many commands through one client: `dispatchkit.FanOut`, for a caller that blocks.

    ``for outcome in fan_out:`` yields each outcome as it comes; `finish` runs to the end. Leaving the loop early ends
    the run, and so does Ctrl-C. Nothing more is sent, and calls in flight are awaited. Calls that wait for a retry are
    given up. ``report`` counts all of them.

    The arguments are those of `dispatchkit.FanOut`. The commands are taken on the loop thread, so their iterator should
    not block.

    Raises:
        ValueError: An option is out of range, or the number of commands is not ``expected``.
        TypeError: An option is unknown or of another type.
    """

    @takes_options(AsyncFanOut)
    def __init__(
        self,
        client: _BlockingClient[Client[W]],
        commands: Iterable[Command[W, R_co]] | AsyncIterable[Command[W, R_co]] | None,
        **options: Unpack[FanOutOptions],
    ) -> None:
        if not hasattr(client, "async_client"):  # callers without a type checker
            what = "a blocking client, such as those of dispatchkit.sync"
            raise TypeError(f"client must be {what}, not {shown(client)}")
        self._bind(client, AsyncFanOut(client.async_client, commands, **options))

    @classmethod
    def _around(cls, client: _BlockingClient[object], async_fan_out: AsyncFanOut[R_co]) -> Self:
        """The blocking fan-out of an asynchronous one: for the ``*_many`` of the clients."""
        fan_out = cls.__new__(cls)
        fan_out._bind(client, async_fan_out)  # noqa: SLF001 - it is of this class
        return fan_out

    def _bind(self, client: _BlockingClient[object], async_fan_out: AsyncFanOut[R_co]) -> None:
        self._client = client  # a client closes itself once it is garbage
        self._handle = client.handle
        self._async_fan_out = async_fan_out
        self._process = os.getpid()

    @property
    def report(self) -> Report:
        """The outcomes so far, counted. It can be read after the run was ended as well."""
        return self._async_fan_out.report

    @property
    def in_flight(self) -> int:
        """The number of calls that are under way now, waits and retries included."""
        return self._async_fan_out.in_flight

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the run ended, or ends, before its last command; None if it does not."""
        return self._async_fan_out.stop_reason

    def __repr__(self) -> str:
        return f"sync.{self._async_fan_out!r}".replace("sync.<", "<sync.", 1)

    def __iter__(self) -> Iterator[Outcome[R_co]]:
        try:
            while batch := self._call(self._async_fan_out.batch(), "__iter__"):
                yield from batch
        except GeneratorExit:  # the caller left the loop
            self._end(None)
            raise

    def finish(self) -> Report:
        """Run to the end and return the report. The outcomes themselves are dropped.

        Raises:
            AuthenticationError: The provider does not accept the token, so the run was stopped.
            AccessDeniedError: The token may not do this, or `TariffLimitError`: the account may not. It was the
                provider's first answer, so the run was stopped.
            BaseException: The error of the iterator of commands, once every call in flight has its outcome.
        """
        return self._call(self._async_fan_out.finish(), "finish")

    def stop(self) -> None:
        """Start nothing new. Calls in flight are awaited, and their outcomes still come."""
        if self._handle.on_loop_thread():  # the iterator of commands may ask for it
            self._async_fan_out.stop()
        elif not self._handle.is_closed():
            self._handle.run(self._stop(), "stop", owner="FanOut")

    def close(self) -> None:
        """Start nothing new, cancel the calls in flight and wait until the run is over."""
        self._end(0.0)

    async def _stop(self) -> None:
        self._async_fan_out.stop()

    def _call(self, work: Coroutine[object, object, T], method: str) -> T:
        if os.getpid() != self._process:
            work.close()
            raise RuntimeError("this process was forked out of the run, which goes on in the parent")
        return self._handle.run(work, method, owner="FanOut", on_interrupt=lambda: self._end(CANCEL_TIMEOUT))

    def _end(self, timeout: float | None) -> None:
        if os.getpid() == self._process and not self._handle.is_closed():
            self._handle.run(self._async_fan_out.close(timeout=timeout), "close", owner="FanOut")

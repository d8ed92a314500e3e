"""A blocking fan-out's way over the loop thread: in batches going, and in good order when it is ended early."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from typing import Generic, Protocol, TypeVar

from dispatchkit.core.gate import GATE, Gate
from dispatchkit.core.portal import PATIENCE, Lease

__all__ = ["Run"]

R = TypeVar("R")
T = TypeVar("T")
P_co = TypeVar("P_co", covariant=True)

_SETTLING_DOWN = 0.05
"""Seconds for an answer that has come to get into the report."""


class _FanOut(Protocol[T, P_co]):
    async def batch(self, most: int = ...) -> list[T]: ...
    async def finish(self) -> P_co: ...
    async def close(self) -> None: ...
    def stop(self) -> None: ...


class Run(Generic[T, P_co]):
    """Drives a fan-out for a caller that blocks.

    Ended early, by leaving its loop or by Ctrl-C, it sends nothing any more. What has been sent is awaited, what waits
    to be repeated is given up, and all of it is in the report.
    """

    def __init__(self, lease: Lease, twin: _FanOut[T, P_co]) -> None:
        self._lease = lease
        self._twin = twin
        self._gate = Gate()
        self._process = os.getpid()
        self._current: asyncio.Task[object] | None = None

    def __iter__(self) -> Iterator[T]:
        try:
            while batch := self._cross(self._twin.batch, "__iter__"):
                yield from batch
        except GeneratorExit:  # the caller left the loop
            self._end(None)
            raise

    def finish(self) -> P_co:
        """Go to the end and return the report."""
        return self._cross(self._twin.finish, "finish")

    def stop(self) -> None:
        """Start nothing new."""
        if self._lease.on_loop_thread():  # the iterator of commands may ask for it
            self._twin.stop()
        elif not self._lease.is_over():
            self._lease.run(self._stop(), "stop", owner="FanOut")

    def close(self) -> None:
        """Start nothing new, cancel what is in flight and wait until it is over."""
        if not self._lease.is_over():
            self._lease.run(self._twin.close(), "close", owner="FanOut")

    async def _stop(self) -> None:
        self._twin.stop()

    def _cross(self, work: Callable[[], Coroutine[object, object, R]], method: str) -> R:
        if os.getpid() != self._process:
            raise RuntimeError("this process was forked out of the run, which goes on in the parent")
        return self._lease.run(self._gated(work), method, owner="FanOut", relent=lambda: self._end(PATIENCE))

    async def _gated(self, work: Callable[[], Coroutine[object, object, R]]) -> R:
        GATE.set(self._gate)
        self._current = asyncio.current_task()
        return await work()

    def _end(self, patience: float | None) -> None:
        if os.getpid() == self._process and not self._lease.is_over():
            self._lease.run(self._wind_down(patience), "close", owner="FanOut")

    async def _wind_down(self, patience: float | None) -> None:
        self._twin.stop()
        self._gate.shut()
        drained = asyncio.create_task(self._drain())
        emptied = asyncio.create_task(self._gate.emptied())
        try:
            await asyncio.wait({drained, emptied}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({drained}, timeout=_SETTLING_DOWN)
        finally:
            emptied.cancel()
            await self._twin.close()
            await asyncio.wait({drained}, timeout=PATIENCE)

    async def _drain(self) -> None:
        """Take the outcomes that nobody takes any more, so that they are counted."""
        if self._current is not None:
            await asyncio.wait({self._current})
        try:
            while await self._twin.batch():
                pass
        except Exception:  # noqa: BLE001, S110 - the run is being ended, and has no more use for its commands
            pass

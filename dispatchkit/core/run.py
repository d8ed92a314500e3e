"""A blocking fan-out's way over the loop thread: in batches going, and in good order when it is ended early."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterator
from typing import Generic, Protocol, TypeVar

from dispatchkit.core.portal import PATIENCE, Lease

__all__ = ["Run"]

R = TypeVar("R")
T = TypeVar("T")
P_co = TypeVar("P_co", covariant=True)


class _FanOut(Protocol[T, P_co]):
    async def batch(self, most: int = ...) -> list[T]: ...
    async def finish(self) -> P_co: ...
    async def close(self, *, patience: float | None = ...) -> None: ...
    def stop(self) -> None: ...


class Run(Generic[T, P_co]):
    """Drives a fan-out for a caller that blocks.

    Ended early, by leaving its loop or by Ctrl-C, it sends nothing any more. What has been sent is awaited, what waits
    to be repeated is given up, and all of it is in the report.
    """

    def __init__(self, lease: Lease, twin: _FanOut[T, P_co]) -> None:
        self._lease = lease
        self._twin = twin
        self._process = os.getpid()

    def __iter__(self) -> Iterator[T]:
        try:
            while batch := self._cross(self._twin.batch(), "__iter__"):
                yield from batch
        except GeneratorExit:  # the caller left the loop
            self._end(None)
            raise

    def finish(self) -> P_co:
        """Go to the end and return the report."""
        return self._cross(self._twin.finish(), "finish")

    def stop(self) -> None:
        """Start nothing new."""
        if self._lease.on_loop_thread():  # the iterator of commands may ask for it
            self._twin.stop()
        elif not self._lease.is_over():
            self._lease.run(self._stop(), "stop", owner="FanOut")

    def close(self) -> None:
        """Start nothing new, cancel what is in flight and wait until it is over."""
        self._end(0.0)

    async def _stop(self) -> None:
        self._twin.stop()

    def _cross(self, work: Coroutine[object, object, R], method: str) -> R:
        if os.getpid() != self._process:
            work.close()
            raise RuntimeError("this process was forked out of the run, which goes on in the parent")
        return self._lease.run(work, method, owner="FanOut", relent=lambda: self._end(PATIENCE))

    def _end(self, patience: float | None) -> None:
        if os.getpid() == self._process and not self._lease.is_over():
            self._lease.run(self._twin.close(patience=patience), "close", owner="FanOut")

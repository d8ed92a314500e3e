"""The longest time for which an event loop was blocked: how late a timer of one millisecond fires at most."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

_TICK = 0.001


class LoopBlocks:
    """Watch the running loop inside ``with``.

    The longest block includes the time for which another process had the core, so its median over rounds is what
    counts. The longest CPU time between two ticks is what the loop's own work takes, also on a busy machine.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        """Seconds by which a tick was late."""
        self.longest_cpu = 0.0
        """CPU seconds of the loop's thread between two ticks."""

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._last, self._last_cpu = time.perf_counter(), time.thread_time()
        self._timer = self._loop.call_later(_TICK, self._tick)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._note()

    def _tick(self) -> None:
        self._note()
        self._timer = self._loop.call_later(_TICK, self._tick)

    def _note(self) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        self.longest = max(self.longest, now - self._last - _TICK)
        self.longest_cpu = max(self.longest_cpu, cpu - self._last_cpu)
        self._last, self._last_cpu = now, cpu

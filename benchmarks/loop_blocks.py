"""The longest time for which an event loop was blocked: how late a timer of one millisecond fires at most."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

_TICK = 0.001


class LoopBlocks:
    """Watch the running loop inside ``with``. ``longest`` is in seconds.

    It includes the time for which another process had the core, so its median over rounds is what counts.
    """

    def __init__(self) -> None:
        self.longest = 0.0

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._last = time.perf_counter()
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
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last - _TICK)
        self._last = now

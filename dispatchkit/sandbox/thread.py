"""An event loop in a thread of its own, so that a blocking program can run a sandbox."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

R = TypeVar("R")


class LoopThread:
    """Runs coroutines for a thread that blocks. It needs nothing of that thread, which may run a loop itself."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        # A program that never leaves the sandbox's context ends all the same.
        self._thread = threading.Thread(target=self._serve, name="dispatchkit-sandbox", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def run(self, coroutine: Coroutine[object, object, R]) -> R:
        """Run a coroutine in the thread and wait for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def stop(self) -> None:
        """End the thread and wait for its end."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def is_of_parent(self) -> bool:
        """Whether this process was forked since: it has no such thread."""
        return os.getpid() != self._process

"""The file of ``worker --liveness-file``: its modification time shows when the event loop last ran."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from dispatchkit.cli.translate import _
from dispatchkit.core.clock import SYSTEM, Clock
from dispatchkit.ledger.chunk import HEARTBEAT_INTERVAL

__all__ = ["keep_touching"]


@contextlib.asynccontextmanager
async def keep_touching(path: Path, tell: Callable[[str], None], *, clock: Clock = SYSTEM) -> AsyncGenerator[None]:
    """Touch a file now and once a second, from the running event loop, until the end of the block.

    A blocked loop lets the file grow old. An unreachable database or provider does not: a restart would not help.

    Args:
        path: The file. It is made if it is missing, and its content stays.
        tell: Called with a line when the file can no longer be touched.
        clock: What measures the second.

    Raises:
        OSError: The file cannot be touched now.
    """
    path.touch()  # noqa: ASYNC240 - it takes microseconds, on a file system in memory
    touching = asyncio.create_task(_touch(path, tell, clock))
    try:
        yield
    finally:
        touching.cancel()
        await asyncio.wait([touching])


async def _touch(path: Path, tell: Callable[[str], None], clock: Clock) -> None:
    fails = False
    while True:
        await clock.sleep(HEARTBEAT_INTERVAL)
        try:
            path.touch()  # noqa: ASYNC240
        except OSError as error:
            if not fails:
                tell(
                    _("{path}: {reason}. A liveness probe of this file may end the worker.").format(
                        path=path, reason=error.strerror
                    )
                )
            fails = True
        else:
            fails = False

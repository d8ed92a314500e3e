"""Tasks that go on though the wait for them is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

__all__ = ["mark_retrieved", "to_its_end"]


async def to_its_end(work: Coroutine[object, object, None]) -> None:
    """Do work also if the caller is cancelled, even twice."""
    working = asyncio.create_task(work)
    working.add_done_callback(mark_retrieved)
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


def mark_retrieved(task: asyncio.Task[None]) -> None:
    """Mark the task's exception as retrieved: the next caller gets the error."""
    if not task.cancelled():
        task.exception()

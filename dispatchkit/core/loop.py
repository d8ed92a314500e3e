"""The event loop that clients, fan-outs and ledgers need: one of asyncio or uvloop."""

from __future__ import annotations

import asyncio

__all__ = ["ForeignLoopError", "running_loop"]


class ForeignLoopError(RuntimeError):
    """A client was called from another event loop than its first call, or where no loop with real sockets runs.

    Nothing was sent.
    """


def running_loop(what: str) -> asyncio.AbstractEventLoop:
    """The running event loop.

    Args:
        what: What needs it, for the message.

    Raises:
        ForeignLoopError: There is none: trio or another library runs this code.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    raise ForeignLoopError(
        f"a {what} needs a running event loop of asyncio or uvloop, and there is none here. trio and curio are not "
        "supported: under trio, use a client of dispatchkit.sync in trio.to_thread.run_sync; under anyio, its backend "
        "'asyncio'"
    )

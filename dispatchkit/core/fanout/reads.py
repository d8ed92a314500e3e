"""Many reads through one client, as the account's pace allows. Only as many outcomes wait as there are workers."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import TypeVar

from dispatchkit.core.call.client import Client
from dispatchkit.core.command import Command
from dispatchkit.core.fanout.fan_out import FanOut
from dispatchkit.core.fanout.outcome import Outcome

__all__ = ["read_all"]

R = TypeVar("R")
W = TypeVar("W")

_GRACE = 1.0
"""Seconds that reads in flight are awaited after the bound."""


async def read_all(
    client: Client[W],
    commands: Iterable[Command[W, R]],
    *,
    timeout: float | None = None,
    within: float | None = None,
) -> AsyncGenerator[Outcome[R]]:
    """The outcomes of reads, in the order of completion.

    Args:
        client: Reads.
        commands: The reads.
        timeout: Seconds for each read; None takes the client's.
        within: Seconds for all of them. Afterwards nothing new is read: what is left has no outcome. None: no bound.

    Raises:
        RejectedError: The provider refuses the token or, in its first answer, the account.
    """
    async with FanOut(client, commands, timeout=timeout, grace_period=_GRACE) as reading:
        # The bound also ends a wait for the account's pause, which no timeout of a call counts.
        bound = None if within is None else asyncio.get_running_loop().call_later(within, reading.stop)
        try:
            async for outcome in reading:
                yield outcome
        finally:
            if bound is not None:
                bound.cancel()

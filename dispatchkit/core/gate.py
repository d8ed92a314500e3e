"""A gate on everything that a blocking fan-out sends, so that the run can be ended without cutting a request in two."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

__all__ = ["GATE", "Gate"]


class Gate:
    """Once it is shut, no further request leaves; those that have left are waited for.

    It goes with the context: what is run where `GATE` holds it, and every task made there, sends through it.
    """

    __slots__ = ("_emptied", "_inside", "_shut")

    def __init__(self) -> None:
        self._shut = False
        self._inside = 0
        self._emptied = asyncio.Event()

    def enter(self) -> bool:
        """Whether a request may be sent. If so, call `leave` after it."""
        if self._shut:
            return False
        self._inside += 1
        return True

    def leave(self) -> None:
        """The request came to an end."""
        self._inside -= 1
        if self._shut and not self._inside:
            self._emptied.set()

    def shut(self) -> None:
        """From now on nothing is sent."""
        self._shut = True
        if not self._inside:
            self._emptied.set()

    async def emptied(self) -> None:
        """Wait until the gate is shut and no request is under way."""
        await self._emptied.wait()


GATE: ContextVar[Gate | None] = ContextVar("dispatchkit_gate", default=None)
"""The gate of the fan-out that is being run, if it has one."""

"""The source of a fan-out's commands without a ledger: one iterator, synchronous or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from typing import Never, TypeVar, cast

from dispatchkit.core.command import Command
from dispatchkit.core.fanout.journal import PlanSummary, WorkItem
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.core.fanout.repeats import LargeValueError, Repeats
from dispatchkit.core.validators import async_iterable, int_in_range, shown

__all__ = ["IterableSource", "iterate"]

R = TypeVar("R")
W = TypeVar("W")


class IterableSource:
    """The source of a run without a ledger. See `Source`, whose methods these are."""

    __slots__ = ("_commands", "_held", "_length", "_repeats", "_taken", "_turn", "_waits")

    def __init__(self, length: int | None, repeats: Repeats | None = None) -> None:
        self._length = length
        self._repeats = repeats
        self._commands: Iterator[Command[Never, object]] = iter(())
        self._waits: AsyncIterator[Command[Never, object]] | None = None
        self._held: Command[Never, object] | None = None
        """The next command, if one of its values must be read first."""
        self._taken = 0
        self._turn = asyncio.Lock()

    async def open(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None, stop: Callable[[], None]
    ) -> PlanSummary:
        """Start to iterate."""
        del stop
        if isinstance(commands, AsyncIterable):
            self._waits = aiter(commands)
        elif commands is not None:
            self._commands = iter(commands)
        return PlanSummary(self._length, {})

    async def next_item(self) -> WorkItem[Never, object] | None:
        """The next command that is no repeat. A thread reads its large values, as that takes 0.1 s for 100 MB."""
        while True:
            async with self._turn:  # two workers must not be inside one generator
                if self._held is None and self._waits is None:
                    item = self.next_at_once()
                    if item is not None or self._held is None:
                        return item
                if self._held is None:
                    assert self._waits is not None  # noqa: S101 - or it has returned
                    command = await anext(self._waits, _END)
                    if command is _END:
                        return None
                    self._held = cast("Command[Never, object]", command)
                item = await self._held_item(self._held)
            if item is not None:
                return item

    async def _held_item(self, command: Command[Never, object]) -> WorkItem[Never, object] | None:
        is_repeat = self._repeats is not None and await self._repeats.skips_large(command)
        self._held = None
        index = self._taken
        self._taken = index + 1
        return None if is_repeat else WorkItem(index, command)

    def next_at_once(self) -> WorkItem[Never, object] | None:
        """The next command of a plain iterator that is no repeat; None at the end, or before a large value."""
        if self._held is not None:
            return None
        for command in self._commands:
            try:
                is_repeat = self._repeats is not None and self._repeats.skips(command)
            except LargeValueError:
                self._held = command
                break
            index = self._taken
            self._taken = index + 1
            if not is_repeat:
                return WorkItem(index, command)
        return None

    def stop(self) -> None:
        """Do nothing: no claim waits here."""

    def record(self, item: WorkItem[W, R], outcome: Outcome[R]) -> None:
        """Do nothing: outcomes are not stored."""

    async def close(self) -> None:
        """Do nothing: no run is held."""


_END = object()
"""End-of-iterator sentinel."""


def iterate(
    commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]], expected: int | None
) -> tuple[Iterator[Command[W, R]] | AsyncIterator[Command[W, R]], int | None]:
    """The iterator, and the number of its commands if it is known.

    Raises:
        TypeError: It is not iterable, or ``expected`` is no integer, or cannot be checked.
        ValueError: There are not as many as ``expected``.
    """
    if not hasattr(commands, "__iter__") and not isinstance(commands, AsyncIterable):
        raise TypeError(f"commands must be an iterable of commands, not {shown(commands)}")
    length = len(commands) if isinstance(commands, Sized) else None
    source = async_iterable(commands)
    plain = cast("Iterable[Command[W, R]]", commands)
    if expected is not None:
        int_in_range("expected", expected, minimum=0)
        if length is None:
            if source is not None:
                raise TypeError("expected= needs commands that can be counted: a list, not an async iterator")
            plain = list(plain)
            length = len(plain)
        if length != expected:
            raise ValueError(f"there are {length:,} commands, but expected={expected:,}: nothing was started")
    return (iter(plain) if source is None else aiter(source)), length

"""Where the commands of a fan-out come from when no ledger remembers them: one iterator, synchronous or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from typing import Never, TypeVar

from dispatchkit.core.command import Command
from dispatchkit.core.fanout.journal import Entry, Planned
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.core.validators import brief, shown

__all__ = ["Unremembered", "count", "source"]

R = TypeVar("R")
W = TypeVar("W")


class Unremembered:
    """The source of a run that nothing remembers: commands are taken as they come, and all of them may be sent.

    See `Source`, whose methods these are.
    """

    __slots__ = ("_commands", "_length", "_taken", "_turn")

    def __init__(self, length: int | None) -> None:
        self._length = length
        self._commands: Iterator[Command[Never, object]] | AsyncIterator[Command[Never, object]] = iter(())
        self._taken = 0
        self._turn = asyncio.Lock()

    async def open(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None, stop: Callable[[], None]
    ) -> Planned:
        """Begin."""
        del stop
        if commands is not None:
            self._commands = aiter(commands) if isinstance(commands, AsyncIterable) else iter(commands)
        return Planned(self._length, {})

    async def take(self) -> Entry[Never, object] | None:
        """The next command."""
        if isinstance(self._commands, Iterator):
            command = next(self._commands, _END)
        else:
            async with self._turn:  # two workers must not be inside one generator
                command = await anext(self._commands, _END)
        if isinstance(command, _End):
            return None
        self._taken += 1
        return Entry(self._taken - 1, command)

    def halt(self) -> None:
        """Nothing waits here."""

    def record(self, entry: Entry[W, R], outcome: Outcome[R]) -> None:
        """Nothing remembers it."""

    async def close(self) -> None:
        """Nothing is held."""


class _End:
    """What no iterator of commands can hold."""


_END = _End()


def count(name: str, value: object, *, least: int, most: int | None = None) -> None:
    """Check a number of things.

    Raises:
        TypeError: It is no integer.
        ValueError: It is too small or too large.
    """
    allowed = f"{name} must be an integer from {least} {'up' if most is None else f'to {most}'}"
    if type(value) is not int:
        raise TypeError(f"{allowed}, not {shown(value)}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{allowed}, not {brief(value)}")


def source(
    commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]], expected: int | None
) -> tuple[Iterator[Command[W, R]] | AsyncIterator[Command[W, R]], int | None]:
    """The iterator, and how many commands it holds if that can be known.

    Raises:
        TypeError: It is not iterable, or ``expected`` is no integer, or cannot be checked.
        ValueError: There are not as many as ``expected``.
    """
    if not hasattr(commands, "__iter__") and not isinstance(commands, AsyncIterable):
        raise TypeError(f"commands must be an iterable of commands, not {shown(commands)}")
    length = len(commands) if isinstance(commands, Sized) else None
    if expected is not None:
        count("expected", expected, least=0)
        if length is None:
            if isinstance(commands, AsyncIterable):
                raise TypeError("expected= needs commands that can be counted: a list, not an async iterator")
            commands = list(commands)
            length = len(commands)
        if length != expected:
            raise ValueError(f"there are {length:,} commands, but expected={expected:,}: nothing was started")
    if isinstance(commands, AsyncIterable):
        return aiter(commands), length
    return iter(commands), length

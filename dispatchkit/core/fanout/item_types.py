"""Refuse a list of wrong types before its first launch: texts, floats or rows where ids are expected.

One bad id among others is an outcome. A list whose first items all have a wrong type is a mistake of the program.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import TypeVar

from dispatchkit.core.command import Command
from dispatchkit.core.invalid_command import InvalidCommand
from dispatchkit.core.validators import brief

__all__ = ["refuse_wrong_types"]

R = TypeVar("R")
W = TypeVar("W")

_FIRST = 10
"""Items that must not all have a wrong type."""

_REMEDIES: tuple[tuple[type, str], ...] = (
    (str, "convert them: map(int, ids)"),
    (bytes, "convert them: map(int, ids)"),
    (bool, "these are flags, so pass the ids that they belong to"),
    (float, "read them as integers, since a float rounds large ids; in pandas: dtype='Int64'"),
    (dict, "pass the ids in them: [row['id'] for row in rows]"),
    (tuple, "pass the ids in them: [row[0] for row in rows]"),
    (list, "pass the ids in them: [row[0] for row in rows]"),
    (Command, "pass commands to FanOut(client, commands), and ids to the client's methods"),
    (type(None), "leave them out"),
)


def refuse_wrong_types(
    commands: Iterator[Command[W, R]] | AsyncIterator[Command[W, R]],
) -> Iterator[Command[W, R]] | AsyncIterator[Command[W, R]]:
    """The same commands. As long as all have a wrong type, up to ten are taken before the first is given.

    Raises:
        TypeError: While it is iterated: the first ten have a wrong type, or all of a shorter list.
    """
    return _AsyncChecked(commands) if isinstance(commands, AsyncIterator) else _checked(commands)


def _checked(commands: Iterator[Command[W, R]]) -> Iterator[Command[W, R]]:
    wrong: list[Command[W, R]] = []
    for command in commands:
        if not _is_wrong(command):
            yield from wrong
            yield command
            yield from commands
            return
        wrong.append(command)
        if len(wrong) == _FIRST:
            break
    if wrong:
        raise _error(wrong)


class _AsyncChecked(AsyncIterator[Command[W, R]]):
    """The asynchronous form. After the first items it passes every item through."""

    def __init__(self, commands: AsyncIterator[Command[W, R]]) -> None:
        self._commands = commands
        self._held: list[Command[W, R]] | None = None
        """Those that were taken to be looked at, the next one last; None before that."""

    def __anext__(self) -> Awaitable[Command[W, R]]:
        return self._first() if self._held is None or self._held else anext(self._commands)

    async def _first(self) -> Command[W, R]:
        if self._held is None:
            taken: list[Command[W, R]] = []
            async for command in self._commands:
                taken.append(command)
                if not _is_wrong(command):
                    break
                if len(taken) == _FIRST:
                    raise _error(taken)
            else:
                if taken:
                    raise _error(taken)
            self._held = taken[::-1]
        if not self._held:
            raise StopAsyncIteration
        return self._held.pop()


def _is_wrong(command: object) -> bool:
    if isinstance(command, InvalidCommand):
        return isinstance(command.error, TypeError)
    return not isinstance(command, Command)


def _error(commands: list[Command[W, R]]) -> TypeError:
    """What to raise for commands none of which can be sent."""
    built = [command for command in commands if isinstance(command, InvalidCommand)]
    items: list[object] = [command.item for command in built] if built else [*commands]
    types = ", ".join(dict.fromkeys(type(item).__name__ for item in items))
    remedy = next((text for cls, text in _REMEDIES if isinstance(items[0], cls)), "pass integers")
    count = f"the first {len(items)}" if len(items) == _FIRST else "all" if len(items) > 1 else "the only one"
    verb = "are" if len(items) > 1 else "is"
    if built:
        what = f"ids must be integers, but {count} {verb} of type {types}, such as {brief(items[0])}"
    else:
        what = f"commands must be commands, such as StartDispatch(5), but {count} {verb} of type {types}"
        remedy = "build them: map(StartDispatch, ids), or use the client's start_many(ids)"
    return TypeError(f"{what}: nothing was launched. To launch them, {remedy}")

"""Handle a command that the list of a fan-out names twice: skip it, launch it again, or refuse the list.

Two commands are the same if they are of one class and all their fields are the same. The order of a content's fields
does not count. An id costs less than a byte where the ids of one kind of launch are dense. Commands that differ in more
than the id cost a digest of 128 bits each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sized
from functools import cache
from hashlib import blake2b
from operator import attrgetter, is_, itemgetter
from typing import Literal, Never, TypeAlias, TypeVar, cast, get_args

import attrs

from dispatchkit.core.command import Command
from dispatchkit.core.fanout.id_set import IdSet
from dispatchkit.core.invalid_command import InvalidCommand
from dispatchkit.core.log import log, logger
from dispatchkit.core.validators import a_kind, brief

__all__ = [
    "LargeValueError",
    "RepeatMode",
    "Repeats",
    "check_repeat_mode",
    "refuse_repeats",
    "repeat_mode",
    "without_repeats",
]

R = TypeVar("R")
W = TypeVar("W")

RepeatMode: TypeAlias = Literal["skip", "launch", "refuse"]
"""What becomes of a command that is the same as an earlier one of its list:

- ``"skip"``: it is left out. It has no outcome; `Report.repeats` counts it, and the first one is logged as a warning.
- ``"launch"``: it is launched, like any other.
- ``"refuse"``: the list is refused before its first launch, with a `ValueError`.
"""

_MODES: tuple[str, ...] = get_args(RepeatMode)
_DIGEST_BYTES = 16
_LARGE = 256 * 1024
"""Bytes of a large value, whose digest takes 0.3 ms or more."""
_MAX_COMPARED = 8
"""Values of one length that further ones are compared to."""
_TURN = 256
"""Commands between two yields to the event loop."""
_NO_DIGEST = b""
"""Stands for the digest of the first settings until others come."""


class Repeats:
    """The commands that a fan-out has taken, and how many of them it left out.

    Args:
        run: The name of the run, for the log.
        blocks: Whether large values are compared at once. If not, they raise `LargeValueError`, so that the event loop
            need not wait for a digest.
    """

    __slots__ = ("_digests", "_kinds", "_run", "count")

    def __init__(self, run: str | None = None, *, blocks: bool = True) -> None:
        self._run = run
        self._digests: _Digests = _Comparisons() if blocks else _Digests()
        self._kinds: dict[type[object], _Kind | None] = {}
        self.count = 0
        """Commands that were left out."""

    def has(self, command: Command[W, R]) -> bool:
        """Whether the same command was taken before. It is taken now."""
        cls: type[object] = type(command)
        try:
            kind = self._kinds[cls]
        except KeyError:
            kind = self._kinds[cls] = _kind_of(cls)
        return kind is not None and kind.has(command, self._digests)

    async def skips_large(self, command: Command[W, R]) -> bool:
        """As `skips`. A thread reads the large values of the command."""
        while True:
            try:
                return self.skips(command)
            except LargeValueError as large:
                await asyncio.to_thread(self._digests.add, large.value)

    def skips(self, command: Command[W, R]) -> bool:
        """Whether a command is left out. It is counted, and the first one is logged.

        Raises:
            LargeValueError: `skips_large` must read a large value of the command. The command is not taken.
        """
        if not self.has(command):
            return False
        self.count += 1
        if self.count == 1:
            text = "the list names %r more than once: repeats are skipped, and report.repeats counts them"
            log(logger, logging.WARNING, text, command, extra=lambda: {"run": self._run, "index": None})
        return True


def check_repeat_mode(mode: RepeatMode | None, *, remembered: bool) -> RepeatMode | None:
    """The mode itself.

    Args:
        mode: The caller's choice.
        remembered: Whether a ledger holds the run.

    Raises:
        TypeError: The mode is not text.
        ValueError: There is no such mode, or a ledger cannot hold a command twice.
    """
    if mode is None:
        return None
    a_kind("repeats", mode, str, "'skip', 'launch' or 'refuse'")
    if mode not in _MODES:
        raise ValueError(f"repeats must be 'skip', 'launch' or 'refuse', not {brief(mode)}")
    if mode == "launch" and remembered:
        raise ValueError("repeats='launch' does not go with ledger=: a run in a ledger holds each command once")
    return mode


def repeat_mode(mode: RepeatMode | None, commands: object) -> RepeatMode:
    """The mode of a fan-out. None skips repeats in what has a length, and launches them in a stream."""
    return mode or ("skip" if isinstance(commands, Sized) else "launch")


def refuse_repeats(
    commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]],
) -> Iterable[Command[W, R]]:
    """The commands, each of them once. An iterator becomes a list.

    Raises:
        TypeError: They cannot be looked at before the first launch.
        ValueError: One of them is there twice.
    """
    if not isinstance(commands, Iterable):
        raise TypeError("repeats='refuse' needs commands that can be counted: a list, not an async iterator")
    if isinstance(commands, Iterator) or not isinstance(commands, Sized):
        commands = list(commands)
    seen, count, example = Repeats(), 0, ""
    twice = _ids_named_twice(commands)
    for index, command in enumerate(commands) if twice else ():
        cls: type[object] = type(command)
        if cls in twice and twice[cls].has_id(command) and seen.has(command):
            count += 1
            example = example or f"commands[{index}], {command!r}"
    if count:
        raise ValueError(
            f"the list names {count:,} {'command' if count == 1 else 'commands'} more than once, the first of them is "
            f"{example}: nothing was started"
        )
    return commands


class _Ids:
    """The ids that commands of one class name twice."""

    def __init__(self, kind: _Kind) -> None:
        self._id_of = kind.id_of
        self._seen, self._twice = IdSet(), IdSet()

    def add(self, command: object) -> bool:
        """Add the id of a command. Returns whether it was there."""
        number = self._id_of(command)
        if type(number) is not int or number < 0 or self._seen.add(number):
            return False
        self._twice.add(number)
        return True

    def has_id(self, command: object) -> bool:
        """Whether the id of a command is named twice."""
        number = self._id_of(command)
        return type(number) is int and number >= 0 and number in self._twice


def _ids_named_twice(commands: Iterable[Command[W, R]]) -> dict[type[object], _Ids]:
    """The ids that are named twice, by class. Only these can be repeats, so the files of the others are not read."""
    kinds: dict[type[object], _Ids | None] = {}
    found: dict[type[object], _Ids] = {}
    for command in commands:
        cls: type[object] = type(command)
        if cls not in kinds:
            kind = _kind_of(cls)
            kinds[cls] = None if kind is None else _Ids(kind)
        ids = kinds[cls]
        if ids is not None and ids.add(command):
            found[cls] = ids
    return found


async def without_repeats(
    commands: Iterator[Command[W, R]] | AsyncIterator[Command[W, R]], repeats: Repeats
) -> AsyncIterator[Command[W, R]]:
    """The commands without repeats, for a ledger to plan. It yields to the event loop from time to time."""
    async for command in commands if isinstance(commands, AsyncIterator) else _in_turns(commands):
        try:
            skips = repeats.skips(command)
        except LargeValueError:
            skips = await repeats.skips_large(command)
        if not skips:
            yield command


async def _in_turns(commands: Iterator[Command[W, R]]) -> AsyncIterator[Command[W, R]]:
    for count, command in enumerate(commands, 1):
        yield command
        if count % _TURN == 0:
            await asyncio.sleep(0)


class _Kind:
    """The commands of one class, by the fields beside the id."""

    __slots__ = ("_groups", "_ids", "_last", "_last_digest", "_others", "id_of")

    def __init__(self, id_name: str, others: tuple[str, ...]) -> None:
        self.id_of: Callable[[object], object] = attrgetter(id_name)
        # A getter of one name gives no tuple. The id is there in any case, and is passed over.
        self._others: Callable[[object], tuple[object, ...]] | None = attrgetter(id_name, *others) if others else None
        self._ids = IdSet()
        self._groups: dict[bytes, int | IdSet] = {}
        self._last: tuple[object, ...] = ()
        self._last_digest = _NO_DIGEST

    def has(self, command: object, digests: _Digests) -> bool:
        number = self.id_of(command)
        if type(number) is not int or number < 0:
            return False
        if self._others is None:
            return not self._ids.add(number)
        others = self._others(command)[1:]
        # `start_many` and its siblings share the settings of all their commands.
        if not self._last:
            if not _is_comparable(others):
                return False
            self._last = others
        elif not all(map(is_, others, self._last)):
            digest = _digest(others, digests)
            if digest is None:
                digests.forget()
                return False
            if self._last_digest == _NO_DIGEST:
                self._digest_first(digests)
            digests.forget()
            self._last, self._last_digest = others, digest
        digest = self._last_digest
        group = self._groups.get(digest)
        if group is None:
            self._groups[digest] = number  # many groups may hold one id each
            return False
        if isinstance(group, int):
            if group == number:
                return True
            first, group = group, IdSet()
            group.add(first)
            self._groups[digest] = group
        return not group.add(number)

    def _digest_first(self, digests: _Digests) -> None:
        """Compute the digest of the first settings. It costs 0.1 s for a large file, and most lists need none."""
        first = _digest(self._last, digests)
        if first is not None and _NO_DIGEST in self._groups:
            self._groups[first] = self._groups.pop(_NO_DIGEST)


@cache
def _fields(cls: type[attrs.AttrsInstance]) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(cls) if field.eq)


def _kind_of(cls: type[object]) -> _Kind | None:
    """None for commands that may come twice: reads, and those that cannot be compared."""
    if not issubclass(cls, Command) or issubclass(cls, InvalidCommand):
        return None
    command_type = cast("type[Command[Never, object]]", cls)
    if command_type.is_read_only or not attrs.has(command_type):
        return None
    names = _fields(command_type)
    return _Kind(names[0], names[1:]) if names else None


class _OpaqueError(Exception):
    """A value that cannot be compared by its text."""


class LargeValueError(Exception):
    """A large value must be read first: see `Repeats.digest`."""

    def __init__(self, value: bytes) -> None:
        super().__init__()
        self.value = value


class _Digests:
    """The digests of large values, until their command is taken."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, tuple[bytes, bytes]] = {}

    def add(self, value: bytes) -> None:
        self._known[id(value)] = value, _digest_of(value)  # the id stays that of the value, which is kept

    def of(self, value: bytes) -> bytes:
        known = self._known.get(id(value))
        if known is None:
            raise LargeValueError(value)
        return known[1]

    def forget(self) -> None:
        self._known.clear()


class _Comparisons(_Digests):
    """Numbers for large values, the same one for equal values: a comparison takes a tenth of the time of a digest.

    Each value is compared to a few of its length. Others have a digest, or the time would grow with the square.
    """

    __slots__ = ("_by_length",)

    def __init__(self) -> None:
        super().__init__()
        self._by_length: dict[int, list[bytes]] = {}

    def of(self, value: bytes) -> bytes:
        values = self._by_length.setdefault(len(value), [])
        for number, known in enumerate(values):
            if known is value or known == value:
                return b"%d;" % number
        if len(values) == _MAX_COMPARED:
            return _digest_of(value)
        values.append(value)
        return b"%d;" % (len(values) - 1)


def _digest_of(value: bytes) -> bytes:
    return blake2b(value, digest_size=_DIGEST_BYTES).digest()


def _digest(values: tuple[object, ...], digests: _Digests) -> bytes | None:
    """128 bits that tell values apart; None where one of them is of a type that is not known."""
    state = blake2b(digest_size=_DIGEST_BYTES)
    return state.digest() if _fed(state.update, values, digests.of) else None


def _is_comparable(values: tuple[object, ...]) -> bool:
    return _fed(lambda _: None, values, lambda _: b"")


def _fed(update: Callable[[bytes], None], values: tuple[object, ...], digest: Callable[[bytes], bytes]) -> bool:
    try:
        _feed(update, values, digest)
    except _OpaqueError:
        return False
    return True


def _feed(update: Callable[[bytes], None], value: object, digest: Callable[[bytes], bytes]) -> None:
    """Write a value with its type and its length, so that no two values are written alike."""
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        update(b"s%d:" % len(data))
        update(data)
    elif value is None or isinstance(value, bool):
        update(repr(value).encode())
    elif isinstance(value, int | float):
        update(f"{type(value).__name__}{value!r};".encode())
    elif isinstance(value, bytes):
        update(b"b%d:" % len(value))
        update(value if len(value) < _LARGE else digest(value))
    elif isinstance(value, Mapping):
        items = sorted(cast("Mapping[str, object]", value).items(), key=itemgetter(0))
        update(b"m%d:" % len(items))
        for item in items:
            _feed(update, item, digest)
    elif isinstance(value, list | tuple):
        items_of = cast("list[object] | tuple[object, ...]", value)
        update(b"l%d:" % len(items_of))
        for element in items_of:
            _feed(update, element, digest)
    elif attrs.has(type(value)):
        _feed(update, f"{type(value).__module__}.{type(value).__qualname__}", digest)
        names = _fields(cast("type[attrs.AttrsInstance]", type(value)))
        _feed(update, tuple(getattr(value, name) for name in names), digest)
    else:
        raise _OpaqueError

"""Commands that are built one by one, from ids, as a fan-out takes them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from typing import Generic, Never, TypeVar, cast

import attrs

from dispatchkit.core.command import Command, Request, Response
from dispatchkit.core.validators import async_iterable, shown
from dispatchkit.values import HIDDEN

__all__ = ["InvalidCommand", "build_commands"]

T = TypeVar("T")
R = TypeVar("R")
W = TypeVar("W")


@attrs.frozen(repr=False)
class InvalidCommand(Command[object, Never]):
    """Stands in a fan-out for a command that could not be built. So one bad id in a million is one outcome."""

    error: Exception = attrs.field(repr=False, metadata=HIDDEN)
    item: object = attrs.field(default=None, eq=False, repr=False, metadata=HIDDEN)
    """The item that the command could not be built from."""
    number: int | None = attrs.field(default=None, eq=False, repr=False, metadata=HIDDEN)
    """The id that the command would act on, where it is known."""

    @property
    def target(self) -> int | None:
        """See `Command.target`."""
        return self.number

    def request(self, wire: object, request_id: str | None) -> Request:
        """Raises the error: there is nothing to send."""
        raise self.error

    def result(self, response: Response, wire: object) -> Never:
        """Raises the error."""
        raise self.error

    def __repr__(self) -> str:
        return "a command that could not be built"


def build_commands(
    items: Iterable[T] | AsyncIterable[T], build: Callable[[T], Command[W, R]]
) -> Iterable[Command[W, R]] | AsyncIterable[Command[W, R]]:
    """A command for each item, built when it is taken. One that cannot be built ends nothing: see `InvalidCommand`."""
    if not hasattr(items, "__iter__") and not isinstance(items, AsyncIterable):
        raise TypeError(f"what to launch must be an iterable, such as a list of ids, not {shown(items)}")

    def command(item: T) -> Command[W, R]:
        try:
            return build(item)
        except (TypeError, ValueError) as error:
            return InvalidCommand(error.with_traceback(None), item)  # the frames below hold what a message says
        except StopIteration as stray:  # `map` would take it for the end
            raise RuntimeError("a command could not be built: StopIteration was raised") from stray

    if (source := async_iterable(items)) is not None:
        return _CountedAsync(source, command) if isinstance(source, Sized) else _as_they_come(source, command)
    plain = cast("Iterable[T]", items)
    return _Counted(plain, command) if isinstance(plain, Sized) else _one_by_one(plain, command)


async def _as_they_come(items: AsyncIterable[T], build: Callable[[T], R]) -> AsyncIterator[R]:
    source = aiter(items)
    try:
        async for item in source:
            yield build(item)
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


def _one_by_one(items: Iterable[T], build: Callable[[T], R]) -> Iterator[R]:
    source = iter(items)
    try:
        for item in source:
            yield build(item)
    finally:
        # A generator may hold a file open.
        close = getattr(source, "close", None)
        if close is not None:
            close()


class _Counted(Generic[T, R]):
    """Commands of an iterable with a length, which they keep."""

    def __init__(self, items: Iterable[T], build: Callable[[T], R]) -> None:
        self._items = items
        self._build = build

    def __iter__(self) -> Iterator[R]:
        return map(self._build, self._items)

    def __len__(self) -> int:
        return len(self._items) if isinstance(self._items, Sized) else 0


class _CountedAsync(Generic[T, R]):
    """The same for an asynchronous iterable."""

    def __init__(self, items: AsyncIterable[T], build: Callable[[T], R]) -> None:
        self._items = items
        self._build = build

    def __aiter__(self) -> AsyncIterator[R]:
        return _as_they_come(self._items, self._build)

    def __len__(self) -> int:
        return len(self._items) if isinstance(self._items, Sized) else 0

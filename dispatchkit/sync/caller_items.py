"""Hand the items of a plain iterator from the caller's thread to the loop thread, in bounded slices.

Code that is bound to a thread, such as an sqlite3 cursor, can be read in the caller's thread only. The
caller blocks in a call of the fan-out meanwhile, so that call reads. The loop thread asks for a slice when a worker
finds no item. `CallerItems.work_or_ask` then returns to the caller, which reads the slice and calls it again.

A slice has at most as many items as the fan-out has workers. So the iterator is never read further ahead. A slow
iterator hands over what it has after `_SLICE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sized
from typing import Generic, TypeVar, cast

from dispatchkit.core.fanout.options import FanOutSettings
from dispatchkit.sync.portal_call import CANCEL_TIMEOUT

__all__ = ["CallerItems", "hand_over"]

T = TypeVar("T")
R = TypeVar("R")

_SLICE_SECONDS = 0.05
"""Seconds after which a slice is handed over, although it is not full."""

_THREAD_FREE: frozenset[type[object]] = frozenset({list, tuple, range, set, frozenset, dict, deque, str, bytes})
"""Types whose items can be read in any thread; subclasses may run code of their own."""


_WORKERS: int = inspect.signature(FanOutSettings).parameters["concurrency"].default


class CallerItems(AsyncIterator[T], Generic[T]):
    """The items of an iterable, as an asynchronous iterator for the loop thread.

    Args:
        items: The iterable. Only the caller's thread touches it.
        most: The most items of a slice.
        monotonic: The clock that bounds the reading of a slice.
    """

    def __init__(self, items: Iterable[T], most: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._iterator = iter(items)
        self._most = most
        self._monotonic = monotonic
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        """The error of the iterator, which comes after the items before it."""
        self._at_end = False
        self._stop: Callable[[], None] | None = None
        """The stop that the iterator itself asked for. It comes after the items before it."""
        self._task: asyncio.Task[object] | None = None
        self._asked: asyncio.Future[None] | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._reader: int | None = None
        """The thread that is inside the iterator."""

    # In the caller's thread:

    def read(self) -> None:
        """Read one slice. An exception of the iterator is kept for the loop thread.

        Raises:
            BaseException: It is no `Exception`: Ctrl-C, for example, which ends the run.
        """
        late = self._monotonic() + _SLICE_SECONDS
        self._reader = threading.get_ident()
        try:
            for _ in range(self._most):
                item = next(self._iterator, self)
                if item is self:
                    self._at_end = True
                    break
                if self._stop is not None:  # the iterator asked for it, so this item is not started
                    break
                self._ready.append(cast("T", item))
                if self._monotonic() >= late:
                    break
        except Exception as error:  # noqa: BLE001 - the run raises it, after the items before it
            self._error, self._at_end = error, True
            if isinstance(error, StopAsyncIteration):  # a loop would take it for the end
                self._error = RuntimeError("the iterator of commands raised StopAsyncIteration")
                self._error.__cause__ = error
        finally:
            self._reader = None

    def is_calling(self) -> bool:
        """Whether the iterator itself makes this call."""
        return self._reader == threading.get_ident()

    def stop_here(self, stop: Callable[[], None]) -> None:
        """Call ``stop`` on the loop thread once the items before this one are taken: the iterator asks for it."""
        self._stop = stop

    def close(self) -> None:
        """Close the iterator: a generator may hold a file open."""
        close = getattr(self._iterator, "close", None)
        if close is not None and self._reader is None:
            close()

    # On the loop thread:

    async def work_or_ask(self, work: Callable[[], Coroutine[object, object, R]]) -> tuple[R] | None:
        """Do the work, or go on with it. Returns its result, or None as soon as it needs another slice.

        Args:
            work: Makes the coroutine that takes the items. It is called if none is under way.
        """
        if self._task is None:
            self._task = asyncio.create_task(work())
        task = cast("asyncio.Task[R]", self._task)
        self._asked = asyncio.get_running_loop().create_future()
        if self._arrived is not None:
            if not self._arrived.done():
                self._arrived.set_result(None)
            self._arrived = None
        try:
            await asyncio.wait((task, self._asked), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._asked = None
        if not task.done():
            return None
        self._task = None
        return (task.result(),)

    def abandon(self) -> None:
        """End the wait for another slice: the caller reads no more."""
        if self._error is None and not self._at_end:
            self._error = RuntimeError("the caller has left the run, so its iterator of commands is not read any more")
        self._at_end = True
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def end(self) -> None:
        """End the work under way, once its run is over. Its result is dropped."""
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait((task,), timeout=CANCEL_TIMEOUT)
            task.cancel()  # a plan that the database keeps waiting

    async def __anext__(self) -> T:
        while not self._ready:
            if self._stop is not None:
                stop, self._stop = self._stop, None
                stop()
            if self._at_end:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            if self._arrived is None or self._arrived.done():
                self._arrived = asyncio.get_running_loop().create_future()
            if self._asked is not None and not self._asked.done():
                self._asked.set_result(None)
            await asyncio.shield(self._arrived)
        return self._ready.popleft()


class _CountedCallerItems(CallerItems[T]):
    """Items whose number is known."""

    def __init__(self, items: Iterable[T], most: int, length: int) -> None:
        super().__init__(items, most)
        self._length = length

    def __len__(self) -> int:
        return self._length


def hand_over(
    items: Iterable[T] | AsyncIterable[T], options: Mapping[str, object]
) -> tuple[Iterable[T] | AsyncIterable[T], CallerItems[T] | None]:
    """The iterable for the loop thread, and the `CallerItems` if the caller's thread has to read it.

    Args:
        items: The iterable that the caller gave. Another value is returned as it is.
        options: The options of the fan-out. If they need all items before the first launch, all are read at once.
    """
    if not hasattr(items, "__iter__") or type(items) in _THREAD_FREE:
        return items, None
    plain = cast("Iterable[T]", items)
    if options.get("expected") is not None or options.get("repeats") == "refuse":
        return list(plain), None
    # The length first: it makes Django's QuerySet read its rows, which it keeps.
    length = len(plain) if isinstance(plain, Sized) else None
    most = _most(options)
    held = CallerItems(plain, most) if length is None else _CountedCallerItems(plain, most, length)
    return held, held


def _most(options: Mapping[str, object]) -> int:
    """The most items of a slice. The fan-out itself refuses an option that is out of range."""
    workers, launches = options.get("concurrency", _WORKERS), options.get("max_launches")
    most = workers if isinstance(workers, int) else 1
    return max(1, min(most, launches) if isinstance(launches, int) else most)

"""One coroutine that a blocking caller runs on the loop thread."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Generic, Protocol, TypeVar

from dispatchkit.core.transport.fork import KEEP_ALIVE
from dispatchkit.sync import wakeup

__all__ = ["CANCEL_TIMEOUT", "PortalCall", "Work", "forked_error"]

R = TypeVar("R")

CANCEL_TIMEOUT = 2.0
"""Seconds that a cancellation or a close is awaited before the caller goes on."""

_MAX_LOOP_TURNS = 4
"""Turns of the event loop from an interrupt to the cancellation: the socket is read, the response parsed and judged."""


class Work(partial[R]):
    """A function with its arguments, which its repr does not show: a traceback shows the locals of its frames."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


class Closable(Protocol):
    """The methods of a `PortalHandle` that a portal call needs."""

    def is_closed(self) -> bool:
        """Whether no call can be made any more."""
        ...

    def closed_error(self) -> BaseException:
        """The error of a call that can no longer be made."""
        ...


class PortalCall(Generic[R]):
    """One coroutine on the loop thread, and the wait of its caller."""

    __slots__ = ("_context", "_ended", "_wakeup", "_work", "error", "handle", "result", "task")

    def __init__(self, work: Callable[[], Coroutine[object, object, R]], handle: Closable | None = None) -> None:
        self.handle = handle
        self.task: asyncio.Task[None] | None = None
        self.error: BaseException | None = None
        self.result: R
        self._work = work
        self._context = contextvars.copy_context()
        self._ended = False
        """The end itself. The wake-up only makes the caller look. It may come without a reason, or be interrupted."""
        self._wakeup = wakeup.take()

    # On the loop thread:

    def start(self) -> None:
        """Start, unless the client is closed or the caller has ended the call."""
        try:
            if self.handle is not None and self.handle.is_closed():
                self.fail(asyncio.CancelledError())
            elif not self._ended:
                self.task = _begin(self._run(), self._context)
        except BaseException as error:  # noqa: BLE001 - memory is short; the caller must not wait for ever
            self.fail(error)

    async def _run(self) -> None:
        try:
            self.result = await self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the caller waits
            self.error = error
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._wakeup.send()

    def cancel(self) -> None:
        """Cancel it, whether or not it has started."""
        if self.task is None:
            self.fail(asyncio.CancelledError())
        elif self.task.cancel():
            # A task that is cancelled before its first step never gets to the end of `_run`.
            self.task.add_done_callback(lambda _: self.fail(asyncio.CancelledError()))

    def fail(self, error: BaseException) -> None:
        """End it from outside, if it has not ended."""
        if not self._ended:
            self.error = error
            self._end()

    def detach_after_fork(self) -> None:
        """End it in a forked child, after `wakeup.reset_after_fork`. The task goes on in the parent."""
        KEEP_ALIVE.append(self.task)
        if not self._ended:
            self.error = forked_error()
            self._ended = True
        # Also if it has ended: the parent's wake-up does not reach a wait that a signal handler has interrupted.
        self._wakeup.send()

    # On the caller's thread:

    def wait(self) -> None:
        """Wait for its end, without a limit."""
        while not self._ended:
            self._wakeup.wait()
        wakeup.give_back(self._wakeup)

    def wait_at_most(self, seconds: float) -> bool:
        """Wait for its end. Returns whether it ended in time."""
        latest = time.monotonic() + seconds
        while not self._ended and (left := latest - time.monotonic()) > 0:
            self._wakeup.wait_at_most(left)
        return self._ended

    def abandon(self, loop: asyncio.AbstractEventLoop, interrupt: BaseException) -> None:
        """Cancel it, wait for the cancellation, and add what is known as a note to ``interrupt``."""
        if not self._ended:
            with contextlib.suppress(RuntimeError):  # a closed loop has ended every portal call already
                loop.call_soon_threadsafe(self._cancel_soon, loop, _MAX_LOOP_TURNS)
        if not self.wait_at_most(CANCEL_TIMEOUT):
            interrupt.add_note(f"the call did not end within {CANCEL_TIMEOUT:g} s: its outcome is unknown")
        elif self.error is None:
            interrupt.add_note("the call was done before it could be cancelled")
        elif not isinstance(self.error, asyncio.CancelledError):
            interrupt.add_note(f"{type(self.error).__name__}: {self.error}")
        elif getattr(self.error, "__notes__", None):
            _add_notes(interrupt, self.error)
        elif self.handle is not None:
            interrupt.add_note("the call had not begun: nothing was sent")

    def _cancel_soon(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        """Cancel it after this number of loop turns, so that a response that has arrived is read first."""
        if turns and self.task is not None and not self._ended:
            loop.call_soon(self._cancel_soon, loop, turns - 1)
        else:
            self.cancel()

    def failure(self) -> BaseException | None:
        """The error that the caller gets; None if there is a result."""
        error = self.error
        if isinstance(error, asyncio.CancelledError) and self.handle is not None and self.handle.is_closed():
            closed_error = self.handle.closed_error()
            _add_notes(closed_error, error)
            return closed_error
        return error


def forked_error() -> RuntimeError:
    """The error of a call whose caller finds itself in a forked child."""
    return RuntimeError("this process was forked out of the call, which goes on in the parent")


def _begin(coroutine: Coroutine[object, object, None], context: contextvars.Context) -> asyncio.Task[None]:
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):  # the eager first step saves a loop turn, a fifth of the time of a portal call
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)
    return loop.create_task(coroutine, context=context)


def _add_notes(error: BaseException, source: BaseException) -> None:
    for note in getattr(source, "__notes__", ()):
        error.add_note(note)

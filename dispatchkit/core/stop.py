"""`StopSignal`: one value that tells all parts of a run, or of a client, to start nothing new.

The signal is passed down once. Code that starts something checks `StopSignal.is_set` before. Code that waits does so
inside of ``with signal.interruptible():``, and a stop ends the wait at once. A request in flight is outside of such a
block, so a stop does not end it.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

__all__ = ["Interruptible", "StopSignal"]


class StopSignal:
    """Set once, never reset. Any thread may set it.

    Example:
        >>> from dispatchkit.core.stop import StopSignal
        >>> async def sleep_until_stopped(stop: StopSignal) -> str:
        ...     with stop.interruptible():
        ...         await asyncio.sleep(3600)
        ...     return "stopped" if stop.is_set else "slept"
        >>> stop = StopSignal()
        >>> async with asyncio.TaskGroup() as group:
        ...     sleeping = group.create_task(sleep_until_stopped(stop))
        ...     await asyncio.sleep(0)
        ...     stop.set()
        >>> sleeping.result()
        'stopped'
    """

    __slots__ = ("blocks", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        """Whether nothing new may start."""
        self.blocks: dict[Interruptible, None] = {}
        """The blocks that a task is in now. A paced launch enters one; a set's methods would take longer."""

    def set(self) -> None:
        """End all interruptible waits. A second call does nothing."""
        if not self.is_set:
            self.is_set = True
            for block in list(self.blocks):
                block.interrupt()

    def interruptible(self, *others: StopSignal) -> Interruptible:
        """A block whose waits a stop ends. The block is then left, and the code after it goes on.

        A value that the block was about to get may be missing, so check `is_set` afterwards. A cancellation by other
        code still raises ``CancelledError``.

        Args:
            others: Further signals that end the waits. One block costs less than one for each signal.
        """
        return Interruptible((self, *others))

    @property
    def waiting(self) -> frozenset[asyncio.Task[object]]:
        """The tasks that are in such a block now."""
        return frozenset(block.task for block in self.blocks)


class Interruptible:
    """The block of `StopSignal.interruptible`. Once it is left, any task may enter it again."""

    __slots__ = ("_cancelling_before", "_interrupted", "_signals", "task")

    task: asyncio.Task[object]
    """The task in the block."""

    def __init__(self, signals: tuple[StopSignal, ...]) -> None:
        self._signals = signals
        self._interrupted = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - only coroutines wait
        self.task = task
        self._cancelling_before = task.cancelling()
        is_set = False
        for signal in self._signals:
            signal.blocks[self] = None
            if signal.is_set:
                is_set = True
        if is_set:
            self.interrupt()

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        for signal in self._signals:
            signal.blocks.pop(self, None)  # one signal may stand twice
        if not self._interrupted:
            return False
        self._interrupted = False
        is_only = self.task.uncancel() <= self._cancelling_before
        return is_only and exc_type is not None and issubclass(exc_type, asyncio.CancelledError)

    def interrupt(self) -> None:
        """Cancel the task's wait: now if it waits on this event loop, else as soon as it does."""
        loop = self.task.get_loop()
        try:
            runs_here = asyncio.current_task(loop) is not self.task and asyncio.get_running_loop() is loop
        except RuntimeError:
            runs_here = False
        if runs_here:
            self._cancel()
            return
        # A task that sets the signal itself does not wait yet, and another thread must not touch its loop.
        with contextlib.suppress(RuntimeError):  # its loop is closed
            loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self in self._signals[0].blocks and not self._interrupted:
            self._interrupted = True
            self.task.cancel()

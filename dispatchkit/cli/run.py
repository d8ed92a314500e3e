"""Drive a fan-out: show each outcome, and stop in good order on Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from dispatchkit.errors import AuthenticationError, OutcomeUnknownError, State
from dispatchkit.fanout import FanOut, Outcome

if TYPE_CHECKING:
    from types import FrameType

    from dispatchkit.cli.show import Show
    from dispatchkit.core.client import Client
    from dispatchkit.core.command import Command

__all__ = ["drive", "on_interrupt", "run_loop"]

R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W")


class _Taken(Generic[W, R]):
    """The commands, kept from the moment they are taken until their outcome is there."""

    def __init__(self, commands: Iterable[Command[W, R]]) -> None:
        self._commands = commands
        self.open: dict[int, Command[W, R]] = {}

    def __iter__(self) -> Iterator[Command[W, R]]:
        for index, command in enumerate(self._commands):
            self.open[index] = command
            yield command


async def drive(client: Client[W], commands: Iterable[Command[W, R]], show: Show, *, concurrency: int) -> bool:
    """Perform the commands and show each outcome as it comes.

    The first Ctrl-C (or SIGTERM) starts nothing new and awaits what is in flight; the second gives that up, and it is
    reported as unknown. Nothing new is started either once the token was refused, since every other command would be
    refused as well, or once the outcomes can no longer be written.

    Returns:
        Whether it was interrupted.
    """
    taken = _Taken(commands)
    run = FanOut(client, taken, concurrency=concurrency)
    me = asyncio.current_task()
    presses = 0

    def press() -> None:
        nonlocal presses
        presses += 1
        if presses == 1:
            run.stop()
            show.note(f"Interrupted: nothing new is started, {len(taken.open)} in flight. Ctrl-C again gives them up.")
        elif me is not None:
            me.cancel()

    stopped = False
    with on_interrupt(press):
        try:
            async for outcome in run:
                del taken.open[outcome.index]
                reason = "" if show.outcome(outcome) else "The outcomes can no longer be written"
                if isinstance(outcome.error, AuthenticationError):
                    reason = "The token was refused"
                if reason and not stopped:
                    stopped = True
                    run.stop()
                    show.note(f"{reason}: nothing new is started.")
        except asyncio.CancelledError:
            if me is None or presses < 2:
                raise
            me.uncancel()
            for index, command in taken.open.items():
                lost = OutcomeUnknownError("given up while it was in flight", command=command)
                show.outcome(Outcome(index, command, State.UNKNOWN, None, lost, ()))
    return presses > 0


@contextmanager
def on_interrupt(press: Callable[[], None]) -> Generator[None]:
    """Call ``press`` from the running loop on every SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()

    def pressed(number: int, frame: FrameType | None) -> None:
        del number, frame
        loop.call_soon_threadsafe(press)

    # Not loop.add_signal_handler: Windows has none.
    before = {number: signal.signal(number, pressed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_loop(main: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end, on uvloop where it is installed."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()

"""Drive a fan-out: show each outcome, and stop in good order on Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from dispatchkit.cli.progress import LOOK_EVERY, Look
from dispatchkit.errors import AuthenticationError
from dispatchkit.fanout import FanOut

if TYPE_CHECKING:
    from types import FrameType

    from dispatchkit.cli.options import Guards
    from dispatchkit.cli.show import Show
    from dispatchkit.core.client import Client
    from dispatchkit.core.command import Command
    from dispatchkit.fanout import Report

__all__ = ["drive", "on_interrupt", "run_loop"]

R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W")


async def drive(
    client: Client[W], commands: Iterable[Command[W, R]], show: Show, guards: Guards
) -> tuple[Report, bool]:
    """Perform the commands and show each outcome as it comes.

    The first Ctrl-C (or SIGTERM) starts nothing new and awaits what is in flight; the second gives that up, and it is
    reported for what is known of it. Nothing new is started either once the token was refused, since every other
    command would be refused as well, or once the outcomes can no longer be written.

    Returns:
        What came of it, and whether it was interrupted.
    """
    run = FanOut(client, commands, **guards)
    interrupted = stopped = False
    giving_up: asyncio.Task[None] | None = None

    def press() -> None:
        nonlocal interrupted, giving_up
        if not interrupted:
            interrupted = True
            run.stop()
            show.note(f"Interrupted: nothing new is started, {run.in_flight} in flight. Ctrl-C again gives them up.")
        elif giving_up is None:
            giving_up = asyncio.create_task(run.close())

    with on_interrupt(press):
        watching = asyncio.create_task(_watch(client, run, show))
        try:
            async for outcome in run:
                if not show.outcome(outcome) and not stopped:
                    stopped = True
                    run.stop()
                    show.note("The outcomes can no longer be written: nothing new is started.")
        except AuthenticationError:
            show.note("The token was refused: nothing new is started.")
        finally:
            watching.cancel()
        if giving_up is not None:
            await giving_up
        show.finish()
        show.progress(_look(client, run))
    if (most := guards["stop_after_failures"]) is not None and run.report.failed >= most:
        show.note(f"Stopped after {run.report.failed:,} failures: nothing new was started.")
    return run.report, interrupted


async def _watch(client: Client[W], run: FanOut[W, R], show: Show) -> None:
    while True:
        show.progress(_look(client, run))
        await asyncio.sleep(LOOK_EVERY)


def _look(client: Client[W], run: FanOut[W, R]) -> Look:
    return Look(run.report, run.in_flight, client.statistics().pace)


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

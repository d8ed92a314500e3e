"""The event loop of a command, and the signals that interrupt it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from dispatchkit.cli.collector import resume_collections

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["on_interrupt", "run_loop"]

T = TypeVar("T")

_new_uvloop: Callable[[], asyncio.AbstractEventLoop] | None = None
with contextlib.suppress(ImportError):  # an extra
    import uvloop

    _new_uvloop = uvloop.new_event_loop


@contextmanager
def on_interrupt(press: Callable[[], None]) -> Generator[None]:
    """Call ``press`` from the running loop on every SIGINT, SIGTERM and, unless it is ignored, SIGHUP."""
    loop = asyncio.get_running_loop()

    def pressed(number: int, frame: FrameType | None) -> None:
        del number, frame
        loop.call_soon_threadsafe(press)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)  # the terminal was closed; nohup has it ignored
    # Not loop.add_signal_handler: Windows has none.
    before = {number: signal.signal(number, pressed) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_loop(main: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end, on uvloop where it is installed."""
    resume_collections()  # the command is imported
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main)


def _new_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop() if _new_uvloop is None else _new_uvloop()

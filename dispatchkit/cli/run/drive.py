"""Drive a fan-out, with or without a ledger: show each outcome, and stop in good order on Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Generic, Never, TypeVar, cast

import attrs

from dispatchkit import FanOut
from dispatchkit.cli.options import duration
from dispatchkit.cli.output.progress import LOOK_EVERY, Look
from dispatchkit.cli.output.text import masked
from dispatchkit.cli.run.takeover import Decisions
from dispatchkit.errors import AuthenticationError, LedgerError, RejectedError

if TYPE_CHECKING:
    from types import FrameType

    from dispatchkit import Report, StopReason
    from dispatchkit.cli.input.ledger_ref import Place
    from dispatchkit.cli.options import Guards
    from dispatchkit.cli.output.reporter import Show
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command
    from dispatchkit.core.fanout.journal import Journals
    from dispatchkit.ledger.ledger import Ledger

__all__ = ["Memory", "drive", "on_interrupt", "run_loop", "show_warnings"]

R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W")


@attrs.frozen
class Memory:
    """What remembers a run."""

    ledger: Ledger
    place: Place
    """How messages call the ledger; and the run's name."""
    decisions: Decisions = attrs.field(factory=Decisions)
    resumes: bool = False
    """Whether a run that was stopped goes on."""

    @property
    def name(self) -> str:
        """The run's, in the ledger."""
        return self.place.run or ""

    def journals(self, client: Client[W]) -> Journals:
        """What gives the run's journal."""
        journals: Journals = self.ledger.resuming(self.name) if self.resumes else self.ledger
        if not self.ledger.is_shared:
            return journals
        from dispatchkit.cli.run.sharing import SharingLedger  # noqa: PLC0415 - needs the extra that the ledger needs

        return SharingLedger(self.ledger, journals, cast("Client[Never]", client))


class _Cut(Exception):  # noqa: N818 - no error: somebody pressed Ctrl-C
    """The plan was cut short."""


class _Plan(Generic[T]):
    """Commands on their way into a ledger: they are counted, and may be cut short."""

    def __init__(self, commands: Iterable[T]) -> None:
        self._commands = commands
        self.count = 0
        self.cut = False

    def __iter__(self) -> Iterator[T]:
        for command in self._commands:
            if self.cut:
                raise _Cut
            self.count += 1
            yield command


async def drive(
    client: Client[W],
    commands: Iterable[Command[W, R]] | None,
    show: Show,
    guards: Guards,
    *,
    memory: Memory | None = None,
) -> tuple[Report, bool]:
    """Perform the commands and show each outcome as it comes.

    The first Ctrl-C (or SIGTERM, or SIGHUP) starts nothing new and awaits what is in flight; the second gives that up,
    and it is reported for what is known of it. Nothing new is started either once the token was refused, since every
    other command would be refused as well, once a guard ends the run, or once the outcomes can no longer be written.

    Args:
        client: Whose commands they are.
        commands: What to do; None stands for those that the ledger holds already.
        show: What shows it.
        guards: What bounds it.
        memory: What remembers it.

    Returns:
        What came of it, and whether it was interrupted.

    Raises:
        LedgerError: The ledger could not be used, and nothing was begun.
    """
    plan = None if memory is None or commands is None else _Plan(commands)
    ledger, name = (None, None) if memory is None else (memory.journals(client), memory.name)
    run = FanOut(client, plan or commands, **guards, ledger=ledger, run=name)
    interrupted = False
    giving_up: asyncio.Task[None] | None = None

    def press() -> None:
        nonlocal interrupted, giving_up
        if not interrupted:
            interrupted = True
            run.stop()
            if plan is not None:
                plan.cut = True
            show.note(f"Interrupted: nothing new is started, {run.in_flight} in flight. Ctrl-C again gives them up.")
        elif giving_up is None:
            giving_up = asyncio.create_task(run.close())

    def look() -> Look:
        return _look(client, run, guards["max_launches"], plan)

    with on_interrupt(press), show_warnings(show.note):
        watching = asyncio.create_task(_watch(look, show))
        try:
            await _show_all(run, show)
        finally:
            watching.cancel()
        if giving_up is not None:
            await giving_up
        show.finish()
        show.progress(look())
    if run.stop_reason is not None:
        _tell_of_guard(run.stop_reason, run.report, guards, show)
    return run.report, interrupted


def _tell_of_guard(reason: StopReason, report: Report, guards: Guards, show: Show) -> None:
    """Say which guard has ended the run, if one has."""
    if reason.kind == "stop_after_failures":
        most = guards["stop_after_failures"] or 0
        what = "1 failure" if most == 1 else f"{most:,} failures"
        show.note(f"Stopped after {what} (--stop-after-failures {most}); {reason.in_flight:,} more were in flight.")
    elif reason.kind == "max_launches" and (left := show.not_started(report)):
        most = guards["max_launches"] or 0
        what = "1 launch" if most == 1 else f"{most:,} launches"
        show.note(
            f"Stopped after {what} (--max-launches {most}); {left:,} {'was' if left == 1 else 'were'} not started."
        )
    elif reason.silent_since is not None:
        option = f"--give-up-after {duration(guards['give_up_after'] or 0.0)}"
        show.gave_up(
            f"Gave up: the provider has answered nothing since {reason.silent_since:%Y-%m-%d %H:%M:%S} UTC ({option})."
        )


async def _show_all(run: FanOut[W, R], show: Show) -> None:
    """Show the outcomes up to the end."""
    stopped = False
    try:
        async for outcome in run:
            if not show.outcome(outcome) and not stopped:
                stopped = True
                run.stop()
                show.note("The outcomes can no longer be written: nothing new is started.")
    except AuthenticationError:
        show.note("The token was refused: nothing new is started.")
    except RejectedError:
        show.note("The provider's first answer refused the token or the account: nothing new is started.")
    except _Cut:
        pass  # the same command again plans the rest
    except LedgerError as error:
        if run.report.total == run.report.earlier:
            raise
        show.broke(f"{masked(str(error))}. Nothing new is started.")


async def _watch(look: Callable[[], Look], show: Show) -> None:
    while True:
        show.progress(look())
        await asyncio.sleep(LOOK_EVERY)


def _look(client: Client[W], run: FanOut[W, R], most: int | None, plan: _Plan[Command[W, R]] | None) -> Look:
    report, total = run.report, None
    if report.not_started is not None:
        total = report.total + report.not_started
        if most is not None:
            total = min(total, report.earlier + most)
    planned = plan.count if plan is not None and total is None else None
    return Look(report, run.in_flight, client.statistics().pace, total, planned)


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


@contextmanager
def show_warnings(tell: Callable[[str], None], *, pauses: bool = False) -> Generator[None]:
    """Tell what the ledger and the pace warn of, in one plain line each, however logging is configured.

    Args:
        tell: Called with each line.
        pauses: Whether to tell of every pause of an account, too.
    """
    pace = logging.getLogger("dispatchkit.pace")
    levels = {logging.getLogger("dispatchkit.ledger"): logging.WARNING, pace: logging.WARNING}
    if pauses:
        levels[pace] = logging.INFO
    with ExitStack() as stack:
        for logger, level in levels.items():
            stack.enter_context(_told(logger, _Telling(tell, level)))
        yield


@contextmanager
def _told(logger: logging.Logger, handler: logging.Handler) -> Generator[None]:
    before = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False  # else a configured root logger, or logging's last resort, writes it once more
    logger.setLevel(handler.level)
    try:
        yield
    finally:
        logger.propagate = before[0]
        logger.setLevel(before[1])
        logger.removeHandler(handler)


class _Telling(logging.Handler):
    def __init__(self, tell: Callable[[str], None], level: int) -> None:
        super().__init__(level)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        text = masked(record.getMessage())
        self._tell(f"{text[:1].upper()}{text[1:]}.")


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

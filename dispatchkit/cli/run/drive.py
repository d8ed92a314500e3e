"""Drive a fan-out, with or without a ledger: show each outcome, and stop in good order on Ctrl-C."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from dispatchkit import FanOut
from dispatchkit.cli.durations import duration
from dispatchkit.cli.loop import on_interrupt
from dispatchkit.cli.option_names import as_options
from dispatchkit.cli.output.log_file import LogFile
from dispatchkit.cli.output.outages import Outages
from dispatchkit.cli.output.progress import SNAPSHOT_INTERVAL, ProgressSnapshot
from dispatchkit.cli.text import redact_urls
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.errors import AuthenticationError, LedgerError, RejectedError

if TYPE_CHECKING:
    from dispatchkit import Report, StopReason
    from dispatchkit.cli.output.reporter import Reporter
    from dispatchkit.cli.settings import Guards
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command
    from dispatchkit.core.fanout.journal import JournalProvider

__all__ = ["drive", "interrupted_note", "show_warnings"]

R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W")


class _Cut(Exception):  # noqa: N818 - no error: Ctrl-C was pressed
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
    commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None,
    reporter: Reporter,
    guards: Guards,
    *,
    ledger: JournalProvider | None = None,
    run: str | None = None,
    repeat_window: float | None = None,
) -> tuple[Report, bool]:
    """Perform the commands and show each outcome as it comes.

    After the first Ctrl-C (or SIGTERM, or SIGHUP), nothing new is started and calls in flight are awaited. The second
    one ends the calls in flight, and each is reported with what is known of it. Three more events end the starts:

    - The token was refused: every other command would be refused as well.
    - A guard ends the run.
    - The outcomes can no longer be written.

    Args:
        client: Whose commands they are.
        commands: What to do; None stands for those that the ledger holds already.
        reporter: What shows it.
        guards: What bounds it.
        ledger: Gives the journal of the run; None: the run has no journal.
        run: The name of the run in the ledger.
        repeat_window: Seconds within which no other run of the ledger may have launched one of the targets.

    Returns:
        What came of it, and whether it was interrupted.

    Raises:
        LedgerError: The ledger could not be used, and nothing was begun.
    """
    plan = _Plan(commands) if ledger is not None and isinstance(commands, Iterable) else None
    fan_out = FanOut(client, plan or commands, **guards, ledger=ledger, run=run, repeat_window=repeat_window)
    interrupted = False
    giving_up: asyncio.Task[None] | None = None

    def press() -> None:
        nonlocal interrupted, giving_up
        if not interrupted:
            interrupted = True
            fan_out.stop()
            if plan is not None:
                plan.cut = True
            reporter.note(interrupted_note(fan_out.in_flight))
        elif giving_up is None:
            giving_up = asyncio.create_task(fan_out.close())

    outages = Outages(fan_out._pool.answered_at)

    def snapshot() -> ProgressSnapshot:
        return _snapshot(client, fan_out, guards["max_launches"], plan, outages)

    with on_interrupt(press), show_warnings(reporter.note):
        watching = asyncio.create_task(_watch(snapshot, reporter))
        try:
            await _show_all(fan_out, reporter)
        finally:
            watching.cancel()
        if giving_up is not None:
            await giving_up
        reporter.finish()
        reporter.progress(snapshot())
    reporter.outages = outages.summary()
    if fan_out.stop_reason is not None:
        reporter.reason = fan_out.stop_reason.kind
        _tell_of_guard(fan_out.stop_reason, fan_out.report, guards, reporter, is_recorded=ledger is not None)
    return fan_out.report, interrupted


def interrupted_note(in_flight: int) -> str:
    """The message after the first Ctrl-C."""
    if not in_flight:
        return _("Interrupted: nothing new is started, and no call is in flight.")
    return ngettext(
        "Interrupted: nothing new is started, and {count:,} call in flight can end. Ctrl-C again cancels it.",
        "Interrupted: nothing new is started, and {count:,} calls in flight can end. Ctrl-C again cancels them.",
        in_flight,
    ).format(count=in_flight)


def _tell_of_guard(
    reason: StopReason, report: Report, guards: Guards, reporter: Reporter, *, is_recorded: bool
) -> None:
    """Say which guard has ended the run, if one has."""
    if reason.kind == "stop_after_failures":
        most = guards["stop_after_failures"] or 0
        after = ngettext(
            "Stopped after {count:,} failure (--stop-after-failures {count}); {more}.",
            "Stopped after {count:,} failures (--stop-after-failures {count}); {more}.",
            most,
        )
        more = ngettext("{count:,} more call was in flight", "{count:,} more calls were in flight", reason.in_flight)
        reporter.note(after.format(count=most, more=more.format(count=reason.in_flight)))
    elif reason.kind == "max_launches" and (left := reporter.not_started(report)):
        most = guards["max_launches"] or 0
        after = ngettext(
            "Stopped after {count:,} launch (--max-launches {count}); {left}.",
            "Stopped after {count:,} launches (--max-launches {count}); {left}.",
            most,
        )
        reporter.note(after.format(count=most, left=_not_started(left)))
    elif reason.kind == "canary":
        left = reporter.not_started(report)
        if not left:
            failed = _("The canary failed: {reason}. Look at it at the provider.")
        elif is_recorded:
            failed = _(
                "The canary failed, so the rest was not started: {reason}. Look at it at the provider before you "
                "launch the rest; --canary 0 resumes it all the same."
            )
        else:
            failed = _(
                "The canary failed, so the rest was not started: {reason}. Look at it at the provider before you "
                "launch the rest."
            )
        reporter.fail(failed.format(reason=as_options(reason.text)))
    elif reason.kind == "window":
        left = reporter.not_started(report)
        in_flight = ngettext("{count:,} call was in flight", "{count:,} calls were in flight", reason.in_flight)
        reporter.note(
            _("Stopped: {reason} (--not-after); {left}, {in_flight}.").format(
                reason=reason.text, left=_not_started(left), in_flight=in_flight.format(count=reason.in_flight)
            )
        )
    elif reason.silent_since is not None:
        option = f"--give-up-after {duration(guards['give_up_after'] or 0.0)}"
        reporter.gave_up(
            _("Gave up: the provider has not answered since {time:%Y-%m-%d %H:%M:%S} UTC ({option}).").format(
                time=reason.silent_since, option=option
            )
        )


def _not_started(count: int) -> str:
    text = ngettext("{count:,} target was not started", "{count:,} targets were not started", count)
    return text.format(count=count)


async def _show_all(fan_out: FanOut[object], reporter: Reporter) -> None:
    """Show the outcomes up to the end."""
    stopped = False
    try:
        async for outcome in fan_out:
            if not reporter.outcome(outcome) and not stopped:
                stopped = True
                fan_out.stop()
                reporter.note(_("The outcomes can no longer be written, so nothing new is started."))
    except AuthenticationError:
        reporter.note(_("The token was refused: nothing new is started."))
    except RejectedError:
        reporter.note(_("The provider's first answer refused the token or the account: nothing new is started."))
    except _Cut:
        pass  # the same command again plans the rest
    except LedgerError as error:
        if fan_out.report.total == fan_out.report.previously_finished:
            raise
        reporter.fail(f"{redact_urls(str(error))}. " + _("Nothing new is started."))


async def _watch(snapshot: Callable[[], ProgressSnapshot], reporter: Reporter) -> None:
    while True:
        reporter.progress(snapshot())
        await asyncio.sleep(SNAPSHOT_INTERVAL)


def _snapshot(
    client: Client[W],
    fan_out: FanOut[object],
    most: int | None,
    plan: _Plan[Command[W, R]] | None,
    outages: Outages,
) -> ProgressSnapshot:
    report, total = fan_out.report, None
    if report.not_started is not None:
        total = report.total + report.not_started
        if most is not None:
            total = min(total, report.previously_finished + most)
    planned = plan.count if plan is not None and total is None else None
    pace = client.statistics().pace
    is_paused = pace.breaker == "closed" and pace.paused_for > 0
    outage = outages.look(is_trying=fan_out._pool.is_trying() and not is_paused, breaker=pace.breaker)
    return ProgressSnapshot(report, fan_out.in_flight, pace, total, planned, *fan_out._settling(), outage)


@contextmanager
def show_warnings(tell: Callable[[str], None], *, pauses: bool = False) -> Generator[None]:
    """Show the warnings of the ledger and the pace, one plain line each, however logging is configured.

    Args:
        tell: Called with each line.
        pauses: Whether to show every pause of an account, too.
    """
    pace = logging.getLogger("dispatchkit.pace")
    levels = {logging.getLogger("dispatchkit.ledger"): logging.WARNING, pace: logging.WARNING}
    levels[logging.getLogger("dispatchkit.guards")] = logging.INFO
    if pauses:
        levels[pace] = logging.INFO
    for handler in logging.getLogger("dispatchkit").handlers:
        if isinstance(handler, LogFile):
            handler.tell = tell
    with ExitStack() as stack:
        for logger, level in levels.items():
            stack.enter_context(_told(logger, _Telling(tell, level)))
        yield


@contextmanager
def _told(logger: logging.Logger, handler: logging.Handler) -> Generator[None]:
    before = logger.propagate, logger.level
    package = logging.getLogger("dispatchkit")
    handlers = [handler, *package.handlers]  # of --log-file
    for each in handlers:
        logger.addHandler(each)
    logger.propagate = False  # else a configured root logger, or logging's last resort, writes it once more
    logger.setLevel(min(handler.level, package.level or handler.level))
    try:
        yield
    finally:
        logger.propagate = before[0]
        logger.setLevel(before[1])
        for each in handlers:
            logger.removeHandler(each)


class _Telling(logging.Handler):
    def __init__(self, tell: Callable[[str], None], level: int) -> None:
        super().__init__(level)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        text = redact_urls(record.getMessage())
        self._tell(f"{text[:1].upper()}{text[1:]}.")

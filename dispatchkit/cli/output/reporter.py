"""The output of a run: progress, failures as they come, JSON, and the summary."""

from __future__ import annotations

import itertools
import logging
import sys
from collections import Counter
from typing import TYPE_CHECKING, Self

from dispatchkit.cli.fitted import fitted
from dispatchkit.cli.invocation import Invocation
from dispatchkit.cli.option_names import as_options
from dispatchkit.cli.output.failures import LiveFailuresFile
from dispatchkit.cli.output.notify import Ending
from dispatchkit.cli.output.progress import STYLES, Lines, ProgressSnapshot
from dispatchkit.cli.output.summary import Count, summary_text
from dispatchkit.cli.text import counted, escape_control, format_failure, ignore_broken_pipe, state_word, write
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.core.clock import SYSTEM
from dispatchkit.core.log import log, logger
from dispatchkit.errors import DispatchkitError, RejectedError, State
from dispatchkit.values import as_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from dispatchkit import Outcome, Report
    from dispatchkit.cli.input.ledger_ref import LedgerRef
    from dispatchkit.cli.input.question import Description
    from dispatchkit.cli.output.bar import Bar
    from dispatchkit.cli.output.failures import FailuresFile
    from dispatchkit.cli.output.notify import Notifier
    from dispatchkit.core.clock import Clock

__all__ = ["LAUNCHED_BEFORE", "Reporter", "exit_status"]

LAUNCHED_BEFORE = 5
"""The exit status of a launch whose targets were all launched before."""

_DETAILED = 20
"""Failures of each kind that are shown one by one. Many refusals must not hide one unknown outcome."""


def exit_status(report: Report, not_started: int, *, interrupted: bool) -> int:
    """The exit status of a run, by its most serious outcome."""
    if interrupted:
        return 130
    if report.unknown:
        return 3
    if report.launched_elsewhere and report.total == report.previously_finished and not not_started:
        return LAUNCHED_BEFORE
    return 1 if report.rejected or report.not_sent or not_started else 0


_OF_THE_IDS = (
    "ids", "from_", "column", "sheet", "encoding", "include_unknown", "failures", "expected", "status",
    "max_launches", "run",
)  # fmt: skip
"""Options that choose the ids. A retry reads the failures file, without ids that may have been launched."""


class Reporter:
    """Shows a run: progress, outcomes as they come, then the summary.

    Args:
        total: How many commands there are.
        most: How many of them may be begun.
        verb: What they do.
        noun: To what: the word for one, and for many.
        json: One JSON object an outcome on standard output, and everything else on standard error.
        quiet: No progress.
        failures_file: Where what does not come to done is written: `LiveFailuresFile` as it comes, a plain
            `FailuresFile` by its caller.
        ledger_ref: The ledger of the run, if there is one.
        description: What is done to which ids; the summary repeats it.
        notifier: What is run after the summary.
        invocation: The command line, for the lines to type next.
        clock: What tells the time.
    """

    def __init__(
        self,
        *,
        total: int,
        most: int | None = None,
        verb: str,
        noun: tuple[str, str],
        json: bool = False,
        quiet: bool = False,
        failures_file: FailuresFile | None = None,
        ledger_ref: LedgerRef | None = None,
        description: Description | None = None,
        notifier: Notifier | None = None,
        invocation: Invocation = Invocation(),  # noqa: B008 - frozen
        clock: Clock = SYSTEM,
    ) -> None:
        self._total = total
        self._most = most
        self._json = json
        self._stream = sys.stderr if json else sys.stdout
        self._nouns = noun
        self._resumes = verb == "resume"
        self._description = description
        self._invocation = invocation
        self._notifier = notifier
        self._failures_file = failures_file
        self._live_failures_file = failures_file if isinstance(failures_file, LiveFailuresFile) else None
        self._ledger_ref = ledger_ref
        self.planned = False
        """Whether the whole run was planned before: a ledger goes on with it without its commands."""
        self.unknown_for_good = 0
        """The number of targets that are unknown for good: no resume settles them."""
        self.reason: str = ""
        """Why the run ended before its last command: a `StopKind`; empty if it did not."""
        self.outages = ""
        """What the times without an answer cost; empty if there was none."""
        self.left_out = ""
        """What other runs took over from this one; empty if nothing."""
        self._broken = False
        self._gave_up = False
        self._clock = clock
        self._began = clock.monotonic()
        self._shown = Counter[State]()
        self._hints = Counter[tuple[type[DispatchkitError], str]]()
        planned = total if most is None else min(total, most)
        self._progress = (None if quiet else self._bar(planned, verb)) or Lines(
            total=planned, monotonic=clock.monotonic, quiet=quiet
        )

    def _bar(self, total: int, verb: str) -> Bar | None:
        """The bar, where a person watches standard error."""
        # FORCE_COLOR makes Rich take a log for a terminal; and objects on the same terminal would run through the bar.
        if not sys.stderr.isatty() or (self._json and sys.stdout.isatty()):
            return None
        # Rich takes a twentieth of the CPU time of a launch of one target.
        from rich.console import Console  # noqa: PLC0415

        from dispatchkit.cli.output.bar import Bar  # noqa: PLC0415

        console = Console(stderr=True)
        if not console.is_interactive:
            return None
        return Bar(total=total, verb=verb, console=console, monotonic=self._clock.monotonic)

    def __enter__(self) -> Self:
        self._began = self._clock.monotonic()  # to compare with an earlier plan is not yet to launch
        self._progress.start()
        action = counted(self._total, *self._nouns) if self._description is None else self._description.action
        self._log("begins: %s", action)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def extend(self, total: int, description: Description | None = None) -> None:
        """Take note of more commands, and of what is done to them all."""
        self._total = total
        self._description = description
        self._progress.extend(total if self._most is None else min(total, self._most))

    def track(self, numbers: Iterable[int]) -> Iterable[int]:
        """The ids themselves; which of them are begun is taken note of, if the others are to be written."""
        return numbers if self._live_failures_file is None else self._live_failures_file.track(numbers)

    def outcome(self, outcome: Outcome[object]) -> bool:
        """Show an outcome. Returns whether it could be written wherever that was asked for."""
        written = write(sys.stdout, f"{as_json(outcome)}\n") if self._json else True
        if self._live_failures_file is not None:
            written = self._live_failures_file.outcome(outcome) and written
        if outcome.error is not None:
            self._failure(outcome, outcome.error)
        return written

    def progress(self, snapshot: ProgressSnapshot) -> None:
        """Show how far it is."""
        if snapshot.planned is not None:
            self._began = self._clock.monotonic()  # to plan is not yet to launch
        self._progress.show(snapshot)

    def finish(self) -> None:
        """Nothing more comes: what has no outcome was not started."""
        if self._live_failures_file is not None:
            self._live_failures_file.close()

    def note(self, text: str) -> None:
        """Say something in between, on standard error."""
        self._progress.note(text)

    def fail(self, text: str) -> None:
        """Show an error of the run itself. Its exit status is then a failure, whatever the outcomes are."""
        self._broken = True
        self.note(text)

    def not_started(self, report: Report) -> int:
        """How many of all commands were not started."""
        # Only the ledger knows how many commands its run holds.
        return self._total - report.total if report.not_started is None else report.not_started

    def gave_up(self, text: str) -> None:
        """Show that the run was given up. Its exit status is then a failure, and the summary says how to resume."""
        self._gave_up = True
        self.fail(text)

    def summary(self, report: Report, *, interrupted: bool) -> int:
        """Show what came of it all, run ``--notify``, and return the exit status."""
        elapsed = self._clock.monotonic() - self._began
        not_started = self.not_started(report)
        total = report.total + not_started
        with ignore_broken_pipe(self._stream):  # the terminal may be gone; the exit status still tells what happened
            self._summarize(report, total, not_started, elapsed)
        status = exit_status(report, not_started, interrupted=interrupted) or int(self._broken)
        counts = ", ".join(f"{getattr(report, state.value):,} {state.value}" for state in State)
        self._log("ends with status %d: %s, %d not started", status, counts, not_started)
        if self._notifier is not None:
            reason = "interrupted" if interrupted else self.reason or ("error" if self._broken else "finished")
            ending = Ending(run=self._run, report=report, not_started=not_started, exit_status=status, reason=reason)
            self._notifier.run(ending, self.note)
        return status

    @property
    def _run(self) -> str | None:
        return None if self._ledger_ref is None else self._ledger_ref.run

    def _log(self, text: str, *values: object) -> None:
        """Log a line about the run: a run without failures has no other one."""
        log(logger, logging.INFO, f"the run {text}", *values, extra=lambda: {"run": self._run, "index": None})

    def _summarize(self, report: Report, total: int, not_started: int, elapsed: float) -> None:
        before = [] if self._description is None else [str(self._description)]
        # A line of numbers that is no prose is not wrapped.
        after = [self._total_line(report, total, elapsed)]
        prose = [self.outages, escape_control(self.left_out)]
        prose += [f"{count:,} {error_type.__name__}: {hint}" for (error_type, hint), count in self._hints.most_common()]
        ends = (
            "" if self._left(report, total) else self._where_it_is_recorded(),
            self._where_failures_are(total - report.done, self._left(report, total)),
            self._how_to_go_on(report, total, not_started),
            self._how_to_launch_the_refused(),
        )
        prose += map(escape_control, ends)
        after += [fitted(self._stream, text) for text in prose if text]
        counts = [*_counts(report, not_started)]
        write(self._stream, summary_text(self._stream, [fitted(self._stream, text) for text in before], counts, after))

    def _total_line(self, report: Report, total: int, elapsed: float) -> str:
        line = _("{done:,} of {targets} in {elapsed:,.2f} s").format(
            done=report.total, targets=counted(total, *self._nouns), elapsed=elapsed
        )
        if elapsed > 0:
            rate = (report.total - report.previously_finished) / elapsed
            line += _(", {rate:,.0f} a second").format(rate=rate)
        if report.previously_finished:
            line += _("; {count:,} of them earlier").format(count=report.previously_finished)
        return f"{line}."

    def _failure(self, outcome: Outcome[object], error: DispatchkitError) -> None:
        self._hints[type(error), as_options(error.hint)] += 1
        self._shown[outcome.state] += 1
        if self._shown[outcome.state] <= _DETAILED:
            self.note(format_failure(outcome))
        elif self._shown[outcome.state] == _DETAILED + 1:
            elsewhere = "" if self._json or self._failures_file or self._ledger_ref else _("; --json lists each one")
            self.note(
                _("More that are {state} are only counted here{elsewhere}.").format(
                    state=state_word(outcome.state.value), elsewhere=elsewhere
                )
            )

    def _left(self, report: Report, total: int) -> int:
        """The number of targets that a resume, or the rest of the list, would launch."""
        return total - report.done - report.rejected - self.unknown_for_good

    def _where_failures_are(self, count: int, left: int) -> str:
        if self._failures_file is None:
            return ""
        path = self._failures_file.path
        if not self._failures_file.whole:
            return _("{path} is not complete: it could not be written to its end.").format(path=path)
        if not count:
            return ""
        # A resume launches what is left; what is not left needs another run.
        by_file = self._live_failures_file is not None or (not left and not self._resumes)
        again = _(" To try again those that may be: {line}").format(line=self._again(path)) if by_file else ""
        return (
            ngettext(
                "{count:,} target is not done: see {path}.", "{count:,} targets are not done: see {path}.", count
            ).format(count=count, path=path)
            + again
        )

    def _again(self, path: Path) -> str:
        """The same command for the ids that are not done, with another file for what fails again."""
        number = next(number for number in itertools.count(2) if not _numbered(path, number).exists())
        more = ("--from", str(path), "--failures", str(_numbered(path, number)))
        return self._invocation.again(*more, without=_OF_THE_IDS)

    def _how_to_go_on(self, report: Report, total: int, not_started: int) -> str:
        left = self._left(report, total)
        if self._ledger_ref is None or self._ledger_ref.run is None or not left:
            if (self._gave_up or not_started) and self._failures_file is None and left:
                return ngettext(
                    "{targets} is left, and no file lists which. A run in a ledger can be resumed; with --failures "
                    "FILE, the ids that are left are listed.",
                    "{targets} are left, and no file lists which. A run in a ledger can be resumed; with --failures "
                    "FILE, the ids that are left are listed.",
                    left,
                ).format(targets=counted(left, *self._nouns))
            return ""
        if report.not_started is None and not self.planned:
            return _("The plan of run {run!r} is not complete. To complete it: {line}").format(
                run=self._ledger_ref.run, line=self._ledger_ref.again()
            )
        return ngettext(
            "{targets} is left. To resume the run: {line}", "{targets} are left. To resume the run: {line}", left
        ).format(targets=counted(left, *self._nouns), line=self._ledger_ref.resume(self._ledger_ref.run))

    def _how_to_launch_the_refused(self) -> str:
        refused = sum(
            count
            for (kind, _hint), count in self._hints.items()
            if issubclass(kind, RejectedError) and not kind.concerns_target
        )
        if self._ledger_ref is None or self._ledger_ref.run is None or not refused:
            return ""
        # They are rejected like any other target, and the run does not retry them.
        return _(
            "Rejected targets are not retried, including {refused:,} rejected only for the token, the "
            "account or the rate limit. To launch those, start a new run --from the file that this writes: "
            "{line}"
        ).format(refused=refused, line=self._ledger_ref.failures(self._ledger_ref.run))

    def _where_it_is_recorded(self) -> str:
        if self._ledger_ref is None or self._ledger_ref.run is None:
            return ""
        return _("Recorded as run {run!r}. To show it: {line}").format(
            run=self._ledger_ref.run, line=self._ledger_ref.show(self._ledger_ref.run)
        )


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _counts(report: Report, not_started: int) -> Iterator[Count]:
    for state, style in STYLES.items():
        count: int = getattr(report, state.value)
        yield Count(state_word(state.value), count, style if count else "dim")
    if not_started:
        yield Count(_("not started"), not_started)

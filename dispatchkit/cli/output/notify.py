"""``--notify``: a command that runs once at the end of a run, or once it is refused, with the facts in its environment.

No shell runs it, and no token reaches it. It changes no exit status: its failure is only told.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import typer

import dispatchkit
from dispatchkit.cli.input.question import DECLINED
from dispatchkit.cli.text import escape_control, write
from dispatchkit.cli.translate import _

if TYPE_CHECKING:
    from dispatchkit import Report
    from dispatchkit.cli.commands.worker import WorkerOptions
    from dispatchkit.cli.options import ActingOptions

__all__ = ["TIMEOUT", "Ending", "Notifier", "notifier_of", "refusal_told"]

TIMEOUT = 30.0
"""Seconds until a command that has not ended is killed."""

_TOKEN = re.compile(r"(?i)token$")
"""Names of variables with a token: that of a provider, also of another package, or of any other program."""
_BEFORE_START = {0: "finished", 3: "finished", DECLINED: "declined", 130: "interrupted"}
"""The reasons of an end before the start, by exit status."""
_MAX_SHOWN = 200
"""Characters of the command's own error that are shown."""


@attrs.frozen(kw_only=True)
class Ending:
    """How a run, or a worker, ended."""

    run: str | None
    """The name of the run; None without a ledger, and of a worker."""
    report: Report
    not_started: int | None
    """None if it is not known, since the launch was refused."""
    exit_status: int
    reason: str
    """Why it ended: ``finished``, ``interrupted``, ``error``, or a `StopKind` such as ``max_launches``. ``refused`` or
    ``declined`` before anything was sent."""

    @property
    def state(self) -> str:
        """The result in a word: ``done``, ``failures``, ``unknown``, ``stopped`` before its end, or ``refused``."""
        if self.not_started is None and self.reason != "finished":
            return "refused"
        if self.exit_status and self.reason != "finished":
            return "stopped"
        return {0: "done", 1: "failures", 3: "unknown", 5: "refused"}.get(self.exit_status, "failures")

    def facts(self) -> dict[str, str | int | None]:
        """The facts by their names in the JSON report."""
        report = self.report
        return {
            "run": self.run,
            "state": self.state,
            "reason": self.reason,
            "exit_status": self.exit_status,
            "done": report.done,
            "rejected": report.rejected,
            "not_sent": report.not_sent,
            "unknown": report.unknown,
            "not_started": self.not_started,
        }


class Notifier:
    """Runs the command of ``--notify``.

    Args:
        text: The command, in the quotes of a shell.

    Raises:
        ValueError: The text is no command, or there is no such program.
    """

    def __init__(self, text: str) -> None:
        try:
            self._words = shlex.split(text)
        except ValueError as error:
            raise ValueError(_("--notify takes a command with its arguments: {error}").format(error=error)) from None
        if not self._words:
            raise ValueError(_("--notify takes a command, and this one is empty"))
        program = shutil.which(self._words[0])
        if program is None:
            raise ValueError(
                _("--notify: there is no program {program!r}, or it may not be run").format(program=self._words[0])
            )
        self.has_run = False
        # A later change of the working directory or of PATH must not lead to another program.
        self._words[0] = str(Path(program).absolute())

    def run(self, ending: Ending, tell: Callable[[str], None]) -> None:
        """Run the command, and wait for it. What fails is told in one line.

        Args:
            ending: How the run ended.
            tell: Called with the line.
        """
        self.has_run = True
        facts = ending.facts()
        report = f"{json.dumps(facts)}\n".encode()
        try:
            # A session of its own: a further Ctrl-C is for this process, and a kill reaches its children, too.
            with subprocess.Popen(  # noqa: S603 - the user's own command, without a shell
                self._words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=self._environment(facts),
                start_new_session=True,
            ) as process:
                try:
                    error = process.communicate(report, timeout=TIMEOUT)[1]
                except subprocess.TimeoutExpired:
                    _kill(process)
                    tell(
                        _("--notify: the command had not ended after {seconds:.0f} s, so it was killed.").format(
                            seconds=TIMEOUT
                        )
                    )
                    return
                except KeyboardInterrupt:  # the run is over, and its exit status must not change
                    _kill(process)
                    tell(_("--notify: the command was killed, since Ctrl-C was pressed."))
                    return
        except OSError as failure:
            tell(_("--notify: the command could not be run: {reason}.").format(reason=failure.strerror))
            return
        if process.returncode:
            said = escape_control(error.decode(errors="replace").strip()[-_MAX_SHOWN:])
            tell(
                _("--notify: the command ended with status {status}{output}.").format(
                    status=process.returncode, output=said and f": {said}"
                )
            )

    def _environment(self, facts: Mapping[str, str | int | None]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not _TOKEN.search(name)}
        return kept | {
            f"DISPATCHKIT_{name.upper()}": "" if value is None else str(value).replace("\0", "")
            for name, value in facts.items()
        }


def notifier_of(options: ActingOptions | WorkerOptions) -> Notifier | None:
    """The command of ``--notify``; None without one.

    Raises:
        ValueError: It cannot be run.
    """
    return None if options.notify is None else Notifier(options.notify)


@contextlib.contextmanager
def refusal_told(notifier: Notifier | None, run: str | None) -> Generator[None]:
    """Run the command if the block exits before the run has begun.

    Args:
        notifier: The command; None without one.
        run: The name of the run, if the command line has one.
    """
    try:
        yield
    except (typer.Exit, KeyboardInterrupt) as ended:
        if notifier is not None and not notifier.has_run:
            status = ended.exit_code if isinstance(ended, typer.Exit) else 130
            reason = _BEFORE_START.get(status, "refused")
            report = dispatchkit.Report()
            ending = Ending(run=run, report=report, not_started=None, exit_status=status, reason=reason)
            notifier.run(ending, _tell)
        raise


def _tell(text: str) -> None:
    write(sys.stderr, f"{text}\n")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the command with its children, which would keep its standard error open."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()

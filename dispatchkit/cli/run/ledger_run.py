"""A run of a ledger: check that it is the same launch, drive it, and write what is not done."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Never, TypeVar, cast

import attrs
import typer

from dispatchkit.cli.durations import ALWAYS, in_words
from dispatchkit.cli.fitted import fitted
from dispatchkit.cli.lazy import load
from dispatchkit.cli.output.failures import NOT_DONE, Failure
from dispatchkit.cli.output.reporter import LAUNCHED_BEFORE
from dispatchkit.cli.run.drive import drive
from dispatchkit.cli.run.takeover import Decisions, explained, prepare
from dispatchkit.cli.text import counted, escape_control, redact_urls, write
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.cli.views.snapshot import resume_line, take_snapshot
from dispatchkit.errors import LedgerError, RepeatedTargetsError
from dispatchkit.ledger.codec import decode, encode_in_thread
from dispatchkit.ledger.keys import is_same
from dispatchkit.ledger.plan import digests
from dispatchkit.ledger.run_snapshot import find_taken_over
from dispatchkit.providers import installed_provider

if TYPE_CHECKING:
    from dispatchkit import Report, Run
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.input.ledger_ref import LedgerRef
    from dispatchkit.cli.output.failures import FailuresFile
    from dispatchkit.cli.output.reporter import Reporter
    from dispatchkit.cli.run.sharing import SharingLedger
    from dispatchkit.cli.settings import Guards
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command
    from dispatchkit.core.fanout.journal import JournalProvider
    from dispatchkit.ledger.ledger import Ledger
    from dispatchkit.ledger.target import Target

__all__ = ["LedgerRun", "check_same_plan", "drive_with_ledger"]

R = TypeVar("R")
W = TypeVar("W")


_BATCH_SIZE = 1024
_LOOK_TIMEOUT = 1.0
"""Seconds in which an interrupted run looks into the ledger why it ended."""


@attrs.frozen
class LedgerRun:
    """A run and its ledger."""

    ledger: Ledger
    ledger_ref: LedgerRef
    """The name of the ledger in messages, and the name of the run."""
    decisions: Decisions = attrs.field(factory=Decisions)
    resumes: bool = False
    """Whether a run that was stopped goes on."""
    repeat_window: float | None = None
    """Seconds within which no other run may have launched one of the targets."""
    told_left_out: int = 0
    """The number of targets of which was said before that the run leaves them out."""

    @property
    def name(self) -> str:
        """The run's, in the ledger."""
        return self.ledger_ref.run or ""

    def journal_provider(self, client: Client[W]) -> JournalProvider:
        """The provider of the journal of the run."""
        journal_provider: JournalProvider = self.ledger.resuming(self.name) if self.resumes else self.ledger
        if not self.ledger.is_shared:
            return journal_provider
        # It needs the extra that the ledger needs.
        sharing: type[SharingLedger] = load("dispatchkit.cli.run.sharing:SharingLedger")
        return sharing(self.ledger, journal_provider, cast("Client[Never]", client))


async def drive_with_ledger(
    client: Client[W],
    commands: Iterable[Command[W, R]] | None,
    ledger_run: LedgerRun,
    *,
    reporter: Reporter,
    guards: Guards,
    failures_file: FailuresFile | None,
) -> tuple[Report, bool]:
    """Drive a run of a ledger, then write what of it is not done. See `drive`.

    Raises:
        LedgerError: The ledger could not be used, and nothing was begun.
    """
    try:
        await prepare(cast("Client[Never]", client), ledger_run.ledger, ledger_run.name, ledger_run.decisions, reporter)
        ending = await drive(
            client,
            commands,
            reporter,
            guards,
            ledger=ledger_run.journal_provider(client),
            run=ledger_run.name,
            repeat_window=ledger_run.repeat_window,
        )
    except RepeatedTargetsError as error:
        raise await _repeated(error, ledger_run) from None
    except LedgerError as error:
        raise await explained(error, ledger_run.ledger, ledger_run.ledger_ref) from None
    try:
        async with asyncio.timeout(_LOOK_TIMEOUT if ending[1] else None):
            await _tell_why_it_ended(ledger_run, reporter)
            if ending[0].launched_elsewhere:
                reporter.left_out = await _tell_of_left_out(ledger_run, ending[0])
            if ending[0].unknown:
                reporter.unknown_for_good = (await ledger_run.ledger.counts(ledger_run.name)).unknown_for_good
        if failures_file is not None:
            await _write(failures_file, ledger_run)
    except (LedgerError, TimeoutError) as error:
        silent = _("the ledger's database does not answer. The run can be resumed later")
        reporter.fail(redact_urls(str(error)) or silent)
        if failures_file is not None:
            failures_file.whole = False
    if failures_file is not None:
        failures_file.close()
    return ending


async def _repeated(error: RepeatedTargetsError, ledger_run: LedgerRun) -> LedgerError:
    """An error with the other runs that launched targets of this one, and the line that launches them anyway.

    Raises:
        LedgerError: The ledger cannot be read.
        typer.Exit: One other run launched all that is left of this one.
    """
    ledger, ledger_ref = ledger_run.ledger, ledger_run.ledger_ref
    run = await ledger.run(ledger_run.name)
    within = max(run.repeat_window or 0.0, ledger_run.repeat_window or 0.0)
    repeats = await (await ledger._open_store()).repeats(run.number, within=within)
    if not repeats:  # the window has passed meanwhile
        return error
    count = sum(repeat.count for repeat in repeats)
    name_runs = load("dispatchkit.cli.run.taken_over:name_runs")
    text = ngettext(
        "{count:,} of these ids was launched{within}, or may have been: {runs}. Nothing was sent. Leave them out, or "
        "launch all the same: {line}",
        "{count:,} of these ids were launched{within}, or may have been: {runs}. Nothing was sent. Leave them out, or "
        "launch all the same: {line}",
        count,
    ).format(
        count=count,
        within=_within(within),
        runs=name_runs(repeats),
        line=ledger_ref.launch_all_the_same(),
    )
    if max(repeat.count for repeat in repeats) == (await ledger.counts(run.name)).left:
        write(sys.stderr, fitted(sys.stderr, f"{escape_control(redact_urls(text))}\n"))
        raise typer.Exit(LAUNCHED_BEFORE)
    return LedgerError(text)


def _within(window: float) -> str:
    return "" if window >= ALWAYS else _(" within {time}").format(time=in_words(window))


async def _tell_of_left_out(ledger_run: LedgerRun, report: Report) -> str:
    """What other runs took over from this one, unless that was said before."""
    ledger, run = ledger_run.ledger, await ledger_run.ledger.run(ledger_run.name)
    counts = await ledger.counts(run.name)
    unclear = counts.sending + counts.unknown - report.unknown
    if ledger_run.told_left_out == report.launched_elsewhere:
        return str(load("dispatchkit.cli.run.taken_over:unclear_text")(unclear)) if unclear > 0 else ""
    taken_over = await find_taken_over(ledger, run, within=ledger_run.repeat_window)
    left_out_text = load("dispatchkit.cli.run.taken_over:left_out_text")
    text: str = left_out_text(taken_over, report.launched_elsewhere, unclear, ledger_run.ledger_ref)
    return text


async def _tell_why_it_ended(ledger_run: LedgerRun, reporter: Reporter) -> None:
    run = await ledger_run.ledger.run(ledger_run.name)
    if run.stopped:
        reporter.note(_("The run was stopped by another process: nothing new was started."))
    own_process = (os.getpid(), socket.gethostname())  # still, where the ledger could not be written in the end
    for chunk in await ledger_run.ledger.chunks(ledger_run.name):
        if (holder := chunk.holder) is not None and (holder.pid, holder.host) != own_process:
            text = _("The run was taken over by process {pid} on {host}, which launches the rest.")
            reporter.note(text.format(pid=holder.pid, host=holder.host))
            break


async def _write(failures_file: FailuresFile, ledger_run: LedgerRun) -> None:
    rows: list[Failure] = []
    async for target in ledger_run.ledger.targets(ledger_run.name, states=NOT_DONE):
        rows.append(Failure.of(target))
        if len(rows) == _BATCH_SIZE:
            if not failures_file.write(rows):
                return
            rows.clear()
    if rows:
        failures_file.write(rows)


async def check_same_plan(ledger_run: LedgerRun, command_of: Callable[[int], Command[W, R]], targets: Targets) -> bool:
    """Check that a run of this name, if any, has the same commands. Returns whether its plan is complete.

    All commands are compared, by the digests of the plan, or else one by one. Otherwise, another list or content under
    the name of an old run would be launched in addition to it. The rest of the old run would be launched too, with any
    mistake that the new list corrects.

    Args:
        ledger_run: The run.
        command_of: The command for an id.
        targets: The ids.

    Raises:
        ValueError: It is another one.
        LedgerError: The ledger cannot be read.
    """
    run = next((run for run in await ledger_run.ledger.runs() if run.name == ledger_run.name), None)
    if run is None:
        return False
    total = len(targets)
    if run.plan_complete and run.total == total:
        store = await ledger_run.ledger._open_store()
        # In a thread: the event loop goes on while a large file is hashed.
        if await store.plan_parts(run.number) == await asyncio.to_thread(digests, command_of, targets):
            return True
    first, given, ledger_ref = True, map(command_of, targets), ledger_run.ledger_ref
    async for target in ledger_run.ledger.targets(run.name):
        command = next(given, None)
        is_same_command = await _is_same(target, command)
        if not is_same_command or (first and run.plan_complete and run.total != total):
            difference = _difference(target, command, first=first, is_same_command=is_same_command)
            left = (await take_snapshot(ledger_run.ledger, run)).left
            raise ValueError(_another_launch(run, ledger_ref, target, difference, left=left))
        first = False
    return run.plan_complete


def _difference(target: Target, command: Command[W, R] | None, *, first: bool, is_same_command: bool) -> str:
    """How a target of the run differs from the command of this launch."""
    planned = decode(target.command, partial=True)
    name, number = _command_name(target), planned.target
    if first:
        text = _("{command!r} from {target} on").format(command=name, target=number)
    else:
        text = _("number {place:,} is {command!r} of {target}").format(
            place=target.index + 1, command=name, target=number
        )
    if (
        command is not None
        and not is_same_command
        and (planned.target, type(planned)) == (command.target, type(command))
    ):
        text += _(", with other options or content")
    return text


def _another_launch(run: Run, ledger_ref: LedgerRef, target: Target, difference: str, *, left: int) -> str:
    """A refusal of a launch under the name of an old run, with what to do."""
    noun = installed_provider(decode(target.command, partial=True).provider).noun
    another = (
        _("run {run!r} in {ledger} is another launch, of {targets}: {difference}. Nothing was sent.")
        if run.plan_complete
        else _("run {run!r} in {ledger} is another launch, of {targets} so far: {difference}. Nothing was sent.")
    ).format(run=run.name, ledger=ledger_ref, targets=counted(run.total, *noun), difference=difference)
    if run.plan_complete and not left:
        return f"{another} " + _("That run is over. Give this launch another --run")
    what_next = _("Give this launch another --run, or resume that run: {line}")
    return f"{another} {what_next.format(line=resume_line(ledger_ref, run))}"


def _command_name(target: Target) -> str:
    """The name of a target's command in the registry."""
    return str(json.loads(target.command)["type"]).rpartition(".")[2]


async def _is_same(target: Target, command: Command[W, R] | None) -> bool:
    if command is None:
        return False
    digest, text = await encode_in_thread(cast("Command[Never, object]", command))
    # The text is quicker, and the key is right also where the order of a content's fields is another.
    return text == target.command or is_same(target.command, digest)

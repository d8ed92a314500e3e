"""Perform a launch that is checked and confirmed: with a ledger, without one, or in a sandbox."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.cli.input.question import Description
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.lazy import load
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.output.failures import FailuresFile, LiveFailuresFile
from dispatchkit.cli.output.notify import Notifier
from dispatchkit.cli.output.reporter import Reporter
from dispatchkit.cli.run.drive import drive
from dispatchkit.cli.run.ledger_run import LedgerRun, check_same_plan, drive_with_ledger
from dispatchkit.cli.run.takeover import Decisions
from dispatchkit.cli.translate import _

if TYPE_CHECKING:
    from dispatchkit import Ledger, Report, Run
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.cli.run.spec import LaunchSpec
    from dispatchkit.cli.settings import Guards
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command


__all__ = ["perform"]

R = TypeVar("R")
W = TypeVar("W")


def reporter_of(
    options: RunOptions,
    spec: LaunchSpec[W, R],
    targets: Targets,
    ledger_ref: LedgerRef | None,
    description: Description,
    *,
    notifier: Notifier | None,
) -> tuple[Reporter, FailuresFile | None]:
    with exit_on_user_error():
        failures_file = None
        if options.failures is not None:
            failures_file = (
                LiveFailuresFile(options.failures, targets) if ledger_ref is None else FailuresFile(options.failures)
            )
        reporter = Reporter(
            total=len(targets),
            most=options.max_launches,
            verb=spec.verb,
            noun=spec.noun,
            json=options.json,
            quiet=options.quiet,
            failures_file=failures_file,
            ledger_ref=ledger_ref,
            description=description,
            notifier=notifier,
            invocation=options.invocation,
        )
    return reporter, failures_file


async def _run(
    spec: LaunchSpec[W, R], client: Client[W], numbers: Iterable[int], reporter: Reporter, bounds: Guards
) -> tuple[Report, bool]:
    async with client:
        return await drive(client, map(spec.command, reporter.track(numbers)), reporter, bounds)


async def _run_in_sandbox(
    spec: LaunchSpec[W, R], targets: Targets, reporter: Reporter, bounds: Guards
) -> tuple[Report, bool]:
    async with spec.sandbox(targets) as sandbox:

        def prepared() -> Iterator[int]:
            prepare = None if spec.prepare is None else load(spec.prepare)
            for number in targets:
                if prepare is not None:
                    prepare(sandbox, number)
                yield number

        client = spec.connect(sandbox.url, spec.token_of_sandbox(sandbox))
        return await _run(spec, client, prepared(), reporter, bounds)


async def _run_remembered(
    spec: LaunchSpec[W, R],
    client: Client[W],
    targets: Targets,
    ledger_ref: LedgerRef,
    decisions: Decisions,
    *,
    reporter: Reporter,
    bounds: Guards,
    failures_file: FailuresFile | None,
    repeat_window: float | None,
    compared: Run | None,
    told_left_out: int,
) -> tuple[Report, bool]:
    async with ledger_ref.open(new=True) as ledger, client:
        ledger_run = LedgerRun(ledger, ledger_ref, decisions, repeat_window=repeat_window, told_left_out=told_left_out)
        reporter.planned = await _is_unchanged(ledger, compared) or await check_same_plan(
            ledger_run, spec.command, targets
        )
        commands = None if reporter.planned else _commands(spec, targets, ledger_ref, reporter)
        with reporter:
            return await drive_with_ledger(
                client, commands, ledger_run, reporter=reporter, guards=bounds, failures_file=failures_file
            )


def _commands(
    spec: LaunchSpec[W, R], targets: Targets, ledger_ref: LedgerRef, reporter: Reporter
) -> Iterator[Command[W, R]]:
    """The commands of a plan. The first one is taken once the ledger has the run."""
    if ledger_ref.is_new_name:
        reporter.note(_("The launch is run {run!r} in {ledger}.").format(run=ledger_ref.run, ledger=ledger_ref))
    yield from map(spec.command, targets)


async def _is_unchanged(ledger: Ledger, compared: Run | None) -> bool:
    """Whether the run is the one whose plan was compared before the question. A complete plan never changes."""
    if compared is None:
        return False
    run = await ledger.run(compared.name)
    return (run.number, run.created, run.total) == (compared.number, compared.created, compared.total)


def perform(
    options: RunOptions,
    spec: LaunchSpec[W, R],
    targets: Targets,
    client: Client[W],
    ledger_ref: LedgerRef | None,
    *,
    decisions: Decisions,
    bounds: Guards,
    description: Description,
    notifier: Notifier | None,
    repeat_window: float | None,
    compared: Run | None,
    told_left_out: int,
) -> NoReturn:
    """Run and report.

    Args:
        options: What was typed.
        spec: What is to be done.
        targets: To which ids.
        client: The client, unless a sandbox plays the provider.
        ledger_ref: The ledger; None without one.
        decisions: The answers on the run's hindrances.
        bounds: The guards.
        description: The launch in words.
        notifier: What runs at the end.
        repeat_window: Seconds within which another run's launches count.
        compared: The run, if its plan is complete and has these commands.
        told_left_out: The number of targets of which was said that the run leaves them out.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    reporter, failures_file = reporter_of(options, spec, targets, ledger_ref, description, notifier=notifier)
    if ledger_ref is not None:
        remembered = _run_remembered(
            spec,
            client,
            targets,
            ledger_ref,
            decisions,
            reporter=reporter,
            bounds=bounds,
            failures_file=failures_file,
            repeat_window=repeat_window,
            compared=compared,
            told_left_out=told_left_out,
        )
        with exit_on_user_error():
            report, interrupted = run_loop(remembered)
    else:
        running = (
            _run_in_sandbox(spec, targets, reporter, bounds)
            if options.sandbox
            else _run(spec, client, targets, reporter, bounds)
        )
        with reporter:
            report, interrupted = run_loop(running)
    raise typer.Exit(reporter.summary(report, interrupted=interrupted))

"""A launch that is checked, from the question to its exit status."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import attrs
import typer

from dispatchkit.cli.durations import repeat_seconds
from dispatchkit.cli.input.ledger_ref import LedgerRef, ledger_from_options
from dispatchkit.cli.input.question import ask
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.lazy import load
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.output.failures import FailuresFile, LiveFailuresFile
from dispatchkit.cli.output.reporter import Reporter
from dispatchkit.cli.run.drive import drive
from dispatchkit.cli.run.ledger_run import LedgerRun, check_same_plan, drive_with_ledger
from dispatchkit.cli.run.plan import plan_run
from dispatchkit.cli.run.spec import describe, describe_rest
from dispatchkit.cli.run.takeover import Decisions, Hindrances, decide, hindrances
from dispatchkit.cli.settings import guards
from dispatchkit.cli.text import escape_control, write
from dispatchkit.cli.views.snapshot import take_snapshot

if TYPE_CHECKING:
    from dispatchkit import Ledger, Report, Run
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.cli.run.spec import LaunchSpec
    from dispatchkit.cli.settings import Guards
    from dispatchkit.core.call.client import Client

__all__ = ["execute"]

R = TypeVar("R")
W = TypeVar("W")

_MASK = "***"


@attrs.frozen
class _KnownRun:
    """The state of the ledger's run before the question."""

    hindrances: Hindrances = attrs.field(factory=lambda: Hindrances(None))
    left: int | None = None
    """The number of targets that are left; None if there is no such run."""
    compared: Run | None = None
    """The run, if its plan is complete and has these commands."""


def execute(options: RunOptions, spec: LaunchSpec[W, R], targets: Targets, *, tell: Callable[[], None]) -> None:
    """Ask, run, report.

    Args:
        options: What was typed.
        spec: What is to be done.
        targets: To which ids.
        tell: Says which ids are left out, once everything is checked.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    plan = options.invocation.plan
    with exit_on_user_error():
        host = spec.host(sandbox=options.sandbox)
        key = _MASK
        if not options.sandbox and not _plans_without_token(options, spec):
            key = spec.token or token(options, spec.token_variable)
        bounds = guards(options)
        ledger_ref = ledger_from_options(options, spec.verb) if plan is None else None
        if options.sandbox and options.invocation.given("base_url"):
            raise ValueError("give either --sandbox or --base-url, not both: the sandbox is a host of its own")
        default = "1h" if ledger_ref is not None and ledger_ref.is_new_name and not spec.stops else "never"
        repeat_window = repeat_seconds(options.repeat_window, default=default)
        client = spec.connect(host, key)
        del key
        client._call(spec.command(targets.first))  # what is wrong with one is wrong with all
        known = _KnownRun()
        if ledger_ref is not None and ledger_ref.holds_runs:
            known = run_loop(_inspect(ledger_ref, spec, targets))
    tell()
    description = describe(options, spec, targets, host)
    if known.left is not None and ledger_ref is not None:
        description = describe_rest(description, spec, targets, run=ledger_ref.run or "", left=known.left)
        if not known.left:
            write(sys.stderr, f"Run {escape_control(repr(ledger_ref.run))} is over: no target is left.\n")
    if not (options.sandbox or options.yes or known.left == 0):
        ask(description)
    decisions = Decisions()
    if ledger_ref is not None:
        decisions = decide(known.hindrances, options, ledger_ref)
    if plan is not None:
        plan_run(plan, options, client, map(spec.command, targets), total=len(targets), noun=spec.noun)
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
            invocation=options.invocation,
        )
    if ledger_ref is not None:
        if ledger_ref.is_new_name:
            reporter.note(f"The launch is run {ledger_ref.run!r} in {ledger_ref}.")
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
            compared=known.compared,
        )
        with exit_on_user_error():
            report, interrupted = run_loop(remembered)
    else:
        sandboxed = options.sandbox
        running = (
            _run_in_sandbox(spec, targets, reporter, bounds)
            if sandboxed
            else _run(spec, client, targets, reporter, bounds)
        )
        with reporter:
            report, interrupted = run_loop(running)
    raise typer.Exit(reporter.summary(report, interrupted=interrupted))


def _plans_without_token(options: RunOptions, spec: LaunchSpec[W, R]) -> bool:
    """Whether a run is planned for a named account, and there is no token: then it needs none."""
    if options.invocation.plan is None or options.account is None:
        return False
    return options.token_file is None and not os.environ.get(spec.token_variable)


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
) -> tuple[Report, bool]:
    async with ledger_ref.open(new=True) as ledger, client:
        ledger_run = LedgerRun(ledger, ledger_ref, decisions, repeat_window=repeat_window)
        reporter.planned = await _is_unchanged(ledger, compared) or await check_same_plan(
            ledger_run, spec.command, targets
        )
        commands = None if reporter.planned else map(spec.command, targets)
        with reporter:
            return await drive_with_ledger(
                client, commands, ledger_run, reporter=reporter, guards=bounds, failures_file=failures_file
            )


async def _is_unchanged(ledger: Ledger, compared: Run | None) -> bool:
    """Whether the run is the one whose plan was compared before the question. A complete plan never changes."""
    if compared is None:
        return False
    run = await ledger.run(compared.name)
    return (run.number, run.created, run.total) == (compared.number, compared.created, compared.total)


async def _inspect(ledger_ref: LedgerRef, spec: LaunchSpec[W, R], targets: Targets) -> _KnownRun:
    async with ledger_ref.open() as ledger:
        found = await hindrances(ledger, ledger_ref.run or "")
        if found.run is None:
            return _KnownRun(found)
        is_planned = await check_same_plan(LedgerRun(ledger, ledger_ref), spec.command, targets)
        left = (await take_snapshot(ledger, found.run)).left
        return _KnownRun(found, left + len(targets) - found.run.total, found.run if is_planned else None)

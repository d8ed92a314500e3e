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
from dispatchkit.cli.input.ledger_ref import LedgerRef, ledger_from_options, without_ledger
from dispatchkit.cli.input.question import Description, ask
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.lazy import load
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.output.failures import FailuresFile, LiveFailuresFile
from dispatchkit.cli.output.reporter import Reporter
from dispatchkit.cli.run.drive import drive
from dispatchkit.cli.run.earlier import Earlier, find_earlier
from dispatchkit.cli.run.ledger_run import LedgerRun, check_same_plan, drive_with_ledger
from dispatchkit.cli.run.plan import plan_run
from dispatchkit.cli.run.spec import describe, describe_rest
from dispatchkit.cli.run.takeover import Decisions, Hindrances, decide, hindrances
from dispatchkit.cli.settings import guards
from dispatchkit.cli.text import counted, escape_control, write
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

_MAX_RECORDED = 20_000_000
"""Ids of a launch in the user's own ledger. Each takes about 100 bytes of the disk."""
LAUNCHED_BEFORE = 5
"""The exit status of a launch whose targets were all launched before."""


@attrs.frozen
class _KnownRun:
    """The state of the ledger's run before the question."""

    hindrances: Hindrances = attrs.field(factory=lambda: Hindrances(None))
    left: int | None = None
    """The number of targets that are left; None if there is no such run."""
    compared: Run | None = None
    """The run, if its plan is complete and has these commands."""
    earlier: Earlier = attrs.field(factory=Earlier)
    """What other runs launched."""
    leaves_out: bool = False
    """Whether the run exists, and was planned without what other runs launched."""


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
        ledger_ref = ledger_from_options(options, spec.verb, stops=bool(spec.stops)) if plan is None else None
        if ledger_ref is not None and ledger_ref.is_default and len(targets) > _MAX_RECORDED:
            raise ValueError(
                f"{len(targets):,} ids are too many for the ledger on this machine: nothing was sent. To launch "
                f"without a record: {without_ledger(options.invocation)}"
            )
        if options.sandbox and options.invocation.given("base_url"):
            raise ValueError("give either --sandbox or --base-url, not both: the sandbox is a host of its own")
        window = _repeat_window(options, spec)
        repeat_window = None if options.again or (ledger_ref is None and plan is None) else window
        client = spec.connect(host, key)
        del key
        client._profile = profile.name if (profile := options.invocation.profile) is not None else None
        client._call(spec.command(targets.first))  # what is wrong with one is wrong with all
        known = _KnownRun()
        if ledger_ref is not None and ledger_ref.holds_runs:
            known = run_loop(_inspect(ledger_ref, spec, client, targets, window))
    given = targets
    if known.earlier.count and (known.leaves_out or not options.again):
        targets = known.earlier.without(given)
    tell()
    if ledger_ref is not None and not len(targets):
        raise _all_launched_before(spec, known.earlier, len(given), ledger_ref)
    description = _describe(options, spec, targets, host, known=known, ledger_ref=ledger_ref)
    if not (options.sandbox or options.yes or known.left == 0):
        ask(description)
    decisions = Decisions()
    if ledger_ref is not None:
        decisions = decide(known.hindrances, options, ledger_ref)
    if plan is not None:
        plan_run(
            plan,
            options,
            client,
            map(spec.command, targets),
            total=len(targets),
            noun=spec.noun,
            repeat_window=repeat_window,
        )
    reporter, failures_file = _reporter(options, spec, targets, ledger_ref, description)
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
        running = (
            _run_in_sandbox(spec, targets, reporter, bounds)
            if options.sandbox
            else _run(spec, client, targets, reporter, bounds)
        )
        with reporter:
            report, interrupted = run_loop(running)
    raise typer.Exit(reporter.summary(report, interrupted=interrupted))


def _repeat_window(options: RunOptions, spec: LaunchSpec[W, R]) -> float | None:
    """Seconds within which another run's launches count.

    Raises:
        ValueError: The options contradict each other, or one is no time.
    """
    if options.again and options.repeat_window is not None:
        raise ValueError("give either --again or --repeat-window, not both")
    return repeat_seconds(options.repeat_window, default=spec.repeat_window)


def _describe(
    options: RunOptions,
    spec: LaunchSpec[W, R],
    targets: Targets,
    host: str,
    *,
    known: _KnownRun,
    ledger_ref: LedgerRef | None,
) -> Description:
    """The launch in words. A run that is over is said at once."""
    description = describe(options, spec, targets, host, earlier=_described(known.earlier, options.again, ledger_ref))
    if known.left is None or ledger_ref is None:
        return description
    if not known.left:
        write(sys.stderr, f"Run {escape_control(repr(ledger_ref.run))} is over: no target is left.\n")
    return describe_rest(description, spec, targets, run=ledger_ref.run or "", left=known.left)


def _reporter(
    options: RunOptions,
    spec: LaunchSpec[W, R],
    targets: Targets,
    ledger_ref: LedgerRef | None,
    description: Description,
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
            invocation=options.invocation,
        )
    return reporter, failures_file


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


async def _inspect(
    ledger_ref: LedgerRef, spec: LaunchSpec[W, R], client: Client[W], targets: Targets, window: float | None
) -> _KnownRun:
    async with ledger_ref.open() as ledger:
        name = ledger_ref.run or ""
        found = await hindrances(ledger, name)
        earlier = Earlier()
        if window is not None:
            earlier = await find_earlier(ledger, name, client, spec.command, targets, within=window)
        if found.run is None:
            return _KnownRun(found, earlier=earlier)
        ledger_run, leaves_out = LedgerRun(ledger, ledger_ref), False
        try:
            is_planned = await check_same_plan(ledger_run, spec.command, targets)
            earlier = Earlier()
        except ValueError:
            targets, leaves_out = earlier.without(targets), True
            if not earlier.count or not len(targets):
                raise
            is_planned = await check_same_plan(ledger_run, spec.command, targets)
        left = (await take_snapshot(ledger, found.run)).left
        return _KnownRun(
            found,
            left + len(targets) - found.run.total,
            found.run if is_planned else None,
            earlier,
            leaves_out,
        )


def _described(earlier: Earlier, again: bool, ledger_ref: LedgerRef | None) -> tuple[tuple[str, str], ...]:
    """What other runs launched, for the question."""
    if not earlier.count or ledger_ref is None:
        return ()
    name = "again" if again else "left out"
    return ((name, f"{earlier.count:,} launched before, {earlier}{_to_settle(earlier, ledger_ref)}"),)


def _to_settle(earlier: Earlier, ledger_ref: LedgerRef) -> str:
    unclear = next((run for run in earlier.runs if not run.is_clear), None)
    return "" if unclear is None else f". To see what is left of that run: {ledger_ref.show(unclear.name)}"


def _all_launched_before(spec: LaunchSpec[W, R], earlier: Earlier, count: int, ledger_ref: LedgerRef) -> typer.Exit:
    """Say that nothing is left to launch."""
    what = f"The {spec.noun[0]} was" if count == 1 else f"All {counted(count, *spec.noun)} were"
    text = (
        f"{what} launched before, or may have been: {earlier}. Nothing was sent{_to_settle(earlier, ledger_ref)}. "
        f"To launch all the same: {ledger_ref.launch_all_the_same()}"
    )
    write(sys.stderr, f"{escape_control(text)}\n")
    return typer.Exit(LAUNCHED_BEFORE)

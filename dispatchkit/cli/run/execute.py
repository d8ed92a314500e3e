"""One command of the command line from its options to its exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import typer

from dispatchkit.cli.input.ledger_ref import LedgerRef, ledger_from_options
from dispatchkit.cli.input.question import ask
from dispatchkit.cli.input.values import exit_on_user_error, read_targets, token
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.output.failures import FailuresFile, LiveFailuresFile
from dispatchkit.cli.output.reporter import Reporter
from dispatchkit.cli.run.drive import drive
from dispatchkit.cli.run.dry_run import show_requests
from dispatchkit.cli.run.ledger_run import LedgerRun, check_same_plan, drive_with_ledger
from dispatchkit.cli.run.plan import plan_options
from dispatchkit.cli.run.takeover import Decisions, Hindrances, decide, hindrances
from dispatchkit.cli.text import escape_control, write
from dispatchkit.providers import installed_provider

if TYPE_CHECKING:
    from dispatchkit import Report
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.options import Guards, RunOptions
    from dispatchkit.cli.run.plan import PlanOptions
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command
    from dispatchkit.sandbox import Sandbox

__all__ = ["LaunchSpec", "execute"]

R = TypeVar("R")
W = TypeVar("W")

_MASK = "***"
_NOBODY = "http://127.0.0.1"


@attrs.frozen(kw_only=True)
class LaunchSpec(Generic[W, R]):
    """What is to be done to each id, and through which client."""

    verb: str
    provider: str
    """The name of the provider."""
    base_url: str | None
    command: Callable[[int], Command[W, R]]
    connect: Callable[[str, str], Client[W]]
    """A client, from a host and a token."""
    sandbox: Callable[[Targets], Sandbox]
    """A sandbox that knows the ids."""
    token_of_sandbox: Callable[[Sandbox], str]
    prepare: Callable[[Sandbox, int], None] | None = None
    """What a sandbox needs before the command makes sense for an id."""
    targets: Targets | None = None
    """The ids, where the options do not name them."""
    token: str | None = attrs.field(default=None, repr=False)
    """The token, where it was read already."""

    @property
    def noun(self) -> tuple[str, str]:
        """One target, and many."""
        return installed_provider(self.provider).noun

    @property
    def token_variable(self) -> str:
        """The environment variable that holds the token."""
        return installed_provider(self.provider).token_variable


def execute(options: RunOptions, spec: LaunchSpec[W, R]) -> None:
    """Check everything, ask, run, report.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    plan = plan_options()
    with exit_on_user_error():
        options = options if plan is None else plan.merge_options(options)
        targets = read_targets(options) if spec.targets is None else spec.targets
        if options.expected not in {None, len(targets)}:
            raise ValueError(
                f"there are {len(targets):,} ids, but --expected {options.expected:,}: nothing was started"
            )
        if options.dry_run and options.json:
            raise ValueError("--dry-run shows requests, not outcomes: it does not go with --json")
        if options.sandbox:
            host, key = _NOBODY, _MASK
        else:
            if spec.base_url is None:
                variable = installed_provider(spec.provider).url_variable
                raise ValueError(f"no host: pass --base-url https://your-platform, or set {variable}")
            host = spec.base_url
            needless = _needs_no_token(options, spec, plan)
            key = _MASK if needless else spec.token or token(options, spec.token_variable)
        guards = options.guards()
        ledger_ref = ledger_from_options(options) if plan is None else None
        client = spec.connect(host, key)
        del key
        client.call(spec.command(targets.first))  # what is wrong with one is wrong with all
        hindering = (
            None if ledger_ref is None or options.dry_run or not ledger_ref.exists else run_loop(_inspect(ledger_ref))
        )
    _tell_what_is_left_out(targets)
    if options.dry_run:
        show_requests(client, host, map(spec.command, targets), len(targets))
        raise typer.Exit(0)
    if not (options.sandbox or options.yes or len(targets) == 1):
        ask(f"{spec.verb} {len(targets):,} {spec.noun[1]} ({_which(targets)}) at {host}")
    decisions = Decisions()
    if ledger_ref is not None:
        decisions = decide(hindering or Hindrances(None), options, ledger_ref)
    if plan is not None:
        plan.plan(client, map(spec.command, targets), len(targets), spec.noun, options)
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
        )
    if ledger_ref is not None:
        remembered = _run_remembered(
            spec, client, targets, ledger_ref, decisions, reporter=reporter, guards=guards, failures_file=failures_file
        )
        with exit_on_user_error():
            report, interrupted = run_loop(remembered)
    else:
        sandboxed = options.sandbox
        running = (
            _run_in_sandbox(spec, targets, reporter, guards)
            if sandboxed
            else _run(spec, client, targets, reporter, guards)
        )
        with reporter:
            report, interrupted = run_loop(running)
    raise typer.Exit(reporter.summary(report, interrupted=interrupted))


def _needs_no_token(options: RunOptions, spec: LaunchSpec[W, R], plan: PlanOptions | None) -> bool:
    """Whether nothing is sent, and nothing remembers whose token it would be."""
    if options.dry_run or plan is None or options.account is None:
        return options.dry_run
    return options.token_file is None and not os.environ.get(spec.token_variable)


def _tell_what_is_left_out(targets: Targets) -> None:
    for note in targets.notes:
        write(sys.stderr, f"{escape_control(note)}\n")
    if targets.dropped:
        write(sys.stderr, f"Left out {_repeats(targets)}.\n")
    if targets.done:
        write(sys.stderr, f"Left out {targets.done:,} {'that is' if targets.done == 1 else 'that are'} done.\n")
    if targets.unknown:
        write(
            sys.stderr,
            f"Left out {targets.unknown:,} whose outcome is unknown: they may have happened. Look at the provider's "
            "side first; --include-unknown takes them too.\n",
        )


def _which(targets: Targets) -> str:
    repeats = f", {_repeats(targets)} left out" if targets.dropped else ""
    return f"first {targets.first}, last {targets.last}{repeats}"


def _repeats(targets: Targets) -> str:
    return f"{targets.dropped:,} repeated {'id' if targets.dropped == 1 else 'ids'}"


async def _run(
    spec: LaunchSpec[W, R], client: Client[W], numbers: Iterable[int], reporter: Reporter, guards: Guards
) -> tuple[Report, bool]:
    async with client:
        return await drive(client, map(spec.command, reporter.track(numbers)), reporter, guards)


async def _run_in_sandbox(
    spec: LaunchSpec[W, R], targets: Targets, reporter: Reporter, guards: Guards
) -> tuple[Report, bool]:
    async with spec.sandbox(targets) as sandbox:

        def prepared() -> Iterator[int]:
            for number in targets:
                if spec.prepare is not None:
                    spec.prepare(sandbox, number)
                yield number

        client = spec.connect(sandbox.url, spec.token_of_sandbox(sandbox))
        return await _run(spec, client, prepared(), reporter, guards)


async def _run_remembered(
    spec: LaunchSpec[W, R],
    client: Client[W],
    targets: Targets,
    ledger_ref: LedgerRef,
    decisions: Decisions,
    *,
    reporter: Reporter,
    guards: Guards,
    failures_file: FailuresFile | None,
) -> tuple[Report, bool]:
    async with ledger_ref.open(new=True) as ledger, client:
        ledger_run = LedgerRun(ledger, ledger_ref, decisions)
        reporter.planned = await check_same_plan(ledger_run, map(spec.command, targets), len(targets))
        commands = None if reporter.planned else map(spec.command, targets)
        with reporter:
            return await drive_with_ledger(
                client, commands, ledger_run, reporter=reporter, guards=guards, failures_file=failures_file
            )


async def _inspect(ledger_ref: LedgerRef) -> Hindrances:
    async with ledger_ref.open() as ledger:
        return await hindrances(ledger, ledger_ref.run or "")

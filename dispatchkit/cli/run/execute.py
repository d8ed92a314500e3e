"""One command of the command line from its options to its exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import typer

from dispatchkit.cli.commands.plan import spreading
from dispatchkit.cli.input.ledger_ref import Place, place_of
from dispatchkit.cli.input.question import ask
from dispatchkit.cli.input.values import mistakes_in_one_line, targets, token
from dispatchkit.cli.output.failures import Failures, Sheet
from dispatchkit.cli.output.reporter import Show
from dispatchkit.cli.output.text import put
from dispatchkit.cli.run.drive import Memory, drive, run_loop
from dispatchkit.cli.run.dry_run import show_requests
from dispatchkit.cli.run.ledger_run import perform, same_launch
from dispatchkit.cli.run.takeover import Decisions, Hindrances, decide, hindrances

if TYPE_CHECKING:
    from dispatchkit import Report
    from dispatchkit.cli.commands.plan import Spread
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.options import Guards, RunOptions
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command
    from dispatchkit.sandbox import Sandbox

__all__ = ["Job", "carry_out"]

R = TypeVar("R")
W = TypeVar("W")

_MASK = "***"
_NOBODY = "http://127.0.0.1"


@attrs.frozen(kw_only=True)
class Job(Generic[W, R]):
    """What is to be done to each id, and through which client."""

    verb: str
    noun: tuple[str, str]
    """One of them, and many."""
    token_variable: str
    """The environment variable that holds the token."""
    base_url: str | None
    command: Callable[[int], Command[W, R]]
    connect: Callable[[str, str], Client[W]]
    """A client, from a host and a token."""
    sandbox: Callable[[Targets], Sandbox]
    """A sandbox that knows the ids."""
    token_of_sandbox: Callable[[Sandbox], str]
    prepare: Callable[[Sandbox, int], None] | None = None
    """What a sandbox needs before the command makes sense for an id."""
    found: Targets | None = None
    """The ids, where the options do not name them."""
    token: str | None = attrs.field(default=None, repr=False)
    """The token, where it was read already."""


def carry_out(options: RunOptions, job: Job[W, R]) -> None:
    """Check everything, ask, run, report.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    spread = spreading()
    with mistakes_in_one_line():
        options = options if spread is None else spread.adopt(options)
        found = targets(options) if job.found is None else job.found
        if options.expected not in {None, len(found)}:
            raise ValueError(f"there are {len(found):,} ids, but --expected {options.expected:,}: nothing was started")
        if options.dry_run and options.json:
            raise ValueError("--dry-run shows requests, not outcomes: it does not go with --json")
        if options.sandbox:
            host, key = _NOBODY, _MASK
        else:
            if job.base_url is None:
                raise ValueError("no host: pass --base-url https://your-platform, or set DISPATCHKIT_ALTCRAFT_URL")
            host = job.base_url
            needless = _needs_no_token(options, job, spread)
            key = _MASK if needless else job.token or token(options, job.token_variable)
        guards = options.guards()
        place = place_of(options) if spread is None else None
        client = job.connect(host, key)
        del key
        client.call(job.command(found.first))  # what is wrong with one is wrong with all
        hindering = None if place is None or options.dry_run or not place.exists else run_loop(_look(place))
    _tell_what_is_left_out(found)
    if options.dry_run:
        show_requests(client, host, map(job.command, found), len(found))
        raise typer.Exit(0)
    if not (options.sandbox or options.yes or len(found) == 1):
        ask(f"{job.verb} {len(found):,} {job.noun[1]} (first {found.first}, last {found.last}) at {host}")
    decisions = Decisions()
    if place is not None:
        decisions = decide(hindering or Hindrances(None), options, place)
    if spread is not None:
        spread.plan(client, map(job.command, found), len(found), job.noun, account_changed=options.account_changed)
    with mistakes_in_one_line():
        sheet = None
        if options.failures is not None:
            sheet = Failures(options.failures, found) if place is None else Sheet(options.failures)
        show = Show(
            total=len(found),
            most=options.max_launches,
            verb=job.verb,
            noun=job.noun,
            json=options.json,
            quiet=options.quiet,
            sheet=sheet,
            place=place,
        )
    if place is not None:
        remembered = _run_remembered(job, client, found, place, decisions, show=show, guards=guards, sheet=sheet)
        with mistakes_in_one_line():
            report, interrupted = run_loop(remembered)
    else:
        sandboxed = options.sandbox
        running = _run_in_sandbox(job, found, show, guards) if sandboxed else _run(job, client, found, show, guards)
        with show:
            report, interrupted = run_loop(running)
    raise typer.Exit(show.summary(report, interrupted=interrupted))


def _needs_no_token(options: RunOptions, job: Job[W, R], spread: Spread | None) -> bool:
    """Whether nothing is sent, and nothing remembers whose token it would be."""
    if options.dry_run or spread is None or options.account is None:
        return options.dry_run
    return options.token_file is None and not os.environ.get(job.token_variable)


def _tell_what_is_left_out(found: Targets) -> None:
    if found.dropped:
        put(sys.stderr, f"Left out {found.dropped:,} repeated {'id' if found.dropped == 1 else 'ids'}.\n")
    if found.unknown:
        put(
            sys.stderr,
            f"Left out {found.unknown:,} whose outcome is unknown: they may have happened. Look at the provider's side "
            "first; --include-unknown takes them too.\n",
        )


async def _run(
    job: Job[W, R], client: Client[W], numbers: Iterable[int], show: Show, guards: Guards
) -> tuple[Report, bool]:
    async with client:
        return await drive(client, map(job.command, show.watch(numbers)), show, guards)


async def _run_in_sandbox(job: Job[W, R], found: Targets, show: Show, guards: Guards) -> tuple[Report, bool]:
    async with job.sandbox(found) as sandbox:

        def prepared() -> Iterator[int]:
            for number in found:
                if job.prepare is not None:
                    job.prepare(sandbox, number)
                yield number

        client = job.connect(sandbox.url, job.token_of_sandbox(sandbox))
        return await _run(job, client, prepared(), show, guards)


async def _run_remembered(
    job: Job[W, R],
    client: Client[W],
    found: Targets,
    place: Place,
    decisions: Decisions,
    *,
    show: Show,
    guards: Guards,
    sheet: Sheet | None,
) -> tuple[Report, bool]:
    async with place.open(new=True) as ledger, client:
        memory = Memory(ledger, place, decisions)
        show.planned = await same_launch(memory, map(job.command, found), len(found))
        commands = None if show.planned else map(job.command, found)
        with show:
            return await perform(client, commands, memory, show=show, guards=guards, sheet=sheet)


async def _look(place: Place) -> Hindrances:
    async with place.open() as ledger:
        return await hindrances(ledger, place.run or "")

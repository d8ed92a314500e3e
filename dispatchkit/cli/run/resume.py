"""``dispatchkit resume`` and ``dispatchkit stop-run``: resume a run of a ledger, and stop one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Never, TypeVar

import attrs
import typer

from dispatchkit.cli.fitted import fitted
from dispatchkit.cli.input.ids import Targets
from dispatchkit.cli.input.ledger_ref import LedgerRef, parse_ledger_args
from dispatchkit.cli.input.profile import with_profile
from dispatchkit.cli.input.question import Description, ask, describe_ids
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.output.failures import NOT_DONE, FailuresFile
from dispatchkit.cli.output.log_file import with_log
from dispatchkit.cli.output.notify import Notifier, notifier_of, refusal_told
from dispatchkit.cli.output.reporter import Reporter
from dispatchkit.cli.run.ledger_run import LedgerRun, drive_with_ledger
from dispatchkit.cli.run.spec import describe_host
from dispatchkit.cli.run.taken_over import describe_taken_over, nothing_left
from dispatchkit.cli.run.takeover import Decisions, Hindrances, decide, hindrances
from dispatchkit.cli.settings import canary_ahead, check_canary, client_settings, describe_guards, guards
from dispatchkit.cli.text import counted, escape_control, utc, write
from dispatchkit.cli.translate import N_, _, ngettext
from dispatchkit.cli.views.ledger import unknown_for_good
from dispatchkit.cli.views.snapshot import RunSnapshot, notify_remark, resolve_run, resume_line, take_snapshot
from dispatchkit.core.clock import SYSTEM
from dispatchkit.errors import State
from dispatchkit.ledger.codec import decode
from dispatchkit.ledger.contents import needs_contents
from dispatchkit.ledger.run_snapshot import RunStop, TakenOver, find_taken_over, nothing_to_stop, stop_run
from dispatchkit.providers import connect_run, parse_settings, provider_of

if TYPE_CHECKING:
    from dispatchkit import Report, Run
    from dispatchkit.cli.commands.ledger import StopRunOptions
    from dispatchkit.cli.options import ResumeOptions
    from dispatchkit.cli.settings import Guards
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command

__all__ = ["resume_run", "stop"]

W = TypeVar("W")

_LISTED = 10_000
"""The most targets whose ids are read for the question."""


def resume_run(options: ResumeOptions) -> None:
    """Check everything, then show what would be launched, or ask, resume and report.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    if options.dry_run:
        _resume_run(options, None)
    with exit_on_user_error():
        notifier = notifier_of(options)
    with refusal_told(notifier, options.run), with_log(options.log_file):
        _resume_run(options, notifier)


def _resume_run(options: ResumeOptions, notifier: Notifier | None) -> None:
    with exit_on_user_error():
        ledger_ref = _ledger_ref(options)
        guards(options)
        if options.dry_run and options.json:
            raise ValueError(_("--dry-run shows what would be launched, not outcomes: it does not go with --json"))
        snapshot, taken_over, hindering, left, command = run_loop(_inspect(ledger_ref))
        ledger_ref = attrs.evolve(ledger_ref, run=snapshot.run.name)
        run = snapshot.run
        settings = parse_settings(run.settings)
        options = with_profile(options, provider_of(settings))
        ledger_ref = attrs.evolve(ledger_ref, invocation=options.invocation)
        bounds = guards(options)
        noun = provider_of(settings).noun
        if not run.plan_complete:
            raise ValueError(
                _(
                    "the plan of run {name!r} is not complete. Run the command that launched it again: it "
                    "completes the plan and launches the rest"
                ).format(name=run.name)
            )
        if not snapshot.left and taken_over.count:
            raise nothing_left(run.name, taken_over, snapshot.counts, ledger_ref)
        if not snapshot.left:
            message, kept = (
                _("Run {name} is over: no target is left.").format(name=escape_control(repr(run.name))),
                snapshot.counts.unknown_for_good,
            )
            if kept:
                nothing = _("Nothing is left to resume in run {name}.").format(name=escape_control(repr(run.name)))
                message = f"{nothing} {unknown_for_good(kept)}"
            write(sys.stderr if options.json else sys.stdout, f"{message}\n")
            raise typer.Exit(3 if kept else 0)
        check_canary(bounds, command, run.total)
        _check_host(options, run)
        description = _describe(options, snapshot, settings, left, command, bounds=bounds)
        whole = description.with_rows(describe_taken_over(taken_over, ledger_ref))
        if options.dry_run:
            raise _shown(whole, snapshot, noun)
        client = _connect(options, run)
    if run.stopped:
        text = _("Run {name} was stopped. This command lets it launch again.")
        write(sys.stderr, text.format(name=escape_control(repr(run.name))) + "\n")
    if remark := notify_remark(ledger_ref, run):
        write(sys.stderr, f"{remark}\n")
    if options.yes:
        description = whole  # for the report at the end
    else:
        ask(whole)
    decisions = decide(hindering, options, ledger_ref)
    with exit_on_user_error():
        failures_file = None if options.failures is None else FailuresFile(options.failures)
        reporter = Reporter(
            total=run.total,
            most=options.max_launches,
            verb=N_("resume"),
            noun=noun,
            json=options.json,
            quiet=options.quiet,
            failures_file=failures_file,
            ledger_ref=ledger_ref,
            description=description,
            notifier=notifier,
            invocation=options.invocation,
        )
        reporter.planned = True
        with reporter:
            report, interrupted = run_loop(
                _resume(
                    client,
                    ledger_ref,
                    decisions,
                    reporter=reporter,
                    guards=bounds,
                    failures_file=failures_file,
                    told_left_out=taken_over.count,
                )
            )
    raise typer.Exit(reporter.summary(report, interrupted=interrupted))


def _shown(description: Description, snapshot: RunSnapshot, noun: tuple[str, str]) -> typer.Exit:
    """Show what a resume would do. Another process may work on the run meanwhile, so its state is part of it."""
    text = _("A resume settles or launches {targets}. Nothing was sent.").format(targets=counted(snapshot.left, *noun))
    description = description.with_rows([(_("state"), _(snapshot.state))])
    write(sys.stdout, fitted(sys.stdout, f"{description}\n{text}\n"))
    return typer.Exit(0)


def _ledger_ref(options: ResumeOptions) -> LedgerRef:
    words = options.where or []
    ledger_ref = parse_ledger_args(words[:1], run=False)
    if len(words) == 1 and options.run is None and not ledger_ref.exists:
        own = attrs.evolve(parse_ledger_args([], run=False), invocation=options.invocation)
        raise ValueError(
            _("there is no ledger {ledger}: no such file. If it is the name of a run: {line}").format(
                ledger=ledger_ref, line=own.resume(words[0])
            )
        )
    if len(words) > 1:
        ledger_ref = attrs.evolve(ledger_ref, invocation=options.invocation)
        raise ValueError(_("name the run with --run: {line}").format(line=ledger_ref.resume(words[1])))
    return attrs.evolve(ledger_ref, run=options.run, invocation=options.invocation)


def _describe(
    options: ResumeOptions,
    snapshot: RunSnapshot,
    settings: dict[str, str],
    left: list[int] | None,
    command: Command[Never, object] | None,
    *,
    bounds: Guards,
) -> Description:
    provider, run = provider_of(settings), snapshot.run
    ids = "" if left is None else f": {describe_ids(Targets((number, number) for number in left))}"
    action = _("resume run {run!r}: {left:,} of {targets} are left").format(
        run=run.name, left=snapshot.left, targets=counted(run.total, *provider.noun)
    )
    action += ids
    where = describe_host(options, settings["base_url"], provider.token_variable)
    rows = describe_guards(canary_ahead(bounds, snapshot.counts, run.canary), provider.noun)
    return Description(action, (*_describe_command(command), *where, *rows))


def _describe_command(command: Command[Never, object] | None) -> Iterator[tuple[str, str]]:
    """The fields of the first command that is left, without its id and without its content."""
    if command is None:
        return
    fields = command.to_dict(flat=True)
    yield _("command"), str(fields.pop("type"))
    for name, value in fields.items():
        if value not in {None, "", False} and value != command.target:
            yield name, str(value)


async def _inspect(
    ledger_ref: LedgerRef,
) -> tuple[RunSnapshot, TakenOver, Hindrances, list[int] | None, Command[Never, object] | None]:
    """The run, what others took over, its hindrances, the ids that are left unless too many, and a command."""
    async with ledger_ref.open() as ledger:
        run = await resolve_run(ledger, ledger_ref)
        taken_over = await find_taken_over(ledger, run)
        snapshot = attrs.evolve(await take_snapshot(ledger, run), launched_elsewhere=taken_over.count)
        command: Command[Never, object] | None = None
        left: list[int | None] = []
        states = [state for state in NOT_DONE if state != State.REJECTED]
        async for target in ledger.targets(run.name, states=states):
            if target.index in taken_over.indexes:
                continue
            if run.contents_pruned is not None and not target.is_final and needs_contents(target.command):
                raise ValueError(
                    _(
                        "the contents of run {name!r} were pruned at {time} UTC, so it cannot be resumed: nothing was "
                        "sent. Launch what is left as a new run, with its contents, and --from the file that this "
                        "writes: {line}"
                    ).format(name=run.name, time=utc(run.contents_pruned), line=ledger_ref.failures(run.name))
                )
            decoded = decode(target.command, partial=True)  # its files are not read yet
            command = command or decoded
            if snapshot.left > _LISTED:
                break
            if not target.is_final:
                left.append(decoded.target)
        ids = [each for each in left if isinstance(each, int)]
        listed = ids if len(ids) == len(left) else None  # another package's targets need not be numbers
        return snapshot, taken_over, await hindrances(ledger, run.name), listed or None, command


def _check_host(options: ResumeOptions, run: Run) -> None:
    """Check that the token is that of the run's host.

    Raises:
        ValueError: The profile or the environment names another host.
    """
    settings = parse_settings(run.settings)
    provider, host = provider_of(settings), settings.get("base_url", "")
    profile = options.invocation.profile
    if profile is not None and profile.host.rstrip("/") != host.rstrip("/"):
        raise ValueError(
            _("the run goes to {host}, but profile {name!r} names another host: use another profile").format(
                host=host, name=profile.name
            )
        )
    own_url = os.environ.get(provider.url_variable) if provider.url_variable else None
    if own_url and own_url.rstrip("/") != host.rstrip("/"):
        # The token is most likely that host's, and must not be sent to another.
        raise ValueError(
            _("the run goes to {host}, but {variable} names another host: unset it, or set it to the run's").format(
                host=host, variable=provider.url_variable
            )
        )


def _connect(options: ResumeOptions, run: Run) -> Client[Never]:
    key = token(options, provider_of(parse_settings(run.settings)).token_variable)
    return connect_run(run, token=key, **client_settings(options))


async def _resume(
    client: Client[Never],
    ledger_ref: LedgerRef,
    decisions: Decisions,
    *,
    reporter: Reporter,
    guards: Guards,
    failures_file: FailuresFile | None,
    told_left_out: int,
) -> tuple[Report, bool]:
    async with ledger_ref.open() as ledger, client:
        ledger_run = LedgerRun(ledger, ledger_ref, decisions, resumes=True, told_left_out=told_left_out)
        return await drive_with_ledger(
            client,
            None,
            ledger_run,
            reporter=reporter,
            guards=guards,
            failures_file=failures_file,
        )


def stop(options: StopRunOptions) -> None:
    """Stop a run on every machine, and wait until no process can launch any more of it.

    Raises:
        typer.Exit: With status 2 if the run cannot be stopped. With 130 after Ctrl-C; the run is stopped anyway.
    """
    run_stop: RunStop | None = None

    async def stopping(ledger_ref: LedgerRef) -> None:
        nonlocal run_stop
        async with ledger_ref.open() as ledger:
            run_stop = await stop_run(ledger, await resolve_run(ledger, ledger_ref), partial(resume_line, ledger_ref))

    with exit_on_user_error():
        ledger_ref = parse_ledger_args(options.where or [], run=True)
        if ledger_ref.run is None:
            ledger_ref.open()  # says that there is no such ledger
            raise ValueError(
                _("name the run to stop, after the ledger. To see the runs: {line}").format(line=ledger_ref.list_runs())
            )
        name, line = escape_control(repr(ledger_ref.run)), escape_control(ledger_ref.stop(ledger_ref.run))
        try:
            run_loop(stopping(ledger_ref))
            if run_stop is None:
                write(sys.stdout, f"{nothing_to_stop(ledger_ref.run, _)}\n")
                return
            write(sys.stderr, f"{run_stop.accepted(_, ngettext)}\n")
            time.sleep(max(0.0, (run_stop.until - SYSTEM.now()).total_seconds()))
        except KeyboardInterrupt:
            message = _("The command was interrupted before run {name} was stopped. To stop it: {line}").format(
                name=name, line=line
            )
            if run_stop is not None:
                message = run_stop.interrupted(_)
            write(sys.stderr, f"{message}\n")
            raise typer.Exit(130) from None
    run = run_stop.snapshot.run
    resume = escape_control(resume_line(ledger_ref, run))
    write(sys.stdout, f"{run_stop.confirmed(_)}\n" + _("To resume it: {line}").format(line=resume) + "\n")
    if remark := notify_remark(ledger_ref, run):
        write(sys.stdout, f"{remark}\n")

"""What ``dispatchkit resume`` and ``dispatchkit stop-run`` do: go on with a run of a ledger, and stop one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Never, TypeVar

import attrs
import typer

from dispatchkit.cli.input.ledger_ref import LedgerRef, parse_ledger_args
from dispatchkit.cli.input.question import ask
from dispatchkit.cli.input.values import exit_on_user_error, token
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.output.failures import FailuresFile
from dispatchkit.cli.output.reporter import Reporter
from dispatchkit.cli.run.ledger_run import LedgerRun, drive_with_ledger
from dispatchkit.cli.run.takeover import Decisions, Hindrances, decide, hindrances
from dispatchkit.cli.text import escape_control, write
from dispatchkit.cli.views.ledger import unknown_for_good
from dispatchkit.cli.views.snapshot import RunSnapshot, resolve_run, take_snapshot
from dispatchkit.core.clock import SYSTEM
from dispatchkit.errors import LedgerError
from dispatchkit.providers import connect_run, parse_settings, provider_of

if TYPE_CHECKING:
    from dispatchkit import Report, Run
    from dispatchkit.cli.options import Guards, ResumeOptions
    from dispatchkit.core.call.client import Client

__all__ = ["resume_run", "stop"]

W = TypeVar("W")


def resume_run(options: ResumeOptions) -> None:
    """Check everything, ask, go on, report.

    Raises:
        typer.Exit: Always, with the exit status.
    """
    with exit_on_user_error():
        ledger_ref = _ledger_ref(options)
        guards = options.guards()
        snapshot, hindering = run_loop(_inspect(ledger_ref))
        ledger_ref = attrs.evolve(ledger_ref, run=snapshot.run.name)
        run = snapshot.run
        settings = parse_settings(run.settings)
        noun = provider_of(settings).noun
        if not run.plan_complete:
            raise ValueError(
                f"the plan of run {run.name!r} is not whole: run the command again that launched it, which finishes "
                "its plan and goes on"
            )
        if not snapshot.left:
            message, kept = (
                f"Nothing is left of run {escape_control(repr(run.name))}.",
                snapshot.counts.unknown_for_good,
            )
            if kept:
                message = f"Nothing of run {escape_control(repr(run.name))} can go on. {unknown_for_good(kept)}"
            write(sys.stderr if options.json else sys.stdout, f"{message}\n")
            raise typer.Exit(3 if kept else 0)
        client = _connect(options, run)
    if run.stopped:
        write(sys.stderr, f"Run {escape_control(repr(run.name))} was stopped: to resume it lets it go on.\n")
    if not options.yes and snapshot.left > 1:
        ask(
            f"resume run {run.name!r}: {snapshot.left:,} of {run.total:,} {noun[1]} are left, at {settings['base_url']}"
        )
    decisions = decide(hindering, options, ledger_ref)
    with exit_on_user_error():
        failures_file = None if options.failures is None else FailuresFile(options.failures)
        reporter = Reporter(
            total=run.total,
            most=options.max_launches,
            verb="resume",
            noun=noun,
            json=options.json,
            quiet=options.quiet,
            failures_file=failures_file,
            ledger_ref=ledger_ref,
        )
        reporter.planned = True
        with reporter:
            report, interrupted = run_loop(
                _resume(client, ledger_ref, decisions, reporter=reporter, guards=guards, failures_file=failures_file)
            )
    raise typer.Exit(reporter.summary(report, interrupted=interrupted))


def _ledger_ref(options: ResumeOptions) -> LedgerRef:
    words = options.where or []
    ledger_ref = parse_ledger_args(words[:1], run=False)
    if len(words) > 1:
        raise ValueError(f"name the run with --run: {ledger_ref.resume(words[1])}")
    return LedgerRef(ledger_ref.address, options.run, named=ledger_ref.named)


async def _inspect(ledger_ref: LedgerRef) -> tuple[RunSnapshot, Hindrances]:
    async with ledger_ref.open() as ledger:
        run = await resolve_run(ledger, ledger_ref)
        return await take_snapshot(ledger, run), await hindrances(ledger, run.name)


def _connect(options: ResumeOptions, run: Run) -> Client[Never]:
    settings = parse_settings(run.settings)
    provider, host = provider_of(settings), settings.get("base_url", "")
    key = token(options, provider.token_variable)
    own_url = os.environ.get(provider.url_variable) if provider.url_variable else None
    if own_url and own_url.rstrip("/") != host.rstrip("/"):
        # The token is most likely that host's, and must not be sent to another.
        raise ValueError(
            f"the run goes to {host}, but {provider.url_variable} names another host: unset it, or set it to the run's"
        )
    return connect_run(run, token=key, **options.client_settings())


async def _resume(
    client: Client[Never],
    ledger_ref: LedgerRef,
    decisions: Decisions,
    *,
    reporter: Reporter,
    guards: Guards,
    failures_file: FailuresFile | None,
) -> tuple[Report, bool]:
    async with ledger_ref.open() as ledger, client:
        ledger_run = LedgerRun(ledger, ledger_ref, decisions, resumes=True)
        return await drive_with_ledger(
            client,
            None,
            ledger_run,
            reporter=reporter,
            guards=guards,
            failures_file=failures_file,
        )


def stop(words: Sequence[str]) -> None:
    """Stop a run, whatever works on it, and wait until no process can launch anything of it any more.

    Raises:
        typer.Exit: With status 2, if it cannot be stopped; with 130 after Ctrl-C, when it is stopped all the same.
    """
    until: datetime | None = None

    async def stopping(ledger_ref: LedgerRef) -> RunSnapshot | None:
        nonlocal until
        async with ledger_ref.open() as ledger:
            run = await resolve_run(ledger, ledger_ref)
            snapshot = await take_snapshot(ledger, run)
            if run.plan_complete and not snapshot.left and not snapshot.holders:
                return None
            try:
                until = await ledger.stop(run.name)
            except LedgerError as error:
                if not snapshot.holders:
                    raise
                # It may be suspended while it writes, and then keeps the file from everyone else.
                holder, line = snapshot.holders[0], ledger_ref.resume(run.name, "--end-holder")
                raise LedgerError(
                    f"{error}. The run was not stopped: process {holder.pid} on {holder.host} holds it. If it is "
                    f"suspended, let it go on, or end it and go on with the run: {line}"
                ) from None
            return await take_snapshot(ledger, run)

    with exit_on_user_error():
        ledger_ref = parse_ledger_args(words, run=True)
        if ledger_ref.run is None:
            raise ValueError("name the run that is to be stopped: dispatchkit stop-run LEDGER RUN")
        name = escape_control(repr(ledger_ref.run))
        try:
            snapshot = run_loop(stopping(ledger_ref))
            if snapshot is None or until is None:
                write(sys.stdout, f"Nothing is left of run {name}: nothing to stop.\n")
                return
            flight = f"{snapshot.counts.sending:,} in flight" if snapshot.holders else "nobody works on it"
            write(sys.stderr, f"Run {name} is stopped ({flight}). Waiting until {_whole_second(until)} UTC.\n")
            time.sleep(max(0.0, (until - SYSTEM.now()).total_seconds()))
        except KeyboardInterrupt:
            message = f"Nothing is known of the stop of run {name}: run the same again."
            if until is not None:
                message = (
                    f"Run {name} is stopped all the same. A process that was suspended may launch something until "
                    f"{_whole_second(until)} UTC."
                )
            write(sys.stderr, f"{message}\n")
            raise typer.Exit(130) from None
    text = f"Run {name} is stopped: no process launches anything of it after {_whole_second(until)} UTC."
    write(sys.stdout, f"{text}\nTo go on: {escape_control(ledger_ref.resume(ledger_ref.run))}\n")


def _whole_second(moment: datetime) -> str:
    """The time of day of a moment, rounded up: what was promised from then on holds."""
    return f"{moment + timedelta(microseconds=-moment.microsecond % 1_000_000):%H:%M:%S}"

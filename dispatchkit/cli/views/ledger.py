"""Output of ``dispatchkit ledger``: the runs, the progress of one run, and its targets."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import attrs
import typer

from dispatchkit.cli.durations import in_words
from dispatchkit.cli.fitted import fitted
from dispatchkit.cli.input.ledger_ref import LedgerRef, parse_ledger_args
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.output.failures import NOT_DONE, Failure
from dispatchkit.cli.output.tables import Form, Rows, form_of
from dispatchkit.cli.text import escape_control, state_word, utc, write
from dispatchkit.cli.translate import N_, _, ngettext
from dispatchkit.cli.views.snapshot import RunSnapshot, notify_remark, resolve_run, resume_line, silence, take_snapshot
from dispatchkit.cli.views.target_lines import TargetLines
from dispatchkit.errors import State
from dispatchkit.ledger.codec import decode
from dispatchkit.ledger.run_snapshot import find_taken_over, with_taken_over
from dispatchkit.ledger.target import Target
from dispatchkit.providers import parse_settings
from dispatchkit.values import as_json

if TYPE_CHECKING:
    from dispatchkit.cli.commands.ledger import ListRunsOptions, RunViewOptions, ShowOptions
    from dispatchkit.ledger.chunk import Holder
    from dispatchkit.ledger.ledger import Ledger
    from dispatchkit.ledger.run import Run
    from dispatchkit.ledger.target import TargetRow

__all__ = ["left_out", "list_runs", "show_failures", "show_run", "show_targets", "unknown_for_good"]

_POLL_INTERVAL = 1.0
"""Seconds between two looks at a run that is followed."""

_SHOWN = 5
_LABEL_WIDTH = 12
"""Letters of the longest name of a fact in English. A translated one may be longer."""

_COUNTS = (N_("done"), N_("rejected"), N_("not_sent"), N_("unknown"), N_("sending"), N_("planned"))
_RUN = (N_("run"), N_("state"), N_("created"), N_("total"), *_COUNTS)
_TARGET = (
    N_("index"), N_("target"), N_("command"), N_("state"), N_("code"), N_("summary"), N_("request_id"), N_("attempts"),
    N_("at"),
)  # fmt: skip

_OPTIONAL = ("request_id", "index", "at", "attempts", "command")
"""The columns of targets that a narrow terminal does not show."""


async def _pauses(ledger: Ledger) -> dict[int, datetime]:
    """Until when runs are paused, by their numbers."""
    paused = await ledger.paused_accounts() if ledger.is_shared else []
    return {run.number: account.until for account in paused for run in account.runs}


def list_runs(options: ListRunsOptions) -> None:
    """List the runs of a ledger.

    Raises:
        typer.Exit: With status 2, if it cannot be read.
    """

    async def listing(ledger_ref: LedgerRef, form: Form) -> None:
        async with ledger_ref.open() as ledger:
            rows = Rows(form, RunSnapshot, _RUN, optional=("created",), flexible=("run", "state"))
            paused = await _pauses(ledger)
            for run in await ledger.runs():
                snapshot = attrs.evolve(await take_snapshot(ledger, run), paused_until=paused.get(run.number))
                rows.add(snapshot, *_cells(snapshot))
            rows.flush()

    with exit_on_user_error():
        run_loop(
            listing(parse_ledger_args(options.where or [], run=False), form_of(json=options.json, csv=options.csv))
        )


def _cells(snapshot: RunSnapshot) -> tuple[object, ...]:
    run = snapshot.run
    return run.name, _(snapshot.state), run.created, run.total, *(getattr(snapshot.counts, name) for name in _COUNTS)


def show_run(options: ShowOptions) -> None:
    """Show one run, once or until it is over.

    Raises:
        typer.Exit: With status 2, if it cannot be read.
    """

    async def showing(ledger_ref: LedgerRef, form: Form) -> None:
        async with ledger_ref.open() as ledger:
            name = (await resolve_run(ledger, ledger_ref)).name

            async def snapshot() -> RunSnapshot:
                run = await ledger.run(name)
                paused = (await _pauses(ledger)).get(run.number)
                return attrs.evolve(await take_snapshot(ledger, run), paused_until=paused)

            if options.follow:
                await _follow(snapshot, ledger_ref, form)
            else:
                _show(await with_taken_over(ledger, await snapshot()), ledger_ref, form)

    with exit_on_user_error():
        ledger_ref = parse_ledger_args(options.where or [], run=True)
        form = form_of(json=options.json, csv=options.csv)
        if options.follow and options.csv:
            raise ValueError(_("--follow does not go with --csv: a CSV has one header"))
        try:
            run_loop(showing(ledger_ref, form))
        except KeyboardInterrupt:  # it only looked
            raise typer.Exit(130) from None


def _show(snapshot: RunSnapshot, ledger_ref: LedgerRef, form: Form) -> None:
    if form == "table":
        write(sys.stdout, fitted(sys.stdout, f"{_described(snapshot, ledger_ref)}\n"))
    else:
        rows = Rows(form, RunSnapshot, _RUN)
        rows.add(snapshot)
        rows.flush()


async def _follow(
    take: Callable[[], Coroutine[object, object, RunSnapshot]], ledger_ref: LedgerRef, form: Form
) -> None:
    # A look at a run does without.
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=sys.stdout)
    live = None
    if form == "table" and console.is_interactive and sys.stdout.isatty():
        live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    shown: object = None
    with live or nullcontext():
        while True:
            snapshot = await take()
            if live is not None:
                live.update(Text(_described(snapshot, ledger_ref)), refresh=True)
            else:
                # The time left of a lease changes by itself, so it makes no snapshot new.
                text, new = (as_json(snapshot), snapshot) if form == "json" else ((line := _line(snapshot)), line)
                if new != shown and not write(sys.stdout, f"{text}\n"):
                    return
                shown = new
            if snapshot.over:
                return
            await asyncio.sleep(_POLL_INTERVAL)


def _described(snapshot: RunSnapshot, ledger_ref: LedgerRef) -> str:
    run = snapshot.run
    targets = f"{run.total:,}"
    if not run.plan_complete:
        text = _("{count} so far: the plan is not complete. Run the command that launched it again")
        targets = text.format(count=targets)
    lines = [
        (_("run"), run.name),
        (_("ledger"), str(ledger_ref)),
        (_("created"), f"{utc(run.created)} UTC"),
        *((name.replace("_", " "), value) for name, value in parse_settings(run.settings).items()),
        (_("state"), _(snapshot.state)),
        (_("held by"), _held(snapshot.holders)),
        (_("targets"), targets),
        *((state_word(name), f"{getattr(snapshot.counts, name):,}") for name in _COUNTS),
    ]
    if snapshot.launched_elsewhere:
        lines.append((_("left out"), left_out(snapshot)))
    if run.contents_pruned is not None:
        lines.append((_("contents"), _pruned(run)))
    if snapshot.paused_until is not None:
        text = _("{time} UTC (by Retry-After). To lift the pause: {line}")
        until = text.format(time=utc(snapshot.paused_until), line=ledger_ref.lift_pause())
        lines.append((_("paused until"), until))
    if snapshot.left and not snapshot.holders and run.plan_complete:
        lines.append((_("to resume"), resume_line(ledger_ref, run)))
        if remark := notify_remark(ledger_ref, run):
            lines.append((_("notify"), remark))
    width = max(_LABEL_WIDTH, *(len(name) for name, _value in lines))
    return "\n".join(f"{escape_control(name):{width}}  {escape_control(value)}" for name, value in lines)


def left_out(snapshot: RunSnapshot) -> str:
    """What a resume leaves out."""
    return _("{count:,} that other runs launched, or launch now").format(count=snapshot.launched_elsewhere)


def _pruned(run: Run) -> str:
    text = _("pruned at {time} UTC: files and other long fields of its commands are gone")
    return text.format(time=utc(run.contents_pruned))


def _held(holders: Sequence[Holder]) -> str:
    text = ", ".join(
        _("process {pid} on {host}").format(pid=holder.pid, host=holder.host)
        + (_(" since {time} UTC").format(time=utc(holder.since)) if holder.since else "")
        + (_(", silent for {time}").format(time=in_words(silent)) if (silent := silence(holder)) else "")
        for holder in holders[:_SHOWN]
    )
    if len(holders) > _SHOWN:
        text += _(" and {count:,} more").format(count=len(holders) - _SHOWN)
    return text or _("no process")


def _line(snapshot: RunSnapshot) -> str:
    counts = ", ".join(f"{count:,} {state_word(name)}" for name in _COUNTS if (count := getattr(snapshot.counts, name)))
    line = _("{run}: {state}: {counts} of {total:,}").format(
        run=snapshot.run.name, state=_(snapshot.state), counts=counts or _("nothing"), total=snapshot.run.total
    )
    if snapshot.paused_until is not None:
        line += _("; the account is paused until {time} UTC").format(time=utc(snapshot.paused_until))
    return escape_control(line)


def show_targets(options: RunViewOptions) -> None:
    """Show all targets of a run.

    Raises:
        typer.Exit: With status 2, if they cannot be read.
    """
    with exit_on_user_error():
        run_loop(_targets(options, ()))


def show_failures(options: RunViewOptions) -> None:
    """Show the targets of a run that are not done.

    Raises:
        typer.Exit: With status 2, if it cannot be read.
    """
    with exit_on_user_error():
        run_loop(_targets(options, NOT_DONE))


async def _targets(options: RunViewOptions, states: Sequence[str]) -> None:
    ledger_ref = parse_ledger_args(options.where or [], run=True)
    form = form_of(json=options.json, csv=options.csv)
    async with ledger_ref.open() as ledger:
        run = await resolve_run(ledger, ledger_ref)
        if run.contents_pruned is not None:
            text = _("The contents of run {name} were {pruned}.")
            write(sys.stderr, text.format(name=escape_control(repr(run.name)), pruned=_pruned(run)) + "\n")
        if not states and form != "table":
            await _export((await ledger._open_store()).rows(run.number), form)
            return
        as_failures = bool(states) and form == "csv"
        cls = Failure if as_failures else Target
        rows, left, kept = Rows(form, cls, _TARGET, optional=_OPTIONAL, flexible=("summary", "state")), 0, 0
        shown = False
        elsewhere = (await find_taken_over(ledger, run)).indexes if as_failures else ()
        async for target in ledger.targets(run.name, states=states):
            shown = True
            left += target.state != State.REJECTED and not target.is_final and target.index not in elsewhere
            kept += target.is_final
            if not (rows.add(Failure.of(target)) if as_failures else rows.add(target, *_cells_of(target))):
                return
        if states and form == "table" and run.plan_complete and not shown:
            text = ngettext(
                "All {count:,} target of run {name} are done.",
                "All {count:,} targets of run {name} are done.",
                run.total,
            )
            write(sys.stdout, text.format(count=run.total, name=escape_control(repr(run.name))) + "\n")
            return
        rows.flush()
    if as_failures and left:
        text = _(
            "A resume of the run launches {count:,} of these, too. Do one of the two: use this CSV, or resume: {line}"
        ).format(count=left, line=resume_line(ledger_ref, run))
        write(sys.stderr, f"{escape_control(text)}\n")
    if states and kept:
        write(sys.stderr, f"{unknown_for_good(kept)}\n")


async def _export(pages: AsyncIterator[Sequence[TargetRow]], form: Literal["json", "csv"]) -> None:
    """Write all targets as JSON or CSV: a million of them take seconds."""
    lines = TargetLines(form)
    if not write(sys.stdout, lines.header):
        return
    async for page in pages:
        if not write(sys.stdout, lines.of(page)):
            return


def unknown_for_good(count: int) -> str:
    """Say what to do about targets that nothing can settle."""
    return ngettext(
        "{count:,} target stays unknown, and a resume leaves it alone. Check the mailing's log, and launch what did "
        "not start in another run.",
        "{count:,} targets stay unknown, and a resume leaves them alone. Check the mailing's log, and launch what did "
        "not start in another run.",
        count,
    ).format(count=count)


def _cells_of(target: Target) -> tuple[object, ...]:
    command = decode(target.command, partial=True)
    return (
        target.index,
        command.target,
        type(command).__name__,
        state_word(target.state),
        target.code,
        target.summary or None,
        target.request_id,
        target.attempts,
        target.at,
    )

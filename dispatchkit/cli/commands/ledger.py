"""``dispatchkit ledger``, ``resume`` and ``stop-run``: show, resume and stop the runs of a ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer

from dispatchkit.cli.lazy import CommandRef, group
from dispatchkit.cli.options import Options
from dispatchkit.cli.panels import OUTPUT
from dispatchkit.cli.parameters.ledger import LedgerArgument, RunArgument
from dispatchkit.cli.parameters.output import Csv, JsonLines
from dispatchkit.cli.translate import _

__all__ = [
    "InitOptions",
    "LiftPauseOptions",
    "ListRunsOptions",
    "PruneOptions",
    "ReportOptions",
    "RunViewOptions",
    "ShowOptions",
    "StopRunOptions",
    "app",
]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ListRunsOptions(Options):
    """Options of ``list``."""

    where: LedgerArgument = field(default=None, repr=False)
    json: JsonLines = False
    csv: Csv = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RunViewOptions(Options):
    """Options of ``failures`` and ``export``."""

    where: RunArgument = field(default=None, repr=False)
    json: JsonLines = False
    csv: Csv = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ShowOptions(RunViewOptions):
    """Options of ``show``."""

    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help=_("Show the run again and again until it is over."), rich_help_panel=OUTPUT
        ),
    ] = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class InitOptions(Options):
    """Options of ``init``."""

    where: LedgerArgument = field(default=None, repr=False)
    sql: Annotated[
        bool, typer.Option("--sql", help=_("Connect to nothing. Print the SQL for an administrator of PostgreSQL."))
    ] = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LiftPauseOptions(Options):
    """Options of ``lift-pause``."""

    where: LedgerArgument = field(default=None, repr=False)
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help=_("Only this account: its name, or how its key begins."))
    ] = None
    yes: Annotated[bool, typer.Option("--yes", "-y", help=_("Lift the pause without a question."))] = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PruneOptions(Options):
    """Options of ``prune``."""

    where: LedgerArgument = field(default=None, repr=False)
    older_than: Annotated[
        int,
        typer.Option(metavar="DAYS", min=1, max=10_000, help=_("Prune runs that were made more days ago than this.")),
    ] = 90
    runs: Annotated[
        bool,
        typer.Option("--runs", help=_("Delete the runs themselves. Repeats of their targets are no longer noticed.")),
    ] = False
    yes: Annotated[bool, typer.Option("--yes", "-y", help=_("Delete them without a question."))] = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ReportOptions(Options):
    """Options of ``report``."""

    where: RunArgument = field(default=None, repr=False)
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=_("Write the report to this file, or to standard output (-)."),
            rich_help_panel=OUTPUT,
        ),
    ] = None
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help=_("Write all targets to this CSV, too."),
            rich_help_panel=OUTPUT,
        ),
    ] = None
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help=_("Replace an earlier report, and an earlier CSV. A file of another kind is never replaced."),
            rich_help_panel=OUTPUT,
        ),
    ] = False
    json: Annotated[
        bool,
        typer.Option("--json", help=_("Write the same facts as one JSON object, not HTML."), rich_help_panel=OUTPUT),
    ] = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StopRunOptions(Options):
    """Options of ``stop-run``."""

    where: RunArgument = field(default=None, repr=False)


_HERE = "dispatchkit.cli.commands.ledger"

app = group(
    {
        "list": CommandRef(
            help=_("List the runs, the newest first, with their progress."),
            options=f"{_HERE}:ListRunsOptions",
            body="dispatchkit.cli.views.ledger:list_runs",
            reads=True,
        ),
        "show": CommandRef(
            help=_("Show the progress of a run, and which processes work on it."),
            options=f"{_HERE}:ShowOptions",
            body="dispatchkit.cli.views.ledger:show_run",
            reads=True,
        ),
        "failures": CommandRef(
            help=_("Show every target of a run that is not done.\n\nWith --csv, the output is a file for --from."),
            options=f"{_HERE}:RunViewOptions",
            body="dispatchkit.cli.views.ledger:show_failures",
            reads=True,
        ),
        "export": CommandRef(
            help=_("Show every target of a run with all its fields."),
            options=f"{_HERE}:RunViewOptions",
            body="dispatchkit.cli.views.ledger:show_targets",
            reads=True,
        ),
        "report": CommandRef(
            help=_(
                "Write a report of a run: one HTML file to mail, print and keep.\n\n"
                "It has no token and no content of a message, and it needs no script and no network."
            ),
            options=f"{_HERE}:ReportOptions",
            body="dispatchkit.cli.views.report:report_run",
            reads=True,
        ),
        "init": CommandRef(
            help=_(
                "Create or upgrade the tables of a ledger and of its workers' queue.\n\n"
                "Without this command, the first launch does."
            ),
            options=f"{_HERE}:InitOptions",
            body="dispatchkit.cli.run.init_ledger:init_ledger",
        ),
        "prune": CommandRef(
            help=_(
                "Delete the contents and files of old runs.\n\n"
                "Ids and outcomes stay, so a repeat is still noticed. A run with targets that are left is kept."
            ),
            options=f"{_HERE}:PruneOptions",
            body="dispatchkit.cli.run.prune:prune",
        ),
        "lift-pause": CommandRef(
            help=_("Show the paused accounts of a PostgreSQL ledger, and lift their pauses."),
            options=f"{_HERE}:LiftPauseOptions",
            body="dispatchkit.cli.run.pauses:lift",
        ),
    },
    help=_(
        "Show the runs of a ledger: an SQLite file, or the URL of a PostgreSQL database.\n\n"
        "LEDGER may be left out if DISPATCHKIT_LEDGER is set."
    ),
)

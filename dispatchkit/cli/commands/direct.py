"""``dispatchkit direct``: start, stop, show and list dispatches of i-Digital Direct."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dispatchkit.built_in.direct import PROVIDER
from dispatchkit.cli.lazy import CommandRef, group
from dispatchkit.cli.options import CheckOptions, ConnectionOptions, ReadOptions, RunOptions, WatchOptions
from dispatchkit.cli.panels import CONNECTION, IDS, LAUNCH, OUTPUT
from dispatchkit.cli.parameters.connection import Sandbox
from dispatchkit.cli.parameters.guards import DryRun, Yes
from dispatchkit.cli.parameters.ids import Encoding
from dispatchkit.cli.translate import _

__all__ = ["AddMessagesOptions", "DirectOptions", "ListOptions", "StartOptions", "StatusOptions", "StopOptions", "app"]

_BaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar=PROVIDER.url_variable,
        show_envvar=True,
        help=_("The provider's host, as scheme://host[:port]."),
        rich_help_panel=CONNECTION,
    ),
]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DirectOptions(RunOptions):
    """Options of the commands of Direct."""

    base_url: _BaseUrl = PROVIDER.base_url


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StartOptions(CheckOptions, DirectOptions):
    """Options of ``start``."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StopOptions(DirectOptions):
    """Options of ``stop``."""

    status: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            help=_("Instead of ids: stop all dispatches that have this status now, such as sending."),
            rich_help_panel=IDS,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StatusOptions(WatchOptions):
    """Options of ``status``."""

    base_url: _BaseUrl = PROVIDER.base_url


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ListOptions(ReadOptions):
    """Options of ``list``."""

    status: Annotated[
        str | None,
        typer.Option(metavar="WORD", help=_("Only dispatches with this status, such as sending."), rich_help_panel=IDS),
    ] = None
    dispatch_id: Annotated[
        int | None, typer.Option(metavar="ID", help=_("Only this dispatch."), rich_help_panel=IDS)
    ] = None
    dispatch_name: Annotated[
        str | None, typer.Option(metavar="NAME", help=_("Only dispatches with this name."), rich_help_panel=IDS)
    ] = None
    traffic_center_id: Annotated[
        int | None, typer.Option(metavar="ID", help=_("Only dispatches of this traffic center."), rich_help_panel=IDS)
    ] = None
    created_from: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help=_("Only dispatches created at this time or later: 2026-01-31 or 2026-01-31T09:00:00, in UTC."),
            rich_help_panel=IDS,
        ),
    ] = None
    created_to: Annotated[
        str | None,
        typer.Option(metavar="TIME", help=_("Only dispatches created at this time or earlier."), rich_help_panel=IDS),
    ] = None
    base_url: _BaseUrl = PROVIDER.base_url


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AddMessagesOptions(ConnectionOptions):
    """Options of ``add-messages``."""

    id: Annotated[int, typer.Argument(metavar="ID", help=_("The dispatch."), rich_help_panel=IDS)]
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="FILE",
            help=_(
                "The messages: a CSV with a column destination, whose other columns are substitutions, or JSON Lines "
                "with destination and substitutions. The whole file is checked before anything is sent."
            ),
            rich_help_panel=IDS,
        ),
    ]
    encoding: Encoding = None
    expected: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help=_("Go on only if the file has this many messages."), rich_help_panel=IDS),
    ] = None
    skip: Annotated[
        int, typer.Option(metavar="N", min=0, help=_("Leave out the first N messages."), rich_help_panel=IDS)
    ] = 0
    batch_size: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help=_("The most messages of a request. The provider documents no limit."),
            rich_help_panel=LAUNCH,
        ),
    ] = 1000
    dry_run: DryRun = False
    yes: Yes = False
    sandbox: Sandbox = False
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=_(
                "Write line, destination, state, id and code of each message to this CSV, which must be new or empty."
            ),
            rich_help_panel=OUTPUT,
        ),
    ] = None
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help=_("Write one JSON object per message to standard output, without its destination."),
            rich_help_panel=OUTPUT,
        ),
    ] = False
    base_url: _BaseUrl = PROVIDER.base_url


app = group(
    {
        "start": CommandRef(
            help=_("Start dispatches. No message can be added to them afterwards."),
            options="dispatchkit.cli.commands.direct:StartOptions",
            body="dispatchkit.cli.providers.direct:start",
        ),
        "stop": CommandRef(
            help=_("Stop started dispatches: those that are named, or all with a --status."),
            options="dispatchkit.cli.commands.direct:StopOptions",
            body="dispatchkit.cli.providers.direct:stop",
        ),
        "add-messages": CommandRef(
            help=_(
                "Add messages to a dispatch that was not started yet. None is sent by it.\n\n"
                "The messages go out in their order, batch by batch. The first batch that is not done ends the "
                "command, with the line to go on."
            ),
            options="dispatchkit.cli.commands.direct:AddMessagesOptions",
            body="dispatchkit.cli.providers.add_messages:add_messages",
        ),
        "status": CommandRef(
            help=_(
                "Show the status and the counters of dispatches; with --watch, until all are final.\n\n"
                "Finished is not delivered: the counters tell how many messages were.\n\n"
                "Exit status 1: some could not be read, or the provider does not know them. With --watch, also if one "
                "was stopped; 6: the deadline passed, or some stalled."
            ),
            options="dispatchkit.cli.commands.direct:StatusOptions",
            body="dispatchkit.cli.providers.direct_views:status",
            reads=True,
        ),
        "list": CommandRef(
            help=_("List dispatches with their status. Every filter narrows the list."),
            options="dispatchkit.cli.commands.direct:ListOptions",
            body="dispatchkit.cli.providers.direct_views:list_dispatches",
            reads=True,
        ),
    },
    help=_(
        "Start, stop, show and list dispatches of i-Digital Direct.\n\n"
        "The token comes from DISPATCHKIT_DIRECT_TOKEN or from --token-file."
    ),
)

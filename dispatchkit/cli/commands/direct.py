"""``dispatchkit direct``: start, stop, show and list dispatches of i-Digital Direct."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from dispatchkit.built_in.direct import PROVIDER
from dispatchkit.cli.lazy import CommandRef, group
from dispatchkit.cli.options import CheckOptions, ReadOptions, RunOptions, WatchOptions
from dispatchkit.cli.panels import CONNECTION, IDS

__all__ = ["DirectOptions", "ListOptions", "StartOptions", "StatusOptions", "StopOptions", "app"]

_BaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar=PROVIDER.url_variable,
        show_envvar=True,
        help="The provider's host, as scheme://host[:port].",
        rich_help_panel=CONNECTION,
    ),
]


@dataclass(frozen=True, kw_only=True)
class DirectOptions(RunOptions):
    """Options of the commands of Direct."""

    base_url: _BaseUrl = PROVIDER.base_url


@dataclass(frozen=True, kw_only=True)
class StartOptions(CheckOptions, DirectOptions):
    """Options of ``start``."""


@dataclass(frozen=True, kw_only=True)
class StopOptions(DirectOptions):
    """Options of ``stop``."""

    status: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            help="Instead of ids: stop all dispatches that have this status now, such as sending.",
            rich_help_panel=IDS,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class StatusOptions(WatchOptions):
    """Options of ``status``."""

    base_url: _BaseUrl = PROVIDER.base_url


@dataclass(frozen=True, kw_only=True)
class ListOptions(ReadOptions):
    """Options of ``list``."""

    status: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="Only dispatches with this status, such as sending.", rich_help_panel=IDS),
    ] = None
    dispatch_id: Annotated[int | None, typer.Option(metavar="ID", help="Only this dispatch.", rich_help_panel=IDS)] = (
        None
    )
    dispatch_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only dispatches with this name.", rich_help_panel=IDS)
    ] = None
    traffic_center_id: Annotated[
        int | None, typer.Option(metavar="ID", help="Only dispatches of this traffic center.", rich_help_panel=IDS)
    ] = None
    created_from: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only dispatches created at this time or later: 2026-01-31 or 2026-01-31T09:00:00, in UTC.",
            rich_help_panel=IDS,
        ),
    ] = None
    created_to: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only dispatches created at this time or earlier.", rich_help_panel=IDS),
    ] = None
    base_url: _BaseUrl = PROVIDER.base_url


app = group(
    {
        "start": CommandRef(
            help="Start dispatches. No message can be added to them afterwards.",
            options="dispatchkit.cli.commands.direct:StartOptions",
            body="dispatchkit.cli.providers.direct:start",
        ),
        "stop": CommandRef(
            help="Stop started dispatches: those that are named, or all with a --status.",
            options="dispatchkit.cli.commands.direct:StopOptions",
            body="dispatchkit.cli.providers.direct:stop",
        ),
        "status": CommandRef(
            help="Show the status and the counters of dispatches; with --watch, until all are final.\n\n"
            "Finished is not delivered: the counters tell how many messages were.\n\n"
            "Exit status 1: some could not be read, or the provider does not know them. With --watch, also if one was "
            "stopped; 6: the deadline passed, or some stalled.",
            options="dispatchkit.cli.commands.direct:StatusOptions",
            body="dispatchkit.cli.providers.direct_views:status",
            reads=True,
        ),
        "list": CommandRef(
            help="List dispatches with their status. Every filter narrows the list.",
            options="dispatchkit.cli.commands.direct:ListOptions",
            body="dispatchkit.cli.providers.direct_views:list_dispatches",
            reads=True,
        ),
    },
    help="Start, stop, show and list dispatches of i-Digital Direct.\n\n"
    "The token comes from DISPATCHKIT_DIRECT_TOKEN or from --token-file.",
)

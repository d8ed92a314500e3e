"""``dispatchkit altcraft``: activate, launch, deactivate and look at mailings of the Altcraft platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from dispatchkit.built_in.altcraft import PROVIDER
from dispatchkit.cli.lazy import CommandRef, group
from dispatchkit.cli.options import CheckOptions, LaunchOptions, ReadOptions, RunOptions, WatchOptions
from dispatchkit.cli.panels import CONNECTION, GUARDS, IDS, LAUNCH, OUTPUT, WATCH
from dispatchkit.cli.parameters.output import Csv
from dispatchkit.cli.translate import _

__all__ = [
    "ActivateOptions",
    "AltcraftOptions",
    "AltcraftReadOptions",
    "AudienceOptions",
    "CountersOptions",
    "DeactivateOptions",
    "LaunchActiveOptions",
    "LogOptions",
    "MailingOptions",
    "MailingsOptions",
    "StatusOptions",
    "app",
]

_BaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar=PROVIDER.url_variable,
        show_envvar=True,
        help=_("Your platform, as scheme://host[:port]."),
        rich_help_panel=CONNECTION,
    ),
]
_Wire = Annotated[
    Literal["json", "xml"],
    typer.Option(help=_("The format of the requests; xml needs the extra xml."), rich_help_panel=CONNECTION),
]
_Deduplicates = Annotated[
    bool,
    typer.Option(
        "--deduplicates/--no-deduplicates",
        help=_(
            "Whether your platform deduplicates launches by request id. If it does, an unclear launch is sent again "
            "under its id; if not, never."
        ),
        rich_help_panel=GUARDS,
    ),
]
_RunNow = Annotated[
    bool | None,
    typer.Option(
        "--run-now/--no-run-now",
        help=_("Whether to launch the mailing at once. Default: the platform's."),
        rich_help_panel=LAUNCH,
    ),
]
_ResourceId = Annotated[
    int | None,
    typer.Option(
        metavar="ID",
        min=1,
        help=_("The resource whose subscriptions count when the --audience is counted before the launch."),
        rich_help_panel=GUARDS,
    ),
]
_ListId = Annotated[
    int | None,
    typer.Option(
        metavar="ID",
        min=1,
        help=_("The database of a dynamic segment, which the platform needs to count it."),
        rich_help_panel=GUARDS,
    ),
]
_Abort = Annotated[
    bool | None,
    typer.Option(
        "--abort-if-running/--no-abort-if-running",
        help=_("Whether to abort queued messages. Otherwise, messages that are already scheduled are still sent."),
        rich_help_panel=LAUNCH,
    ),
]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AltcraftOptions(RunOptions):
    """Options of the commands of Altcraft."""

    base_url: _BaseUrl = None
    wire: _Wire = "json"
    deduplicates: _Deduplicates = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AudienceOptions(LaunchOptions, CheckOptions):
    """Options of a launch, and how its audience is counted."""

    resource_id: _ResourceId = None
    list_id: _ListId = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LaunchActiveOptions(AudienceOptions, AltcraftOptions):
    """Options of ``launch`` and ``launch-regular``."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ActivateOptions(AudienceOptions, AltcraftOptions):
    """Options of ``activate``."""

    run_now: _RunNow = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DeactivateOptions(AltcraftOptions):
    """Options of ``deactivate``."""

    abort_if_running: _Abort = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AltcraftReadOptions(ReadOptions):
    """Options of the commands that only read."""

    base_url: _BaseUrl = None
    wire: _Wire = "json"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StatusOptions(WatchOptions, AltcraftReadOptions):
    """Options of ``status``."""

    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help=_(
                "Also count starts, ends and errors of the log from this time on: 2026-01-31T09:00:00, in UTC. Give "
                "the time of the launch. With --watch, the default is the whole log."
            ),
            rich_help_panel=WATCH,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LogOptions(AltcraftReadOptions):
    """Options of ``log``."""

    id: Annotated[int, typer.Argument(metavar="ID", help=_("The mailing."), rich_help_panel=IDS)]
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help=_("Only entries written at this time or later: 2026-01-31T09:00:00, in UTC."),
            rich_help_panel=OUTPUT,
        ),
    ] = None
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help=_("Show at most this many entries."), rich_help_panel=OUTPUT)
    ] = 1000


_Kind = Annotated[
    Literal["broadcast", "regular"] | None,
    typer.Option(help=_("Only mailings of this kind, read by the call of the kind."), rich_help_panel=IDS),
]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MailingsOptions(AltcraftReadOptions):
    """Options of ``mailings``."""

    kind: _Kind = None
    type: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", help=_("Only mailings of this type, in the platform's word."), rich_help_panel=IDS
        ),
    ] = None
    active: Annotated[
        bool | None,
        typer.Option("--active/--inactive", help=_("Only active mailings, or only others."), rich_help_panel=IDS),
    ] = None
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help=_("Show at most this many mailings."), rich_help_panel=OUTPUT)
    ] = None
    csv: Csv = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MailingOptions(AltcraftReadOptions):
    """Options of ``mailing``."""

    id: Annotated[int, typer.Argument(metavar="ID", help=_("The mailing."), rich_help_panel=IDS)]
    kind: _Kind = None
    csv: Csv = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CountersOptions(AltcraftReadOptions):
    """Options of ``counters``."""

    audience: Annotated[
        str,
        typer.Argument(
            metavar="AUDIENCE", help=_("A database, list:ID, or a segment, segment:ID."), rich_help_panel=IDS
        ),
    ]
    list_id: Annotated[
        int | None,
        typer.Option(metavar="ID", min=1, help=_("The database of a dynamic segment."), rich_help_panel=IDS),
    ] = None
    resource_id: Annotated[
        int | None,
        typer.Option(metavar="ID", min=1, help=_("The resource whose subscriptions count."), rich_help_panel=IDS),
    ] = None
    csv: Csv = False


_HERE = "dispatchkit.cli.commands.altcraft"

app = group(
    {
        "activate": CommandRef(
            help=_("Activate mailings and, with --run-now, launch them at once."),
            options=f"{_HERE}:ActivateOptions",
            body="dispatchkit.cli.providers.altcraft:activate",
        ),
        "launch": CommandRef(
            help=_("Launch broadcasts that are active already."),
            options=f"{_HERE}:LaunchActiveOptions",
            body="dispatchkit.cli.providers.altcraft:launch",
        ),
        "launch-regular": CommandRef(
            help=_("Launch regular mailings that are active already: one sending each, at once."),
            options=f"{_HERE}:LaunchActiveOptions",
            body="dispatchkit.cli.providers.altcraft:launch_regular",
        ),
        "deactivate": CommandRef(
            help=_("Deactivate mailings."),
            options=f"{_HERE}:DeactivateOptions",
            body="dispatchkit.cli.providers.altcraft:deactivate",
        ),
        "status": CommandRef(
            help=_(
                "Show whether mailings are active; with --watch, until their launches have ended.\n\n"
                "The status does not show whether a launch happened: --since counts what the log says of it. Finished "
                "is not delivered: senders may still have a queue.\n\n"
                "Exit status 1: some could not be read, or their log has errors. 6: the deadline of --watch passed, "
                "or some stalled."
            ),
            options=f"{_HERE}:StatusOptions",
            body="dispatchkit.cli.providers.altcraft_views:status",
            reads=True,
        ),
        "log": CommandRef(
            help=_("Show the log of a mailing. Launches show only here."),
            options=f"{_HERE}:LogOptions",
            body="dispatchkit.cli.providers.altcraft_views:log",
            reads=True,
        ),
        "mailings": CommandRef(
            help=_("List mailings. Every filter narrows the list."),
            options=f"{_HERE}:MailingsOptions",
            body="dispatchkit.cli.providers.altcraft_lists:mailings",
            reads=True,
        ),
        "mailing": CommandRef(
            help=_("Show one mailing."),
            options=f"{_HERE}:MailingOptions",
            body="dispatchkit.cli.providers.altcraft_lists:mailing",
            reads=True,
        ),
        "counters": CommandRef(
            help=_(
                "Show how many a database or a segment reaches, by channel.\n\nThe number is an estimate: a dynamic "
                "segment is counted again before every launch."
            ),
            options=f"{_HERE}:CountersOptions",
            body="dispatchkit.cli.providers.altcraft_lists:counters",
            reads=True,
        ),
    },
    help=_(
        "Activate, launch, deactivate and show mailings of Altcraft.\n\n"
        "The token comes from DISPATCHKIT_ALTCRAFT_TOKEN or from --token-file."
    ),
)

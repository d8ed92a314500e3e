"""Parameters: guards."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatchkit.cli.panels import GUARDS
from dispatchkit.cli.translate import _

__all__ = [
    "Again",
    "Canary",
    "CanaryTimeout",
    "Check",
    "DryRun",
    "GiveUpAfter",
    "MaxLaunches",
    "NeverRepeat",
    "NotAfter",
    "NotBefore",
    "RepeatWindow",
    "ResumeDryRun",
    "SkipUnlaunchable",
    "StopAfterFailures",
    "Yes",
    "Zone",
]

RepeatWindow = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help=_(
            "Leave out ids that another run of the ledger launched, or may have launched, within this time. "
            "Examples: 90s, 15m, 1h, always. Default: always for starts of dispatches, 1h for launches of mailings."
        ),
        rich_help_panel=GUARDS,
    ),
]
Again = Annotated[
    bool,
    typer.Option(
        "--again",
        help=_("Launch also what another run of the ledger has launched, or may have launched."),
        rich_help_panel=GUARDS,
    ),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help=_(
            "Read the state of every target first. If something speaks against the launch of one, nothing is sent, "
            "and the exit status is 2. A question on a terminal shows the state of up to 20 targets in any case."
        ),
        rich_help_panel=GUARDS,
    ),
]
SkipUnlaunchable = Annotated[
    bool,
    typer.Option(
        "--skip-unlaunchable",
        help=_("Like --check, but leave out the targets that something speaks against, and launch the rest."),
        rich_help_panel=GUARDS,
    ),
]
MaxLaunches = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help=_("Send at most this many launches or stops."), rich_help_panel=GUARDS),
]
StopAfterFailures = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help=_("Send no more after this many failures."), rich_help_panel=GUARDS),
]
GiveUpAfter = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help=_(
            "End the run when the provider has not answered for this long: 90s, 15m, 1h, or never. A pause that the "
            "provider asked for does not count. Default: 1h."
        ),
        rich_help_panel=GUARDS,
    ),
]
Canary = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        max=1000,
        help=_(
            "Launch N first, and the rest only once these are done and the provider's state shows that they go out. "
            "A run of a ledger keeps this; 0 launches its rest all the same."
        ),
        rich_help_panel=GUARDS,
    ),
]
CanaryTimeout = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help=_("End the run if the first N do not go out within this time: 90s, 15m, 1h. Default: 10m."),
        rich_help_panel=GUARDS,
    ),
]
NotBefore = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help=_("Start nothing before this time, and wait: 09:00 is today in --zone, 2026-01-31T09:00+03:00 any day."),
        rich_help_panel=GUARDS,
    ),
]
NotAfter = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help=_("Start nothing from this time on, retries included. Calls in flight can end."),
        rich_help_panel=GUARDS,
    ),
]
Zone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=_("The time zone of --not-before and --not-after, such as Europe/Moscow."),
        rich_help_panel=GUARDS,
    ),
]
NeverRepeat = Annotated[
    bool,
    typer.Option(
        "--never-repeat",
        help=_(
            "Never send a launch again that may have happened. Only look it up; if that does not settle it, it stays "
            "unknown."
        ),
        rich_help_panel=GUARDS,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help=_("Show the requests and send none. Needs no token and no connection."),
        rich_help_panel=GUARDS,
    ),
]
ResumeDryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help=_("Show what the resume would launch. Send nothing and write nothing. Needs no token."),
        rich_help_panel=GUARDS,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help=_("Go on without a question."), rich_help_panel=GUARDS)]

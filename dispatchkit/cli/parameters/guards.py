"""Parameters: guards."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatchkit.cli.panels import GUARDS

__all__ = ["Again", "DryRun", "GiveUpAfter", "MaxLaunches", "NeverRepeat", "RepeatWindow", "StopAfterFailures", "Yes"]

RepeatWindow = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Leave out ids that another run of the ledger launched, or may have launched, within this time. "
        "Examples: 90s, 15m, 1h, always. Default: always for starts of dispatches, 1h for launches of mailings.",
        rich_help_panel=GUARDS,
    ),
]
Again = Annotated[
    bool,
    typer.Option(
        "--again",
        help="Launch also what another run of the ledger has launched, or may have launched.",
        rich_help_panel=GUARDS,
    ),
]
MaxLaunches = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Send at most this many launches or stops.", rich_help_panel=GUARDS),
]
StopAfterFailures = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Send no more after this many failures.", rich_help_panel=GUARDS),
]
GiveUpAfter = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="End the run when the provider has not answered for this long: 90s, 15m, 1h, or never. A pause that the "
        "provider asked for does not count. Default: 1h.",
        rich_help_panel=GUARDS,
    ),
]
NeverRepeat = Annotated[
    bool,
    typer.Option(
        "--never-repeat",
        help="Never send a launch again that may have happened. Only look it up; if that does not settle it, it stays "
        "unknown.",
        rich_help_panel=GUARDS,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show the requests and send none. Needs no token and no connection.", rich_help_panel=GUARDS
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Go on without a question.", rich_help_panel=GUARDS)]

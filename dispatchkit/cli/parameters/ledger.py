"""Parameters: the ledger."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatchkit.cli.panels import LEDGER
from dispatchkit.cli.translate import _

__all__ = [
    "Account",
    "AccountChanged",
    "Copied",
    "EndHolder",
    "Ledger",
    "LedgerArgument",
    "NoLedger",
    "RunArgument",
    "RunName",
    "RunOfLedger",
    "SharedLedger",
]

Ledger = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        help=_(
            "Record each launch in this SQLite file or PostgreSQL database before it is sent. The run can then be "
            "resumed. Default: DISPATCHKIT_LEDGER, else a file of your own in the state folder. A stop is recorded "
            "only in a ledger that is named."
        ),
        rich_help_panel=LEDGER,
    ),
]
NoLedger = Annotated[
    bool,
    typer.Option(
        "--no-ledger",
        help=_("Record nothing: the run cannot be resumed, and a repeat of it is not noticed."),
        rich_help_panel=LEDGER,
    ),
]
RunName = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="NAME",
        help=_(
            "The name of the run in the ledger. The same command with the same name resumes the run. Default: a new "
            "name from date, time and command."
        ),
        rich_help_panel=LEDGER,
    ),
]
Account = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=_(
            "Your name for the provider's account. A run in a ledger stays with its account, also when the account "
            "gets a new token."
        ),
        rich_help_panel=LEDGER,
    ),
]
AccountChanged = Annotated[
    bool,
    typer.Option(
        "--account-changed",
        help=_("The account of the run has a new token or a new name: resume the run with the current one."),
        rich_help_panel=LEDGER,
    ),
]
Copied = Annotated[
    bool,
    typer.Option(
        "--copied",
        help=_("The ledger file is a copy, and its original is out of use: use the copy."),
        rich_help_panel=LEDGER,
    ),
]
EndHolder = Annotated[
    bool,
    typer.Option(
        "--end-holder",
        help=_(
            "If the process that holds the run hangs or is suspended, end it and take the run over. A working "
            "process is never ended: use stop-run."
        ),
        rich_help_panel=LEDGER,
    ),
]
LedgerArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="LEDGER", help=_("A file or a URL. Default: DISPATCHKIT_LEDGER, else your own file.")),
]
RunArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="LEDGER RUN",
        help=_(
            "A file or a URL, and the name of a run. Default: DISPATCHKIT_LEDGER, else your own file. A single run "
            "needs no name."
        ),
    ),
]
SharedLedger = Annotated[
    str | None,
    typer.Option(
        envvar="DISPATCHKIT_LEDGER",
        metavar="URL",
        help=_("The ledger that all workers share, always needed: postgresql://user@host:port/database."),
        rich_help_panel=LEDGER,
    ),
]
RunOfLedger = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=_("The name of the run. A single run needs no name."), rich_help_panel=LEDGER),
]

"""Parameters: which ids."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatchkit.cli.panels import IDS
from dispatchkit.cli.translate import _

__all__ = ["Column", "Encoding", "Expected", "From", "FromWhole", "Ids", "IncludeUnknown", "Sheet"]

Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IDS",
        help=_("Ids and ranges of ids: 7 12 100-200, or 7,12,100-200."),
        rich_help_panel=IDS,
        show_default=False,
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help=_(
            "Read the ids from a file, one per line; # starts a comment. - is standard input. CSV and .xlsx need "
            "--column, unless a sheet has one column only. A file that --failures, --json or 'ledger export' wrote is "
            "read as it is, without what is done."
        ),
        rich_help_panel=IDS,
    ),
]
FromWhole = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help=_(
            "Read the ids from a file, one per line; # starts a comment. - is standard input. CSV and .xlsx need "
            "--column, unless a sheet has one column only. A file that dispatchkit wrote is read as it is, and all of "
            "its ids are taken, whatever their outcome."
        ),
        rich_help_panel=IDS,
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=_("The file is a table with a header row; read the ids from this column."),
        rich_help_panel=IDS,
    ),
]
Sheet = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=_("Read the ids from this sheet of an .xlsx file."), rich_help_panel=IDS),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=_("The encoding of the file, such as cp1251. Default: UTF-8, or that of its byte order mark."),
        rich_help_panel=IDS,
    ),
]
IncludeUnknown = Annotated[
    bool,
    typer.Option(
        "--include-unknown",
        help=_("From a file with outcomes, also take ids whose outcome is unknown. They may have been launched."),
        rich_help_panel=IDS,
    ),
]
Expected = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help=_("Go on only if there are exactly this many ids."), rich_help_panel=IDS),
]

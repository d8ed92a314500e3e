"""Parameters: what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dispatchkit.cli.panels import OUTPUT
from dispatchkit.cli.translate import _

__all__ = ["Csv", "Failures", "Json", "JsonLines", "LogFile", "Notify", "Quiet"]

Failures = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=_(
            "Write every id that is not done to this CSV, which --from reads. The file must be new or empty. With "
            "a ledger, it is written when the run ends."
        ),
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help=_("Write one JSON object per outcome to standard output, and everything else to standard error."),
        rich_help_panel=OUTPUT,
    ),
]
JsonLines = Annotated[
    bool, typer.Option("--json", help=_("Write one JSON object per line instead of a table."), rich_help_panel=OUTPUT)
]
Csv = Annotated[bool, typer.Option("--csv", help=_("Write a CSV instead of a table."), rich_help_panel=OUTPUT)]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help=_("Show failures and the summary, but no progress."), rich_help_panel=OUTPUT),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=_("Append the log of the run to this file: one line a record, with UTC time and level."),
        rich_help_panel=OUTPUT,
    ),
]
Notify = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        help=_(
            "Run this command at the end, also after a guard or Ctrl-C. No shell runs it. It finds the result in its "
            "environment (DISPATCHKIT_STATE and more), and a JSON report on standard input."
        ),
        rich_help_panel=OUTPUT,
    ),
]

"""Parameters: what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dispatchkit.cli.panels import OUTPUT

__all__ = ["Csv", "Failures", "Json", "JsonLines", "Quiet"]

Failures = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write every id that is not done to this CSV, which --from reads. The file must be new or empty. With "
        "a ledger, it is written when the run ends.",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Write one JSON object per outcome to standard output, and everything else to standard error.",
        rich_help_panel=OUTPUT,
    ),
]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Write one JSON object per line instead of a table.", rich_help_panel=OUTPUT)
]
Csv = Annotated[bool, typer.Option("--csv", help="Write a CSV instead of a table.", rich_help_panel=OUTPUT)]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show failures and the summary, but no progress.", rich_help_panel=OUTPUT)
]

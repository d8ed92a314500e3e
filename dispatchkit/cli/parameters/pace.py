"""Parameters: the pace."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatchkit.cli.panels import PACE
from dispatchkit.cli.translate import _

__all__ = ["Concurrency", "Rate"]

Concurrency = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        help=_("The largest number of calls in flight; auto adapts it to the provider."),
        rich_help_panel=PACE,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help=_(
            "The most launches per second, evenly spaced. With a ledger in PostgreSQL, it holds for all processes "
            "that use the account. Default: no limit."
        ),
        rich_help_panel=PACE,
    ),
]

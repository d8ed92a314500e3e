"""Parameters: the watch."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatchkit.cli.panels import WATCH
from dispatchkit.cli.translate import _

__all__ = ["Deadline", "Every", "StalledAfter", "Watch"]

Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help=_("Read again and again until all are final. A terminal shows a table; otherwise each change is a line."),
        rich_help_panel=WATCH,
    ),
]
Every = Annotated[
    str | None,
    typer.Option(metavar="TIME", help=_("Time between two rounds: 5s, 1m. Default: 5s."), rich_help_panel=WATCH),
]
Deadline = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help=_("End the watch after this time: 90s, 15m, 1h. Default: never."), rich_help_panel=WATCH
    ),
]
StalledAfter = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help=_("Watch a target no longer when its status and counters have not changed for this time. Default: never."),
        rich_help_panel=WATCH,
    ),
]

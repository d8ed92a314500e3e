"""Parameters: what is launched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dispatchkit.cli.panels import LAUNCH
from dispatchkit.cli.translate import _

__all__ = ["Attach", "Audience", "Content", "Limit"]

Audience = Annotated[
    str | None,
    typer.Option(
        metavar="KIND:ID",
        help=_("Send this launch to another audience than the mailing's own: list:1 or segment:5."),
        rich_help_panel=LAUNCH,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help=_("The sending limit of this launch."), rich_help_panel=LAUNCH),
]
Content = Annotated[
    str | None,
    typer.Option(
        metavar="JSON|@FILE",
        help=_("A JSON object with the apicontent variables, or @ and the name of a file that holds it."),
        rich_help_panel=LAUNCH,
    ),
]
Attach = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="PATH", help=_("A file to attach to the messages. May be given several times."), rich_help_panel=LAUNCH
    ),
]

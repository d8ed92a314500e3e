"""``dispatchkit sandbox``: both providers on this machine until Ctrl-C."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from dispatchkit.cli.options import Options
from dispatchkit.cli.translate import _

__all__ = ["SandboxOptions"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SandboxOptions(Options):
    """Options of ``sandbox``."""

    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help=_("The port; 0 takes any free one."))] = 8080
    dispatches: Annotated[str, typer.Option(metavar="IDS", help=_("The dispatches of Direct: 7,12,100-200."))] = (
        "1-100000,10000000125"
    )
    mailings: Annotated[str, typer.Option(metavar="IDS", help=_("The mailings of Altcraft."))] = "1-100000"
    active: Annotated[
        str | None, typer.Option(metavar="IDS", help=_("The mailings that are active when the sandbox starts."))
    ] = None
    deduplicates: Annotated[
        bool,
        typer.Option("--deduplicates/--no-deduplicates", help=_("Whether Altcraft recognises a repeated request id.")),
    ] = True

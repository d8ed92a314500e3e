"""``dispatchkit worker``: launch what was planned with ``dispatchkit plan``, until it is stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from dispatchkit.cli.options import GiveUpAfter, Insecure, NeverRepeat, Options, Proxy, SharedLedger
from dispatchkit.cli.panels import CONNECTION, LEDGER, PACE

__all__ = ["WorkerOptions"]


@dataclass(frozen=True, kw_only=True)
class WorkerOptions(Options):
    """What ``worker`` takes."""

    ledger: SharedLedger
    chunks: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="The number of chunks at the same time.", rich_help_panel=PACE),
    ] = 1
    concurrency: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="The largest number of calls in flight for each chunk.", rich_help_panel=PACE
        ),
    ] = 64
    direct_url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="DISPATCHKIT_DIRECT_URL",
            show_envvar=True,
            help="The host of i-Digital Direct, as scheme://host[:port].",
            rich_help_panel=CONNECTION,
        ),
    ] = "https://direct.i-dgtl.ru"
    altcraft_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="DISPATCHKIT_ALTCRAFT_URL",
            show_envvar=True,
            help="Your Altcraft platform, as scheme://host[:port].",
            rich_help_panel=CONNECTION,
        ),
    ] = None
    insecure: Insecure = False
    proxy: Proxy = None
    account: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Your name for the account of the tokens. The worker launches only runs that were planned for it.",
            rich_help_panel=LEDGER,
        ),
    ] = None
    give_up_after: GiveUpAfter = None
    never_repeat: NeverRepeat = False

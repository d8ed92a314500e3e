"""``dispatchkit worker``: launch what was planned with ``dispatchkit plan``, until it is stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dispatchkit.cli.options import Options
from dispatchkit.cli.panels import CONNECTION, LEDGER, OUTPUT, PACE
from dispatchkit.cli.parameters.connection import CaFile, ClientCert, ClientKey, Insecure, Proxy
from dispatchkit.cli.parameters.guards import GiveUpAfter, NeverRepeat
from dispatchkit.cli.parameters.ledger import SharedLedger
from dispatchkit.cli.parameters.output import LogFile, Notify
from dispatchkit.cli.translate import _

__all__ = ["WorkerOptions"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class WorkerOptions(Options):
    """Options of ``worker``."""

    ledger: SharedLedger = None
    chunks: Annotated[
        int,
        typer.Option(metavar="N", min=1, help=_("The number of chunks at the same time."), rich_help_panel=PACE),
    ] = 1
    concurrency: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help=_("The largest number of calls in flight for each chunk."), rich_help_panel=PACE
        ),
    ] = 64
    url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROVIDER=URL",
            help=_(
                "The host of a provider, such as altcraft=https://your-platform; once for each. Default: what the "
                "provider's variable holds, such as DISPATCHKIT_ALTCRAFT_URL, or the provider's own host."
            ),
            rich_help_panel=CONNECTION,
        ),
    ] = None
    insecure: Insecure = False
    proxy: Proxy = None
    ca_file: CaFile = None
    client_cert: ClientCert = None
    client_key: ClientKey = None
    account: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=_("Your name for the account of the tokens. The worker launches only runs that were planned for it."),
            rich_help_panel=LEDGER,
        ),
    ] = None
    give_up_after: GiveUpAfter = None
    never_repeat: NeverRepeat = False
    liveness_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=_("Touch this file once a second, for a liveness probe. An old file shows a worker that hangs."),
            rich_help_panel=OUTPUT,
        ),
    ] = None
    log_file: LogFile = None
    notify: Notify = None

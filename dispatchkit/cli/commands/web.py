"""``dispatchkit web``: the control room, a page over a ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer

from dispatchkit.cli.options import Options
from dispatchkit.cli.panels import CONNECTION, LEDGER
from dispatchkit.cli.translate import _

__all__ = ["WebOptions"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class WebOptions(Options):
    """Options of ``web``."""

    ledger: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help=_("The ledger to show. Default: DISPATCHKIT_LEDGER, else your own file in the state folder."),
            rich_help_panel=LEDGER,
        ),
    ] = field(default=None, repr=False)
    host: Annotated[
        str,
        typer.Option(
            metavar="HOST",
            help=_("The address to listen on. Another machine needs --tls-cert."),
            rich_help_panel=CONNECTION,
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, max=65535, help=_("The port; 0 takes any free one."), rich_help_panel=CONNECTION
        ),
    ] = 8090
    tls_cert: Annotated[
        str | None,
        typer.Option(metavar="PATH", help=_("The server's certificate in PEM: serve TLS."), rich_help_panel=CONNECTION),
    ] = None
    tls_key: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help=_("The key of the certificate, if it is in a file of its own."),
            rich_help_panel=CONNECTION,
        ),
    ] = None
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help=_("Serve other machines without TLS. Every machine on the path can read the page and stop runs."),
            rich_help_panel=CONNECTION,
        ),
    ] = False

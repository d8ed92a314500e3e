"""Parameters: the connection."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatchkit.cli.panels import CONNECTION
from dispatchkit.cli.translate import _

__all__ = [
    "AttemptTimeout",
    "CaFile",
    "ClientCert",
    "ClientKey",
    "Insecure",
    "Profile",
    "Proxy",
    "Sandbox",
    "Timeout",
    "TokenFile",
]

Profile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=_(
            "Take host, account, token and pace from this profile of config.toml. Options and the environment go "
            "first. Default: DISPATCHKIT_PROFILE."
        ),
        rich_help_panel=CONNECTION,
    ),
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help=_("Read the token from a file instead of the environment. - is standard input."),
        rich_help_panel=CONNECTION,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help=_("The longest time for one call, with its retries and waits. Default: 240."),
        rich_help_panel=CONNECTION,
    ),
]
AttemptTimeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help=_("The longest time for one attempt. Default: 70."), rich_help_panel=CONNECTION
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help=_("Allow plain http to another machine. Everyone on the way can read the token."),
        rich_help_panel=CONNECTION,
    ),
]
Proxy = Annotated[
    str | None, typer.Option(metavar="URL", help=_("Connect through this HTTP proxy."), rich_help_panel=CONNECTION)
]
CaFile = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help=_("Trust the authorities in this PEM file instead of the system's."),
        rich_help_panel=CONNECTION,
    ),
]
ClientCert = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help=_("Show this certificate, a PEM file, to a server that asks for one."),
        rich_help_panel=CONNECTION,
    ),
]
ClientKey = Annotated[
    str | None,
    typer.Option(
        metavar="PATH", help=_("The key of --client-cert, unless it is in the same file."), rich_help_panel=CONNECTION
    ),
]
Sandbox = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        help=_(
            "Send everything to a sandbox on this machine, which ends with the command. Needs no account and asks "
            "nothing."
        ),
        rich_help_panel=CONNECTION,
    ),
]

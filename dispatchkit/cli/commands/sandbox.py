"""``dispatchkit sandbox``: both providers on loopback until Ctrl-C."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["sandbox"]

_Port = Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="The port; 0 takes any free one.")]
_Dispatches = Annotated[str, typer.Option(metavar="IDS", help="The dispatches that Direct knows: 7,12,100-200.")]
_Mailings = Annotated[str, typer.Option(metavar="IDS", help="The mailings that Altcraft knows.")]
_Deduplicates = Annotated[
    bool, typer.Option("--deduplicates/--no-deduplicates", help="Whether Altcraft recognises a repeated request id.")
]
_Active = Annotated[str | None, typer.Option(metavar="IDS", help="Those of them that are active from the beginning.")]


def sandbox(
    *,
    port: _Port = 8080,
    dispatches: _Dispatches = "1-100000,10000000125",
    mailings: _Mailings = "1-100000",
    active: _Active = None,
    deduplicates: _Deduplicates = True,
) -> None:
    """Play both providers on this machine until Ctrl-C, then tell what was done to them."""
    from dispatchkit.cli.providers.sandbox import serve  # noqa: PLC0415 - heavy

    serve(port=port, dispatches=dispatches, mailings=mailings, active=active, deduplicates=deduplicates)

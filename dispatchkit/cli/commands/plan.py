"""``dispatchkit plan``: plan a run for workers on any number of machines. The launch follows on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatchkit.cli.invocation import PlanOptions, refuse_swallowed
from dispatchkit.cli.lazy import group
from dispatchkit.cli.panels import IDS, LEDGER, PACE
from dispatchkit.cli.parameters.ledger import SharedLedger
from dispatchkit.cli.provider_groups import ProviderGroups
from dispatchkit.cli.translate import _

__all__ = ["app"]

app = group(ProviderGroups(plannable=True))


@app.callback(
    help=_(
        "Plan a run in chunks, for workers on any number of machines.\n\n"
        "dispatchkit plan --run NAME --from ids.csv direct start"
    )
)
def plan(
    context: typer.Context,
    *,
    ledger: SharedLedger = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=_("The name of the run, always needed."), rich_help_panel=LEDGER),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="FILE", help=_("Read the ids from a file, as the launch does."), rich_help_panel=IDS
        ),
    ] = None,
    chunk_size: Annotated[
        int, typer.Option(metavar="N", min=1, help=_("The number of launches in a chunk."), rich_help_panel=PACE)
    ] = 1000,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="N", help=_("The most launches per second, of all workers together."), rich_help_panel=PACE
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help=_("The largest number of calls in flight, of all workers together."),
            rich_help_panel=PACE,
        ),
    ] = None,
) -> None:
    """The options between ``plan`` and the launch."""
    refuse_swallowed(context)
    context.obj = PlanOptions(
        ledger=ledger or "", run=run or "", from_=from_, chunk_size=chunk_size, rate=rate, concurrency=concurrency
    )

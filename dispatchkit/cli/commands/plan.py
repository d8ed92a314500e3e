"""``dispatchkit plan``: plan a run for workers on any number of machines. What follows is the launch, as always."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatchkit.cli.commands import altcraft, direct

__all__ = ["LEDGER", "app"]


LEDGER = typer.Option(
    envvar="DISPATCHKIT_LEDGER", metavar="URL", help="The ledger that all share: postgresql://user@host:port/database."
)


app = typer.Typer(no_args_is_help=True, help="Plan a run in chunks, for workers on any number of machines.")


def _launches(commands: typer.Typer) -> typer.Typer:
    """Only what acts on ids, not what reads."""
    some = typer.Typer(no_args_is_help=True, help=commands.info.help)
    some.registered_commands = [
        command
        for command in commands.registered_commands
        if command.callback is not None
        and command.callback.__name__ in {"start", "stop", "activate", "launch", "deactivate"}
    ]
    return some


app.add_typer(_launches(direct.app), name="direct")
app.add_typer(_launches(altcraft.app), name="altcraft")


@app.callback()
def plan(
    context: typer.Context,
    *,
    ledger: Annotated[str, LEDGER],
    run: Annotated[str, typer.Option(metavar="NAME", help="What to call the run.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="As after the launch: read the ids from a file.")
    ] = None,
    chunk_size: Annotated[int, typer.Option(metavar="N", min=1, help="How many launches make a chunk.")] = 1000,
    rate: Annotated[
        float | None, typer.Option(metavar="N", help="Launches a second at most, of all workers together.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Calls in flight at most, of all workers together.")
    ] = None,
) -> None:
    """Plan a run in chunks, for workers on any number of machines.

    dispatchkit plan --run NAME --from ids.csv direct start
    """
    from dispatchkit.cli.run.plan import PlanOptions  # noqa: PLC0415 - heavy

    given = PlanOptions(ledger=ledger, run=run, from_=from_, chunk_size=chunk_size, rate=rate, concurrency=concurrency)
    context.call_on_close(given.select())

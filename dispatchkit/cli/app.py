"""The Typer application: which commands there are. What they do is imported when one of them runs."""

from __future__ import annotations

from typing import Annotated

import typer

import dispatchkit
from dispatchkit.cli.commands import altcraft, direct, ledger, plan, sandbox, worker
from dispatchkit.cli.redacting_group import RedactingGroup

__all__ = ["app"]

_EPILOG = (
    "Exit status: 0 all done; 1 some were rejected or not sent; 2 wrong usage, or a ledger that cannot be used: "
    "nothing was sent; 3 for some it is unknown whether it happened; 130 interrupted."
)

app = typer.Typer(
    cls=RedactingGroup,
    no_args_is_help=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Rich would cost half of the time that --help takes.
    rich_markup_mode=None,
    # A local variable may hold a token.
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(direct.app, name="direct")
app.add_typer(altcraft.app, name="altcraft")
app.add_typer(ledger.app, name="ledger")
app.command(name="resume")(ledger.resume)
app.command(name="stop-run")(ledger.stop_run)
app.add_typer(plan.app, name="plan")
app.command(name="worker")(worker.worker)
app.command(name="sandbox")(sandbox.sandbox)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dispatchkit {dispatchkit.__version__}")
        raise typer.Exit


@app.callback()
def dispatchkit_(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Launch mailings of i-Digital Direct and Altcraft, and always be told what happened.

    Try it without an account: dispatchkit direct start 1-1000 --sandbox
    """
    del version

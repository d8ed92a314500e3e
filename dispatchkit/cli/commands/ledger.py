"""``dispatchkit ledger``, ``resume`` and ``stop-run``: see, go on with and stop the runs that a ledger remembers."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatchkit.cli.options import LedgerArgument, ResumeOptions, options_from

__all__ = ["app", "resume", "stop_run"]

app = typer.Typer(
    no_args_is_help=True,
    help="See the runs that a ledger remembers: an SQLite file or the URL of a PostgreSQL database. LEDGER may be left "
    "out where DISPATCHKIT_LEDGER holds it.",
)

_Run = Annotated[
    list[str] | None,
    typer.Argument(metavar="LEDGER RUN", help="A file or a URL, and a run in it; a single one needs no name."),
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]
_Csv = Annotated[bool, typer.Option("--csv", help="A CSV instead of a table.")]


@app.command("list")
def list_(where: LedgerArgument = None, *, json: _Json = False, csv: _Csv = False) -> None:
    """List the runs, the newest first, and how far each has come."""
    from dispatchkit.cli.views.ledger import list_runs  # noqa: PLC0415 - heavy

    list_runs(where or [], json=json, csv=csv)


@app.command()
def show(
    where: _Run = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing it until it is over.")] = False,
    json: _Json = False,
    csv: _Csv = False,
) -> None:
    """Show one run: how far it has come, and who works on it. This machine need not be the one that does."""
    from dispatchkit.cli.views.ledger import show_run  # noqa: PLC0415 - heavy

    show_run(where or [], follow=follow, json=json, csv=csv)


@app.command()
def failures(where: _Run = None, *, json: _Json = False, csv: _Csv = False) -> None:
    """Show every target of a run that did not come to done. As a CSV it is what --failures writes and --from takes."""
    from dispatchkit.cli.views.ledger import show_failures  # noqa: PLC0415 - heavy

    show_failures(where or [], json=json, csv=csv)


@app.command()
def export(where: _Run = None, *, json: _Json = False, csv: _Csv = False) -> None:
    """Show every target of a run, with all that is known of it."""
    from dispatchkit.cli.views.ledger import show_targets  # noqa: PLC0415 - heavy

    show_targets(where or [], json=json, csv=csv)


@app.command()
def init(
    where: LedgerArgument = None,
    *,
    sql: Annotated[
        bool, typer.Option("--sql", help="Connect to nothing: print the SQL, for an administrator of PostgreSQL.")
    ] = False,
) -> None:
    """Make the tables of a ledger and its workers' queue, or upgrade them. Else the first launch does."""
    from dispatchkit.cli.run.init_ledger import init_ledger  # noqa: PLC0415 - heavy

    init_ledger(where or [], sql=sql)


@app.command("lift-pause")
def lift_pause(
    where: LedgerArgument = None,
    *,
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this account: its name, or how its key begins.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Lift it without a question.")] = False,
) -> None:
    """Show the accounts that are paused, as the provider asked for it, and lift their pauses. LEDGER is a database."""
    from dispatchkit.cli.run.pauses import lift  # noqa: PLC0415 - heavy

    lift(where or [], account=account, yes=yes)


@options_from(ResumeOptions)
def resume(options: ResumeOptions) -> None:
    """Go on with a run where it ended. What is done or rejected is left alone, and what is unclear is settled first."""
    from dispatchkit.cli.run.resume import resume_run  # noqa: PLC0415 - heavy

    resume_run(options)


def stop_run(
    where: Annotated[list[str] | None, typer.Argument(metavar="LEDGER RUN", help="A file or a URL, and a run.")] = None,
) -> None:
    """Stop a run, on every machine that works on it. It returns once nothing of it can be launched, after 5 s."""
    from dispatchkit.cli.run.resume import stop  # noqa: PLC0415 - heavy

    stop(where or [])

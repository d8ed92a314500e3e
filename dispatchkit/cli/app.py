"""The commands, in one table. Each is imported when the command line names it."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Annotated, cast

import typer

import dispatchkit
from dispatchkit.cli.lazy import CommandRef, GroupRef, group
from dispatchkit.cli.provider_groups import ProviderGroups
from dispatchkit.cli.translate import _

__all__ = ["PROVIDERS", "app"]

_EPILOG = _(
    "Exit status: 0: all done. 1: some were rejected or not sent, or the output could not be written. 2: wrong usage, "
    "or a ledger that cannot be used; nothing was sent. 3: the outcome of some is unknown. 4: the answer to the "
    "question was no; nothing was done. 5: all was launched before, in another run; nothing was sent. "
    "6: a watch ended before all was final. 130: interrupted."
)

PROVIDERS = ProviderGroups()
"""The group of each provider."""

_OWN: dict[str, CommandRef | GroupRef] = {
    "ledger": GroupRef(help=_("Show the runs of a ledger."), app="dispatchkit.cli.commands.ledger:app", reads=True),
    "resume": CommandRef(
        help=_(
            "Resume a run of a ledger.\n\n"
            "Targets that are done or rejected are left alone. What is unclear is settled first."
        ),
        options="dispatchkit.cli.options:ResumeOptions",
        body="dispatchkit.cli.run.resume:resume_run",
    ),
    "stop-run": CommandRef(
        help=_(
            "Stop a run on every machine.\n\n"
            "The command returns after 5 s. From then on, no process launches any more of the run."
        ),
        options="dispatchkit.cli.commands.ledger:StopRunOptions",
        body="dispatchkit.cli.run.resume:stop",
    ),
    "web": CommandRef(
        help=_(
            "Serve the control room: a page that shows a run, and stops it.\n\n"
            "It prints a link that opens the page in one browser. Ctrl-C ends it, and changes no run."
        ),
        options="dispatchkit.cli.commands.web:WebOptions",
        body="dispatchkit.cli.run.web:serve_web",
    ),
    "plan": GroupRef(
        help=_("Plan a run in chunks, for workers on any number of machines."), app="dispatchkit.cli.commands.plan:app"
    ),
    "worker": CommandRef(
        help=_(
            "Launch what 'dispatchkit plan' has planned.\n\n"
            "Any number of workers may run. The token of each provider comes from its variable, such as "
            "DISPATCHKIT_DIRECT_TOKEN.\n\n"
            "The first Ctrl-C or SIGTERM starts nothing new and waits up to 30 s for calls in flight. The second one "
            "cancels them."
        ),
        options="dispatchkit.cli.commands.worker:WorkerOptions",
        body="dispatchkit.cli.run.worker:work_until_stopped",
    ),
    "profile": GroupRef(
        help=_("List and check the profiles of accounts."), app="dispatchkit.cli.commands.profile:app", reads=True
    ),
    "sandbox": CommandRef(
        help=_("Serve both providers on this machine until Ctrl-C, then list what was done."),
        options="dispatchkit.cli.commands.sandbox:SandboxOptions",
        body="dispatchkit.cli.providers.sandbox:serve",
    ),
}

# A command of dispatchkit itself goes before a provider of the same name.
_TABLE: Mapping[str, CommandRef | GroupRef] = ChainMap(_OWN, cast("dict[str, CommandRef | GroupRef]", PROVIDERS))

app = group(_TABLE, epilog=_EPILOG, completion=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dispatchkit {dispatchkit.__version__}")
        raise typer.Exit


@app.callback(
    help=_(
        "Launch mailings of i-Digital Direct and Altcraft, and report truly what happened.\n\n"
        "Try it without an account: dispatchkit direct start 1-1000 --sandbox"
    )
)
def dispatchkit_(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help=_("Show the version and exit."))
    ] = False,
) -> None:
    """The options of ``dispatchkit`` itself."""
    del version

"""``dispatchkit altcraft``: activate, launch and deactivate mailings of the Altcraft platform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import dispatchkit
from dispatchkit.cli.options import LaunchOptions, RunOptions, takes

if TYPE_CHECKING:
    from dispatchkit import AltcraftClient
    from dispatchkit.altcraft.commands import AltcraftCommand
    from dispatchkit.cli.ids import Targets
    from dispatchkit.sandbox import Sandbox

__all__ = ["ActivateOptions", "AltcraftOptions", "DeactivateOptions", "LaunchBroadcastOptions", "app"]

_TOKEN = "DISPATCHKIT_ALTCRAFT_TOKEN"  # noqa: S105 - the name of the variable
_URL = "DISPATCHKIT_ALTCRAFT_URL"

app = typer.Typer(
    no_args_is_help=True,
    help=f"Activate, launch and deactivate mailings of Altcraft. The token comes from {_TOKEN} or --token-file.",
)

_BaseUrl = Annotated[
    str | None, typer.Option(metavar="URL", envvar=_URL, help="Your platform, as scheme://host[:port].")
]
_Wire = Annotated[Literal["json", "xml"], typer.Option(help="The format of the requests; xml needs the extra xml.")]
_RunNow = Annotated[
    bool | None, typer.Option("--run-now/--no-run-now", help="Also launch it at once. Default: the platform's.")
]
_Abort = Annotated[
    bool | None,
    typer.Option(
        "--abort-if-running/--no-abort-if-running",
        help="Abort all queued messages at once; otherwise those already scheduled still go out.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class AltcraftOptions(RunOptions):
    """What the commands of Altcraft take."""

    base_url: _BaseUrl = None
    wire: _Wire = "json"


@dataclass(frozen=True, kw_only=True)
class LaunchBroadcastOptions(LaunchOptions, AltcraftOptions):
    """What ``launch`` takes."""


@dataclass(frozen=True, kw_only=True)
class ActivateOptions(LaunchOptions, AltcraftOptions):
    """What ``activate`` takes."""

    run_now: _RunNow = None


@dataclass(frozen=True, kw_only=True)
class DeactivateOptions(AltcraftOptions):
    """What ``deactivate`` takes."""

    abort_if_running: _Abort = None


@app.command()
@takes(ActivateOptions)
def activate(options: ActivateOptions) -> None:
    """Activate mailings and, with --run-now, launch them at once."""
    from dispatchkit.cli.inputs import mistakes_in_one_line, overrides  # noqa: PLC0415 - heavy

    with mistakes_in_one_line():
        if options.audience is not None and not options.run_now:
            raise ValueError("--audience needs --run-now: it holds for one run only, and there is none")
        launch = overrides(options)
    _carry_out(
        options,
        "activate and launch" if options.run_now else "activate",
        lambda number: dispatchkit.ActivateMailing(number, run_now=options.run_now, **launch),
    )


@app.command()
@takes(LaunchBroadcastOptions)
def launch(options: LaunchBroadcastOptions) -> None:
    """Launch broadcasts that are active already."""
    from dispatchkit.cli.inputs import mistakes_in_one_line, overrides  # noqa: PLC0415 - heavy

    with mistakes_in_one_line():
        launch = overrides(options)
    _carry_out(options, "launch", lambda number: dispatchkit.LaunchBroadcast(number, **launch), active=True)


@app.command()
@takes(DeactivateOptions)
def deactivate(options: DeactivateOptions) -> None:
    """Deactivate mailings."""
    _carry_out(
        options,
        "abort and deactivate" if options.abort_if_running else "deactivate",
        lambda number: dispatchkit.DeactivateMailing(number, abort_if_running=options.abort_if_running),
        active=True,
    )


def _carry_out(
    options: AltcraftOptions, verb: str, command: Callable[[int], AltcraftCommand[Any]], *, active: bool = False
) -> None:
    from dispatchkit.cli.job import Job, carry_out  # noqa: PLC0415 - heavy

    def connect(base_url: str, token: str) -> AltcraftClient:
        return dispatchkit.AltcraftClient(base_url, token, wire=options.wire, **options.client_settings())

    def sandbox(targets: Targets) -> Sandbox:
        from dispatchkit.sandbox import Ids, Sandbox  # noqa: PLC0415 - heavy

        mailings = Ids(*targets.parts)
        return Sandbox(mailings=mailings, active=mailings if active else ())

    job = Job(
        verb=verb,
        noun=("mailing", "mailings"),
        token_variable=_TOKEN,
        base_url=options.base_url,
        command=command,
        connect=connect,
        sandbox=sandbox,
        token_of_sandbox=lambda sandbox: sandbox.altcraft_token,
    )
    carry_out(options, job)

"""``dispatchkit altcraft``: activate, launch, deactivate and look at mailings of the Altcraft platform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import dispatchkit
from dispatchkit.cli.options import LaunchOptions, ReadOptions, RunOptions, options_from

if TYPE_CHECKING:
    from dispatchkit import AltcraftClient
    from dispatchkit.altcraft.commands import AltcraftCommand
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.sandbox import Sandbox

__all__ = [
    "ActivateOptions",
    "AltcraftOptions",
    "AltcraftReadOptions",
    "DeactivateOptions",
    "LaunchBroadcastOptions",
    "LogOptions",
    "StatusOptions",
    "app",
]

_TOKEN = "DISPATCHKIT_ALTCRAFT_TOKEN"  # noqa: S105 - the name of the variable
_URL = "DISPATCHKIT_ALTCRAFT_URL"

app = typer.Typer(
    no_args_is_help=True,
    help=f"Activate, launch, deactivate and see mailings of Altcraft. The token comes from {_TOKEN} or --token-file.",
)

_BaseUrl = Annotated[
    str | None, typer.Option(metavar="URL", envvar=_URL, help="Your platform, as scheme://host[:port].")
]
_Wire = Annotated[Literal["json", "xml"], typer.Option(help="The format of the requests; xml needs the extra xml.")]
_Deduplicates = Annotated[
    bool,
    typer.Option(
        "--deduplicates/--no-deduplicates",
        help="Your word that the platform deduplicates by request id: an unclear launch is repeated under its id. "
        "Default: it never is.",
    ),
]
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
    deduplicates: _Deduplicates = False


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


@dataclass(frozen=True, kw_only=True)
class AltcraftReadOptions(ReadOptions):
    """What the commands take that only read."""

    base_url: _BaseUrl = None
    wire: _Wire = "json"


@dataclass(frozen=True, kw_only=True)
class StatusOptions(AltcraftReadOptions):
    """What ``status`` takes."""

    ids: Annotated[list[str], typer.Argument(metavar="IDS", help="Ids and ranges of ids: 7 12 100-200.")]


@dataclass(frozen=True, kw_only=True)
class LogOptions(AltcraftReadOptions):
    """What ``log`` takes."""

    id: Annotated[int, typer.Argument(metavar="ID", help="The mailing.")]
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only what was written from then on: 2026-01-31T09:00:00, UTC."),
    ] = None
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="The most entries.")] = 1000


@app.command()
@options_from(StatusOptions)
def status(options: StatusOptions) -> None:
    """Show whether mailings are active. It cannot tell whether a launch happened: see log."""
    from dispatchkit.cli.input.ids import from_arguments  # noqa: PLC0415 - heavy
    from dispatchkit.cli.input.values import exit_on_user_error  # noqa: PLC0415 - heavy
    from dispatchkit.cli.providers.views import show_statuses  # noqa: PLC0415 - heavy

    with exit_on_user_error():
        ids, client = from_arguments(options.ids), _reader(options)
    show_statuses(client, ids, json=options.json)


@app.command()
@options_from(LogOptions)
def log(options: LogOptions) -> None:
    """Show the log of a mailing: the only place where a run shows."""
    from dispatchkit.altcraft.commands import ReadLog  # noqa: PLC0415 - heavy
    from dispatchkit.cli.input.values import exit_on_user_error  # noqa: PLC0415 - heavy
    from dispatchkit.cli.providers.views import moment, read, show_log  # noqa: PLC0415 - heavy

    with exit_on_user_error():
        command = ReadLog(options.id, since=moment("--since", options.since), limit=options.limit)
        client = _reader(options)
    show_log(read(client, command), json=options.json)


def _reader(options: AltcraftReadOptions) -> AltcraftClient:
    from dispatchkit.cli.input.values import token  # noqa: PLC0415 - heavy

    return dispatchkit.AltcraftClient(
        options.base_url, token(options, _TOKEN), wire=options.wire, **options.client_settings()
    )


@app.command()
@options_from(ActivateOptions)
def activate(options: ActivateOptions) -> None:
    """Activate mailings and, with --run-now, launch them at once."""
    from dispatchkit.cli.input.values import exit_on_user_error  # noqa: PLC0415 - heavy
    from dispatchkit.cli.providers.overrides import overrides  # noqa: PLC0415 - heavy

    with exit_on_user_error():
        if options.audience is not None and not options.run_now:
            raise ValueError("--audience needs --run-now: it holds for one run only, and there is none")
        launch = overrides(options)
    _execute(
        options,
        "activate and launch" if options.run_now else "activate",
        lambda number: dispatchkit.ActivateMailing(number, run_now=options.run_now, **launch),
    )


@app.command()
@options_from(LaunchBroadcastOptions)
def launch(options: LaunchBroadcastOptions) -> None:
    """Launch broadcasts that are active already."""
    from dispatchkit.cli.input.values import exit_on_user_error  # noqa: PLC0415 - heavy
    from dispatchkit.cli.providers.overrides import overrides  # noqa: PLC0415 - heavy

    with exit_on_user_error():
        launch = overrides(options)
    _execute(options, "launch", lambda number: dispatchkit.LaunchBroadcast(number, **launch), active=True)


@app.command()
@options_from(DeactivateOptions)
def deactivate(options: DeactivateOptions) -> None:
    """Deactivate mailings."""
    _execute(
        options,
        "abort and deactivate" if options.abort_if_running else "deactivate",
        lambda number: dispatchkit.DeactivateMailing(number, abort_if_running=options.abort_if_running),
        active=True,
    )


def _execute(
    options: AltcraftOptions, verb: str, command: Callable[[int], AltcraftCommand[Any]], *, active: bool = False
) -> None:
    from dispatchkit.cli.run.execute import LaunchSpec, execute  # noqa: PLC0415 - heavy

    def connect(base_url: str, token: str) -> AltcraftClient:
        return dispatchkit.AltcraftClient(
            base_url, token, wire=options.wire, deduplicates=options.deduplicates, **options.client_settings()
        )

    def sandbox(targets: Targets) -> Sandbox:
        from dispatchkit.sandbox import Ids, Sandbox  # noqa: PLC0415 - heavy

        mailings = Ids(*targets.parts)
        return Sandbox(mailings=mailings, active=mailings if active else ())

    spec = LaunchSpec(
        verb=verb,
        provider="altcraft",
        base_url=options.base_url or None,
        command=command,
        connect=connect,
        sandbox=sandbox,
        token_of_sandbox=lambda sandbox: sandbox.altcraft_token,
    )
    execute(options, spec)

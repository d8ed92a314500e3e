"""``dispatchkit direct``: start, stop and list dispatches of i-Digital Direct."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

import dispatchkit
from dispatchkit.cli.options import ReadOptions, RunOptions, options_from

if TYPE_CHECKING:
    from dispatchkit import DirectClient
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.run.execute import LaunchSpec
    from dispatchkit.direct.commands import DirectAuth, DirectCommand
    from dispatchkit.sandbox import Sandbox

__all__ = ["DirectOptions", "ListOptions", "StopOptions", "app"]

R = TypeVar("R")

_TOKEN = "DISPATCHKIT_DIRECT_TOKEN"  # noqa: S105 - the name of the variable

app = typer.Typer(
    no_args_is_help=True,
    help=f"Start, stop and list dispatches of i-Digital Direct. The token comes from {_TOKEN} or --token-file.",
)

_HOST = "https://direct.i-dgtl.ru"
_BaseUrl = Annotated[str, typer.Option(metavar="URL", help="The provider, as scheme://host[:port].")]


@dataclass(frozen=True, kw_only=True)
class DirectOptions(RunOptions):
    """What the commands of Direct take."""

    base_url: _BaseUrl = _HOST


@dataclass(frozen=True, kw_only=True)
class StopOptions(DirectOptions):
    """What ``stop`` takes."""

    status: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="Stop all dispatches that have this status now, such as sending."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ListOptions(ReadOptions):
    """What ``list`` takes."""

    status: Annotated[
        str | None, typer.Option(metavar="WORD", help="Only those with this status, such as sending.")
    ] = None
    dispatch_id: Annotated[int | None, typer.Option(metavar="ID", help="Only this one.")] = None
    dispatch_name: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this name.")] = None
    traffic_center_id: Annotated[int | None, typer.Option(metavar="ID", help="Only those of this center.")] = None
    created_from: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only those created from then on: 2026-01-31 or 2026-01-31T09:00:00, UTC."),
    ] = None
    created_to: Annotated[str | None, typer.Option(metavar="TIME", help="Only those created up to then.")] = None
    base_url: _BaseUrl = _HOST


@app.command()
@options_from(DirectOptions)
def start(options: DirectOptions) -> None:
    """Start dispatches. No message can be added to them afterwards."""
    _execute(options, "start", dispatchkit.StartDispatch)


@app.command()
@options_from(StopOptions)
def stop(options: StopOptions) -> None:
    """Stop dispatches whose start was already requested: those that are named, or all that have a --status."""
    if options.status is None:
        _execute(options, "stop", dispatchkit.StopDispatch, _start_in)
    else:
        from dispatchkit.cli.providers.stop_all import stop_all  # noqa: PLC0415 - heavy

        stop_all(options, options.status, _spec(options, "stop", dispatchkit.StopDispatch))


@app.command("list")
@options_from(ListOptions)
def list_(options: ListOptions) -> None:
    """List dispatches with their status: all of them, or those that every filter lets pass."""
    from dispatchkit.cli.input.values import exit_on_user_error, token  # noqa: PLC0415 - heavy
    from dispatchkit.cli.providers.views import moment, read, show_dispatches  # noqa: PLC0415 - heavy
    from dispatchkit.direct.commands import ReadDispatches  # noqa: PLC0415 - heavy

    with exit_on_user_error():
        command = ReadDispatches(
            dispatch_id=options.dispatch_id,
            status=options.status,
            dispatch_name=options.dispatch_name,
            traffic_center_id=options.traffic_center_id,
            created_from=moment("--created-from", options.created_from),
            created_to=moment("--created-to", options.created_to),
        )
        client = dispatchkit.DirectClient(
            token(options, _TOKEN), base_url=options.base_url, **options.client_settings()
        )
    show_dispatches(read(client, command), json=options.json)


def _start_in(sandbox: Sandbox, number: int) -> None:
    """Only what was started can be stopped."""
    from dispatchkit.sandbox import Call  # noqa: PLC0415 - loaded by now

    headers = {"Authorization": f"Basic {sandbox.direct_token}"}
    sandbox.direct.answer(Call("POST", f"/api/v1/dispatch/{number}/start", headers=headers))


def _execute(
    options: DirectOptions,
    verb: str,
    command: Callable[[int], DirectCommand[R]],
    prepare: Callable[[Sandbox, int], None] | None = None,
) -> None:
    from dispatchkit.cli.run.execute import execute  # noqa: PLC0415 - heavy

    execute(options, _spec(options, verb, command, prepare))


def _spec(
    options: DirectOptions,
    verb: str,
    command: Callable[[int], DirectCommand[R]],
    prepare: Callable[[Sandbox, int], None] | None = None,
) -> LaunchSpec[DirectAuth, R]:
    from dispatchkit.cli.run.execute import LaunchSpec  # noqa: PLC0415 - heavy

    def connect(base_url: str, token: str) -> DirectClient:
        return dispatchkit.DirectClient(token, base_url=base_url, **options.client_settings())

    def sandbox(targets: Targets) -> Sandbox:
        from dispatchkit.sandbox import Ids, Sandbox  # noqa: PLC0415 - heavy

        return Sandbox(dispatches=Ids(*targets.parts))

    return LaunchSpec(
        verb=verb,
        provider="direct",
        base_url=options.base_url,
        command=command,
        connect=connect,
        sandbox=sandbox,
        token_of_sandbox=lambda sandbox: sandbox.direct_token,
        prepare=prepare,
    )

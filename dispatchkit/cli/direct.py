"""``dispatchkit direct``: start and stop dispatches of i-Digital Direct."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

import dispatchkit
from dispatchkit.cli.options import RunOptions, takes

if TYPE_CHECKING:
    from dispatchkit import DirectClient
    from dispatchkit.cli.ids import Targets
    from dispatchkit.direct.commands import DirectCommand
    from dispatchkit.sandbox import Sandbox

__all__ = ["DirectOptions", "app"]

_TOKEN = "DISPATCHKIT_DIRECT_TOKEN"  # noqa: S105 - the name of the variable

app = typer.Typer(
    no_args_is_help=True,
    help=f"Start and stop dispatches of i-Digital Direct. The token comes from {_TOKEN} or --token-file.",
)

_BaseUrl = Annotated[str, typer.Option(metavar="URL", help="The provider, as scheme://host[:port].")]


@dataclass(frozen=True, kw_only=True)
class DirectOptions(RunOptions):
    """What the commands of Direct take."""

    base_url: _BaseUrl = "https://direct.i-dgtl.ru"


@app.command()
@takes(DirectOptions)
def start(options: DirectOptions) -> None:
    """Start dispatches. No message can be added to them afterwards."""
    _carry_out(options, "start", dispatchkit.StartDispatch)


@app.command()
@takes(DirectOptions)
def stop(options: DirectOptions) -> None:
    """Stop dispatches whose start was already requested."""
    _carry_out(options, "stop", dispatchkit.StopDispatch, _start_in)


def _start_in(sandbox: Sandbox, number: int) -> None:
    """Only what was started can be stopped."""
    from dispatchkit.sandbox import Call  # noqa: PLC0415 - loaded by now

    headers = {"Authorization": f"Basic {sandbox.direct_token}"}
    sandbox.direct.answer(Call("POST", f"/api/v1/dispatch/{number}/start", headers=headers))


def _carry_out(
    options: DirectOptions,
    verb: str,
    command: Callable[[int], DirectCommand[Any]],
    prepare: Callable[[Sandbox, int], None] | None = None,
) -> None:
    from dispatchkit.cli.job import Job, carry_out  # noqa: PLC0415 - heavy

    def connect(base_url: str, token: str) -> DirectClient:
        return dispatchkit.DirectClient(token, base_url=base_url, **options.client_settings())

    def sandbox(targets: Targets) -> Sandbox:
        from dispatchkit.sandbox import Ids, Sandbox  # noqa: PLC0415 - heavy

        return Sandbox(dispatches=Ids(*targets.parts))

    job = Job(
        verb=verb,
        noun=("dispatch", "dispatches"),
        token_variable=_TOKEN,
        base_url=options.base_url,
        command=command,
        connect=connect,
        sandbox=sandbox,
        token_of_sandbox=lambda sandbox: sandbox.direct_token,
        prepare=prepare,
    )
    carry_out(options, job)

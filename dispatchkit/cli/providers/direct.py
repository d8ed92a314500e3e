"""Commands of ``dispatchkit direct`` that act on ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import attrs

import dispatchkit
from dispatchkit.built_in.direct import PROVIDER
from dispatchkit.cli.durations import ALWAYS
from dispatchkit.cli.input.profile import with_profile
from dispatchkit.cli.lazy import load
from dispatchkit.cli.run.launch import launch, refused_on_user_error
from dispatchkit.cli.run.spec import CheckSpec, LaunchSpec
from dispatchkit.cli.settings import client_settings
from dispatchkit.cli.translate import N_
from dispatchkit.core.secret import Secret
from dispatchkit.direct.commands import DirectAuth, DirectCommand, StartDispatch, StopDispatch

if TYPE_CHECKING:
    from dispatchkit import DirectClient
    from dispatchkit.cli.commands.direct import DirectOptions, StartOptions, StopOptions
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.sandbox import Sandbox

__all__ = ["start", "stop"]

R = TypeVar("R")


def start(options: StartOptions) -> None:
    """Start dispatches."""
    with refused_on_user_error(options):
        options = with_profile(options, PROVIDER)
    check: CheckSpec[DirectAuth] = CheckSpec(
        read=lambda client, ids, timeout: load("dispatchkit.direct.check:iterate_checks")(client, ids, timeout=timeout),
        is_demanded=options.check or options.skip_unlaunchable,
        skips=options.skip_unlaunchable,
    )
    launch(options, attrs.evolve(_spec(options, N_("start"), StartDispatch), check=check))


def stop(options: StopOptions) -> None:
    """Stop the dispatches that are named, or all that have a status."""
    with refused_on_user_error(options):
        options = with_profile(options, PROVIDER)
    if options.status is None:
        launch(options, _spec(options, N_("stop"), StopDispatch, started=True))
    else:
        load("dispatchkit.cli.providers.stop_all:stop_all")(
            options, options.status, _spec(options, N_("stop"), StopDispatch)
        )


def _spec(
    options: DirectOptions,
    verb: str,
    command: Callable[[int], DirectCommand[R]],
    *,
    started: bool = False,
) -> LaunchSpec[DirectAuth, R]:
    def connect(base_url: str, token: str) -> DirectClient:
        return dispatchkit.DirectClient(token, base_url=base_url, **client_settings(options))

    def sandbox(targets: Targets) -> Sandbox:
        own: Sandbox = load("dispatchkit.cli.providers.own_sandbox:for_direct")(targets)
        return own

    return LaunchSpec(
        verb=verb,
        provider=PROVIDER.name,
        base_url=options.base_url,
        command=command,
        connect=connect,
        wire=lambda token: DirectAuth(Secret(token, environment=PROVIDER.token_variable)),
        sandbox=sandbox,
        token_of_sandbox=lambda sandbox: sandbox.direct_token,
        stops=frozenset({"start"}) if verb == "stop" else frozenset(),
        repeat_window=None if verb == "stop" else ALWAYS,  # a dispatch starts once
        prepare="dispatchkit.cli.providers.own_sandbox:start_in" if started else None,
    )

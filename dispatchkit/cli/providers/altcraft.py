"""Commands of ``dispatchkit altcraft`` that act on ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dispatchkit
from dispatchkit.altcraft.base import AltcraftCommand, AltcraftWire
from dispatchkit.altcraft.codec import codec
from dispatchkit.altcraft.commands import ActivateMailing, DeactivateMailing, LaunchBroadcast, LaunchRegular
from dispatchkit.built_in.altcraft import PROVIDER
from dispatchkit.cli.durations import HOUR
from dispatchkit.cli.input.profile import with_profile
from dispatchkit.cli.lazy import load
from dispatchkit.cli.providers.overrides import Overrides, overrides
from dispatchkit.cli.run.launch import launch as launch_spec
from dispatchkit.cli.run.launch import refused_on_user_error
from dispatchkit.cli.run.spec import CheckSpec, LaunchSpec
from dispatchkit.cli.settings import client_settings
from dispatchkit.cli.text import counted
from dispatchkit.cli.translate import N_, _
from dispatchkit.core.secret import Secret

if TYPE_CHECKING:
    from dispatchkit import AltcraftClient
    from dispatchkit.cli.commands.altcraft import (
        ActivateOptions,
        AltcraftOptions,
        DeactivateOptions,
        LaunchActiveOptions,
    )
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.sandbox import Sandbox

__all__ = ["activate", "deactivate", "launch", "launch_regular"]

_BODY_LIMIT = 10_000_000
_ATTACHMENT_LIMIT = 100_000_000


def activate(options: ActivateOptions) -> None:
    """Activate mailings and, with ``--run-now``, launch them."""
    with refused_on_user_error(options):
        if options.audience is not None and not options.run_now:
            raise ValueError(_("--audience needs --run-now: it holds for one launch only"))
        values = overrides(options)
    _launch(
        options,
        N_("activate and launch") if options.run_now else N_("activate"),
        lambda number: ActivateMailing(number, run_now=options.run_now, **values),
        values,
        check=_check_spec(options, values, activates=True),
    )


def launch(options: LaunchActiveOptions) -> None:
    """Launch active broadcasts."""
    with refused_on_user_error(options):
        values = overrides(options)
    _launch(
        options,
        N_("launch"),
        lambda number: LaunchBroadcast(number, **values),
        values,
        active=True,
        check=_check_spec(options, values),
    )


def launch_regular(options: LaunchActiveOptions) -> None:
    """Launch active regular mailings."""
    with refused_on_user_error(options):
        values = overrides(options)
    _launch(
        options,
        N_("launch"),
        lambda number: LaunchRegular(number, **values),
        values,
        active=True,
        regular=True,
        check=_check_spec(options, values),
    )


def deactivate(options: DeactivateOptions) -> None:
    """Deactivate mailings."""
    _launch(
        options,
        N_("abort and deactivate") if options.abort_if_running else N_("deactivate"),
        lambda number: DeactivateMailing(number, abort_if_running=options.abort_if_running),
        active=True,
        stops=frozenset({"activate", "launch", "launch-regular"}),
    )


def _launch(
    options: AltcraftOptions,
    verb: str,
    command: Callable[[int], AltcraftCommand[Any]],
    values: Overrides | None = None,
    *,
    active: bool = False,
    regular: bool = False,
    stops: frozenset[str] = frozenset(),
    check: CheckSpec[AltcraftWire] | None = None,
) -> None:
    with refused_on_user_error(options):
        options = with_profile(options, PROVIDER)

    def connect(base_url: str, token: str) -> AltcraftClient:
        return dispatchkit.AltcraftClient(
            base_url, token, wire=options.wire, deduplicates=options.deduplicates, **client_settings(options)
        )

    def wire(token: str) -> AltcraftWire:
        secret = Secret(token, environment=PROVIDER.token_variable)
        return AltcraftWire(secret, codec(options.wire), _BODY_LIMIT, _ATTACHMENT_LIMIT, options.deduplicates)

    def sandbox(targets: Targets) -> Sandbox:
        own: Sandbox = load("dispatchkit.cli.providers.own_sandbox:for_altcraft")(
            targets, active=active, regular=regular
        )
        return own

    spec = LaunchSpec(
        verb=verb,
        provider=PROVIDER.name,
        base_url=options.base_url or None,
        command=command,
        connect=connect,
        wire=wire,
        sandbox=sandbox,
        token_of_sandbox=lambda sandbox: sandbox.altcraft_token,
        stops=stops,
        repeat_window=None if stops else HOUR,
        overrides=() if values is None else _described(values),
        check=check,
    )
    launch_spec(options, spec)


def _check_spec(
    options: ActivateOptions | LaunchActiveOptions, values: Overrides, *, activates: bool = False
) -> CheckSpec[AltcraftWire]:
    audience = values["audience"]
    with refused_on_user_error(options):
        if options.list_id is not None and (audience is None or audience.kind != "segment"):
            raise ValueError(_("--list-id needs --audience segment:ID: it names the database of a dynamic segment"))
        if options.resource_id is not None and audience is None:
            raise ValueError(_("--resource-id needs --audience: without it, no subscriptions are counted"))
    return CheckSpec(
        read=lambda client, ids, timeout: load("dispatchkit.altcraft.check:iterate_checks")(
            client,
            ids,
            audience=audience,
            resource_id=options.resource_id,
            list_id=options.list_id,
            activates=activates,
            timeout=timeout,
        ),
        is_demanded=options.check or options.skip_unlaunchable,
        skips=options.skip_unlaunchable,
    )


def _described(values: Overrides) -> tuple[tuple[str, str], ...]:
    """The overrides of a launch, as text. The values of a content are confidential and never shown."""
    details: list[tuple[str, str]] = []
    if (audience := values["audience"]) is not None:
        details.append((_("audience"), f"{audience.kind} {audience.id}"))
    if (limit := values["limit"]) is not None:
        details.append((_("limit"), f"{limit:,}"))
    if (content := values["content"]) is not None:
        keys = counted(len(content), "key", "keys")
        size = counted(len(json.dumps(content, ensure_ascii=False).encode()), "byte", "bytes")
        details.append((_("content"), f"{keys} ({size}): {', '.join(content)}"))
    for attachment in values["attachments"]:
        size = counted(len(attachment.data), "byte", "bytes")
        details.append((_("attachment"), f"{attachment.name} ({size})"))
    return (*details,)

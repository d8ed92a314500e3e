"""Clients on a sandbox, for the fixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from dispatchkit import AltcraftClient, DirectClient, sync

if TYPE_CHECKING:
    from dispatchkit import AltcraftOptions, ClientOptions, DirectOptions
    from dispatchkit.sandbox import Sandbox
    from dispatchkit.testing.clock import FakeClock

__all__ = ["altcraft_client", "direct_client", "sync_altcraft_client", "sync_direct_client"]


def direct_client(sandbox: Sandbox, clock: FakeClock, options: ClientOptions) -> DirectClient:
    """A client of Direct. The options win over those of the fixture."""
    return DirectClient(sandbox.direct_token, **_direct(sandbox, clock, options))


def altcraft_client(sandbox: Sandbox, clock: FakeClock, options: ClientOptions) -> AltcraftClient:
    """A client of Altcraft. The options win over those of the fixture."""
    return AltcraftClient(sandbox.url, sandbox.altcraft_token, **_altcraft(clock, options))


def sync_direct_client(sandbox: Sandbox, clock: FakeClock, options: ClientOptions) -> sync.DirectClient:
    """A blocking client of Direct. The options win over those of the fixture."""
    return sync.DirectClient(sandbox.direct_token, **_direct(sandbox, clock, options))


def sync_altcraft_client(sandbox: Sandbox, clock: FakeClock, options: ClientOptions) -> sync.AltcraftClient:
    """A blocking client of Altcraft. The options win over those of the fixture."""
    return sync.AltcraftClient(sandbox.url, sandbox.altcraft_token, **_altcraft(clock, options))


def _direct(sandbox: Sandbox, clock: FakeClock, options: ClientOptions) -> DirectOptions:
    return {"base_url": sandbox.url, "clock": clock, **options}


def _altcraft(clock: FakeClock, options: ClientOptions) -> AltcraftOptions:
    return cast("AltcraftOptions", {"clock": clock, **options})

"""The functions of the asynchronous fixtures, for any plugin that runs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from dispatchkit import AltcraftClient, ClientOptions, DirectClient
    from dispatchkit.sandbox import Sandbox
    from dispatchkit.testing.clock import FakeClock

__all__ = ["PROVIDERS", "Provider", "fixture_function"]

Provider = Literal["direct", "altcraft"]
PROVIDERS: Final[tuple[Provider, ...]] = ("direct", "altcraft")


def fixture_function(provider: Provider) -> Callable[..., AsyncIterator[DirectClient | AltcraftClient]]:
    """Make the function of a fixture: a new one each time, since plugins mark the function itself."""

    async def client(
        dispatchkit_sandbox: Sandbox, dispatchkit_clock: FakeClock, dispatchkit_options: ClientOptions
    ) -> AsyncIterator[DirectClient | AltcraftClient]:
        from dispatchkit.testing import clients  # noqa: PLC0415 - pytest loads this module for all programs

        create = clients.direct_client if provider == "direct" else clients.altcraft_client
        async with create(dispatchkit_sandbox, dispatchkit_clock, dispatchkit_options) as made:
            yield made

    return client

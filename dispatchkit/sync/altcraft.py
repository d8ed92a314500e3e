"""The blocking client of Altcraft."""

from __future__ import annotations

from typing import Unpack

from dispatchkit.altcraft.client import AltcraftClient as AsyncAltcraftClient
from dispatchkit.altcraft.client import AltcraftOptions
from dispatchkit.core.options import takes_options
from dispatchkit.core.secret import Token
from dispatchkit.sync.client import SyncClient, blocking, blocking_many

__all__ = ["AltcraftClient"]


class AltcraftClient(SyncClient[AsyncAltcraftClient]):
    """Activates, launches and deactivates mailings of Altcraft; every method blocks until the outcome is known.

    Use it as ``with AltcraftClient("https://example.com", token) as altcraft:``, or call `close` yourself. The
    arguments are those of `dispatchkit.AltcraftClient`. One client serves any number of threads.
    """

    @takes_options(AsyncAltcraftClient)
    def __init__(
        self, base_url: str | None = None, token: Token | None = None, **options: Unpack[AltcraftOptions]
    ) -> None:
        try:
            async_client = AsyncAltcraftClient(base_url, token, **options)
        finally:
            del base_url, token, options  # a traceback shows the locals of this frame
        super().__init__(async_client)

    activate = blocking(AsyncAltcraftClient.activate)
    launch_broadcast = blocking(AsyncAltcraftClient.launch_broadcast)
    deactivate = blocking(AsyncAltcraftClient.deactivate)
    status = blocking(AsyncAltcraftClient.status)
    log = blocking(AsyncAltcraftClient.log)
    activate_many = blocking_many(AsyncAltcraftClient.activate_many)
    launch_many = blocking_many(AsyncAltcraftClient.launch_many)
    perform = blocking(AsyncAltcraftClient.perform)

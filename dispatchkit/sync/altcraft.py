"""The blocking client of Altcraft."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import Any, Self, Unpack, cast

from dispatchkit.altcraft.client import AltcraftClient as AsyncAltcraftClient
from dispatchkit.altcraft.client import AltcraftOptions
from dispatchkit.core.options import takes_options
from dispatchkit.core.secret import Token, Unshown
from dispatchkit.profiles import client_options, profile_name
from dispatchkit.sync.client import SyncClient, blocking, blocking_ids, blocking_many, blocking_watch

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

    @classmethod
    def from_profile(
        cls,
        name: str | None = None,
        *,
        base_url: str | None = None,
        token: Token | None = None,
        **options: Unpack[AltcraftOptions],
    ) -> Self:
        """A client of a profile: ``[profiles.NAME]`` in ``config.toml`` in the user's configuration folder.

        See `dispatchkit.AltcraftClient.from_profile`.

        Args:
            name: The profile. None reads ``DISPATCHKIT_PROFILE``.
            base_url: See `AltcraftClient`.
            token: See `AltcraftClient`.
            options: See `AltcraftOptions`.

        Raises:
            ValueError: There is no such profile, it is of another provider, or its file is damaged or open to others.
                The ``token_command`` failed, or the constructor refuses a value.
            ImportError: The extra ``profiles`` is not installed.
        """
        settings = Unshown({"base_url": base_url, "token": token, **options})
        del base_url, token, options
        client = cls(**cast("Any", client_options("altcraft", name, settings.reveal()).reveal()))
        client._async_client._profile = profile_name(name)
        return client

    activate = blocking(AsyncAltcraftClient.activate)
    launch_broadcast = blocking(AsyncAltcraftClient.launch_broadcast)
    launch_regular = blocking(AsyncAltcraftClient.launch_regular)
    deactivate = blocking(AsyncAltcraftClient.deactivate)
    status = blocking(AsyncAltcraftClient.status)
    mailing = blocking(AsyncAltcraftClient.mailing)
    mailings = blocking(AsyncAltcraftClient.mailings)
    counters = blocking(AsyncAltcraftClient.counters)
    log = blocking(AsyncAltcraftClient.log)
    check = blocking_ids(AsyncAltcraftClient.check)
    watch = blocking_watch(AsyncAltcraftClient.watch)
    activate_many = blocking_many(AsyncAltcraftClient.activate_many)
    launch_many = blocking_many(AsyncAltcraftClient.launch_many)
    launch_regular_many = blocking_many(AsyncAltcraftClient.launch_regular_many)
    perform = blocking(AsyncAltcraftClient.perform)

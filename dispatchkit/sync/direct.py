"""The blocking client of i-Digital Direct."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import Any, Self, Unpack, cast

from dispatchkit.core.options import takes_options
from dispatchkit.core.secret import Token, Unshown
from dispatchkit.direct.client import DirectClient as AsyncDirectClient
from dispatchkit.direct.client import DirectOptions
from dispatchkit.profiles import client_options, profile_name
from dispatchkit.sync.client import SyncClient, blocking, blocking_ids, blocking_many, blocking_watch

__all__ = ["DirectClient"]


class DirectClient(SyncClient[AsyncDirectClient]):
    """Starts and stops dispatches of i-Digital Direct, and adds messages to them. Every method blocks.

    Use it as ``with DirectClient(token) as direct:``, or call `close` yourself. The arguments are those of
    `dispatchkit.DirectClient`. One client serves any number of threads.
    """

    @takes_options(AsyncDirectClient)
    def __init__(self, token: Token | None = None, **options: Unpack[DirectOptions]) -> None:
        try:
            async_client = AsyncDirectClient(token, **options)
        finally:
            del token, options  # a traceback shows the locals of this frame
        super().__init__(async_client)

    @classmethod
    def from_profile(
        cls, name: str | None = None, *, token: Token | None = None, **options: Unpack[DirectOptions]
    ) -> Self:
        """A client of a profile: ``[profiles.NAME]`` in ``config.toml`` in the user's configuration folder.

        See `dispatchkit.DirectClient.from_profile`.

        Args:
            name: The profile. None reads ``DISPATCHKIT_PROFILE``.
            token: See `DirectClient`.
            options: See `DirectOptions`.

        Raises:
            ValueError: There is no such profile, it is of another provider, or its file is damaged or open to others.
                The ``token_command`` failed, or the constructor refuses a value.
            ImportError: The extra ``profiles`` is not installed.
        """
        settings = Unshown({"token": token, **options})
        del token, options
        client = cls(**cast("Any", client_options("direct", name, settings.reveal()).reveal()))
        client._async_client._profile = profile_name(name)
        return client

    start = blocking(AsyncDirectClient.start)
    stop = blocking(AsyncDirectClient.stop)
    dispatches = blocking(AsyncDirectClient.dispatches)
    dispatch = blocking(AsyncDirectClient.dispatch)
    check = blocking_ids(AsyncDirectClient.check)
    watch = blocking_watch(AsyncDirectClient.watch)
    add_messages = blocking(AsyncDirectClient.add_messages)
    start_many = blocking_many(AsyncDirectClient.start_many)
    stop_many = blocking_many(AsyncDirectClient.stop_many)
    add_messages_many = blocking_many(AsyncDirectClient.add_messages_many)
    perform = blocking(AsyncDirectClient.perform)

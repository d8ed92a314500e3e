"""What a blocking client is made of, for providers outside of this package."""

from __future__ import annotations

from dispatchkit import sync

__all__ = ["SyncClient", "blocking", "blocking_many"]

SyncClient = sync._SyncClient  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
blocking = sync._blocking  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
blocking_many = sync._fanning  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

"""What a blocking client is made of, for providers outside of this package."""

from __future__ import annotations

from dispatchkit.sync import _blocking as blocking  # pyright: ignore[reportPrivateUsage]
from dispatchkit.sync import _fanning as blocking_many  # pyright: ignore[reportPrivateUsage]
from dispatchkit.sync import _SyncClient as SyncClient  # pyright: ignore[reportPrivateUsage]

__all__ = ["SyncClient", "blocking", "blocking_many"]

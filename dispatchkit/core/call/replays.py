"""What the replays of one account have shown of its deduplication by request id.

A provider marks the answer to an earlier request with the same id. A mark on the answer to an id that was never sent
before belongs to another request: something on the way strips the ids.
"""

from __future__ import annotations

import threading

import attrs

from dispatchkit.core.clock import Clock

__all__ = ["Replays", "replays_of"]


@attrs.define
class Replays:
    """Of one account, since this process began."""

    honoured: bool = False
    """Whether a repeated launch got the answer of its first request."""
    foreign: bool = False
    """Whether a request got the answer of another one. No replay is believed from then on."""


_accounts: dict[tuple[object, ...], tuple[Replays, Clock]] = {}
_accounts_lock = threading.Lock()


def replays_of(account: tuple[object, ...], clock: Clock) -> Replays:
    """What is known of an account in this process, whichever client found out."""
    with _accounts_lock:
        # The entry holds the clock, so the id is not another's.
        return _accounts.setdefault((*account, id(clock)), (Replays(), clock))[0]

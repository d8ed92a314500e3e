"""What replayed answers have shown about an account's deduplication by request id.

A provider marks a replay: its answer to an earlier request with the same id. A marked answer to a new id is another
request's replay: a proxy on the way strips the ids.
"""

from __future__ import annotations

import threading

import attrs

from dispatchkit.core.clock import Clock

__all__ = ["Replays", "replays_of"]


@attrs.define
class Replays:
    """Observed replays of one account in this process."""

    honoured: bool = False
    """Whether a repeated launch got its first request's answer."""
    foreign: bool = False
    """Whether a request got another request's answer. From then on, no replay is believed."""


_accounts: dict[tuple[object, ...], tuple[Replays, Clock]] = {}
_accounts_lock = threading.Lock()


def replays_of(account: tuple[object, ...], clock: Clock) -> Replays:
    """The replays of an account, shared by all its clients in this process."""
    with _accounts_lock:
        # The entry keeps the clock alive, so its id stays unique.
        return _accounts.setdefault((*account, id(clock)), (Replays(), clock))[0]

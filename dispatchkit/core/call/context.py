"""`Means`: what the calls of one client have in common to get their commands done."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

from dispatchkit.core.call.budget import RetryBudget
from dispatchkit.core.call.freshness import Freshness
from dispatchkit.core.call.launches import Launches
from dispatchkit.core.call.replays import Replays
from dispatchkit.core.clock import Clock
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.transport.transport import Transport

__all__ = ["Means"]

W = TypeVar("W")


@attrs.define
class Means(Generic[W]):
    """What all calls of one client share."""

    wire: W
    transport: Transport
    clock: Clock
    budget: RetryBudget
    pacer: Pacer
    attempt_timeout: float
    launches: Launches
    """Those of the host, whichever client began them."""
    replays: Replays
    """Those of the account, whichever client got them."""
    freshness: Freshness = attrs.Factory(Freshness)
    closed: bool = False
    """Set when the client is closed: nothing starts any more, and no state is read."""

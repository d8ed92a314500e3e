"""`ClientContext`: what the calls of one client have in common to get their commands done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import attrs

from dispatchkit.core.call.budget import RetryBudget
from dispatchkit.core.call.freshness import Freshness
from dispatchkit.core.call.launches import Launches
from dispatchkit.core.call.replays import Replays
from dispatchkit.core.clock import Clock
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.transport.transport import Transport

__all__ = ["ClientContext", "RunSettings"]

W = TypeVar("W")


@attrs.define
class ClientContext(Generic[W]):
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


@attrs.frozen(kw_only=True)
class RunSettings:
    """How a client carries out a run, as far as the run's memory must know."""

    settings: Mapping[str, str]
    """Provider, host and format, as text. A run that was planned with others is refused."""
    account: str | None
    """The account's name, where the client has one."""
    fingerprint: Callable[[], str] = attrs.field(repr=False)
    """Gives what identifies the token on every machine. It is slow on purpose: it takes a tenth of a second."""
    attempt_timeout: float
    """Seconds that one attempt may take."""
    repeat_window: float | None = None
    """Seconds within which another run must not have launched the same target on the same account; None allows it."""

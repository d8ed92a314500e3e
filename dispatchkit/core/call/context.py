"""`ClientContext`: the transport, pacer, budget and observations that all calls of one client share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import attrs

from dispatchkit.core.call.budget import RetryBudget
from dispatchkit.core.call.freshness import Freshness
from dispatchkit.core.call.gate import PacedGate
from dispatchkit.core.call.launches import Launches
from dispatchkit.core.call.replays import Replays
from dispatchkit.core.clock import Clock
from dispatchkit.core.observe import Observers
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.stop import StopSignal
from dispatchkit.core.transport.transport import Transport

__all__ = ["ClientContext", "RunSettings"]

W = TypeVar("W")


@attrs.define
class ClientContext(Generic[W]):
    """The objects that all calls of one client share."""

    wire: W
    transport: Transport
    clock: Clock
    budget: RetryBudget
    pacer: Pacer
    attempt_timeout: float
    launches: Launches
    """Launches of the host, shared by all its clients in this process."""
    replays: Replays
    """Replays of the account, shared by all its clients in this process."""
    freshness: Freshness = attrs.Factory(Freshness)
    observers: Observers | None = None
    """What observes the calls; None without observers. Then a call makes no event."""
    state_reads: int = 0
    """State reads so far."""
    stop: StopSignal = attrs.Factory(StopSignal)
    """Set once the client is closed: no request starts any more."""
    gate: PacedGate = attrs.field(init=False)
    """The gate of all calls outside of a fan-out."""

    def __attrs_post_init__(self) -> None:
        self.gate = PacedGate(self.pacer, self.clock, stop=self.stop, closed=self.stop)


@attrs.frozen(kw_only=True)
class RunSettings:
    """The settings of a client that a ledger stores with a run."""

    settings: Mapping[str, str]
    """Provider, host and format, as text. A run that was planned with other settings is refused."""
    account: str | None
    """The account's name, if the client has one."""
    fingerprint: Callable[[], str] = attrs.field(repr=False)
    """Computes the token's fingerprint, equal on every machine. It takes 0.1 s on purpose."""
    attempt_timeout: float
    """Seconds that one attempt may take."""
    repeat_window: float | None = None
    """Seconds within which no other run may have launched the same target on the same account; None allows it."""

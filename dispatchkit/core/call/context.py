"""`ClientContext`: the transport, pacer, budget and observations that all calls of one client share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import attrs

from dispatchkit.core.call.budget import RetryBudget
from dispatchkit.core.call.freshness import Freshness
from dispatchkit.core.call.gate import PacedGate
from dispatchkit.core.call.launches import Launches
from dispatchkit.core.call.renewal import Renewal
from dispatchkit.core.call.replays import Replays
from dispatchkit.core.clock import Clock
from dispatchkit.core.loop import running_loop
from dispatchkit.core.observe import Observers
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.secret import Secret
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
    secret: Secret
    """The token. Only one that a callable gives has to be asked for: see `have_token`."""
    join_account: Callable[[], None]
    """Joins the other clients of the account that the token tells."""
    freshness: Freshness = attrs.Factory(Freshness)
    observers: Observers | None = None
    """What observes the calls; None without observers. Then a call makes no event."""
    state_reads: int = 0
    """State reads so far."""
    stop: StopSignal = attrs.Factory(StopSignal)
    """Set once the client is closed: no request starts any more."""
    gate: PacedGate = attrs.field(init=False)
    """The gate of all calls outside of a fan-out."""
    generation: int = 0
    """The `Secret.generation` whose account was joined."""
    renewal: Renewal = attrs.field(init=False)
    """The renewals of the token."""
    keeps_pacer: bool = False
    """Whether permits of `pacer` may be out. It then stays, whatever account a later token tells."""

    def __attrs_post_init__(self) -> None:
        self.renewal = Renewal(self.secret)
        self.gate = PacedGate(self.pacer, stop=self.stop, closed=self.stop)

    def join(self, pacer: Pacer, replays: Replays) -> None:
        """Share the pacer and the replays of an account, unless permits of the present pacer may be out."""
        if not self.keeps_pacer:
            self.pacer, self.replays = pacer, replays
            self.gate.bind(pacer)

    async def have_token(self, timeout: float, *, again: bool = False) -> None:
        """Ask for the token of a callable, if none is cached or if it has expired. `close` of the client ends the wait.

        Args:
            timeout: Seconds to wait for the callable.
            again: Ask in any case: the provider has refused the token.

        Raises:
            NotSentError: The callable gave none in time.
            BaseException: The callable raised it.
        """
        if again or self.secret.is_due:
            running_loop("client")
            with self.stop.interruptible():
                await self.renewal.perform(timeout)
        if self.generation != self.secret.generation:
            self.join_account()
            self.generation = self.secret.generation


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
    canary: int | None = None
    """The number of targets that go first; 0: none. None: as the run was planned."""
    profile: str | None = None
    """The profile that the client is of."""
    launch_options: str | None = None
    """The options of the command line that launches, as JSON; None without one."""

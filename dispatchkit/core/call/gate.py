"""A gate answers whether an attempt may start: the first one of a call and each repeat alike.

`PacedGate` asks the pacer alone. `dispatchkit.core.fanout.claim_gate.ClaimGate` also asks the ledger.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

from dispatchkit.core.claim import ClaimAge, ClaimResult
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.stop import Interruptible, StopSignal

__all__ = ["Gate", "PacedGate", "Permit"]

Permit: TypeAlias = int
"""The pacer's permit to start one attempt; 0 means that the attempt must not start."""


class Gate(Protocol):
    """What a call asks before each attempt."""

    @property
    def claim(self) -> ClaimAge | None:
        """The ledger's claim for the attempt that `acquire` has permitted; None without a ledger."""
        ...

    def try_acquire(self) -> Permit:
        """The permit if it takes no wait; otherwise 0."""
        ...

    async def acquire(self, until: float) -> Permit:
        """Wait until an attempt may start. A permit needs one `Pacer.release` or `Pacer.cancel`.

        Args:
            until: The latest start, on the clock's ``monotonic``.

        Returns:
            The permit. 0 if none comes in time, after a stop, and if the ledger grants no claim.
        """
        ...

    async def renew(self) -> ClaimAge | None:
        """Claim again for a request that has partly left; None if the claim is not granted."""
        ...

    def expired(self) -> None:
        """Count that the claim of the latest attempt expired before its request had left."""
        ...

    def used(self) -> None:
        """Count that the request of the latest attempt has left under its claim."""
        ...

    def obstacle(self) -> str:
        """Why the ledger permits no attempt; empty if it is not the reason."""
        ...

    @property
    def refusal(self) -> ClaimResult | None:
        """Why the ledger grants the call no claim; None if it may."""
        ...

    def close(self, *, has_outcome: bool) -> None:
        """Free what the call holds, since it is over.

        Args:
            has_outcome: False if the call was never started. An unused claim is then recorded as not sent.
        """
        ...


class PacedGate:
    """The gate of calls without a ledger. All calls of a client, or of a fan-out, share one.

    Args:
        pacer: The pacer of the account.
        stop: The stop signal of the fan-out, or of the client.
        closed: The stop signal of the client.
    """

    __slots__ = ("_blocks", "_closed", "_pacer", "_stop", "claim", "refusal", "try_acquire")

    def __init__(self, pacer: Pacer, *, stop: StopSignal, closed: StopSignal) -> None:
        self._stop = stop
        self._closed = closed
        self._blocks: list[Interruptible] = []
        """Those that no task is in. A paced fan-out waits before each launch."""
        self.claim = self.refusal = None
        self.bind(pacer)

    def bind(self, pacer: Pacer) -> None:
        """Use another pacer: a callable's token, which has come meanwhile, may tell an account that has one already."""
        self._pacer = pacer
        self.try_acquire = pacer.try_acquire  # not a method around it: each attempt asks

    async def acquire(self, until: float) -> Permit:
        """See `Gate.acquire`."""
        if self._stop.is_set or self._closed.is_set:
            return 0
        place = self._pacer.line_up(until)
        if isinstance(place, int):
            return place
        block = self._blocks.pop() if self._blocks else self._stop.interruptible(self._closed)
        permit = 0
        with block:
            permit = await self._pacer.wait(place)
        self._blocks.append(block)
        return permit

    async def renew(self) -> None:
        """See `Gate.renew`: there is no claim."""

    def expired(self) -> None:
        """See `Gate.expired`: there is no claim."""

    def used(self) -> None:
        """See `Gate.used`: there is no claim."""

    def obstacle(self) -> str:
        """See `Gate.obstacle`: there is no ledger."""
        return ""

    def close(self, *, has_outcome: bool) -> None:
        """See `Gate.close`: nothing is held."""

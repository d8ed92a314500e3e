"""Read the provider's state once, and turn the response into evidence about an unclear call.

A cache may serve an old response. So a response that may be older than the unclear attempt proves no effect. A log
entry does not name its request. So a start in the log counts only if no other launch can have made it.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import attrs

from dispatchkit.core.call.call_state import Doubt, Probe
from dispatchkit.core.call.classify import classify, pause_after, paused_by
from dispatchkit.core.call.context import ClientContext
from dispatchkit.core.call.decide import log_tolerance, not_alone
from dispatchkit.core.call.echo import mask_echo
from dispatchkit.core.call.provider_time import clock_offset
from dispatchkit.core.call.request import request_of
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.command import Command, Evidence, Request, Response, Settlement, TimeWindow
from dispatchkit.core.command import Probe as StateProbe
from dispatchkit.core.transport.transport import SendTracker, TransportFailure
from dispatchkit.errors import AuthenticationError, DispatchkitError, LedgerError, RejectedError, ThrottledError

__all__ = ["StateRead"]

R = TypeVar("R")
W = TypeVar("W")

PROBE_TIMEOUT = 15.0
"""Seconds for one state read. Reads change nothing, so a slow one is dropped and repeated."""


@attrs.define(kw_only=True)
class StateRead(Generic[W, R]):
    """One state read of a call, and what came of it besides its settlement."""

    context: ClientContext[W]
    command: Command[W, R]
    """The command of the call. What it sent is masked in the provider's messages."""
    policy: RetryPolicy
    deadline: float
    """On the clock's ``monotonic``."""
    launch: object
    """The call, as `Launches` knows it."""
    log_key: int | None
    request_id: str | None
    has_rival: Callable[[float], Awaitable[bool]] | None
    """Asks the ledger for another launch of the same log within so many seconds, in any run and process."""
    request: Request | None = None
    """The request; None if none was made."""
    reply: Response | TransportFailure | None = None
    """What came of it."""
    began: datetime = datetime.min
    """Its start on the wall clock."""
    duration: float = 0.0
    """Seconds until its reply."""
    answered_at: float = -math.inf
    """When the provider answered without a server failure, on the clock's ``monotonic``."""
    age: float = 0.0
    """Seconds by which the response is older than its request."""

    async def perform(self, action: Probe[W, R]) -> Settlement[R]:
        """Read the state. A ``Retry-After`` or a 429 pauses the account."""
        asked = self.context.clock.monotonic()
        settlement = await self._look(action)
        if settlement.evidence is Evidence.APPLIED and self.log_key is not None:
            return await self._unless_another(
                settlement, self.log_key, action.doubt, may_change=asked < action.believed_from
            )
        return settlement

    async def _unless_another(
        self, settlement: Settlement[R], log_key: int, doubt: Doubt, *, may_change: bool
    ) -> Settlement[R]:
        """Discard a start in the log if another launch may have made it."""
        launches, tolerance = self.context.launches, log_tolerance(self.policy)
        if self.has_rival is not None:
            try:
                asking = self.has_rival(doubt.age(self.context.clock) + tolerance)
                if await asyncio.wait_for(asking, PROBE_TIMEOUT):
                    return not_alone(Evidence.UNAVAILABLE)
            except (LedgerError, TimeoutError):
                return Settlement(Evidence.INCONCLUSIVE, "the ledger did not say whether another launch made it")
        # A launch may act after its end, for as long as state may lag.
        if launches.another_ended(log_key, self.request_id, doubt.began.monotonic - tolerance):
            return not_alone(Evidence.UNAVAILABLE)
        if launches.others_in_flight(self.launch, log_key):
            return not_alone(Evidence.INCONCLUSIVE if may_change else Evidence.UNAVAILABLE)
        return settlement

    async def _look(self, action: Probe[W, R]) -> Settlement[R]:
        context, clock, probe = self.context, self.context.clock, action.probe
        if self._limit() <= 0:
            return Settlement(Evidence.INCONCLUSIVE, "the deadline left no time to read its state")
        try:
            if context.secret.is_renewable:
                await context.have_token(self._limit())
            request = request_of(probe.command, context.wire, self._new_id(probe.command))
        except Exception as error:  # noqa: BLE001 - a token callable may raise anything
            # The launch has left: an error of the state read must not replace its outcome.
            return Settlement(Evidence.UNAVAILABLE, f"its state could not be asked for ({type(error).__name__})")
        asked, started = clock.now(), clock.monotonic()
        self.request, self.began = request, asked
        context.state_reads += 1
        self.reply = reply = await context.transport.send(request, SendTracker(), timeout=self._limit())
        read = classify(probe.command, reply, context.wire, clock)
        if isinstance(read, AuthenticationError) and context.secret.is_renewable:
            renewed = await self._renewed(probe.command, request)
            if renewed is not None:
                asked, started = clock.now(), clock.monotonic()
                self.request, self.began = renewed, asked
                context.state_reads += 1
                self.reply = reply = await context.transport.send(renewed, SendTracker(), timeout=self._limit())
                read = classify(probe.command, reply, context.wire, clock)
        self.duration = clock.monotonic() - started
        if isinstance(reply, Response) and reply.status < 500:
            self.answered_at = clock.monotonic()
        if not isinstance(read, DispatchkitError):
            headers: Mapping[str, str] = reply.headers if isinstance(reply, Response) else {}
            self.age = max(0.0, context.freshness.age(headers, asked=asked, monotonic=started))
            if isinstance(probe, StateProbe):
                return self._as_of(asked, probe.settle(read), action.doubt)
            window = self._window(headers, asked, action.doubt)
            return window if isinstance(window, Settlement) else probe.settle(read, window)
        text = f"its state could not be read: {mask_echo(read.summary, self.command)}"
        if (after := pause_after(read, reply, policy=self.policy, now=clock.now)) is not None:
            context.pacer.throttle(after, refused=isinstance(read, ThrottledError), by=paused_by(reply))
            return Settlement(Evidence.INCONCLUSIVE, text)
        return Settlement(Evidence.UNAVAILABLE if isinstance(read, RejectedError) else Evidence.INCONCLUSIVE, text)

    def _limit(self) -> float:
        """Seconds until one request, or the wait for a token, is given up."""
        return min(PROBE_TIMEOUT, self.context.attempt_timeout, self.deadline - self.context.clock.monotonic())

    async def _renewed(self, command: Command[W, object], refused: Request) -> Request | None:
        """The same read with another token, since the provider refused this one; None if there is no other."""
        try:
            await self.context.have_token(max(0.0, self._limit()), again=True)
            request = request_of(command, self.context.wire, self._new_id(command))
        except Exception:  # noqa: BLE001 - an error of the state read must not replace the launch's outcome
            return None
        same = (request.headers, request.body) == (refused.headers, refused.body)
        return None if same and not command.has_request_id else request

    @staticmethod
    def _new_id(command: Command[W, object]) -> str | None:
        return str(uuid.uuid4()) if command.has_request_id else None

    def _as_of(self, asked: datetime, settlement: Settlement[R], doubt: Doubt) -> Settlement[R]:
        """Discount an old response: what it shows may be from before the first unclear attempt."""
        age = self.age
        if not age:
            return settlement
        if age >= 1:  # dates have a resolution of one second
            how_old = f"{age:.0f} s old" if age < math.inf else "of unknown age"
            settlement = attrs.evolve(settlement, detail=f"{settlement.detail} in an answer that is {how_old}")
        is_proof = settlement.evidence in {Evidence.APPLIED, Evidence.NEVER_APPLIED} and not settlement.lasts
        if is_proof and age > (asked - doubt.began.wall).total_seconds():
            return Settlement(Evidence.INCONCLUSIVE, settlement.detail)
        return settlement

    def _window(self, headers: Mapping[str, str], asked: datetime, doubt: Doubt) -> TimeWindow | Settlement[R]:
        """The time window, on the provider's clock, in which the unclear attempt can have acted.

        Returns a settlement if the clocks cannot be compared.
        """
        clock = self.context.clock
        now = clock.now()
        offset = clock_offset(headers, asked, now)
        if offset is None:
            return Settlement(Evidence.UNAVAILABLE, "the answer with its log does not tell the provider's time")
        if not offset.is_narrow:
            return Settlement(Evidence.INCONCLUSIVE, "the answer with its log took too long to compare the clocks")
        if not offset.is_small:
            ahead = offset.middle.total_seconds()
            return Settlement(
                Evidence.UNAVAILABLE, f"its log cannot be read: its clock is {ahead:+.0f} s off this machine's"
            )
        # Computed from the age, since the wall clock may have been set since.
        began = now - timedelta(seconds=doubt.age(clock))
        # An entry later than the lag allows is another launch's.
        acted_by = doubt.acting_until if doubt.acted_by is None else doubt.acted_by
        latest = began + timedelta(seconds=acted_by - doubt.began.monotonic + log_tolerance(self.policy))
        return TimeWindow(began + offset.least, min(now, latest) + offset.most)

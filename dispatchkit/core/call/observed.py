"""`ObservedCall`: a call that tells the client's observers of its steps. A client without observers makes none."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypedDict, TypeVar

from dispatchkit.core.call.gate import Permit
from dispatchkit.core.call.pending import PendingCall
from dispatchkit.core.call.state_read import StateRead as Reading
from dispatchkit.core.command import Command, Evidence, Request, Response
from dispatchkit.core.events import AttemptEnded, CallEnded, CallEvent, CallStarted, StateRead, Waiting
from dispatchkit.core.observe import Observers
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.errors import Attempt, DispatchkitError, State
from dispatchkit.values import target_of

__all__ = ["ObservedCall", "next_call", "tell_state_read"]

R = TypeVar("R")
W = TypeVar("W")

_numbers = itertools.count(1)


class _OfCall(TypedDict):
    """The fields that all events of a call have in common."""

    provider: str
    base_url: str
    call: int
    command_type: str
    target: int | None
    index: int | None
    run: str | None


class ObservedCall(PendingCall[W, R], Generic[W, R]):
    """A call that tells of its start, of each attempt, wait and state read, and of its end."""

    __slots__ = ("_began", "_number", "_state_reads", "_told")

    async def run(self, *, permit: Permit = 0) -> R:
        """See `PendingCall.run`."""
        self._number, self._state_reads, self._told = next_call(), 0, 0
        self._began = math.nan
        try:
            self._begin()
        except BaseException:
            if permit:
                self.context.pacer.release(permit, answered=None, elapsed=0.0)
            raise
        try:
            result = await super().run(permit=permit)
        except BaseException as error:
            self._end(error)
            raise
        self._end(None)
        return result

    def note_attempt(self, reply: Response | TransportFailure, error: DispatchkitError | None) -> None:
        """See `Flight.note_attempt`."""
        self._told = len(self.attempts)
        status = reply.status if isinstance(reply, Response) else None
        self._tell_attempt(self.attempts[-1], status, State.DONE if error is None else error.state)

    def note_wait(self, seconds: float) -> None:
        """See `Flight.note_wait`."""
        attempts = len(self.attempts)
        self._tell(lambda common: Waiting(at=self.context.clock.now(), **common, seconds=seconds, attempts=attempts))

    def note_state_read(self, reading: Reading[W, R], evidence: Evidence) -> None:
        """See `Flight.note_state_read`."""
        if reading.request is not None and reading.reply is not None:  # else none was sent
            self._state_reads += 1
        run = None if self.run_log is None else self.run_log.name
        tell_state_read(reading, evidence, call=self._number, index=self.index, run=run)

    def _tell_attempt(self, attempt: Attempt, status: int | None, outcome: State) -> None:
        self._tell(
            lambda common: AttemptEnded(
                at=attempt.started + timedelta(seconds=attempt.duration),
                **common,
                number=attempt.number,
                result=attempt.result,
                status=status,
                sent=attempt.sent,
                outcome=outcome,
                duration=attempt.duration,
            )
        )

    def _begin(self) -> None:
        """Tell of the start, and give the request the trace of the call. All its attempts then send the same bytes."""
        context, url = self.context, self._url(self.request)
        event: CallStarted | None = None

        def make(common: _OfCall) -> CallStarted:
            nonlocal event
            self._began = context.clock.monotonic()
            event = CallStarted(
                at=context.clock.now(),
                **common,
                method=self.request.method,
                url=url,
                request_id=self.request_id,
            )
            return event

        self._tell(make)
        # The headers of another process's attempt are not known, and a repeat must not add one.
        if event is not None and context.observers is not None and self.earlier is None and not self.id_is_known:
            self.trace_headers = context.observers.trace_headers(event)
            if self.trace_headers:
                self.request = self.build_request(self.request_id)

    def _end(self, raised: BaseException | None) -> None:
        for attempt in self.attempts[self._told :]:  # an exception ended it
            self._tell_attempt(attempt, None, State.UNKNOWN if attempt.sent else State.NOT_SENT)
        clock, outcome = self.context.clock, State.DONE if raised is None else self._outcome_of(raised)
        self._tell(
            lambda common: CallEnded(
                at=clock.now(),
                **common,
                outcome=outcome,
                attempts=len(self.attempts),
                state_reads=self._state_reads,
                duration=clock.monotonic() - self._began,
                error=None if raised is None else type(raised).__name__,
            )
        )

    def _outcome_of(self, raised: BaseException) -> State:
        if isinstance(raised, DispatchkitError):
            return raised.state
        if self.final is not None and self.final.error is None:
            return State.DONE  # it was cancelled after its end
        try:
            return self.known_outcome().state
        except Exception:  # noqa: BLE001 - a command's own code may raise anything
            return State.UNKNOWN

    def _url(self, request: Request) -> str:
        origin = "" if self.context.observers is None else self.context.observers.base_url
        return _url(origin, request)

    def _tell(self, make: Callable[[_OfCall], CallEvent]) -> None:
        observers = self.context.observers
        if observers is None:
            return
        run = None if self.run_log is None else self.run_log.name
        common = _of_call(observers, self.command, call=self._number, index=self.index, run=run)
        observers.tell(lambda: make(common))


def next_call() -> int:
    """The number of a new call in this process."""
    return next(_numbers)


def tell_state_read(
    reading: Reading[W, R], evidence: Evidence, *, call: int, index: int | None, run: str | None
) -> None:
    """Tell the client's observers of a state read, if its request was sent."""
    observers, request, reply = reading.context.observers, reading.request, reading.reply
    if observers is None or request is None or reply is None:
        return
    common = _of_call(observers, reading.command, call=call, index=index, run=run)
    observers.tell(
        lambda: StateRead(
            at=reading.began + timedelta(seconds=reading.duration),
            **common,
            method=request.method,
            url=_url(observers.base_url, request),
            result=f"HTTP {reply.status}" if isinstance(reply, Response) else reply.what,
            status=reply.status if isinstance(reply, Response) else None,
            evidence=evidence.value,
            duration=reading.duration,
        )
    )


def _of_call(observers: Observers, command: Command[W, R], *, call: int, index: int | None, run: str | None) -> _OfCall:
    return {
        "provider": observers.provider,
        "base_url": observers.base_url,
        "call": call,
        "command_type": type(command).__name__,
        "target": target_of(command),
        "index": index,
        "run": run,
    }


def _url(origin: str, request: Request) -> str:
    """The URL of a request. A query may hold anything, so it is left out."""
    return f"{origin}{request.target.partition('?')[0]}"

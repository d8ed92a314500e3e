"""What a call needs before its first byte where a ledger remembers it: a place, a ticket of the pacer, leave to send.

It takes its place among those in flight first, then waits for its turn, and asks for leave last: what is written down
as about to leave leaves at once, or a process that is killed would leave behind what never had its turn. Only where
places are what is short does it ask for leave before: to be written takes a disk's time, for which none of them shall
stand empty.

Each of them grows old. A pause may begin while a launch is written down; a disk that stalls would let go all that
waited for it in one burst; and while a process sleeps, another may take it for dead. What is too old is asked for anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import attrs

from dispatchkit.core.call import Call
from dispatchkit.core.clock import Clock
from dispatchkit.core.journal import Entry, Journal, Leave
from dispatchkit.core.outcome import Outcome
from dispatchkit.core.pacer import Pacer

__all__ = ["Admission", "abandoned"]

R = TypeVar("R")
W = TypeVar("W")

_FRESH = timedelta(seconds=1)
"""For how long leave is good. Long before another process may take this one for dead, it is asked for again."""
_PROMPT = 0.25
"""Seconds for which a ticket is good: a disk takes less, unless it stalls."""


@attrs.define
class _Held:
    """What a call has of what it needs."""

    place: bool = False
    ticket: int = 0
    ticket_at: float = 0.0
    leave_at: datetime | None = None


class Admission:
    """Who may begin, of the calls of one fan-out.

    Args:
        places: How many may be in flight.
        pacer: Of the account.
        journal: What remembers the run.
        clock: Time.
        idly: Waits for something that a stop of the run may end at once.
    """

    def __init__(
        self,
        places: int,
        *,
        pacer: Pacer,
        journal: Journal,
        clock: Clock,
        idly: Callable[[Awaitable[Any]], Awaitable[Any]],
    ) -> None:
        self._places = asyncio.Semaphore(places)
        self._pacer = pacer
        self._journal = journal
        self._clock = clock
        self._idly = idly
        self.stopped = False
        """Set it, and nobody begins any more."""

    async def admit(self, entry: Entry[W, R], call: Call[W, R]) -> int | Leave:
        """Wait until a call may begin, and is written down as about to leave.

        Returns:
            The pacer's ticket for its first attempt: 0 where it is settled before anything is sent. It has a place
            then, for which `release` is called when it is over. Or else why it must not begin.
        """
        held = _Held()
        admitted: int | Leave = Leave.STOPPED
        try:
            admitted = await self._gather(entry, call, held)
        finally:
            if isinstance(admitted, Leave):
                if held.leave_at is not None:
                    self._journal.record(entry, abandoned(entry, call))  # it has not been started
                if held.place:
                    self._places.release()
            if held.ticket and admitted != held.ticket:
                self._pacer.withdraw(held.ticket)
        return admitted

    def release(self) -> None:
        """A call that was admitted is over: its place is free."""
        self._places.release()

    async def _gather(self, entry: Entry[W, R], call: Call[W, R], held: _Held) -> int | Leave:
        if self._places.locked() and self._pacer.is_open():
            answer = await self._ask(entry, call, held)
            if answer in {Leave.STOPPED, Leave.GONE}:
                return answer
        if self.stopped:
            return Leave.STOPPED
        await self._idly(self._places.acquire())
        held.place = True
        while not self.stopped:
            if not held.ticket:
                held.ticket = self._pacer.enter() or await self._idly(self._pacer.admit())
                held.ticket_at = self._clock.monotonic()
            answer = Leave.GRANTED
            if held.leave_at is None or abs(self._clock.now() - held.leave_at) > _FRESH:
                answer = await self._ask(entry, call, held)
                if answer in {Leave.STOPPED, Leave.GONE}:
                    return answer
            prompt = self._clock.monotonic() - held.ticket_at <= _PROMPT and self._pacer.holds(held.ticket)
            if answer is Leave.GRANTED and prompt and not self.stopped:
                return held.ticket if entry.since is None else 0  # a repeat of what is settled asks for its own
            self._pacer.withdraw(held.ticket)
            held.ticket = 0
        return Leave.STOPPED

    async def _ask(self, entry: Entry[W, R], call: Call[W, R], held: _Held) -> Leave:
        answer = await self._journal.claim(entry, call.request_id)
        if answer is Leave.GRANTED:
            held.leave_at = self._clock.now()
        return answer

    async def again(self, entry: Entry[W, R], call: Call[W, R]) -> Leave:
        """Ask the journal for leave to repeat. A call may wait for minutes, while another process takes this one over.

        Raises:
            LedgerError: It cannot be written.
        """
        since = entry.since or (call.attempts[0].started if call.attempts else self._clock.now())
        return await self._journal.claim(attrs.evolve(entry, since=since), call.request_id)


def abandoned(entry: Entry[W, R], call: Call[W, R]) -> Outcome[R]:
    """What is known of a call that was given up."""
    known = call.abandoned()
    return Outcome(entry.index, entry.command, known.outcome, None, known, known.attempts, known.request_id)

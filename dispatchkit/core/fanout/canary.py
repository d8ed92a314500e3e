"""The canary of a fan-out: a few targets are launched first, and the rest once these go out.

`CanarySource` stands before the source of the commands. It hands out the first targets, and holds back the rest. The
run itself does not change: a stop ends the wait like any other.

An outcome *done* says that the provider accepted the launch. `Command.goes_out` says how its state shows that the
launch also goes out. Nothing is stored of it: a resumed run that has started no other target reads the state once
more.
"""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from datetime import datetime
from typing import Generic, Never, TypeVar, cast

import attrs
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from dispatchkit.core.call.call_state import Doubt, Probe, Start
from dispatchkit.core.call.context import ClientContext
from dispatchkit.core.call.observed import next_call, tell_state_read
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.call.state_read import PROBE_TIMEOUT, StateRead
from dispatchkit.core.command import Command, Evidence, Settlement
from dispatchkit.core.durations import in_words
from dispatchkit.core.fanout.journal import FinishedTarget, PlanSummary, Source, WorkItem
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.core.invalid_command import InvalidCommand
from dispatchkit.core.log import log
from dispatchkit.core.stop import StopSignal
from dispatchkit.errors import OutcomeUnknownError, State

__all__ = ["CanarySource", "tell_verified"]

R = TypeVar("R")
W = TypeVar("W")

logger = logging.getLogger("dispatchkit.guards")

_FIRST_PAUSE, _MAX_PAUSE, _GROWTH = 1.0, 15.0, 1.5
"""Seconds between two reads of all targets: the first, the longest, and the factor between."""
_NAMED = 5
"""Targets that a log record names."""


@attrs.frozen
class _Launch(Generic[W, R]):
    """A canary launch that the provider has accepted."""

    command: Command[W, R]
    since: datetime
    """The start of its first attempt."""
    index: int | None
    """Its place in the run."""
    call: int = attrs.field(factory=next_call)
    """What observers know its state reads by."""


class _NotYetError(Exception):
    """The state of a launch does not show yet that it goes out."""


class CanarySource:
    """The source of a run that launches a few targets first. See `Source`, whose methods these are.

    Args:
        source: The source of all commands.
        count: The number of targets that go first.
        timeout: Seconds for the state reads, from the last outcome of these targets on.
        finished: Those of these targets that an earlier fan-out of the run finished.
        run: The name of the run in the ledger; None without a ledger.
        context: What the client's calls share.
        policy: The policy of the run.
        stop: The stop signal of the run.
        fail: Ends the run, with a text.
    """

    def __init__(
        self,
        source: Source,
        count: int,
        *,
        timeout: float,
        finished: Iterable[FinishedTarget],
        run: str | None,
        context: ClientContext[Never],
        policy: RetryPolicy,
        stop: StopSignal,
        fail: Callable[[str], None],
    ) -> None:
        self._source = source
        self._count = count
        self._timeout = timeout
        self._finished = tuple(finished)
        self._run = run
        self._context = context
        self._policy = policy
        self._stop = stop
        self._fail = fail
        self._turn = asyncio.Lock()
        self._first: deque[WorkItem[Never, object]] | None = None
        self._waiting: set[int] = set()
        """The indexes of the targets that have no outcome yet."""
        self._launched: list[_Launch[Never, object]] = []
        self._failure = ""
        self._over = asyncio.Event()
        """Set once all of these targets have an outcome, or one has failed."""
        self._released = False
        self._go = asyncio.Event()
        self.is_reading = False
        """Whether the state is read now."""
        self.answered_at = -math.inf
        """When the provider last answered a read, on the clock's ``monotonic``."""

    async def open(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None, stop: Callable[[], None]
    ) -> PlanSummary:
        """See `Source.open`."""
        return await self._source.open(commands, stop)

    async def next_item(self) -> WorkItem[Never, object] | None:
        """The first targets, and the rest once these go out.

        Raises:
            ValueError: No state shows whether one of the first targets goes out. None of them was launched.
        """
        if self._released:
            return await self._source.next_item()
        async with self._turn:
            if self._first is None:
                self._first = await self._take_first()
        if self._first:
            return self._first.popleft()
        await self._go.wait()
        return await self._source.next_item()

    def next_at_once(self) -> WorkItem[Never, object] | None:
        """See `Source.next_at_once`: one of the rest, once the first ones go out."""
        return self._source.next_at_once() if self._released else None

    async def _take_first(self) -> deque[WorkItem[Never, object]]:
        """The first targets that are left to launch, once it is clear that the state of each can be read."""
        clock = self._context.clock
        for target in self._finished:
            self._check(target.command)
            if target.state is State.DONE:
                self._launched.append(_Launch(target.command, target.since or clock.now(), target.index))
            elif not self._failure:
                self._failure = f"{_name(target.command)} is {_word(target.state)}: {target.summary}"
        taken: deque[WorkItem[Never, object]] = deque()
        while len(taken) + len(self._finished) < self._count:
            item = await self._source.next_item()
            if item is None:
                break
            self._check(item.command)
            taken.append(item)
        if self._failure:
            taken.clear()
        self._waiting.update(item.index for item in taken)
        if not self._waiting:
            self._over.set()
        return taken

    def _check(self, command: Command[Never, object]) -> None:
        # An invalid command has an outcome of its own, which fails the canary.
        if isinstance(command, InvalidCommand) or command.goes_out(self._context.clock.now()) is not None:
            return
        raise ValueError(
            f"canary= needs launches whose state shows that they go out, and {type(command).__name__} has none: "
            "nothing was sent. Launch without canary="
        )

    def stop(self) -> None:
        """See `Source.stop`."""
        self._source.stop()

    def record(self, item: WorkItem[W, R], outcome: Outcome[R]) -> None:
        """See `Source.record`."""
        self._source.record(item, outcome)
        if item.index not in self._waiting:
            return
        command = cast("Command[Never, object]", item.command)
        if outcome.error is None:
            now = self._context.clock.now()
            began = item.unclear_since or (outcome.attempts[0].started if outcome.attempts else now)
            self._launched.append(_Launch(command, began, item.index))
        else:
            self._failure = self._failure or f"{_name(command)} is {_word(outcome.state)}: {outcome.error.summary}"
        self._settle(item.index)

    def skip(self, index: int) -> None:
        """Note that a command has no outcome in this run: another process may have its target."""
        if index in self._waiting:
            self._failure = self._failure or "another process has launched one of them"
            self._settle(index)

    def _settle(self, index: int) -> None:
        self._waiting.discard(index)
        if self._failure or not self._waiting:
            self._over.set()

    async def close(self) -> None:
        """See `Source.close`."""
        await self._source.close()

    async def verify(self) -> None:
        """Wait for the first targets, then release the rest or end the run. A stop ends the wait."""
        failure = "it was not verified"
        with self._stop.interruptible():
            try:
                await self._over.wait()
                failure = self._failure or await self._read_all()
            except Exception as error:  # noqa: BLE001 - a provider's own code may raise anything
                failure = f"its state could not be read ({type(error).__name__})"
            finally:
                self.is_reading = False
        if self._stop.is_set:
            return
        if failure:
            self._fail(f"{failure} (canary={self._count})")
            return
        self._released = True
        self._go.set()

    async def _read_all(self) -> str:
        """Read the state until it shows that all go out. Returns the reason if it does not; empty if it does."""
        clock = self._context.clock
        self.is_reading = True
        shared: dict[object, list[_Launch[Never, object]]] = {}
        for launch in self._launched:
            key = launch.command.log_key
            shared.setdefault(id(launch) if key is None else ("log", key), []).append(launch)
        pending, seen = list(shared.values()), list[str]()
        if not pending:
            return ""
        _tell(
            "canary: %d accepted; the rest waits until their state shows that they go out, %s at most",
            len(self._launched),
            in_words(self._timeout),
        )
        until = clock.monotonic() + self._timeout
        growing = wait_exponential(multiplier=_FIRST_PAUSE, exp_base=_GROWTH, max=_MAX_PAUSE)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_NotYetError),
            wait=lambda state: max(0.0, min(growing(state), until - clock.monotonic())),
            stop=lambda _: clock.monotonic() >= until,
            sleep=clock.sleep,
            reraise=True,
        )
        try:
            failure: str = await retrying(self._read_pending, pending, seen, until)
        except _NotYetError as error:
            return f"{error}, after {in_words(self._timeout)}"
        if not failure:
            more = f", and {len(seen) - _NAMED} more" if len(seen) > _NAMED else ""
            _tell("canary: all go out (%s%s); the rest is launched", "; ".join(seen[:_NAMED]), more)
        return failure

    async def _read_pending(self, pending: list[list[_Launch[Never, object]]], seen: list[str], until: float) -> str:
        """Read the state of all that are pending, and move those that go out to ``seen``.

        Returns:
            The reason if one will never go out; empty if all go out.

        Raises:
            _NotYetError: Some do not go out yet.
        """
        left: list[list[_Launch[Never, object]]] = []
        detail = ""
        for launches in pending:
            await self._outlast_pause(until)
            settlement = await self._read(launches, until)
            text = f"{_name(launches[0].command)}: {settlement.detail}"
            if settlement.evidence is Evidence.APPLIED:
                seen.append(text)
            elif settlement.evidence in {Evidence.NEVER_APPLIED, Evidence.UNAVAILABLE}:
                return text
            else:
                detail = detail or text
                left.append(launches)
        pending[:] = left
        if left:
            raise _NotYetError(detail)
        return ""

    async def _outlast_pause(self, until: float) -> None:
        """Wait while the account is paused: reads of state respect it, too."""
        context = self._context
        while (paused := context.pacer.paused_for()) > 0 and (left := until - context.clock.monotonic()) > 0:
            await context.clock.sleep(min(paused, left))

    async def _read(self, launches: list[_Launch[Never, object]], until: float) -> Settlement[object]:
        """Read the state once, of launches that share it."""
        context, clock, command = self._context, self._context.clock, launches[0].command
        since = min(launch.since for launch in launches)
        probe = command.goes_out(since, launches=len(launches))
        if probe is None:
            return Settlement(Evidence.UNAVAILABLE, "no state shows whether it goes out")
        now = clock.monotonic()
        began = Start(since, now - max(0.0, (clock.now() - since).total_seconds()), clock.boottime() - now)
        doubt = Doubt(OutcomeUnknownError("accepted"), began, until)
        reading: StateRead[Never, object] = StateRead(
            context=context,
            command=command,
            policy=self._policy,
            deadline=until + PROBE_TIMEOUT,  # the last read begins at the deadline
            launch=self,
            log_key=None,  # a start that another launch may have made is the provider's to judge
            request_id=None,
            has_rival=None,
        )
        settlement = await reading.perform(Probe(probe, doubt, until))
        tell_state_read(reading, settlement.evidence, call=launches[0].call, index=launches[0].index, run=self._run)
        self.answered_at = max(self.answered_at, reading.answered_at)
        return settlement


def tell_verified() -> None:
    """Say that nothing is held back."""
    _tell("canary: other targets were begun before, so nothing is held back")


def _tell(text: str, *values: object) -> None:
    log(logger, logging.INFO, text, *values)


def _name(command: Command[Never, object]) -> str:
    return repr(command) if command.target is None else str(command.target)


def _word(state: State) -> str:
    return state.value.replace("_", " ")

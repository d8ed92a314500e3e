"""Many commands through one client: fixed workers over one iterator, outcomes in the order of completion.

A million targets need no more memory than a thousand: nothing is made per command but the command itself and its
outcome, and when as many outcomes as there are workers wait to be taken, the workers wait too. One failure never
cancels another command.

What ends a run before its time: `FanOut.stop`, a guard (``max_launches``, ``stop_after_failures``, ``give_up_after``),
a refusal of the token or of the account, or whatever the iterator of commands raises; `FanOut.stop_reason` says which.
In each case nothing new starts, what waits for its turn or for a retry gives up at once, and what is in flight is
awaited. If that takes longer than ``grace``, it is cancelled, and its outcome says what is known of it.

A run starts with one call (`Pacer.begin_run`), so that a token that is refused costs one request.

With a ledger, all commands are planned in it first, and workers take them from there. Each asks it for leave just
before the first byte, and anew before each repeat: what is about to leave is on disk before it leaves. So the same line
again, in another process, goes on where this one ended. To be written takes a disk's time, for which no place in flight
shall stand empty: there are a few workers more, which have leave already when a place becomes free.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Generic, Self, TypeVar, cast

import attrs

from dispatchkit.core.admission import Admission, abandoned
from dispatchkit.core.call import Call
from dispatchkit.core.check import a_kind, seconds
from dispatchkit.core.client import Client
from dispatchkit.core.command import Command
from dispatchkit.core.guards import Guards, StopKind, StopReason, refuses_all
from dispatchkit.core.journal import Entry, Journals, Leave, Source
from dispatchkit.core.outcome import Outcome, Report
from dispatchkit.core.outlet import Outlet
from dispatchkit.core.retry import RetryPolicy, a_policy
from dispatchkit.core.silence import watch_silence
from dispatchkit.core.source import Unremembered, count, source
from dispatchkit.core.young import narrow, widen
from dispatchkit.errors import (
    DispatchkitError,
    LedgerError,
    NotSentError,
    OutcomeUnknownError,
    State,
)

__all__ = ["FanOut"]

R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W")

_AHEAD = 0.25
"""How many workers more there are with a ledger, of those that may be in flight."""


class FanOut(Generic[W, R]):
    """Many commands through one client. ``async for`` gives each outcome as it comes; `finish` goes to the end.

    Whoever leaves the loop before the end closes the run (`close`, or ``async with run:`` around it): until then, its
    workers go on until as many outcomes wait as there are workers.

    Args:
        client: Whose commands they are.
        commands: What to do; taken one by one, as workers become free. With a ledger they are all planned in it
            first, and None stands for those that it holds already.
        concurrency: How many workers there are. The account's `Pace` may allow fewer to be in flight.
        timeout: Seconds for each call, from its first attempt on; None takes the client's. The time that a call waits
            for its turn does not count.
        retry: When and how each call is repeated; None takes the client's policy.
        expected: How many commands there must be. A list of another length is refused before the first launch.
        max_launches: How many commands may be begun at most.
        stop_after_failures: Stop the run after so many outcomes that are not done.
        give_up_after: Stop the run when the provider has answered no attempt of it for so many seconds, although
            something was under way, or waited for the circuit breaker. A refusal and HTTP 429 are answers; HTTP 5xx, a
            broken connection and a timeout are not. A pause that the provider asked for does not count. None, the
            default: the run waits for the provider as long as it takes.
        grace: Seconds for which a stopped run waits for what is in flight.
        ledger: The durable memory of the run, usually a `Ledger`; it remembers each command from before its first byte
            leaves. None: a run that nothing remembers.
        run: The name of the run in the ledger. A run of this name that is there already goes on: what is done or
            rejected is left alone, what is unclear is settled, the rest is launched.
        repeat_window: Seconds. Refuse to launch, before the first launch, if another run of the ledger has launched one
            of the targets on the same account within this time, or launches it now. The run keeps the window that it
            was planned with. None, the default: not checked.

    Raises:
        ValueError: A setting is out of range, or there are not as many commands as ``expected``; or there is a ledger
            without a run, or a run without a ledger.
        TypeError: A setting is of another type.
    """

    def __init__(
        self,
        client: Client[W],
        commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None,
        *,
        concurrency: int = 64,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        expected: int | None = None,
        max_launches: int | None = None,
        stop_after_failures: int | None = None,
        give_up_after: float | None = None,
        grace: float = 30.0,
        ledger: Journals | None = None,
        run: str | None = None,
        repeat_window: float | None = None,
    ) -> None:
        a_kind("client", client, Client, "a DirectClient or an AltcraftClient")
        count("concurrency", concurrency, least=1)
        self._guards = Guards(
            max_launches=max_launches, stop_after_failures=stop_after_failures, give_up_after=give_up_after
        )
        self._client = client
        self._pacer = client.pacer
        self._concurrency = concurrency
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._retry = None if retry is None else a_policy(retry)
        self._grace = seconds("grace", grace)
        if (ledger is None) != (run is None):
            raise ValueError("ledger= and run= belong together: a ledger holds runs, each under its name")
        if commands is None and (ledger is None or expected is not None):
            raise ValueError("commands=None stands for what a ledger holds: it needs ledger=, and takes no expected=")
        self._commands: Iterator[Command[W, R]] | AsyncIterator[Command[W, R]] | None = None
        self._length: int | None = None
        if commands is not None:
            self._commands, self._length = source(commands, expected)
        if repeat_window is not None and ledger is None:
            raise ValueError("repeat_window= asks what other runs of the ledger did: it needs ledger=")
        self._source: Source = Unremembered(self._length)
        self._admission: Admission | None = None
        if ledger is not None and run is not None:
            if not hasattr(ledger, "journal"):  # callers without a type checker, who give its file
                raise TypeError(f"ledger must be a Ledger, such as Ledger('launch.db'), not {type(ledger).__name__}")
            window = None if repeat_window is None else seconds("repeat_window", repeat_window)
            self._source = journal = ledger.journal(run, attrs.evolve(client.run_settings(), repeat_window=window))
            self._admission = Admission(
                concurrency, pacer=client.pacer, journal=journal, clock=client.clock, idly=self._idly
            )
        self._opened = False
        self._opening: asyncio.Event | None = None
        self._earlier: Counter[State] = Counter()
        self._taken = 0
        self._done = 0
        self._failures: Counter[State] = Counter()
        self._failed = 0
        self._outlet: Outlet[R] = Outlet(concurrency)
        self._workers: set[asyncio.Task[None]] | None = None
        self._idle: set[asyncio.Task[None]] = set()
        self._calls: dict[asyncio.Task[None], Call[W, R]] = {}
        self._dropping = False
        self._stopping = False
        self._watching: asyncio.Task[None] | None = None
        self._queued = 0
        """How many workers have a command, and wait until they may begin it."""
        self._answered_at = -math.inf
        """When the provider last answered an attempt of a call that is over."""
        self._error: BaseException | None = None
        self._patience: asyncio.TimerHandle | None = None

    @property
    def report(self) -> Report:
        """What has come of the commands so far, whether or not the outcomes were taken."""
        counts, earlier = self._failures + self._earlier, self._earlier.total()
        counts[State.DONE] += self._done
        done, rejected = counts[State.DONE], counts[State.REJECTED]
        left = None if self._length is None else max(0, self._length - counts.total())
        return Report(done, rejected, counts[State.NOT_SENT], counts[State.UNKNOWN], left, earlier)

    @property
    def in_flight(self) -> int:
        """Calls that are under way now, waits and retries included."""
        return len(self._calls)

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the run ended, or ends, before its last command; None if it does not."""
        return self._guards.reason

    def stop(self) -> None:
        """Start nothing new. What is in flight is awaited, and its outcomes still come."""
        self._stop("stopped", "it was told to stop")

    def _stop(self, kind: StopKind, text: str, *, silent_since: datetime | None = None) -> None:
        if self._stopping:
            return
        self._stopping = True
        if self._workers is None or self._workers:  # else it is over already
            self._explain(kind, text, silent_since)
        self._source.halt()
        if self._admission is not None:
            self._admission.stopped = True
        for call in self._calls.values():
            call.halted = True
        for worker in self._idle | {worker for worker, call in self._calls.items() if call.waiting}:
            worker.cancel()
        if self._calls:
            self._patience = asyncio.get_running_loop().call_later(self._grace, self._cut_short)

    async def finish(self) -> Report:
        """Go to the end and return the report. The outcomes themselves are dropped.

        Raises:
            AuthenticationError: The provider does not accept the token, so the run was stopped.
            AccessDeniedError: The token may not do this, or `TariffLimitError`: the account may not. It was the
                provider's first answer, so the run was stopped.
            BaseException: What the iterator of commands raised, or a token callable that is no `Exception`, once
                everything in flight has come to its outcome.
        """
        self._dropping = True
        try:
            while await self.batch():
                pass
        except asyncio.CancelledError:
            await self.close()  # nobody is left to take an outcome
            raise
        return self.report

    async def batch(self, most: int = 1024) -> list[Outcome[R]]:
        """Wait for an outcome, and take all that are there, up to so many. Empty at the end of the run."""
        if self._workers is None:
            await self._open()
            ahead = 0 if self._admission is None else int(self._concurrency * _AHEAD)
            self._workers = set()
            for _ in range(self._concurrency + ahead):
                worker = asyncio.create_task(self._work())
                self._workers.add(worker)
                # Not in the worker: one that is cancelled before its first step never runs a line.
                worker.add_done_callback(self._part)
        while not self._outlet and self._workers:
            try:
                await self._outlet.arrival()
            except asyncio.CancelledError:
                self.stop()  # what is in flight comes to its outcome, and can still be taken
                raise
        if not self._outlet:
            await self._end()
        return self._outlet.take(most)

    async def _open(self) -> None:
        over = self._opening = asyncio.Event()
        try:
            planned = await self._source.open(self._commands, self._stop_elsewhere)
        except BaseException:
            self._workers = set()  # nothing starts any more
            raise
        finally:
            over.set()
        self._opened = True
        self._length = planned.total
        self._earlier.update(planned.final)
        # What is done already shows that the provider accepts the token.
        self._pacer.begin_run(self, ramp=not self._earlier[State.DONE])
        if self._guards.give_up_after is not None:
            self._watching = asyncio.create_task(self._watch(self._guards.give_up_after))

    async def _watch(self, limit: float) -> None:
        since = await watch_silence(
            limit,
            clock=self._client.clock,
            pacer=self._pacer,
            answered_at=lambda: max(self._answered_at, *(call.answered_at for call in self._calls.values()), -math.inf),
            is_trying=lambda: bool(self._calls or (self._queued and self._pacer.is_failing())),
        )
        text = f"the provider has answered nothing since {since:%Y-%m-%d %H:%M:%S} UTC (give_up_after={limit:g})"
        self._stop("gave_up", text, silent_since=since)

    async def _end(self) -> None:
        try:
            # A generator may hold a file open.
            close = getattr(self._commands, "aclose", None) or getattr(self._commands, "close", None)
            if close is not None:
                closing: Awaitable[None] | None = close()
                if closing is not None:
                    await closing
        except asyncio.CancelledError:
            raise
        except BaseException as mistake:  # noqa: BLE001 - what ended the run comes first
            self._error = self._error or mistake
        finally:
            if self._watching is not None:
                self._watching.cancel()
                await asyncio.wait([self._watching])
            if self._opened:
                self._opened = False
                self._pacer.end_run(self)
                try:
                    await self._source.close()
                except LedgerError as unwritten:
                    self._error = self._error or unwritten
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[R]:
        if (there := self._outlet.take_one()) is not None:
            return there
        for outcome in await self.batch(1):
            return outcome
        raise StopAsyncIteration

    async def close(self, *, patience: float | None = 0.0) -> None:
        """Start nothing new, and wait until it is over. Not needed after the end.

        What came of it can still be read from `report`, or taken.

        Args:
            patience: Seconds for which what is in flight is awaited before it is cancelled; None sets no bound but
                ``grace``.
        """
        self.stop()
        if self._opening is not None:
            with contextlib.suppress(TimeoutError):  # somebody else plans, and must not lose the commands meanwhile
                await asyncio.wait_for(self._opening.wait(), self._grace)
        if self._workers and patience != 0:
            await asyncio.wait(self._workers, timeout=patience)
        self._cut_short()
        while self._workers:
            await asyncio.wait(self._workers)
        self._error = None  # nobody asked for more
        await self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _cut_short(self) -> None:
        for worker in self._workers or ():
            worker.cancel()

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None  # noqa: S101 - this coroutine is only ever a task
        widen()
        try:
            while (entry := await self._take(worker)) is not None:
                outcome = await self._perform(worker, entry)
                if outcome is not None:
                    self._put(entry, outcome)
                while self._outlet.is_full and not self._stopping:
                    await self._idly(self._outlet.space())
        except asyncio.CancelledError:
            if not self._stopping:
                # Most likely by the iterator's own code. A run that is cut short must not look whole.
                self._break(RuntimeError("the iterator of commands, or a worker, was cancelled"))
        except BaseException as error:
            # The iterator is the caller's code: whatever it raises is the run's end, and `batch` raises it. A second
            # Ctrl-C is for the event loop, and so is the end of a coroutine that no loop runs any more.
            if not _runs(worker) or (self._stopping and isinstance(error, (KeyboardInterrupt, SystemExit))):
                raise
            self._break(error)
        finally:
            narrow()

    async def _take(self, worker: asyncio.Task[None]) -> Entry[W, R] | None:
        if self._is_over():
            self._explain_max_launches()
            return None
        self._idle.add(worker)
        try:
            entry = await self._source.take()
        finally:
            self._idle.discard(worker)
        # The stop may have come while it was waited for, or from within the iterator of commands.
        if entry is None or self._is_over():
            return None
        self._taken += 1
        return cast("Entry[W, R]", entry)

    def _is_over(self) -> bool:
        return self._stopping or self._taken == self._guards.max_launches

    async def _perform(self, worker: asyncio.Task[None], entry: Entry[W, R]) -> Outcome[R] | None:
        index, command = entry.index, entry.command
        try:
            call = self._client.call(
                command,
                timeout=self._timeout,
                retry=self._retry,
                request_id=entry.request_id,
                since=entry.since,
                acting_until=entry.acting_until,
            )
        except Exception as mistake:  # noqa: BLE001 - a callable that gives the token may raise anything
            # One command that cannot be sent must not end the run of the others.
            kind = NotSentError if entry.since is None else OutcomeUnknownError
            error = kind(_text(mistake), command=command, request_id=entry.request_id)
            error.__cause__ = mistake.with_traceback(None)
            return Outcome(index, command, error.outcome, None, error, (), entry.request_id)
        if self._admission is None:
            ticket = self._pacer.enter() or await self._queue(self._idly(self._pacer.admit()))
        else:
            call.leave = partial(self._leave_to_repeat, self._admission, entry, call)
            if call.log_key is not None:
                call.has_rival = partial(self._admission.has_rival, entry)
            admitted = await self._queue(self._admission.admit(entry, call))
            if isinstance(admitted, Leave):
                if admitted is Leave.STOPPED:
                    self._stop_elsewhere()
                return None
            ticket = admitted
        self._calls[worker] = call
        try:
            result = await call.run(ticket=ticket)
        except DispatchkitError as error:
            return Outcome(index, command, error.outcome, None, error, error.attempts, error.request_id)
        except asyncio.CancelledError:
            # By this run, or by somebody who ends all tasks: what is known of it is an outcome like any other.
            self._break(RuntimeError("a worker of the run was cancelled"))
            worker.uncancel()
            return abandoned(entry, call)
        except BaseException:
            if _runs(worker):
                self._put(entry, abandoned(entry, call))
            raise
        finally:
            del self._calls[worker]
            self._answered_at = max(self._answered_at, call.answered_at)
            if self._admission is not None:
                self._admission.release(call)
        return Outcome(index, command, State.DONE, result, None, call.attempts, call.request_id)

    async def _leave_to_repeat(self, admission: Admission, entry: Entry[W, R], call: Call[W, R]) -> Leave:
        try:
            return await admission.again(entry, call)
        except LedgerError as unwritten:
            self._break(unwritten)
            return Leave.STOPPED

    async def _queue(self, waiting: Awaitable[T]) -> T:
        """Wait until a call may begin."""
        self._queued += 1
        try:
            return await waiting
        finally:
            self._queued -= 1

    async def _idly(self, waiting: Awaitable[T]) -> T:
        """Wait for something that a stop may end at once."""
        worker = asyncio.current_task()
        assert worker is not None  # noqa: S101 - only workers wait
        self._idle.add(worker)
        try:
            return await waiting
        finally:
            self._idle.discard(worker)

    def _put(self, entry: Entry[W, R], outcome: Outcome[R]) -> None:
        try:
            self._source.record(entry, outcome)
        except Exception as unwritten:  # noqa: BLE001 - it is counted all the same
            self._break(unwritten)
        if not self._dropping:
            self._outlet.put(outcome)
        if outcome.error is None:
            self._done += 1
            return
        self._failed += 1
        self._failures[outcome.state] += 1
        is_first = not self._done and not self._earlier[State.DONE] and self._failures[State.REJECTED] <= 1
        if refuses_all(outcome.error, is_first=is_first):
            self._break(
                outcome.error, "refused", f"the provider refused the token or the account: {outcome.error.summary}"
            )
        elif self._failed == self._guards.stop_after_failures:
            what = "1 failure" if self._failed == 1 else f"{self._failed:,} failures"
            self._stop("stop_after_failures", f"{what} (stop_after_failures={self._failed})")

    def _break(self, error: BaseException, kind: StopKind = "failed", text: str = "") -> None:
        if not self._stopping:
            if isinstance(error, (StopIteration, StopAsyncIteration)):  # a loop over the run would take it for the end
                stray, error = error, RuntimeError(f"the iterator of commands raised {type(error).__name__}")
                error.__cause__ = stray
            self._error = error
        self._stop(kind, text or f"{type(error).__name__} was raised")

    def _stop_elsewhere(self) -> None:
        self._stop("stopped_elsewhere", "it was stopped from elsewhere, or another process has taken it over")

    def _explain_max_launches(self) -> None:
        """Say that the run ends, unless all its commands were begun."""
        if self._length is None or self._taken < self._length - self._earlier.total():
            what = "launch" if self._taken == 1 else "launches"
            self._explain("max_launches", f"{self._taken:,} {what} (max_launches={self._taken})")

    def _explain(self, kind: StopKind, text: str, silent_since: datetime | None = None) -> None:
        in_flight = sum(not call.waiting for call in self._calls.values())
        self._guards.explain(kind, text, in_flight=in_flight, silent_since=silent_since)

    def _part(self, worker: asyncio.Task[None]) -> None:
        workers = self._workers or set()
        workers.discard(worker)
        self._idle.discard(worker)
        if worker.cancelled():
            self._break(RuntimeError("a worker of the run was cancelled"))
        elif (error := worker.exception()) is not None:
            self._break(error)
        if not workers:
            if self._patience is not None:
                self._patience.cancel()
            self._outlet.announce()


def _runs(worker: asyncio.Task[None]) -> bool:
    """Whether the event loop is running this task. If not, its coroutine is being closed."""
    try:
        return asyncio.current_task() is worker
    except RuntimeError:
        return False


def _text(mistake: Exception) -> str:
    try:
        return str(mistake)
    except Exception:  # noqa: BLE001 - it is the caller's
        return type(mistake).__name__

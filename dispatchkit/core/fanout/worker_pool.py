"""The workers of one fan-out: each takes a command, performs it and queues its outcome.

Every early end of a run goes through `WorkerPool.stop`. Nothing new starts, and waits for a turn or a retry end at
once. Calls in flight are awaited for the grace period.
"""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Generic, Never, TypeVar, cast

from dispatchkit.core.call.client import Client
from dispatchkit.core.call.context import ClientContext
from dispatchkit.core.call.gate import Gate, PacedGate
from dispatchkit.core.call.pending import PendingCall
from dispatchkit.core.call.run_log import RunLog
from dispatchkit.core.claim import ClaimResult
from dispatchkit.core.fanout.claim_gate import Admission, ClaimGate, known_outcome
from dispatchkit.core.fanout.gc_tuning import raise_gc_threshold, restore_gc_threshold
from dispatchkit.core.fanout.guards import StopKind, refuses_all
from dispatchkit.core.fanout.journal import Journal, Source, WorkItem
from dispatchkit.core.fanout.options import FanOutSettings
from dispatchkit.core.fanout.outcome import Done, Outcome, Report, failed
from dispatchkit.core.fanout.outcome_queue import OutcomeQueue
from dispatchkit.core.fanout.repeats import Repeats
from dispatchkit.core.fanout.source import IterableSource
from dispatchkit.core.fanout.window import in_words
from dispatchkit.core.fanout.window_gate import WindowGate
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.core.stop import StopSignal
from dispatchkit.errors import DispatchkitError, NotSentError, OutcomeUnknownError, State

if TYPE_CHECKING:
    from dispatchkit.core.fanout.canary import CanarySource

__all__ = ["WorkerPool"]

R = TypeVar("R")

_AHEAD = 0.25
"""Extra workers with a ledger, as a fraction of `concurrency`."""


class WorkerPool(Generic[R]):
    """A fixed number of workers over one source of commands.

    Args:
        client: The client that performs the commands.
        source: The source of the commands.
        journal: The same object if the run has a ledger.
        settings: The options of the fan-out.
        length: The number of commands; None if it is not known.
        repeats: Counts the commands that are left out as repeats.
    """

    def __init__(
        self,
        client: Client[Never],
        source: Source,
        journal: Journal | None,
        settings: FanOutSettings,
        *,
        length: int | None,
        repeats: Repeats,
    ) -> None:
        self._client = client
        self._pacer = client._pacer
        self._source = source
        self._settings = settings
        self._guards = settings.guards
        self.run_log = RunLog(settings.run, client._clock)
        """The log of the run."""
        self.stop_signal = StopSignal()
        """Set once the run starts nothing new."""
        self._flight_stop = self.stop_signal if settings.window is None else StopSignal()
        """Set once calls in flight start no attempt and no state read. The end of a window does not set it."""
        self._taking = StopSignal()
        """Set once the run takes no further command: it is stopped, or `max_launches` are taken."""
        self._gate: Gate | None = None
        """The gate of all calls without a ledger."""
        self._admission: Admission | None = None
        if journal is not None:
            self._admission = Admission(
                settings.concurrency,
                pacer=client._pacer,
                journal=journal,
                clock=client._clock,
                stop=self.stop_signal,
                on_error=self._break,
                run=settings.run,
            )
        self._record = None if isinstance(source, IterableSource) else source.record
        """Stores an outcome, if the source does."""
        self._on_skip: Callable[[int], None] | None = None
        """Called with the index of a command that has no outcome in this run."""
        self.length = length
        self._repeats = repeats
        self.previously_finished: Counter[State] = Counter()
        """The outcomes of an earlier fan-out of the run, counted."""
        self.launched_elsewhere = 0
        """Commands that are left out, because another run launched them."""
        self.outcomes: OutcomeQueue[R] = OutcomeQueue(settings.concurrency)
        self.workers: set[asyncio.Task[None]] | None = None
        """The running workers; None before the start."""
        self.calls: dict[asyncio.Task[None], PendingCall[Never, R]] = {}
        """The calls that are under way."""
        self.is_dropping = False
        """Whether outcomes are only counted."""
        self.error: BaseException | None = None
        """The error that the run raises at its end."""
        self._taken = 0
        self._done = 0
        self._failures: Counter[State] = Counter()
        self._failed = 0
        self._queued = 0
        """The number of workers that wait until they may start their command."""
        self._answered_at = -math.inf
        """When the provider last answered an attempt of a call that is over."""
        self._grace_timer: asyncio.TimerHandle | None = None

    def bind_pacer(self, pacer: Pacer) -> None:
        """Use this pacer, before the first call: the callable's token tells the account only now."""
        self._pacer = pacer
        if self._admission is not None:
            self._admission.pacer = pacer

    def bind_source(self, source: CanarySource) -> None:
        """Take the commands from this source, before the first one: it launches a few of them first."""
        self._source = source
        self._record, self._on_skip = source.record, source.skip

    def start(self) -> None:
        """Start the workers."""
        ahead = 0 if self._admission is None else int(self._settings.concurrency * _AHEAD)
        self.workers = set()
        for _ in range(self._settings.concurrency + ahead):
            worker = asyncio.create_task(self._work())
            self.workers.add(worker)
            # Not in the worker: a task that is cancelled before its first step never runs a line.
            worker.add_done_callback(self._part)

    def report(self) -> Report:
        """The outcomes so far, counted, whether or not they were taken."""
        counts, earlier = self._failures + self.previously_finished, self.previously_finished.total()
        counts[State.DONE] += self._done
        done, rejected = counts[State.DONE], counts[State.REJECTED]
        left = None if self.length is None else max(0, self.length - self._skipped() - counts.total())
        not_sent, unknown = counts[State.NOT_SENT], counts[State.UNKNOWN]
        return Report(done, rejected, not_sent, unknown, left, earlier, self._repeats.count, self.launched_elsewhere)

    def _skipped(self) -> int:
        """How many of ``length`` were left out. A ledger counts each command once."""
        return self._repeats.count if self._admission is None else 0

    def answered_at(self) -> float:
        """When the provider last answered an attempt of the run, on the clock's ``monotonic``."""
        return max(self._answered_at, *(call.answered_at for call in self.calls.values()), -math.inf)

    def is_trying(self) -> bool:
        """Whether the run waits for the provider just now."""
        return bool(self.calls or (self._queued and self._pacer.is_failing()))

    def stop(self, kind: StopKind, text: str, *, silent_since: datetime | None = None) -> None:
        """Start nothing new. Calls in flight are awaited, and their outcomes still come."""
        if self._flight_stop.is_set:
            return
        self._start_nothing(kind, text, silent_since)
        self._flight_stop.set()
        if self.calls:
            self._grace_timer = asyncio.get_running_loop().call_later(self._settings.grace_period, self.cut_short)

    def _start_nothing(self, kind: StopKind, text: str, silent_since: datetime | None = None) -> None:
        if self.stop_signal.is_set:
            return
        if self.workers is None or self.workers:  # else it is over already
            self._explain(kind, text, silent_since)
        self._source.stop()
        self.stop_signal.set()
        self._taking.set()

    def end_window(self) -> None:
        """Start nothing new. Calls in flight end within their own timeouts, and their state is read meanwhile."""
        window = self._settings.window
        if window is not None and window.not_after is not None:
            self._start_nothing("window", f"the window ended at {in_words(window.not_after)}")

    def cut_short(self) -> None:
        """Cancel the calls in flight."""
        for worker in self.workers or ():
            worker.cancel()

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None  # noqa: S101 - this coroutine is only ever a task
        raise_gc_threshold()
        source, stop, outcomes, most = self._source, self.stop_signal, self.outcomes, self._guards.max_launches
        perform = self._perform_with_token if self._client._has_renewable_token else self._perform
        # A source does not know its commands' results: the fan-out does.
        next_at_once = cast("Callable[[], WorkItem[Never, R] | None]", source.next_at_once)
        next_item = cast("Callable[[], Awaitable[WorkItem[Never, R] | None]]", source.next_item)
        try:
            while not stop.is_set and self._taken != most:
                item = next_at_once()
                if item is None:
                    with self._taking.interruptible():
                        item = await next_item()
                # The stop may have come during the wait, or from within the iterator of commands.
                if item is None or self.stop_signal.is_set or self._taken == most:
                    return
                self._taken += 1
                if self._taken == most:
                    self._taking.set()
                outcome = await perform(worker, item)
                if outcome is not None:
                    self._put(item, outcome)
                while outcomes.is_full and not stop.is_set:
                    with stop.interruptible():
                        await outcomes.wait_not_full()
            self._explain_max_launches()
        except asyncio.CancelledError:
            if not self.stop_signal.is_set:
                # Most likely by the iterator's own code. A cancelled run must not look complete.
                self._break(RuntimeError("the iterator of commands, or a worker, was cancelled"))
        except BaseException as error:
            # An error of the iterator ends the run, and `batch` raises it. A second Ctrl-C is for the event loop. So
            # is the end of a coroutine that no loop runs any more.
            if not _runs(worker) or (self.stop_signal.is_set and isinstance(error, (KeyboardInterrupt, SystemExit))):
                raise
            self._break(error)
        finally:
            restore_gc_threshold()

    async def _perform_with_token(self, worker: asyncio.Task[None], item: WorkItem[Never, R]) -> Outcome[R] | None:
        """Ask the callable for its token first, if it has expired."""
        try:
            with self.stop_signal.interruptible():
                await self._client._have_token()
        except Exception as exception:  # noqa: BLE001 - the callable may raise anything
            return self._unsendable(item, exception)
        return None if self.stop_signal.is_set else await self._perform(worker, item)

    async def _perform(  # noqa: C901, PLR0912 - in one piece, since each launch takes this way
        self, worker: asyncio.Task[None], item: WorkItem[Never, R]
    ) -> Outcome[R] | None:
        index, command, settings = item.index, item.command, self._settings
        try:
            call = (
                self._client._call(command, timeout=settings.timeout, retry=settings.retry, request_id=item.request_id)
                if item.unclear_since is None
                else self._take_over(item)
            )
        except Exception as exception:  # noqa: BLE001 - a command's own code may raise anything
            return self._unsendable(item, exception)
        call.stop = self.stop_signal
        call.index, call.run_log = index, self.run_log
        call.gate = gate = self._gate or self._gate_of(item, call)
        outcome: Outcome[R] | None = None
        permit = 0
        try:
            permit = 0 if self._queued else gate.try_acquire()  # behind others, it waits
            if not permit:
                self._queued += 1
                try:
                    permit = await gate.acquire(math.inf)  # the wait for its turn has no deadline
                finally:
                    self._queued -= 1
            if not permit:
                outcome = self._not_started(item, call)
                return outcome
        finally:
            if not permit:
                gate.close(has_outcome=outcome is not None)
        if item.unclear_since is not None:  # it is settled first, and a repeat takes its own permit
            self._pacer.cancel(permit)
            permit = 0
        call.stop = self._flight_stop
        self.calls[worker] = call
        try:
            result = await call.run(permit=permit)
        except DispatchkitError as error:
            return failed(index, command, error)
        except asyncio.CancelledError:
            # By this run, or by code that cancels all tasks: the call has an outcome all the same. A command's own code
            # may also raise it, which cancels no task.
            self._break_if_cancelled(worker)
            return known_outcome(item, call)
        except BaseException:
            if _runs(worker):
                self._put(item, known_outcome(item, call))
            raise
        finally:
            del self.calls[worker]
            if call.answered_at > self._answered_at:  # noqa: PLR1730 - a call of `max` costs more
                self._answered_at = call.answered_at
            if self._gate is None:  # the gate that all calls share holds nothing
                gate.close(has_outcome=True)
                # A ledger's gate refers to its call: no cycle is left to the garbage collector.
                call.gate = call.context.gate
        if self.is_dropping and self._record is None:
            self._done += 1  # without an object that nothing reads
            return None
        return Done(index, command, result, call.attempts, call.request_id)

    def _take_over(self, item: WorkItem[Never, R]) -> PendingCall[Never, R]:
        return self._client._call(
            item.command,
            timeout=self._settings.timeout,
            retry=self._settings.retry,
            request_id=item.request_id,
            unclear_since=item.unclear_since,
            acting_until=item.acting_until,
            acted_by=item.acted_by,
            repeats=item.repeats,
        )

    def _unsendable(self, item: WorkItem[Never, R], exception: Exception) -> Outcome[R]:
        """The outcome of one command that cannot be sent, which must not end the run of the others."""
        error_type = NotSentError if item.unclear_since is None else OutcomeUnknownError
        error = error_type(_text(exception), command=item.command, request_id=item.request_id)
        error.__cause__ = exception.with_traceback(None)
        self.run_log.log_unsendable(item.index, item.command, error)
        return failed(item.index, item.command, error)

    def _gate_of(self, item: WorkItem[Never, R], call: PendingCall[Never, R]) -> Gate:
        if self._admission is None:
            if self._gate is None:
                context = call.context
                paced = PacedGate(context.pacer, stop=self.stop_signal, closed=context.stop)
                self._gate = self._within_window(paced, context)
            return self._gate
        gate = ClaimGate(self._admission, item, call)
        if call.log_key is not None:
            # Not a method of the gate, which refers to the call: a cycle would keep the files of a launch.
            call.has_rival = partial(self._admission.journal.has_rival, item)
        return gate if self._settings.window is None else self._within_window(gate, call.context)

    def _within_window(self, gate: Gate, context: ClientContext[Never]) -> Gate:
        if (window := self._settings.window) is None:
            return gate
        return WindowGate(
            gate,
            window,
            context.clock,
            stop=self.stop_signal,
            closed=context.stop,
            cancel=self._pacer.cancel,
            end=self.end_window,
        )

    def _not_started(self, item: WorkItem[Never, R], call: PendingCall[Never, R]) -> Outcome[R] | None:
        """The outcome of a call that must not start; None if it has none in this run."""
        if call.gate.refusal is ClaimResult.STOPPED:
            self.stop_elsewhere()
        if call.gate.refusal is not None or self.stop_signal.is_set:
            if self._on_skip is not None:
                self._on_skip(item.index)
            return None
        error = call.known_outcome("the client was closed")
        call.log_end(error.summary, error)
        return failed(item.index, item.command, error)

    def _put(self, item: WorkItem[Never, R], outcome: Outcome[R]) -> None:
        if self._record is not None:
            try:
                self._record(item, outcome)
            except Exception as unwritten:  # noqa: BLE001 - the outcome is counted all the same
                self._break(unwritten)
        if not self.is_dropping:
            self.outcomes.put(outcome)
        if outcome.error is None:
            self._done += 1
            return
        self._failed += 1
        self._failures[outcome.state] += 1
        is_first = not self._done and not self.previously_finished[State.DONE] and self._failures[State.REJECTED] <= 1
        if refuses_all(outcome.error, is_first=is_first):
            self._break(
                outcome.error, "refused", f"the provider refused the token or the account: {outcome.error.summary}"
            )
        elif self._failed == self._guards.stop_after_failures and not self._is_through():
            what = "1 failure" if self._failed == 1 else f"{self._failed:,} failures"
            self.stop("stop_after_failures", f"{what} (stop_after_failures={self._failed})")

    def _break(self, error: BaseException, kind: StopKind = "failed", text: str = "") -> None:
        if not self.stop_signal.is_set:
            if isinstance(error, (StopIteration, StopAsyncIteration)):  # a loop would take it for the end
                stray, error = error, RuntimeError(f"the iterator of commands raised {type(error).__name__}")
                error.__cause__ = stray
            self.error = error
        self.stop(kind, text or f"{type(error).__name__} was raised")

    def _break_if_cancelled(self, worker: asyncio.Task[None]) -> None:
        if worker.cancelling():
            self._break(RuntimeError("a worker of the run was cancelled"))
            worker.uncancel()

    def stop_elsewhere(self) -> None:
        """The run was stopped in its ledger, or lost to another process."""
        self.stop("stopped_elsewhere", "it was stopped from elsewhere, or another process has taken it over")

    def _is_through(self) -> bool:
        """Whether all commands have an outcome."""
        over = self._done + self._failed + self.previously_finished.total() + self._skipped()
        return self.length is not None and over >= self.length

    def _explain_max_launches(self) -> None:
        """Record that `max_launches` ended the run, unless all its commands were started."""
        if self.length is None or self._taken < self.length - self.previously_finished.total() - self._skipped():
            what = "launch" if self._taken == 1 else "launches"
            self._explain("max_launches", f"{self._taken:,} {what} (max_launches={self._taken})")

    def _explain(self, kind: StopKind, text: str, silent_since: datetime | None = None) -> None:
        in_flight = len(self.calls.keys() - self._flight_stop.waiting)
        self._guards.explain(kind, text, in_flight=in_flight, silent_since=silent_since)

    def _part(self, worker: asyncio.Task[None]) -> None:
        workers = self.workers or set()
        workers.discard(worker)
        if worker.cancelled():
            self._break(RuntimeError("a worker of the run was cancelled"))
        elif (error := worker.exception()) is not None:
            self._break(error)
        if not workers:
            if self._grace_timer is not None:
                self._grace_timer.cancel()
            self.outcomes.notify()


def _runs(worker: asyncio.Task[None]) -> bool:
    """Whether the event loop is running this task. If not, its coroutine is being closed."""
    try:
        return asyncio.current_task() is worker
    except RuntimeError:
        return False


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - it is the caller's
        return type(error).__name__

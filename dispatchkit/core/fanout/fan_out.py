"""Many commands through one client: fixed workers over one iterator, outcomes in the order of completion.

A million targets need no more memory than a thousand. For each target, a fan-out makes only the command and its
outcome. The workers block while as many outcomes wait as there are workers. One failure never cancels another command.

`FanOut.stop` ends a run early, and so does a guard (``max_launches``, ``stop_after_failures``, ``give_up_after``,
``canary``). A refusal of the token or of the account also ends it. So does an error of the iterator of commands.
`FanOut.stop_reason` gives the cause. In each case nothing new starts, and waits for a turn or a retry end at once.
Calls in flight are awaited for ``grace_period`` seconds, then cancelled. Their outcomes say what is known of them.

A run starts with one call (`Pacer.begin_run`), so that a refused token costs one request.

With a ledger, all commands are planned in it first, and workers take them from there. A worker claims its command
before the first byte, and again before each repeat. So every request is on disk before it is sent. The same line in
another process therefore resumes the run. Claims wait for an fsync, so extra workers claim ahead and keep every slot
busy.
"""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Generic, Never, Self, TypeVar, Unpack, cast

import attrs

from dispatchkit.core.call.client import Client
from dispatchkit.core.call.context import ClientContext
from dispatchkit.core.command import Command
from dispatchkit.core.context_managers import AsyncOnly
from dispatchkit.core.fanout.guards import StopReason
from dispatchkit.core.fanout.item_types import refuse_wrong_types
from dispatchkit.core.fanout.journal import Journal, PlanSummary, Source
from dispatchkit.core.fanout.options import FanOutOptions, FanOutSettings, check_canary
from dispatchkit.core.fanout.outcome import Outcome, Report
from dispatchkit.core.fanout.repeats import Repeats, refuse_repeats, repeat_mode, without_repeats
from dispatchkit.core.fanout.silence import watch_silence
from dispatchkit.core.fanout.snapshot import RateMeter, Snapshot, time_left
from dispatchkit.core.fanout.source import IterableSource, iterate
from dispatchkit.core.fanout.window import Window
from dispatchkit.core.fanout.window_gate import watch_end
from dispatchkit.core.fanout.worker_pool import WorkerPool
from dispatchkit.core.loop import running_loop
from dispatchkit.core.options import check_options, takes_options
from dispatchkit.core.reprs import RichRepr
from dispatchkit.core.validators import a_kind, seconds
from dispatchkit.core.wakeup import Sleepers
from dispatchkit.errors import LedgerError, State

if TYPE_CHECKING:
    from dispatchkit.core.fanout.canary import CanarySource

__all__ = ["FanOut"]

R_co = TypeVar("R_co", covariant=True)
W = TypeVar("W")


class FanOut(AsyncOnly, Generic[R_co]):
    """Many commands through one client. ``async for`` yields each outcome as it comes; `finish` runs to the end.

    One failure never cancels another command. An `asyncio.TaskGroup` of single calls does. When one of them fails, it
    cancels launches that may have acted, and does not tell of them.

    A loop that is left early does not stop the run. Call `close`, or write ``async with fan_out:`` around the loop.
    Until then, the workers go on until as many outcomes wait as there are workers.

    Args:
        client: The client that performs the commands.
        commands: The commands; taken one by one, as workers become free. With a ledger they are all planned in it
            first, and None stands for those that it holds already. The plain iterator reads what has a length and can
            be iterated both ways, such as a QuerySet of Django.
        options: See `FanOutOptions`.

    Raises:
        ValueError: An option is out of range, or the number of commands is not ``expected``, or not more than
            ``canary``. Or there is a ledger without a run, or a run without a ledger.
        TypeError: An option is unknown or of another type.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     fan_out = FanOut(direct, map(StartDispatch, range(1, 101)), concurrency=8)
        ...     async for outcome in fan_out:
        ...         assert outcome.error is None
        ...     fan_out.report.done
        100
    """

    @takes_options(FanOutSettings)
    def __init__(
        self,
        client: Client[W],
        commands: Iterable[Command[W, R_co]] | AsyncIterable[Command[W, R_co]] | None,
        **options: Unpack[FanOutOptions],
    ) -> None:
        check_options(FanOut, options)
        a_kind("client", client, Client, "a client of a provider")
        settings = FanOutSettings(**options)
        if commands is None and (settings.ledger is None or settings.expected is not None):
            raise ValueError("commands=None stands for what a ledger holds: it needs ledger=, and takes no expected=")
        self._client = client
        self._run = settings.run
        self._pacer = client._pacer
        self._guards = settings.guards
        self._settings = settings
        self._commands: Iterator[Command[Never, R_co]] | AsyncIterator[Command[Never, R_co]] | None = None
        length: int | None = None
        self._repeats = Repeats(settings.run, blocks=False)
        mode = repeat_mode(settings.repeats, commands)
        self._skips_repeats = mode == "skip"
        if commands is not None:
            if mode == "refuse":
                commands = refuse_repeats(commands)
            self._commands, length = iterate(commands, settings.expected)
            check_canary(settings.canary, length)
        self._source: Source = IterableSource(length, self._repeats if self._skips_repeats else None)
        journal: Journal | None = None
        if settings.ledger is not None and settings.run is not None:
            run_settings = attrs.evolve(
                client._run_settings(), repeat_window=settings.repeat_window, canary=settings.canary
            )
            self._source = journal = settings.ledger.journal(settings.run, run_settings)
        self._pool: WorkerPool[R_co] = WorkerPool(
            cast("Client[Never]", client),  # only commands of its own type are given to it
            self._source,
            journal,
            settings,
            length=length,
            repeats=self._repeats,
        )
        self._outcomes = self._pool.outcomes
        self._opened = False
        self._started = 0.0
        self._opening: asyncio.Event | None = None
        self._tasks: list[asyncio.Task[None]] = []
        """What watches the run until its end."""
        self._canary: CanarySource | None = None
        self._watchers = Sleepers(client._clock)

    @property
    def report(self) -> Report:
        """The outcomes so far, counted, whether or not they were taken."""
        return self._pool.report()

    @property
    def in_flight(self) -> int:
        """The number of calls that are under way now, waits and retries included."""
        return len(self._pool.calls)

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the run ended, or ends, before its last command; None if it does not."""
        return self._guards.reason

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way and nothing starts any more. Outcomes may still wait to be taken."""
        return not self._pool.workers and (self._pool.workers is not None or self.stop_reason is not None)

    def watch(self, every: float = 1.0) -> AsyncIterator[Snapshot]:
        """Watch the run: a `Snapshot` now, one after each ``every`` seconds, and the last one once the run is over.

        It starts, delays and ends nothing, and any number of tasks may watch. The run itself goes on only while its
        outcomes are taken, for example by `finish` in another task.

        Args:
            every: Seconds between two snapshots. Default: 1.0.

        Raises:
            TypeError: ``every`` is not a number.
            ValueError: ``every`` is not positive.

        Example:
            >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
            ...     run = direct.start_many(range(1, 101))
            ...     finishing = asyncio.create_task(run.finish())
            ...     async for snapshot in run.watch(every=0.1):
            ...         pass
            ...     snapshot.report.done, snapshot.is_over
            (100, True)
        """
        return self._snapshots(seconds("every", every))

    async def _snapshots(self, every: float) -> AsyncIterator[Snapshot]:
        running_loop("fan-out")
        meter = RateMeter()
        while True:
            snapshot = self._snapshot(meter)
            yield snapshot
            if snapshot.is_over:
                return
            if not self.is_over:
                await self._watchers.sleep(every)

    def _snapshot(self, meter: RateMeter) -> Snapshot:
        report, paused_for, is_over = self.report, self._pacer.paused_for(), self.is_over
        rate = meter.rate(self._client._clock.monotonic(), report.total)
        settling, believed_from = self._settling()
        return Snapshot(
            report,
            rate=rate,
            in_flight=self.in_flight,
            settling=settling,
            believed_from=believed_from,
            paused_for=paused_for,
            time_left=0.0 if is_over else time_left(report.not_started, rate, paused_for),
            is_over=is_over,
        )

    def _settling(self) -> tuple[int, datetime | None]:
        """The number of calls with an unclear attempt, and `Snapshot.believed_from`.

        A snapshot counts them, so a call itself pays nothing for it.
        """
        unclear = [call for call in self._pool.calls.values() if call.in_doubt]
        times = [moment for call in unclear if (moment := call.believed_from) is not None]
        clock = self._client._clock
        wall = clock.now() + timedelta(seconds=min(times) - clock.monotonic()) if times else None
        return len(unclear), wall

    def stop(self) -> None:
        """Start nothing new. Calls in flight are awaited, and their outcomes still come."""
        self._pool.stop("stopped", "it was told to stop")

    async def finish(self) -> Report:
        """Run to the end and return the report. The outcomes themselves are dropped.

        Raises:
            AuthenticationError: The provider does not accept the token, so the run was stopped.
            AccessDeniedError: The token may not do this, or `TariffLimitError`: the account may not. It was the
                provider's first answer, so the run was stopped.
            BaseException: The iterator of commands raised it. Or a token callable raised it, and it is no `Exception`.
                It is raised once every call in flight has its outcome.
        """
        self._pool.is_dropping = True
        try:
            while await self.batch():
                pass
        except asyncio.CancelledError:
            await self.close()  # no consumer is left
            raise
        return self.report

    async def batch(self, most: int = 1024) -> list[Outcome[R_co]]:
        """Wait for an outcome and take all that are ready. Empty at the end of the run.

        Args:
            most: The most outcomes to take.
        """
        if self._pool.workers is None:
            running_loop("fan-out")
            if self._opening is None:
                await self._open()
                self._pool.start()
            else:
                await self._opening.wait()  # another task opens it
        while not self._outcomes and self._pool.workers:
            try:
                await self._outcomes.wait()
            except asyncio.CancelledError:
                self.stop()  # the outcomes of calls in flight can still be taken
                raise
        if not self._outcomes:
            await self._end()
        return self._outcomes.get_many(most)

    async def _open(self) -> None:
        over = self._opening = asyncio.Event()
        try:
            if self._client._has_renewable_token:
                await self._join_account()
            commands = None if self._commands is None else refuse_wrong_types(self._commands)
            if commands is not None and self._skips_repeats and not isinstance(self._source, IterableSource):
                commands = without_repeats(commands, self._repeats)
            planned = await self._source.open(commands, self._pool.stop_elsewhere)
        except BaseException:
            self._pool.workers = set()  # nothing starts any more
            self._watchers.wake()
            raise
        finally:
            over.set()
        self._opened = True
        self._pool.length = planned.total
        self._pool.previously_finished.update(planned.final)
        self._pool.launched_elsewhere = planned.launched_elsewhere
        self._tell_start()
        # An earlier success shows that the provider accepts the token. Another chunk of the run may have had it.
        is_accepted = self._pool.previously_finished[State.DONE] or self._run in self._client._accepted_runs
        self._pacer.begin_run(self, ramp=not is_accepted)
        if count := self._settings.canary if planned.canary is None else planned.canary:
            self._launch_first(count, planned)
        elif self._settings.canary:
            from dispatchkit.core.fanout.canary import tell_verified  # noqa: PLC0415 - see `_launch_first`

            tell_verified()
        if (window := self._settings.window) is not None:
            self._tasks.append(asyncio.create_task(self._close_after(window)))
        if self._guards.give_up_after is not None:
            self._tasks.append(asyncio.create_task(self._watch(self._guards.give_up_after)))

    def _launch_first(self, count: int, planned: PlanSummary) -> None:
        """Hold the rest of the commands back until the first ones are seen to go out."""
        context, policy = self._client._for_reads()
        from dispatchkit.core.fanout.canary import CanarySource  # noqa: PLC0415 - its events take 20 ms to import

        self._canary = canary = CanarySource(
            self._source,
            count,
            timeout=self._settings.canary_timeout,
            finished=planned.finished,
            run=self._run,
            context=cast("ClientContext[Never]", context),
            policy=self._settings.retry or policy,
            stop=self._pool.stop_signal,
            fail=lambda text: self._pool.stop("canary", text),
        )
        self._pool.bind_source(canary)
        self._tasks.append(asyncio.create_task(canary.verify()))

    async def _join_account(self) -> None:
        """Ask the callable for its token, and share the pace of the account that the token tells."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(Exception))  # each call asks again, and has an outcome
            if isinstance(self._source, IterableSource):  # a ledger needs the token even to open a stopped run
                stack.enter_context(self._pool.stop_signal.interruptible())
            await self._client._have_token()
        self._pacer = self._client._keep_pacer()
        self._pool.bind_pacer(self._pacer)

    def _tell_start(self) -> None:
        if (observers := self._client._observers) is None:
            return
        from dispatchkit.core.events import RunStarted  # noqa: PLC0415 - the client with observers has imported it

        self._started = self._client._clock.monotonic()
        observers.tell(
            lambda: RunStarted(
                at=self._client._clock.now(),
                provider=observers.provider,
                base_url=observers.base_url,
                run=self._run,
                total=self._pool.length,
                previously_finished=self._pool.previously_finished.total(),
            )
        )

    def _tell_end(self) -> None:
        self._pool.run_log.count()
        if (observers := self._client._observers) is None:
            return
        from dispatchkit.core.events import RunEnded  # noqa: PLC0415 - see above

        report, clock = self.report, self._client._clock
        observers.tell(
            lambda: RunEnded(
                at=clock.now(),
                provider=observers.provider,
                base_url=observers.base_url,
                run=self._run,
                done=report.done,
                rejected=report.rejected,
                not_sent=report.not_sent,
                unknown=report.unknown,
                not_started=report.not_started,
                stop_reason=None if self.stop_reason is None else self.stop_reason.kind,
                duration=clock.monotonic() - self._started,
            )
        )

    async def _close_after(self, window: Window) -> None:
        await watch_end(window, self._client._clock)
        self._pool.end_window()

    async def _watch(self, limit: float) -> None:
        unclear_since = await watch_silence(
            limit,
            clock=self._client._clock,
            pacer=self._pacer,
            answered_at=self._answered_at,
            is_trying=lambda: self._pool.is_trying() or (self._canary is not None and self._canary.is_reading),
        )
        text = (
            f"the provider has answered nothing since {unclear_since:%Y-%m-%d %H:%M:%S} UTC (give_up_after={limit:g})"
        )
        self._pool.stop("gave_up", text, silent_since=unclear_since)

    def _answered_at(self) -> float:
        answered_at = self._pool.answered_at()
        return answered_at if self._canary is None else max(answered_at, self._canary.answered_at)

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
        except BaseException as exception:  # noqa: BLE001 - the first error is the one to raise
            self._pool.error = self._pool.error or exception
        finally:
            self._watchers.wake()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            if self._opened:
                self._opened = False
                self._pacer.end_run(self)
                if self._run is not None and self.report.done:
                    self._client._accepted_runs.add(self._run)
                try:
                    await self._source.close()
                except LedgerError as unwritten:
                    self._pool.error = self._pool.error or unwritten
                finally:
                    self._tell_end()
        if self._pool.error is not None:
            error, self._pool.error = self._pool.error, None
            raise error

    def __rich_repr__(self) -> RichRepr:
        if not hasattr(self, "_pool"):
            return
        yield self._client
        yield "run", self._run, None
        yield "report", self.report
        yield "in_flight", self.in_flight, 0
        yield "stop_reason", self.stop_reason, None

    def __repr__(self) -> str:
        if not hasattr(self, "_pool"):  # a traceback may show a fan-out whose constructor raised
            return "<FanOut>"
        report, in_flight, workers = self.report, self.in_flight, self._pool.workers
        to_come = None if report.not_started is None else report.not_started - in_flight
        counts = {
            "done": report.done,
            "rejected": report.rejected,
            "not sent": report.not_sent,
            "unknown": report.unknown,
            "in flight": in_flight,
            "not started": to_come,
        }
        run = "" if self._run is None else f", run {self._run!r}"
        state = ", not begun" if workers is None else "" if workers else ", over"
        reason = "" if self.stop_reason is None else f" ({self.stop_reason})"
        shown = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "no commands"
        return f"<FanOut of {self._client!r}{run}: {shown}{state}{reason}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[R_co]:
        if (there := self._outcomes.get_nowait()) is not None:
            return there
        for outcome in await self.batch(1):
            return outcome
        raise StopAsyncIteration

    async def close(self, *, timeout: float | None = 0.0) -> None:
        """Start nothing new, and wait until the run is over. Not needed after the end.

        The outcomes can still be read from `report`, or taken.

        Args:
            timeout: Seconds that calls in flight are awaited before they are cancelled; None sets no bound but
                ``grace_period``.
        """
        self.stop()
        if self._opening is not None:
            with contextlib.suppress(TimeoutError):  # another task plans them, and must not lose the commands
                # Python 3.11's wait_for may swallow a cancellation.
                async with asyncio.timeout(self._settings.grace_period):
                    await self._opening.wait()
        if self._pool.workers and timeout != 0:
            await asyncio.wait(self._pool.workers, timeout=timeout)
        self._pool.cut_short()
        while self._pool.workers:
            await asyncio.wait(self._pool.workers)
        self._pool.error = None  # a closed run raises nothing
        await self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

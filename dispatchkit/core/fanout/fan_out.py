"""Many commands through one client: fixed workers over one iterator, outcomes in the order of completion.

A million targets need no more memory than a thousand: nothing is made per command but the command itself and its
outcome, and when as many outcomes as there are workers wait to be taken, the workers wait too. One failure never
cancels another command.

What ends a run before its time: `FanOut.stop`, a guard (``max_launches``, ``stop_after_failures``, ``give_up_after``),
a refusal of the token or of the account, or whatever the iterator of commands raises; `FanOut.stop_reason` says which.
In each case nothing new starts, what waits for its turn or for a retry gives up at once, and what is in flight is
awaited. If that takes longer than ``grace_period``, it is cancelled, and its outcome says what is known of it.

A run starts with one call (`Pacer.begin_run`), so that a token that is refused costs one request.

With a ledger, all commands are planned in it first, and workers take them from there. Each asks it for leave just
before the first byte, and anew before each repeat: what is about to leave is on disk before it leaves. So the same line
again, in another process, goes on where this one ended. To be written takes a disk's time, for which no place in flight
shall stand empty: there are a few workers more, which have leave already when a place becomes free.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator
from typing import Generic, Self, TypeVar

import attrs

from dispatchkit.core.call.client import Client
from dispatchkit.core.call.retry import RetryPolicy, a_policy
from dispatchkit.core.command import Command
from dispatchkit.core.fanout.guards import Guards, StopReason
from dispatchkit.core.fanout.item_types import refuse_wrong_types
from dispatchkit.core.fanout.journal import Journal, JournalProvider, Source
from dispatchkit.core.fanout.outcome import Outcome, Report
from dispatchkit.core.fanout.repeats import RepeatMode, Repeats, refuse_repeats, repeat_mode, without_repeats
from dispatchkit.core.fanout.silence import watch_silence
from dispatchkit.core.fanout.source import IterableSource, iterate
from dispatchkit.core.fanout.worker_pool import WorkerPool
from dispatchkit.core.validators import a_kind, int_in_range, seconds
from dispatchkit.errors import LedgerError, State

__all__ = ["FanOut"]

R = TypeVar("R")
W = TypeVar("W")


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
        give_up_after: Stop the run when the provider has answered nothing of it for so many seconds, although
            something was under way, or waited for the circuit breaker. A refusal and HTTP 429 are answers; HTTP 5xx, a
            broken connection and a timeout are not. A pause that the provider asked for does not count. None, the
            default: the run waits for the provider as long as it takes.
        grace_period: Seconds for which a stopped run waits for what is in flight.
        ledger: The durable memory of the run, usually a `Ledger`; it remembers each command from before its first byte
            leaves. None: a run that nothing remembers.
        run: The name of the run in the ledger. A run of this name that is there already goes on: what is done or
            rejected is left alone, what is unclear is settled, the rest is launched.
        repeat_window: Seconds. Refuse to launch, before the first launch, if another run of the ledger has launched one
            of the targets on the same account within this time, or launches it now. The run keeps the window that it
            was planned with. None, the default: not checked.
        repeats: What becomes of a command that is the same as an earlier one: ``"skip"`` leaves it out, and counts it
            in `Report.repeats`; ``"launch"`` launches it too; ``"refuse"`` refuses all with a `ValueError`, before the
            first launch. Reads are never left out. None, the default: skip where the commands have a length, else
            launch. A ledger holds each command once.

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
        grace_period: float = 30.0,
        ledger: JournalProvider | None = None,
        run: str | None = None,
        repeat_window: float | None = None,
        repeats: RepeatMode | None = None,
    ) -> None:
        a_kind("client", client, Client, "a DirectClient or an AltcraftClient")
        int_in_range("concurrency", concurrency, minimum=1)
        self._guards = Guards(
            max_launches=max_launches, stop_after_failures=stop_after_failures, give_up_after=give_up_after
        )
        self._client = client
        self._pacer = client.pacer
        timeout = None if timeout is None else seconds("timeout", timeout)
        retry = None if retry is None else a_policy(retry)
        self._grace_period = seconds("grace_period", grace_period)
        if (ledger is None) != (run is None):
            raise ValueError("ledger= and run= belong together: a ledger holds runs, each under its name")
        if commands is None and (ledger is None or expected is not None):
            raise ValueError("commands=None stands for what a ledger holds: it needs ledger=, and takes no expected=")
        self._commands: Iterator[Command[W, R]] | AsyncIterator[Command[W, R]] | None = None
        length: int | None = None
        self._repeats = Repeats()
        mode = repeat_mode(repeats, commands, remembered=ledger is not None)
        self._skips_repeats = mode == "skip"
        if commands is not None:
            if mode == "refuse":
                commands = refuse_repeats(commands)
            self._commands, length = iterate(commands, expected)
        if repeat_window is not None and ledger is None:
            raise ValueError("repeat_window= asks what other runs of the ledger did: it needs ledger=")
        self._source: Source = IterableSource(length, self._repeats if self._skips_repeats else None)
        journal: Journal | None = None
        if ledger is not None and run is not None:
            if not hasattr(ledger, "journal"):  # callers without a type checker, who give its file
                raise TypeError(f"ledger must be a Ledger, such as Ledger('launch.db'), not {type(ledger).__name__}")
            window = None if repeat_window is None else seconds("repeat_window", repeat_window)
            self._source = journal = ledger.journal(run, attrs.evolve(client.run_settings(), repeat_window=window))
        self._pool: WorkerPool[W, R] = WorkerPool(
            client,
            self._source,
            journal,
            self._guards,
            concurrency=concurrency,
            timeout=timeout,
            retry=retry,
            grace_period=self._grace_period,
            length=length,
            repeats=self._repeats,
        )
        self._outcomes = self._pool.outlet
        self._opened = False
        self._opening: asyncio.Event | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def report(self) -> Report:
        """What has come of the commands so far, whether or not the outcomes were taken."""
        return self._pool.report()

    @property
    def in_flight(self) -> int:
        """Calls that are under way now, waits and retries included."""
        return len(self._pool.calls)

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the run ended, or ends, before its last command; None if it does not."""
        return self._guards.reason

    def stop(self) -> None:
        """Start nothing new. What is in flight is awaited, and its outcomes still come."""
        self._pool.stop("stopped", "it was told to stop")

    async def finish(self) -> Report:
        """Go to the end and return the report. The outcomes themselves are dropped.

        Raises:
            AuthenticationError: The provider does not accept the token, so the run was stopped.
            AccessDeniedError: The token may not do this, or `TariffLimitError`: the account may not. It was the
                provider's first answer, so the run was stopped.
            BaseException: What the iterator of commands raised, or a token callable that is no `Exception`, once
                everything in flight has come to its outcome.
        """
        self._pool.is_dropping = True
        try:
            while await self.batch():
                pass
        except asyncio.CancelledError:
            await self.close()  # nobody is left to take an outcome
            raise
        return self.report

    async def batch(self, most: int = 1024) -> list[Outcome[R]]:
        """Wait for an outcome, and take all that are there, up to so many. Empty at the end of the run."""
        if self._pool.workers is None:
            await self._open()
            self._pool.start()
        while not self._outcomes and self._pool.workers:
            try:
                await self._outcomes.wait()
            except asyncio.CancelledError:
                self.stop()  # what is in flight comes to its outcome, and can still be taken
                raise
        if not self._outcomes:
            await self._end()
        return self._outcomes.get_many(most)

    async def _open(self) -> None:
        over = self._opening = asyncio.Event()
        try:
            commands = None if self._commands is None else refuse_wrong_types(self._commands)
            if commands is not None and self._skips_repeats and not isinstance(self._source, IterableSource):
                commands = without_repeats(commands, self._repeats)
            planned = await self._source.open(commands, self._pool.stop_elsewhere)
        except BaseException:
            self._pool.workers = set()  # nothing starts any more
            raise
        finally:
            over.set()
        self._opened = True
        self._pool.length = planned.total
        self._pool.previously_finished.update(planned.final)
        # What is done already shows that the provider accepts the token.
        self._pacer.begin_run(self, ramp=not self._pool.previously_finished[State.DONE])
        if self._guards.give_up_after is not None:
            self._watching = asyncio.create_task(self._watch(self._guards.give_up_after))

    async def _watch(self, limit: float) -> None:
        unclear_since = await watch_silence(
            limit,
            clock=self._client.clock,
            pacer=self._pacer,
            answered_at=self._pool.answered_at,
            is_trying=self._pool.is_trying,
        )
        text = (
            f"the provider has answered nothing since {unclear_since:%Y-%m-%d %H:%M:%S} UTC (give_up_after={limit:g})"
        )
        self._pool.stop("gave_up", text, silent_since=unclear_since)

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
        except BaseException as exception:  # noqa: BLE001 - what ended the run comes first
            self._pool.error = self._pool.error or exception
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
                    self._pool.error = self._pool.error or unwritten
        if self._pool.error is not None:
            error, self._pool.error = self._pool.error, None
            raise error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[R]:
        if (there := self._outcomes.get_nowait()) is not None:
            return there
        for outcome in await self.batch(1):
            return outcome
        raise StopAsyncIteration

    async def close(self, *, timeout: float | None = 0.0) -> None:
        """Start nothing new, and wait until it is over. Not needed after the end.

        What came of it can still be read from `report`, or taken.

        Args:
            timeout: Seconds for which what is in flight is awaited before it is cancelled; None sets no bound but
                ``grace_period``.
        """
        self.stop()
        if self._opening is not None:
            with contextlib.suppress(TimeoutError):  # somebody else plans, and must not lose the commands meanwhile
                await asyncio.wait_for(self._opening.wait(), self._grace_period)
        if self._pool.workers and timeout != 0:
            await asyncio.wait(self._pool.workers, timeout=timeout)
        self._pool.cut_short()
        while self._pool.workers:
            await asyncio.wait(self._pool.workers)
        self._pool.error = None  # nobody asked for more
        await self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

"""The journal of one run, over any store: it plans and holds the run, and hands out its unfinished targets.

All chunks are taken at the start. Every `HEARTBEAT_INTERVAL`, a heartbeat extends each hold, and tells whether the run
was stopped or taken over by another process.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Never, TypeVar, cast

import attrs

from dispatchkit.core.claim import ClaimResult
from dispatchkit.core.clock import Clock
from dispatchkit.core.command import Command
from dispatchkit.core.fanout.id_set import IdSet
from dispatchkit.core.fanout.journal import Journal, PlanSummary, WorkItem
from dispatchkit.core.fanout.outcome import Outcome
from dispatchkit.core.invalid_command import InvalidCommand
from dispatchkit.core.log import log
from dispatchkit.core.stop import StopSignal
from dispatchkit.errors import (
    LedgerError,
    OutcomeUnknownError,
    RejectedError,
    RepeatedTargetsError,
    RunStoppedError,
    State,
)
from dispatchkit.ledger.canary import with_canary
from dispatchkit.ledger.chunk import Chunk
from dispatchkit.ledger.claim import Claim, Record
from dispatchkit.ledger.codec import decode, decode_at_once
from dispatchkit.ledger.contents import load_files
from dispatchkit.ledger.group_commit import GroupCommit
from dispatchkit.ledger.hold import Hold
from dispatchkit.ledger.pages import Pages, Row
from dispatchkit.ledger.plan import begin, check_repeats, find_repeats, name_repeats, plan
from dispatchkit.ledger.run import Run
from dispatchkit.ledger.store import Store
from dispatchkit.ledger.target import Unsettled
from dispatchkit.ledger.tasks import mark_retrieved, to_its_end

if TYPE_CHECKING:
    from dispatchkit.core.call.context import RunSettings

__all__ = ["LedgerJournal"]

logger = logging.getLogger("dispatchkit.ledger")
_repeats_logger = logging.getLogger("dispatchkit.repeats")
"""Not a child of `logger`: the command line shows those warnings, and tells of repeats before its question."""

R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W")

# A class of `NamedTuple` makes a tuple with a function in Python, which takes three times as long.
_new_claim = cast("Callable[[type[Claim], tuple[object, ...]], Claim]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]
_new_record = cast("Callable[[type[Record], tuple[object, ...]], Record]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]
CLOSE_TIMEOUT = 1.5
"""Seconds that each step of a close waits for an unreachable database. A stopped run ends within 5 s."""


class LedgerJournal(Journal):
    """The `Journal` of one run, or of one of its chunks.

    Args:
        store: Opens the store and returns it.
        name: The run's name.
        settings: The client's settings.
        chunk: Only this chunk of a planned run. A chunk that another process holds is not waited for.
        resumes: Whether a stopped run is resumed.
        clock: The clock.
    """

    def __init__(
        self,
        store: Callable[[], Awaitable[Store]],
        name: str,
        settings: RunSettings,
        *,
        chunk: int | None = None,
        resumes: bool = False,
        clock: Clock,
    ) -> None:
        self._open_store = store
        self._name = name
        self._settings = settings
        self._only = chunk
        self._resumes = resumes
        self._clock = clock
        self._hold: Hold | None = None
        self._stop = StopSignal()
        self._group_commit: GroupCommit | None = None
        self._page: Iterator[Row] = iter(())
        self._large: deque[Row] = deque()
        """Rows of large commands, which a thread reads, and of those whose files are not read yet."""
        self._decoding = asyncio.Lock()
        self._chunk_of: dict[int, int] = {}
        self._left_out = IdSet()
        """The indexes of targets that other runs took over."""
        self._left_out_count = 0
        self._contents_pruned: datetime | None = None
        self._since_of: dict[int, datetime] = {}
        """`Claim.since` of targets in flight: of their first claim, as their `sending` row has it."""

    async def open(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None, stop: Callable[[], None]
    ) -> PlanSummary:
        """Hold the run and plan it. A stop ends the wait for an unreachable database, too."""
        opening = asyncio.create_task(_caught(lambda: self._open(commands, stop)))
        try:
            await self._wait(opening)
        except BaseException:
            await to_its_end(self._abandon(opening))
            raise
        if not opening.done():
            opening.cancel()
            await asyncio.wait([opening])
        if opening.cancelled() and self._stop.is_set:
            return PlanSummary(None, {})
        if opening.cancelled() and commands is not None:  # most likely by the iterator's code
            raise RuntimeError("the iterator of commands was cancelled: nothing was launched")
        planned = opening.result()
        if isinstance(planned, BaseException):
            raise planned
        return planned

    async def _abandon(self, opening: asyncio.Task[PlanSummary | BaseException]) -> None:
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled() and isinstance(opening.result(), PlanSummary):
            await self._release()  # the caller never learns that the run is held

    async def _wait(self, task: asyncio.Future[T]) -> bool:
        """Wait for a task, or until `CLOSE_TIMEOUT` after a stop. Returns whether the task is done."""
        with self._stop.interruptible():
            await asyncio.wait([task])
        if not task.done():
            await asyncio.wait([task], timeout=CLOSE_TIMEOUT)
        return task.done()

    async def _open(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None, stop: Callable[[], None]
    ) -> PlanSummary:
        try:
            run = await self._begin(planned=commands is None)
        except RunStoppedError:
            await self._check_refused_again()
            raise
        timeout = self._settings.attempt_timeout
        hold = self._hold = Hold(self._store, run, only=self._only, attempt_timeout=timeout, clock=self._clock)
        self._pages = Pages(self._store, run, hold, self._clock)
        group_commit = self._group_commit = GroupCommit(self._store, self._clock, self._stop)
        hold.ignores_stop = self._resumes

        def lost(error: LedgerError | None) -> None:
            if error is None:
                self.stop()
            else:
                group_commit.fail(error)
            stop()

        try:
            hold.keep(lost)
            if run.plan_complete:
                # Hold the chunks before adding targets, which another holder would otherwise launch.
                await hold.take()
            if commands is not None:
                if not await plan(self._store, run, commands, lambda: self._stop.is_set):
                    return attrs.evolve(await self._summary(), total=None)
                await self._store.planned(run.number)
                await hold.take()
            if run.plan_complete and self._only is None:
                await self._leave_out_repeats(run)
                await self._pages.check_all(lambda: self._stop.is_set)
            else:
                await self._refuse_repeats(run)
            if run.stopped and not await self._store.clear_stop(run.number, stops=run.stops):
                raise RunStoppedError(f"the run {self._name!r} was stopped while it was resumed: resume it again")
            hold.ignores_stop = False
            return await self._with_canary(await self._summary(), run)
        except BaseException:
            await self._release()
            raise

    async def _refuse_repeats(self, run: Run) -> None:
        try:
            await check_repeats(self._store, run, chunk=self._only, within=self._settings.repeat_window)
        except RepeatedTargetsError:
            if not run.plan_complete:  # no worker may launch it once the window has passed
                await self._store.stop(run.number)
            raise

    async def _leave_out_repeats(self, run: Run) -> None:
        """Leave out what other runs took over from this one. Its other targets are still to settle or to launch."""
        repeats = await find_repeats(self._store, run, chunk=None, within=self._settings.repeat_window)
        self._left_out_count = sum(len(self._left_out.add_new(repeat.indexes)) for repeat in repeats)
        if repeats:
            self._pages.left_out = self._left_out
            log(
                _repeats_logger,
                logging.WARNING,
                "targets of the run %r are left out, since other runs have launched them, or launch them now: %s",
                run.name,
                name_repeats(repeats),
                extra=lambda: {"run": run.name, "index": None},
            )

    async def _check_refused_again(self) -> None:
        """Say of a run that was stopped since it repeats targets that it still does.

        Raises:
            RepeatedTargetsError: See `check_repeats`.
        """
        if self._only is None and (run := await self._store.run(self._name)) is not None:
            await check_repeats(self._store, run, chunk=None, within=self._settings.repeat_window)

    async def check(self) -> Run:
        """Find the run of this journal, with the checks of `open`, and hold nothing.

        Raises:
            LedgerError: The run is missing, incompletely planned, stopped, or planned with other settings.
        """
        return await self._begin(planned=True)

    async def plan_chunks(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]], *, size: int
    ) -> list[Chunk]:
        """Plan the run for many workers, in chunks of ``size`` commands, and hold nothing. See `open`."""
        run = await self._begin(planned=False)
        if not await plan(self._store, run, commands, lambda: self._stop.is_set):
            raise LedgerError(f"the plan of the run {self._name!r} is incomplete, since it was stopped: plan it again")
        # Before the plan counts as complete: no worker may launch refused targets after the window has passed.
        await check_repeats(self._store, run, chunk=None, within=self._settings.repeat_window)
        return await self._store.planned(run.number, size=size)

    async def _begin(self, *, planned: bool) -> Run:
        self._store = await self._open_store()
        run = await begin(self._store, self._name, self._settings, planned=planned, resumes=self._resumes)
        self._run = run.number
        self._contents_pruned = run.contents_pruned
        return run

    async def _summary(self) -> PlanSummary:
        counts = await self._store.counts(self._run, chunk=self._only)
        total = counts.planned + counts.sending + counts.done + counts.rejected + counts.not_sent + counts.unknown
        final = {State.DONE: counts.done, State.REJECTED: counts.rejected, State.UNKNOWN: counts.unknown_for_good}
        return PlanSummary(total - self._left_out_count, final, launched_elsewhere=self._left_out_count)

    async def _with_canary(self, summary: PlanSummary, run: Run) -> PlanSummary:
        """Add the targets that go first.

        Raises:
            LedgerError: Only a chunk is held: the first targets may be in another one.
        """
        count = run.canary if self._settings.canary is None else self._settings.canary
        if not count:
            return summary
        if self._only is not None:
            raise LedgerError(
                f"the run {self._name!r} has a canary of {count}, so one process launches it: resume the whole run"
            )
        return await with_canary(self._store, run, summary, count, self._left_out)

    async def next_item(self) -> WorkItem[Never, object] | None:
        while not self._stop.is_set:
            if (item := self.next_at_once()) is not None:
                return item
            if self._large:
                return await self._large_item(*self._large.popleft())
            if not self._pages.ready and not await self._pages.more():
                return None
        return None

    def next_at_once(self) -> WorkItem[Never, object] | None:
        if self._stop.is_set:
            return None
        row = next(self._page, None)
        if row is None:
            if not self._pages.ready:
                return None
            self._page = iter(self._pages.take())
            row = next(self._page)
        command = decode_at_once(row[1].command)
        if command is None:
            self._large.append(row)
            return None
        return self._work_item(command, *row)

    async def _large_item(self, chunk: Chunk, row: Unsettled, acting_until: float) -> WorkItem[Never, object]:
        async with self._decoding:  # one after the other: the next one may have the same contents
            command = decode_at_once(row.command)
            if command is None:
                text = await load_files(row.command, partial(self._store.read_file, self._run))
                command = self._lost(row) if text is None else await asyncio.to_thread(decode, text)
        return self._work_item(command, chunk, row, acting_until)

    def _lost(self, row: Unsettled) -> Command[Never, object]:
        """What stands for a command whose file is missing or damaged: it is not sent, and the others are."""
        text = "a file of the command is missing or damaged in the ledger, so it was not sent now: restore the ledger "
        error = LedgerError(
            f"{text}from a copy"
            if self._contents_pruned is None
            else "the files of the run were pruned, so the command was not sent. Launch it with its file in another run"
        )
        return InvalidCommand(error, number=decode(row.command, partial=True).target)

    def _work_item(
        self, command: Command[Never, object], chunk: Chunk, row: Unsettled, acting_until: float
    ) -> WorkItem[Never, object]:
        self._chunk_of[row.index] = chunk.number
        if row.since is None:  # nothing of an earlier process is unclear
            return WorkItem(row.index, command, row.request_id)
        # A takeover does not delay earlier requests, but a state from before the takeover proves nothing.
        denied_from = max(self._holding.taken_at, acting_until)
        return WorkItem(row.index, command, row.request_id, row.since, denied_from, row.repeats, acting_until)

    @property
    def _holding(self) -> Hold:
        assert self._hold is not None  # noqa: S101 - `open` sets it
        return self._hold

    @property
    def _writer(self) -> GroupCommit:
        assert self._group_commit is not None  # noqa: S101 - `open` sets it
        return self._group_commit

    def claim(self, item: WorkItem[W, R], request_id: str | None) -> Awaitable[ClaimResult]:
        # No coroutine of its own: each launch waits for this.
        index, writer = item.index, self._writer
        since = item.unclear_since or writer.since()
        self._since_of.setdefault(index, since)
        row = (self._run, self._chunk_of[index], index, self._holding.token, request_id, since)
        return writer.claim(_new_claim(Claim, row), first_attempt=item.unclear_since is None)

    async def has_rival(self, item: WorkItem[W, R], within: float) -> bool:
        log_key = item.command.log_key
        return log_key is not None and await self._store.has_rival(self._run, item.index, log_key, within=within)

    def stop(self) -> None:
        self._stop.set()
        if self._group_commit is not None:
            self._group_commit.end_waits()

    def record(self, item: WorkItem[W, R], outcome: Outcome[R]) -> None:
        index, error = item.index, outcome.error
        summary, code, is_final = "", None, False
        if error is not None:
            summary = error.summary
            code = error.code if isinstance(error, RejectedError) else None
            if code is not None and abs(code) >= 2**63:
                code = None  # beyond the integers of the databases
            is_final = isinstance(error, OutcomeUnknownError) and error.is_final
        target = (self._run, self._chunk_of.pop(index), index, self._holding.token)
        told = (outcome.state, summary, code, outcome.request_id, len(outcome.attempts))
        at, since = self._clock.now(), self._since_of.pop(index, None)
        self._writer.record(_new_record(Record, (*target, *told, at, is_final, since)))

    async def close(self) -> None:
        """Write the last outcomes, and release the run. A stopped run waits `CLOSE_TIMEOUT` for the database."""
        if self._group_commit is None:
            return  # stopped before the ledger was open
        flushing = asyncio.ensure_future(self._group_commit.flush())
        flushing.add_done_callback(mark_retrieved)
        try:
            if not await self._wait(flushing):
                raise LedgerError(
                    f"the last outcomes of the run {self._name!r} could not be written: the database is unreachable. "
                    "Resume the run: it settles them by the provider's state"
                )
            flushing.result()
        except asyncio.CancelledError:
            # Still write the outcomes: after the release, it would be too late.
            await asyncio.wait([flushing], timeout=CLOSE_TIMEOUT)
            raise
        finally:
            is_unreachable = not flushing.done()
            flushing.cancel()
            await self._release(timeout=0.1 if is_unreachable else CLOSE_TIMEOUT)

    async def _release(self, *, timeout: float = CLOSE_TIMEOUT) -> None:
        # To its end, or this process would go on holding the run.
        await to_its_end(self._release_hold(timeout))

    async def _release_hold(self, timeout: float) -> None:
        await self._pages.close()
        await self._holding.release(timeout=timeout)


async def _caught(opening: Callable[[], Awaitable[PlanSummary]]) -> PlanSummary | BaseException:
    """Return an exception of the iterator of commands: a task would also report a KeyboardInterrupt to the loop."""
    try:
        return await opening()
    except asyncio.CancelledError:
        raise
    except StopAsyncIteration as stray:  # a loop over the outcomes would take it for the end
        error = RuntimeError("the iterator of commands raised StopAsyncIteration")
        error.__cause__ = stray
        return error
    except BaseException as error:  # noqa: BLE001
        return error

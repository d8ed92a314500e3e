"""The journal of one run, over any store: plans, hands out what is not final, and holds the run while it does.

A run is held chunk by chunk, all of them from the beginning. Every `HEARTBEAT_INTERVAL` it gives a heartbeat, and
learns in return whether the run was stopped, or taken over by another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import uuid
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Never, TypeVar

import attrs

from dispatchkit.core.built import Unbuilt
from dispatchkit.core.clock import Clock
from dispatchkit.core.command import Command
from dispatchkit.core.journal import Entry, Leave, Planned, RunSettings
from dispatchkit.core.outcome import Outcome
from dispatchkit.errors import (
    AccountMismatchError,
    ChunkHeldError,
    LedgerError,
    RejectedError,
    RepeatedTargetsError,
    RunHeldError,
    RunStoppedError,
    State,
)
from dispatchkit.ledger.batch import Gathering
from dispatchkit.ledger.codec import decode, encode
from dispatchkit.ledger.liveness import this_process
from dispatchkit.ledger.store import (
    HEARTBEAT_INTERVAL,
    LEASE_TIMEOUT,
    Chunk,
    Claim,
    Holder,
    Record,
    Run,
    RunPlan,
    Store,
    Unsettled,
)

__all__ = ["LedgerJournal"]

R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W")

logger = logging.getLogger("dispatchkit.ledger")

_TOLD = 5
"""How many other runs an error names."""
_PLAN_ROWS, _PLAN_TEXT = 50_000, 8_000_000
"""How much is planned in one transaction: the fewer there are, the less is written twice."""
_TURN = 256
"""After so many commands, others get their turn in the event loop."""
_PAGE_ROWS, _PAGE_TEXT = 1000, 1_000_000
"""How much is read ahead."""
CLOSE_TIMEOUT = 1.5
"""Seconds that each step of the end of a stopped run waits for an unreachable database, so that it ends within 5 s."""
_ALIVE = 0.3
"""Seconds by which a lease must have been prolonged to show that its holder is alive."""


class LedgerJournal:
    """The memory of one run, or of one chunk of it. See `Journal`, whose methods these are.

    Args:
        store: Gives the store, once it is open.
        name: The run's name.
        settings: How the client carries it out.
        chunk: Only this chunk, of a run that is planned already. A chunk that another process holds is not waited for.
        resumes: Whether a run that was stopped goes on.
        clock: Time.
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
        here = this_process()
        self._holder = Holder(
            uuid.uuid4().hex,
            here.pid,
            here.host,
            boot_id=here.boot_id,
            process_started=here.started,
            pid_namespace=here.pid_namespace,
        )
        self._held: list[Chunk] = []
        self._held_at = 0.0
        """When the last of them was taken, on the clock's ``monotonic``."""
        self._halted = False
        self._halting = asyncio.Event()
        self._gathering: Gathering | None = None
        self._heart: asyncio.Task[None] | None = None
        self._pages: deque[list[tuple[Chunk, Unsettled, float]]] = deque()
        self._page: Iterator[tuple[Chunk, Unsettled, float]] = iter(())
        self._reading: asyncio.Task[None] | None = None
        self._at = 0
        """Which of the chunks is read just now."""
        self._after = -1
        self._limit = 16
        self._chunk_of: dict[int, int] = {}

    async def open(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None, stop: Callable[[], None]
    ) -> Planned:
        """Hold the run and plan it. A halt ends it, also while the database is away."""
        opening = asyncio.create_task(self._open(commands, stop))
        try:
            await self._wait(opening)
        finally:
            if not opening.done():
                opening.cancel()
                await asyncio.wait([opening])
        return Planned(None, {}) if opening.cancelled() and self._halted else opening.result()

    async def _wait(self, task: asyncio.Future[T]) -> bool:
        """Wait for a task; once the run is halted, only `CLOSE_TIMEOUT` more. Returns whether it is done."""
        halting = asyncio.create_task(self._halting.wait())
        try:
            await asyncio.wait((task, halting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            halting.cancel()
        if not task.done():
            await asyncio.wait([task], timeout=CLOSE_TIMEOUT)
        return task.done()

    async def _open(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None, stop: Callable[[], None]
    ) -> Planned:
        self._store = await self._open_store()
        self._gathering = Gathering(self._store)
        run = await self._begin(commands)
        self._run = run.number
        try:
            self._heart = asyncio.create_task(self._beat(self._gathering, stop))
            if run.whole:
                # Before anything is planned: what is added must not reach a process that works on it.
                await self._hold()
            if commands is not None:
                if not await self._plan(commands):
                    return attrs.evolve(await self._found(), total=None)
                await self._store.planned(run.number)
                await self._hold()
            await self._check_repeats()
            if run.stopped:
                await self._store.stop(run.number, stopped=False)
            return await self._found()
        except BaseException:
            await self._let_go()
            raise

    async def check(self) -> Run:
        """Find the run of this journal, and refuse what `open` refuses before it holds anything.

        Raises:
            LedgerError: The run is missing, is not planned to its end, was stopped, or is another client's.
        """
        self._store = await self._open_store()
        return await self._begin(None)

    async def divide(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]], *, size: int
    ) -> list[Chunk]:
        """Plan the run for many workers, in chunks of so many commands, and hold nothing. See `open`."""
        self._store = await self._open_store()
        run = await self._begin(commands)
        self._run = run.number
        await self._plan(commands)
        chunks = await self._store.planned(run.number, size=size)
        await self._check_repeats()
        return chunks

    async def _begin(self, commands: object) -> Run:
        await self._store.check_identity()
        given = self._settings
        plan = RunPlan(
            name=self._name,
            settings=json.dumps(dict(given.settings), sort_keys=True),
            host=given.settings.get("base_url", ""),
            account=given.account,
            fingerprint=await asyncio.to_thread(given.fingerprint),
            attempt_timeout=given.attempt_timeout,
        )
        if commands is None:
            run = await self._store.run(self._name)
            if run is None:
                raise LedgerError(f"the ledger holds no run {self._name!r}")
            if not run.whole:
                raise LedgerError(
                    f"the plan of the run {self._name!r} is not whole: run the same again, with its commands, "
                    "to finish it"
                )
        else:
            run = await self._store.begin(plan)
        if run.stopped and not self._resumes:
            raise RunStoppedError(f"the run {self._name!r} was stopped: allow it before it is run again")
        others = _differences(json.loads(run.settings), given.settings)
        if others:
            raise LedgerError(
                f"the run {self._name!r} was planned with other settings ({others}): use another run name"
            )
        await self._check_account(run, plan)
        return run

    async def _check_account(self, run: Run, plan: RunPlan) -> None:
        """Refuse the token of another account, which would be rejected for each target, for good."""
        named = run.account is not None and plan.account is not None
        if (run.account != plan.account) if named else (run.fingerprint != plan.fingerprint):
            theirs = "another account" if run.account is None else f"the account {run.account!r}"
            ours = "this token" if plan.account is None else f"the account {plan.account!r}"
            raise AccountMismatchError(
                f"the run {self._name!r} was planned for {theirs} or for another token of it, not for {ours}: nothing "
                "was launched. If the account has a new token, say so (on the command line: --account-changed)"
            )
        if run.fingerprint != plan.fingerprint:
            await self._store.set_account(run.number, account=run.account, fingerprint=plan.fingerprint)

    async def _check_repeats(self) -> None:
        """Refuse targets that another run has launched a short time ago, or is launching."""
        window = self._settings.repeat_window
        if window is None:
            return
        repeats = await self._store.repeats(self._run, chunk=self._only, within=window)
        if not repeats:
            return
        told = "; ".join(
            f"{each.count:,} in run {each.run!r}, the latest at {each.latest:%Y-%m-%d %H:%M:%S} UTC, such as "
            f"{decode(each.commands[0])!r}"
            for each in repeats[:_TOLD]
        )
        more = f"; and in {len(repeats) - _TOLD:,} other runs" if len(repeats) > _TOLD else ""
        raise RepeatedTargetsError(
            f"other runs have launched targets of the run {self._name!r} within {window:g} s, or launch them now "
            f"({told}{more}): nothing was launched. Leave them out, or launch them without repeat_window",
            runs={each.run: each.count for each in repeats},
        )

    async def _plan(self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]]) -> bool:
        """Whether all of them are planned: the run may be stopped meanwhile.

        One batch is written while the next is put into text.
        """
        writing: asyncio.Task[None] | None = None
        rows: list[tuple[bytes, str]] = []
        size = index = 0
        try:
            async for command in _each(commands):
                if self._halted:
                    return False
                rows.append(_row(index, command))
                index += 1
                size += len(rows[-1][1])
                if len(rows) >= _PLAN_ROWS or size >= _PLAN_TEXT:
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(self._store.plan(self._run, rows))
                    rows, size = [], 0
        finally:
            if writing is not None:
                await writing
        await self._store.plan(self._run, rows)
        return not self._halted  # whoever stops the run may have closed what gives the commands

    async def _hold(self) -> None:
        """Take all chunks that are not finished, or none."""
        for chunk in await self._store.chunks(self._run):
            if self._only not in {None, chunk.number}:
                continue
            await self._take_hold(chunk)
            self._held = [each for each in self._held if each.number != chunk.number] + [chunk]
            self._held_at = self._clock.monotonic()

    async def _take_hold(self, chunk: Chunk) -> None:
        """Take a chunk. A holder that gives no heartbeat any more is waited for, until its lease ends."""
        lease_ends = math.inf
        while True:
            try:
                timeout = self._settings.attempt_timeout
                other = await self._store.hold(self._run, chunk.number, self._holder, attempt_timeout=timeout)
            except BaseException:
                self._held.append(chunk)  # it may have been taken all the same, so it is let go of, too
                raise
            if other is None:
                return
            if self._only is not None:
                retry_after = max(other.lease_left, HEARTBEAT_INTERVAL)
                raise ChunkHeldError(self._name, chunk.number, pid=other.pid, host=other.host, retry_after=retry_after)
            now = self._clock.monotonic()
            if other.exists or now + other.lease_left > lease_ends + _ALIVE:
                silent_for = LEASE_TIMEOUT - other.lease_left if other.lease_left < 0 else 0.0
                raise RunHeldError(self._name, pid=other.pid, host=other.host, silent_for=silent_for)
            if lease_ends == math.inf:
                until = self._clock.now() + timedelta(seconds=other.lease_left)
                logger.warning(
                    "the run %r was held by process %s on %s: waiting for the end of its lease at %s UTC",
                    self._name,
                    other.pid,
                    other.host,
                    f"{until:%H:%M:%S}",
                )
            lease_ends = now + other.lease_left
            await self._clock.sleep(min(HEARTBEAT_INTERVAL, other.lease_left + 0.05))

    async def _found(self) -> Planned:
        counts = await self._store.counts(self._run, chunk=self._only)
        total = counts.planned + counts.sending + counts.done + counts.rejected + counts.not_sent + counts.unknown
        return Planned(total, {State.DONE: counts.done, State.REJECTED: counts.rejected})

    async def _beat(self, gathering: Gathering, stop: Callable[[], None]) -> None:
        try:
            while True:
                await self._clock.sleep(HEARTBEAT_INTERVAL)
                for chunk in list(self._held):
                    pulse = await self._store.beat(self._run, chunk.number, self._holder.token)
                    if pulse.stopped or not pulse.mine:
                        self.halt()
                        stop()
                        return
        except LedgerError as error:
            gathering.fail(error)
            stop()

    async def take(self) -> Entry[Never, object] | None:
        """See `Journal.take`."""
        while not self._halted:
            found = next(self._page, None)
            if found is not None:
                return self._entry(*found)
            if self._pages:
                self._page = iter(self._pages.popleft())
                self._read_ahead()
            elif not await self._more():
                return None
        return None

    async def _more(self) -> bool:
        """Wait for the page that is being read. False: there is none any more."""
        self._read_ahead()
        if self._reading is None:
            return False
        await asyncio.shield(self._reading)  # others wait for it too
        return True

    def _read_ahead(self) -> None:
        if self._reading is None and not self._pages and self._at < len(self._held):
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(_seen)

    async def _read(self) -> None:
        try:
            chunk = self._held[self._at]
            rows = await self._store.unsettled(self._run, chunk.number, after=self._after, limit=self._limit)
            if not rows:
                self._at, self._after = self._at + 1, -1
                return
            now = self._clock.monotonic()
            self._after = rows[-1].index
            average = sum(len(row.command) for row in rows) // len(rows) + 1
            self._limit = max(1, min(_PAGE_ROWS, _PAGE_TEXT // average))
            self._pages.append([(chunk, row, now + row.acting_for) for row in rows])
        finally:
            self._reading = None

    def _entry(self, chunk: Chunk, row: Unsettled, acting_until: float) -> Entry[Never, object]:
        self._chunk_of[row.index] = chunk.number
        acting_until = max(self._held_at, acting_until)
        return Entry(row.index, decode(row.command), row.request_id, row.since, acting_until)

    @property
    def _writer(self) -> Gathering:
        assert self._gathering is not None  # noqa: S101 - it is there from `open` on
        return self._gathering

    async def claim(self, entry: Entry[W, R], request_id: str | None) -> Leave:
        """See `Journal.claim`."""
        since = entry.since or self._clock.now()
        chunk, token = self._chunk_of[entry.index], self._holder.token
        claim = Claim(self._run, chunk, entry.index, token, request_id, since)
        return await self._writer.claim(claim, fresh=entry.since is None)

    def halt(self) -> None:
        """See `Journal.halt`."""
        if not self._halted:
            self._halted = True
            self._halting.set()
            if self._gathering is not None:
                self._gathering.halt()

    def record(self, entry: Entry[W, R], outcome: Outcome[R]) -> None:
        """See `Journal.record`."""
        error = outcome.error
        code = error.code if isinstance(error, RejectedError) else None
        if code is not None and abs(code) >= 2**63:
            code = None  # no database has such integers
        self._writer.record(
            Record(
                self._run,
                self._chunk_of.pop(entry.index),
                entry.index,
                self._holder.token,
                outcome.state,
                "" if error is None else error.summary,
                code,
                outcome.request_id,
                attempts=len(outcome.attempts),
                at=self._clock.now(),
            )
        )

    async def close(self) -> None:
        """Write what is left to write, and let go of the run. A halted run does not wait long for the database."""
        if self._gathering is None:
            return  # it was halted before the ledger was open
        flushing = asyncio.ensure_future(self._gathering.flush())
        flushing.add_done_callback(_seen)
        try:
            if not await self._wait(flushing):
                raise LedgerError(
                    f"what came of the last launches of the run {self._name!r} could not be written, because the "
                    "database is away: when it goes on, they are settled by the provider's state"
                )
            flushing.result()
        except asyncio.CancelledError:
            # What is known is written all the same: once the run is let go of, it could not be any more.
            await asyncio.wait([flushing], timeout=CLOSE_TIMEOUT)
            raise
        finally:
            is_away = not flushing.done()
            flushing.cancel()
            await self._let_go(timeout=0.1 if is_away else CLOSE_TIMEOUT)

    async def _let_go(self, *, timeout: float = CLOSE_TIMEOUT) -> None:
        for task in (self._heart, self._reading):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        held, self._held = self._held, []
        with contextlib.suppress(LedgerError, TimeoutError):  # then it is taken for dead before long
            async with asyncio.timeout(timeout):
                for chunk in held:
                    await self._store.let_go(self._run, chunk.number, self._holder.token)


def _seen(task: asyncio.Task[None]) -> None:
    """Nobody may have waited for it: whoever asks next hears of the error."""
    if not task.cancelled():
        task.exception()


def _differences(planned: Mapping[str, str], given: Mapping[str, str]) -> str:
    names = sorted(name for name in {*planned, *given} if planned.get(name) != given.get(name))
    return ", ".join(f"{name}: {planned.get(name)!r}, not {given.get(name)!r}" for name in names)


async def _each(
    commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]],
) -> AsyncIterable[Command[W, R]]:
    if isinstance(commands, AsyncIterable):
        async for command in commands:
            yield command
        return
    for index, command in enumerate(commands):
        yield command
        if index % _TURN == _TURN - 1:
            await asyncio.sleep(0)


def _row(index: int, command: Command[W, R]) -> tuple[bytes, str]:
    if isinstance(command, Unbuilt):
        kind = TypeError if isinstance(command.mistake, TypeError) else ValueError
        raise kind(f"commands[{index}]: {command.mistake}: nothing was launched") from None
    try:
        return encode(command)
    except TypeError as mistake:
        raise TypeError(f"commands[{index}]: {mistake}: nothing was launched") from None

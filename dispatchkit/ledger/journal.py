"""The journal of one run, over any store: plans, hands out what is not final, and holds the run while it does.

A run is held chunk by chunk, all of them from the beginning. Every `HEARTBEAT_INTERVAL` it gives a sign of life, and
learns in return whether the run was stopped, or taken over by somebody who took this process for dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import uuid
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Never, TypeVar

import attrs

from dispatchkit.core.built import Unbuilt
from dispatchkit.core.clock import Clock
from dispatchkit.core.command import Command
from dispatchkit.core.journal import Entry, Leave, Planned
from dispatchkit.core.outcome import Outcome
from dispatchkit.errors import LedgerError, RejectedError, RunHeldError, RunStoppedError, State
from dispatchkit.ledger.batch import Gathering
from dispatchkit.ledger.codec import decode, encode
from dispatchkit.ledger.store import HEARTBEAT_INTERVAL, Chunk, Claim, Holder, Record, Run, RunPlan, Store, Unsettled

__all__ = ["LedgerJournal"]

R = TypeVar("R")
W = TypeVar("W")

_PLAN_ROWS, _PLAN_TEXT = 50_000, 8_000_000
"""How much is planned in one transaction: the fewer there are, the less is written twice."""
_TURN = 256
"""After so many commands, others get their turn in the event loop."""
_PAGE_ROWS, _PAGE_TEXT = 1000, 1_000_000
"""How much is read ahead."""
_PATIENCE = 10.0
"""Seconds that the end of a stopped run waits for a database that is away."""


class LedgerJournal:
    """The memory of one run, or of one chunk of it. See `Journal`, whose methods these are.

    Args:
        store: Gives the store, once it is open.
        name: The run's name.
        settings: Whose run it is; see `Journals.journal`.
        chunk: Only this chunk, of a run that is planned already.
        clock: Time.
    """

    def __init__(
        self,
        store: Callable[[], Awaitable[Store]],
        name: str,
        settings: Mapping[str, str],
        *,
        chunk: int | None = None,
        clock: Clock,
    ) -> None:
        self._open_store = store
        self._name = name
        self._settings = settings
        self._only = chunk
        self._clock = clock
        self._holder = Holder(uuid.uuid4().hex, os.getpid(), socket.gethostname())
        self._held: list[Chunk] = []
        self._halted = False
        self._gathering: Gathering | None = None
        self._heart: asyncio.Task[None] | None = None
        self._pages: deque[list[tuple[Chunk, Unsettled]]] = deque()
        self._page: Iterator[tuple[Chunk, Unsettled]] = iter(())
        self._reading: asyncio.Task[None] | None = None
        self._at = 0
        """Which of the chunks is read just now."""
        self._after = -1
        self._limit = 16
        self._chunk_of: dict[int, int] = {}

    async def open(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]] | None, stop: Callable[[], None]
    ) -> Planned:
        """See `Journal.open`."""
        self._store = await self._open_store()
        self._gathering = Gathering(self._store)
        run = await self._begin(commands)
        self._run = run.number
        try:
            self._heart = asyncio.create_task(self._beat(self._gathering, stop))
            if run.whole:
                # Before anything is planned: what is added must not reach somebody who is at work on it.
                await self._hold()
            if commands is not None:
                if not await self._plan(commands):
                    return attrs.evolve(await self._found(), total=None)
                await self._store.planned(run.number)
                await self._hold()
            return await self._found()
        except BaseException:
            await self._let_go()
            raise

    async def divide(
        self, commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]], *, size: int
    ) -> list[Chunk]:
        """Plan the run for many workers, in chunks of so many commands, and hold nothing. See `open`."""
        self._store = await self._open_store()
        run = await self._begin(commands)
        self._run = run.number
        await self._plan(commands)
        return await self._store.planned(run.number, size=size)

    async def _begin(self, commands: object) -> Run:
        settings = json.dumps(dict(self._settings), sort_keys=True)
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
            run = await self._store.begin(
                RunPlan(name=self._name, settings=settings, host="", account=None, fingerprint="", attempt_timeout=70.0)
            )
        if run.stopped:
            raise RunStoppedError(f"the run {self._name!r} was stopped: allow it before it is run again")
        others = _differences(json.loads(run.settings), self._settings)
        if others:
            raise LedgerError(f"the run {self._name!r} is another's ({others}): give this one a name of its own")
        return run

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
            try:
                other = await self._store.hold(self._run, chunk.number, self._holder, attempt_timeout=70.0)
            except BaseException:
                self._held.append(chunk)  # it may have been taken all the same: whoever lets go lets go of it too
                raise
            if other is not None:
                raise RunHeldError(self._name, pid=other.pid, host=other.host)
            self._held = [each for each in self._held if each.number != chunk.number] + [chunk]

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
            self._after = rows[-1].index
            average = sum(len(row.command) for row in rows) // len(rows) + 1
            self._limit = max(1, min(_PAGE_ROWS, _PAGE_TEXT // average))
            self._pages.append([(chunk, row) for row in rows])
        finally:
            self._reading = None

    def _entry(self, chunk: Chunk, row: Unsettled) -> Entry[Never, object]:
        self._chunk_of[row.index] = chunk.number
        return Entry(row.index, decode(row.command), row.request_id, row.since)

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
        """See `Journal.close`."""
        flushing = asyncio.ensure_future(self._writer.flush())
        flushing.add_done_callback(_seen)
        try:
            async with asyncio.timeout(_PATIENCE if self._halted else None):
                await asyncio.shield(flushing)
        except asyncio.CancelledError:
            # What is known is written all the same: once the run is let go of, it could not be any more.
            await asyncio.wait([flushing], timeout=_PATIENCE)
            raise
        except TimeoutError:
            raise LedgerError(
                f"what came of the last launches of the run {self._name!r} could not be written, because the database "
                "is away: when it goes on, they are settled by the provider's state"
            ) from None
        finally:
            flushing.cancel()
            await self._let_go()

    async def _let_go(self) -> None:
        for task in (self._heart, self._reading):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        held, self._held = self._held, []
        with contextlib.suppress(LedgerError, TimeoutError):  # then it is taken for dead before long
            async with asyncio.timeout(_PATIENCE):
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

"""Many commands through one client: fixed workers over one iterator, outcomes in the order of completion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Generic, Never, Self, TypeVar

import attrs

from dispatchkit.core.check import seconds
from dispatchkit.core.client import Client
from dispatchkit.core.command import Command
from dispatchkit.errors import Attempt, DispatchkitError, NotSentError, State

__all__ = ["FanOut", "Outcome", "Report"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
W = TypeVar("W")


@attrs.frozen
class Outcome(Generic[R_co]):
    """What came of one command of a fan-out."""

    index: int
    """The command's place in what was given, from 0."""
    command: Command[Never, R_co]
    state: State
    result: R_co | None
    """What the provider answered, if ``state`` is done."""
    error: DispatchkitError | None
    """Why it is not done."""
    attempts: tuple[Attempt, ...]
    request_id: str | None = None
    """The id by which the provider deduplicates the call; None where the provider has none."""


@attrs.frozen
class Report:
    """How many of a fan-out's commands came to which outcome."""

    done: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0

    @property
    def total(self) -> int:
        """All that came to an outcome."""
        return self.done + self.rejected + self.not_sent + self.unknown

    def count(self, state: State) -> Report:
        """The report with one more of this outcome."""
        return attrs.evolve(self, **{state.value: getattr(self, state.value) + 1})


class FanOut(Generic[W, R]):
    """Many commands through one client. ``async for`` gives each outcome as it comes; `finish` goes to the end.

    A fixed number of workers takes commands from one iterator, so a million targets need no more memory than a
    thousand, and a consumer that is slow holds the workers back. One failure never cancels another command.

    Args:
        client: Whose commands they are.
        commands: What to do; taken one by one, as workers become free.
        concurrency: How many are in flight at most.
        timeout: Seconds for each call; None takes the client's.

    Raises:
        ValueError: ``concurrency`` is less than 1, or ``timeout`` is not positive.
        TypeError: ``concurrency`` is not an integer, or ``timeout`` not a number.
    """

    def __init__(
        self,
        client: Client[W],
        commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]],
        *,
        concurrency: int = 64,
        timeout: float | None = None,
    ) -> None:
        if type(concurrency) is not int:
            raise TypeError(f"concurrency must be an integer, not {type(concurrency).__name__} {concurrency!r}")
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency!r}")
        if timeout is not None:
            seconds("timeout", timeout)
        self._client = client
        self._commands = _numbered(commands)
        self._concurrency = concurrency
        self._timeout = timeout
        # None wakes whoever waits at the end.
        self._outcomes: asyncio.Queue[Outcome[R] | None] = asyncio.Queue(maxsize=concurrency)
        self._turn = asyncio.Lock()
        self._workers: list[asyncio.Task[None]] = []
        self._at_work = 0
        self._broken: Exception | None = None
        self._stopping = asyncio.Event()
        self._ended = False
        self._report = Report()

    @property
    def report(self) -> Report:
        """What has come out so far."""
        return self._report

    def stop(self) -> None:
        """Start nothing new. What is in flight is awaited, and its outcomes still come."""
        self._stopping.set()

    async def finish(self) -> Report:
        """Go to the end and return the report. The outcomes themselves are dropped.

        Raises:
            Exception: What the iterator of commands raised, once everything in flight has come to its outcome.
        """
        async for _ in self:
            pass
        return self._report

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[R]:
        if self._ended:
            raise StopAsyncIteration
        if not self._workers:
            self._at_work = self._concurrency
            self._workers = [asyncio.create_task(self._work()) for _ in range(self._concurrency)]
        try:
            over = not self._at_work and self._outcomes.empty()
            outcome = None if over else await self._outcomes.get()
        except asyncio.CancelledError:
            await self.close()
            raise
        if outcome is None:
            self._ended = True
            self._wake()  # there may be a second consumer
            if self._broken is not None:
                raise self._broken
            raise StopAsyncIteration
        self._report = self._report.count(outcome.state)
        return outcome

    async def close(self) -> None:
        """Start nothing new, cancel what is in flight and wait until it is over. Not needed after the end."""
        self.stop()
        self._ended = True
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)
        self._wake()

    async def _work(self) -> None:
        try:
            while (numbered := await self._take()) is not None:
                await self._outcomes.put(await self._perform(*numbered))
        except Exception as error:  # noqa: BLE001 - the iterator is the caller's code: its mistake is the run's end
            self._broken = error
            self.stop()
        except asyncio.CancelledError:
            if self._ended:
                raise
            # Not by `close`, so most likely by the iterator's own code. A run that is cut short must not look whole.
            self._broken = RuntimeError("the iterator of commands, or a worker, was cancelled")
            self.stop()
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._wake()

    def _wake(self) -> None:
        if not self._outcomes.full():  # where it is full, nobody waits
            self._outcomes.put_nowait(None)

    async def _take(self) -> tuple[int, Command[W, R]] | None:
        async with self._turn:  # two workers must not be inside one generator
            if self._stopping.is_set():
                return None
            numbered = await anext(self._commands, None)
            # The stop may have come while the iterator was waited for.
            return None if self._stopping.is_set() else numbered

    async def _perform(self, index: int, command: Command[W, R]) -> Outcome[R]:
        try:
            call = self._client.call(command, timeout=self._timeout)
        except Exception as mistake:  # noqa: BLE001 - a callable that gives the token may raise anything
            # One command that cannot be sent must not end the run of the others.
            return Outcome(index, command, State.NOT_SENT, None, NotSentError(str(mistake), command=command), ())
        try:
            result = await call.run()
        except DispatchkitError as error:
            return Outcome(index, command, error.outcome, None, error, error.attempts, error.request_id)
        return Outcome(index, command, State.DONE, result, None, call.attempts, call.request_id)


async def _numbered(
    commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]],
) -> AsyncIterator[tuple[int, Command[W, R]]]:
    if isinstance(commands, AsyncIterable):
        index = 0
        async for command in commands:
            yield index, command
            index += 1
    else:
        for numbered in enumerate(commands):
            yield numbered

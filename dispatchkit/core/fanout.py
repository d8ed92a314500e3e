"""Many commands through one client: fixed workers over one iterator, outcomes in the order of completion.

A million targets need no more memory than a thousand: nothing is made per command but the command itself and its
outcome, and when as many outcomes as there are workers wait to be taken, the workers wait too. One failure never
cancels another command.

What ends a run before its time: `FanOut.stop`, a guard (``max_launches``, ``stop_after_failures``), a token that the
provider does not accept, or a mistake in the iterator of commands. In each case nothing new starts, what waits for its
turn or for a retry gives up at once, and what is in flight is awaited. If that takes longer than ``grace``, it is
cancelled, and its outcome says what is known of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator, Sized
from typing import Generic, Self, TypeVar

from dispatchkit.core.call import Call
from dispatchkit.core.check import seconds
from dispatchkit.core.client import Client
from dispatchkit.core.command import Command
from dispatchkit.core.outcome import Outcome, Report
from dispatchkit.core.retry import RetryPolicy
from dispatchkit.errors import AuthenticationError, DispatchkitError, NotSentError, State

__all__ = ["FanOut"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
W = TypeVar("W")


class FanOut(Generic[W, R]):
    """Many commands through one client. ``async for`` gives each outcome as it comes; `finish` goes to the end.

    Whoever leaves the loop before the end closes the run (`close`, or ``async with run:`` around it): until then, its
    workers go on until as many outcomes wait as there are workers.

    Args:
        client: Whose commands they are.
        commands: What to do; taken one by one, as workers become free.
        concurrency: How many workers there are. The account's `Pace` may allow fewer to be in flight.
        timeout: Seconds for each call, from its first attempt on; None takes the client's. The time that a call waits
            for its turn does not count.
        retry: When and how each call is repeated; None takes the client's policy.
        expected: How many commands there must be. A list of another length is refused before the first launch.
        max_launches: How many commands may be begun at most.
        stop_after_failures: Stop the run after so many outcomes that are not done.
        grace: Seconds for which a stopped run waits for what is in flight.

    Raises:
        ValueError: A setting is out of range, or there are not as many commands as ``expected``.
        TypeError: A setting is of another type.
    """

    def __init__(
        self,
        client: Client[W],
        commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]],
        *,
        concurrency: int = 64,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        expected: int | None = None,
        max_launches: int | None = None,
        stop_after_failures: int | None = None,
        grace: float = 30.0,
    ) -> None:
        _count("concurrency", concurrency, least=1)
        for name, value in (("max_launches", max_launches), ("stop_after_failures", stop_after_failures)):
            if value is not None:
                _count(name, value, least=1)
        self._client = client
        self._concurrency = concurrency
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._retry = retry
        self._max_launches = max_launches
        self._stop_after_failures = stop_after_failures
        self._grace = seconds("grace", grace)
        self._commands, self._length = _source(commands, expected)
        self._turn = asyncio.Lock()
        self._taken = 0
        self._counts: Counter[State] = Counter()
        self._ready: deque[Outcome[R]] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self._blocked: deque[asyncio.Future[None]] = deque()
        self._workers: set[asyncio.Task[None]] | None = None
        self._idle: set[asyncio.Task[None]] = set()
        self._calls: dict[asyncio.Task[None], Call[W, R]] = {}
        self._dropping = False
        self._stopping = False
        self._error: Exception | None = None
        self._patience: asyncio.TimerHandle | None = None

    @property
    def report(self) -> Report:
        """What has come of the commands so far, whether or not the outcomes were taken."""
        counts = self._counts
        left = None if self._length is None else self._length - counts.total()
        return Report(counts[State.DONE], counts[State.REJECTED], counts[State.NOT_SENT], counts[State.UNKNOWN], left)

    @property
    def in_flight(self) -> int:
        """Calls that are under way now, waits and retries included."""
        return len(self._calls)

    def stop(self) -> None:
        """Start nothing new. What is in flight is awaited, and its outcomes still come."""
        if self._stopping:
            return
        self._stopping = True
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
            Exception: What the iterator of commands raised, once everything in flight has come to its outcome.
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
            self._workers = {asyncio.create_task(self._work()) for _ in range(self._concurrency)}
        while not self._ready and self._workers:
            self._arrival = self._arrival or asyncio.get_running_loop().create_future()
            try:
                await asyncio.shield(self._arrival)
            except asyncio.CancelledError:
                self.stop()  # what is in flight comes to its outcome, and can still be taken
                raise
        if not self._ready:
            await self._end()
        taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        self._unblock(len(taken))
        return taken

    async def _end(self) -> None:
        # A generator may hold a file open.
        close = getattr(self._commands, "aclose", None) or getattr(self._commands, "close", None)
        if close is not None and not isinstance(self._commands, Sized):
            closing: Awaitable[None] | None = close()
            if closing is not None:
                await closing
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[R]:
        if self._ready and not self._blocked:
            return self._ready.popleft()
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
        try:
            while (numbered := await self._take(worker)) is not None:
                self._put(await self._perform(worker, *numbered))
                while len(self._ready) >= self._concurrency and not self._stopping:
                    await self._wait_for_space(worker)
        except asyncio.CancelledError:
            if not self._stopping:
                # Most likely by the iterator's own code. A run that is cut short must not look whole.
                self._break(RuntimeError("the iterator of commands, or a worker, was cancelled"))
        except Exception as error:  # noqa: BLE001 - the iterator is the caller's code: its mistake is the run's end
            self._break(error)
        finally:
            self._leave(worker)

    async def _take(self, worker: asyncio.Task[None]) -> tuple[int, Command[W, R]] | None:
        if isinstance(self._commands, Iterator):
            command = _END if self._is_over() else next(self._commands, _END)
        else:
            self._idle.add(worker)
            async with self._turn:  # two workers must not be inside one generator
                command = _END if self._is_over() else await anext(self._commands, _END)
            self._idle.discard(worker)
        # The stop may have come while the iterator was waited for, or from within it.
        if isinstance(command, _End) or self._stopping:
            return None
        self._taken += 1
        return self._taken - 1, command

    def _is_over(self) -> bool:
        return self._stopping or self._taken == self._max_launches

    async def _perform(self, worker: asyncio.Task[None], index: int, command: Command[W, R]) -> Outcome[R]:
        try:
            call = self._client.call(command, timeout=self._timeout, retry=self._retry)
        except Exception as mistake:  # noqa: BLE001 - a callable that gives the token may raise anything
            # One command that cannot be sent must not end the run of the others.
            return Outcome(index, command, State.NOT_SENT, None, NotSentError(str(mistake), command=command), ())
        ticket = self._client.pacer.enter() or await self._wait_for_turn(worker)
        self._calls[worker] = call
        try:
            result = await call.run(ticket=ticket)
        except DispatchkitError as error:
            return Outcome(index, command, error.outcome, None, error, error.attempts, error.request_id)
        except asyncio.CancelledError:
            # By this run, or by somebody who ends all tasks: what is known of it is an outcome like any other.
            self._break(RuntimeError("a worker of the run was cancelled"))
            worker.uncancel()
            known = call.abandoned()
            return Outcome(index, command, known.outcome, None, known, known.attempts, known.request_id)
        finally:
            del self._calls[worker]
        return Outcome(index, command, State.DONE, result, None, call.attempts, call.request_id)

    async def _wait_for_turn(self, worker: asyncio.Task[None]) -> int:
        self._idle.add(worker)
        ticket = await self._client.pacer.admit()
        self._idle.discard(worker)
        return ticket

    def _put(self, outcome: Outcome[R]) -> None:
        self._counts[outcome.state] += 1
        if not self._dropping:
            self._ready.append(outcome)
            self._announce()
        if isinstance(outcome.error, AuthenticationError):
            # No other command would fare better.
            self._break(outcome.error)
        elif self._counts.total() - self._counts[State.DONE] == self._stop_after_failures:
            self.stop()

    def _break(self, error: Exception) -> None:
        if not self._stopping:
            self._error = error
        self.stop()

    async def _wait_for_space(self, worker: asyncio.Task[None]) -> None:
        blocked = asyncio.get_running_loop().create_future()
        self._blocked.append(blocked)
        self._idle.add(worker)
        try:
            await blocked
        finally:
            self._idle.discard(worker)

    def _unblock(self, room: int) -> None:
        while room and self._blocked:
            blocked = self._blocked.popleft()
            if not blocked.done():
                blocked.set_result(None)
                room -= 1

    def _announce(self) -> None:
        if self._arrival is not None:
            self._arrival.set_result(None)
            self._arrival = None

    def _leave(self, worker: asyncio.Task[None]) -> None:
        workers = self._workers or set()
        workers.discard(worker)
        self._idle.discard(worker)
        if not workers:
            if self._patience is not None:
                self._patience.cancel()
            self._announce()


class _End:
    """What no iterator of commands can hold."""


_END = _End()


def _count(name: str, value: object, *, least: int) -> None:
    if type(value) is not int:
        raise TypeError(f"{name} must be an integer from {least} up, not {type(value).__name__} {value!r}")
    if value < least:
        raise ValueError(f"{name} must be an integer from {least} up, not {value!r}")


def _source(
    commands: Iterable[Command[W, R]] | AsyncIterable[Command[W, R]], expected: int | None
) -> tuple[Iterator[Command[W, R]] | AsyncIterator[Command[W, R]], int | None]:
    """The iterator, and how many commands it holds if that can be known."""
    length = len(commands) if isinstance(commands, Sized) else None
    if expected is not None:
        _count("expected", expected, least=0)
        if length is None:
            if isinstance(commands, AsyncIterable):
                raise TypeError("expected= needs commands that can be counted: a list, not an async iterator")
            commands = list(commands)
            length = len(commands)
        if length != expected:
            raise ValueError(f"there are {length:,} commands, but expected={expected:,}: nothing was started")
    if isinstance(commands, AsyncIterable):
        return aiter(commands), length
    return iter(commands), length

"""Many commands through one client: never more at a time than asked for, each once, none lost in silence."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

from dispatchkit import (
    DirectClient,
    Done,
    FanOut,
    NotSentError,
    Outcome,
    Rejected,
    RejectedError,
    Report,
    StartDispatch,
)
from dispatchkit.core.call.retry import RetryPolicy
from dispatchkit.core.command import Request, Response
from dispatchkit.core.transport.transport import TransportFailure
from tests.harness import played
from tests.wire import Instant


class Stage:
    """Stands in for the transport: says what each start is answered, and sees how many are in flight."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.in_flight = 0
        self.most = 0
        self.gates: dict[int, asyncio.Event] = {}
        self.refused: set[int] = set()

    async def send(self, request: Request, *_: object, **__: object) -> Response | TransportFailure:
        number = int(request.target.split("/")[-2])
        self.seen.append(number)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await (self.gates[number].wait() if number in self.gates else turns(5))
        finally:
            self.in_flight -= 1
        if number in self.refused:
            return Response(403, {}, b'{"error": {"code": 4031, "msg": "no"}}')
        return Response(200, {}, b'{"dispatchId": %d}' % number)

    async def close(self) -> None:
        pass


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def client(stage: Stage) -> DirectClient:
    client = DirectClient("t", retry=RetryPolicy(attempts=1), clock=Instant())
    client._context.transport = stage  # type: ignore[assignment]
    return client


def starts(ids: Iterable[int]) -> Iterator[StartDispatch]:
    return (StartDispatch(number) for number in ids)


async def aiterate(ids: Iterable[int]) -> AsyncIterator[StartDispatch]:
    for number in ids:
        await asyncio.sleep(0)
        yield StartDispatch(number)


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("source", [starts, aiterate, lambda ids: list(starts(ids))], ids=["sync", "async", "list"])
@pytest.mark.parametrize("concurrency", [1, 3, 64, 500])
async def test_concurrency_is_never_exceeded(client: DirectClient, stage: Stage, source: Any, concurrency: int) -> None:
    outcomes = [outcome async for outcome in FanOut(client, source(range(1, 201)), concurrency=concurrency)]
    assert sorted(outcome.index for outcome in outcomes) == list(range(200))
    assert all(outcome.command == StartDispatch(outcome.index + 1) for outcome in outcomes)
    assert all(isinstance(outcome, Done) and outcome.result.dispatch_id == outcome.index + 1 for outcome in outcomes)
    assert sorted(stage.seen) == list(range(1, 201))
    assert stage.most <= concurrency
    assert stage.most == min(concurrency, 200) or concurrency > 3
    assert all(len(outcome.attempts) == 1 for outcome in outcomes)


async def test_outcomes_come_in_completion_order(client: DirectClient, stage: Stage) -> None:
    stage.gates = {number: asyncio.Event() for number in (1, 2, 3)}
    run = FanOut(client, starts([1, 2, 3]), concurrency=3)
    order = []
    for number in (2, 3, 1):
        stage.gates[number].set()
        order.append((await anext(run)).index)
    assert order == [1, 2, 0]
    with pytest.raises(StopAsyncIteration):
        await anext(run)
    with pytest.raises(StopAsyncIteration):
        await anext(run)


async def test_failure_ends_no_other_command(client: DirectClient, stage: Stage) -> None:
    stage.refused = set(range(1, 100, 2))
    run = FanOut(client, starts(range(1, 101)), concurrency=8)
    outcomes = {outcome.index + 1: outcome async for outcome in run}
    assert len(outcomes) == 100
    for number, outcome in outcomes.items():
        assert outcome.state == ("rejected" if number in stage.refused else "done")
        assert isinstance(outcome.error, RejectedError) is (number in stage.refused)
        assert isinstance(outcome, Rejected) is (number in stage.refused)
    assert run.report == Report(done=50, rejected=50)
    assert run.report.total == 100


async def test_unsendable_command_is_not_sent(client: DirectClient, stage: Stage) -> None:
    commands: list[Any] = [StartDispatch(1), "no command", None, StartDispatch(2)]
    outcomes = sorted([outcome async for outcome in FanOut(client, commands)], key=lambda outcome: outcome.index)
    assert [outcome.state for outcome in outcomes] == ["done", "not_sent", "not_sent", "done"]
    assert isinstance(outcomes[1].error, NotSentError)
    assert "command must be a DirectCommand, not str" in str(outcomes[1].error)
    assert stage.seen == [1, 2]


async def test_finish_goes_to_the_end(client: DirectClient) -> None:
    run = FanOut(client, starts(range(1, 31)), concurrency=4)
    assert run.report == Report()
    assert await run.finish() == run.report == Report(done=30)
    assert await run.finish() == Report(done=30)


async def test_empty_run_ends(client: DirectClient) -> None:
    assert await FanOut(client, starts([])).finish() == Report()
    assert await FanOut(client, aiterate([])).finish() == Report()


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("raised", [ValueError, KeyError, RuntimeError, asyncio.CancelledError])
async def test_iterator_error_awaits_in_flight(
    client: DirectClient, stage: Stage, concurrency: int, asynchronous: bool, raised: type[BaseException]
) -> None:
    def source() -> Iterator[StartDispatch]:
        yield from starts(range(1, 11))
        raise raised("broken")

    async def asource() -> AsyncIterator[StartDispatch]:
        for command in source():
            yield command

    run = FanOut(client, asource() if asynchronous else source(), concurrency=concurrency)
    seen: list[Outcome[Any]] = []
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError if raised is asyncio.CancelledError else raised):  # noqa: PT012
            async for outcome in run:
                seen.append(outcome)  # noqa: PERF401 - what came before the error is kept
    assert sorted(outcome.index for outcome in seen) == list(range(10))
    assert run.report == Report(done=10)
    assert sorted(stage.seen) == list(range(1, 11))


async def test_stop_awaits_calls_in_flight(client: DirectClient, stage: Stage) -> None:
    stage.gates = {number: asyncio.Event() for number in range(1, 101)}
    run = FanOut(client, starts(range(1, 101)), concurrency=4)
    first = asyncio.ensure_future(anext(run))
    await turns()
    run.stop()
    assert stage.seen == [1, 2, 3, 4]
    for gate in stage.gates.values():
        gate.set()
    assert (await first).state == "done"
    assert await run.finish() == Report(done=4)
    assert stage.seen == [1, 2, 3, 4]


async def test_command_after_stop_is_skipped(client: DirectClient, stage: Stage) -> None:
    gate = asyncio.Event()

    async def source() -> AsyncIterator[StartDispatch]:
        yield StartDispatch(1)
        await gate.wait()
        yield StartDispatch(2)

    run = FanOut(client, source(), concurrency=2)
    assert (await anext(run)).index == 0
    await turns()
    run.stop()
    gate.set()
    assert await run.finish() == Report(done=1)
    assert stage.seen == [1]


async def test_early_stop_starts_nothing(client: DirectClient, stage: Stage) -> None:
    run = FanOut(client, starts([1, 2]))
    run.stop()
    assert await run.finish() == Report()
    assert stage.seen == []


async def test_close_ends_calls_in_flight(client: DirectClient, stage: Stage) -> None:
    stage.gates = {number: asyncio.Event() for number in range(1, 11)}
    run = FanOut(client, starts(range(1, 11)), concurrency=3)
    waiting = asyncio.ensure_future(run.finish())
    await turns()
    assert stage.in_flight == 3
    await run.close()
    assert stage.in_flight == 0
    async with asyncio.timeout(1):
        await waiting
    assert stage.seen == [1, 2, 3]
    await run.close()
    with pytest.raises(StopAsyncIteration):
        await anext(run)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_early_close_does_nothing(client: DirectClient, stage: Stage) -> None:
    run = FanOut(client, starts([1]))
    await run.close()
    assert [outcome async for outcome in run] == []
    assert stage.seen == []


async def test_cancelled_consumer_leaves_no_worker(client: DirectClient, stage: Stage) -> None:
    stage.gates = {1: asyncio.Event()}
    consumer = asyncio.ensure_future(FanOut(client, starts([1])).finish())
    await turns()
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_slow_consumer_blocks_workers(client: DirectClient, stage: Stage, concurrency: int) -> None:
    run = FanOut(client, starts(range(1, 101)), concurrency=concurrency)
    taken = 0
    async for _ in run:
        taken += 1
        await turns(20)
        assert len(stage.seen) <= taken + 2 * concurrency, "a queue of outcomes and one in each worker's hands"
    assert taken == 100


async def test_two_consumers_share_one_run(client: DirectClient) -> None:
    run = FanOut(client, starts(range(1, 51)), concurrency=4)

    async def consume() -> list[int]:
        return [outcome.index async for outcome in run]

    async with asyncio.timeout(5):
        first, second = await asyncio.gather(consume(), consume())
    assert sorted(first + second) == list(range(50))


def test_early_break_does_not_hang(stage: Stage) -> None:
    async def main() -> None:
        client = DirectClient("t", clock=Instant())
        client._context.transport = stage  # type: ignore[assignment]
        async for _ in FanOut(client, starts(range(1, 1001)), concurrency=4):
            await turns()
            break

    asyncio.run(asyncio.wait_for(main(), 5))
    assert len(stage.seen) < 20


@pytest.mark.parametrize("bad", [0, -1, True, "5", 1.5, None])
def test_concurrency_is_a_positive_integer(client: DirectClient, bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="concurrency must be "):
        FanOut(client, [], concurrency=bad)


@pytest.mark.parametrize("bad", [0, -1, "5", True, float("nan")])
def test_timeout_is_checked_first(client: DirectClient, bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout must be "):
        FanOut(client, [], timeout=bad)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no loop starts tasks at once before Python 3.12")
async def test_eager_tasks_end_run() -> None:
    def start_at_once(loop, coroutine, **options):  # uvloop passes an option that `eager_task_factory` of 3.13.0 lacks
        return asyncio.Task(coroutine, loop=loop, **{**options, "eager_start": True})

    client, _ = played()
    asyncio.get_running_loop().set_task_factory(start_at_once)
    run = FanOut(client, starts(range(1, 4)), concurrency=8)
    assert await asyncio.wait_for(run.finish(), 5) == Report(done=3)
    assert await asyncio.wait_for(FanOut(client, []).finish(), 5) == Report(not_started=0)

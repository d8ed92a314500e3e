"""The retry budget: it bounds the load on a dead provider, and decides no outcome."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from tenacity import wait_none

from dispatchkit import DirectClient, NotSentError, OutcomeUnknownError, Pace, RetryPolicy, StartDispatch
from dispatchkit.core.call.budget import BudgetStatistics, RetryBudget
from dispatchkit.core.command import Request, Response
from dispatchkit.core.transport.transport import SendTracker, TransportFailure
from dispatchkit.testing import FakeClock
from tests.fake_transport import FakeTransport


class Outage:
    """A transport whose provider is down for a while. Every second launch of that time takes effect all the same."""

    def __init__(self, clock: FakeClock, seconds: float, *, latency: float = 0.05) -> None:
        self.clock = clock
        self.seconds = seconds
        self.latency = latency
        self.launches = Counter[int]()
        self.first = 0
        self.repeats = 0
        """Requests during the outage that are no first attempt."""
        self._seen = set[int]()

    async def send(self, request: Request, tracker: SendTracker, *, timeout: float) -> Response | TransportFailure:
        tracker.sent = True
        is_read = request.method == "GET"
        number = int(request.target.rpartition("=")[2] if is_read else request.target.split("/")[-2])
        is_down = self.clock.time < self.seconds
        if is_down and not is_read and number not in self._seen:
            self.first += 1
        elif is_down:
            self.repeats += 1
        self._seen.add(number)
        acts = not is_read and (not is_down or number % 2 == 0)
        self.launches[number] += acts
        await self.clock.sleep(self.latency)
        if is_down:
            return Response(500, {}, b"")
        if not is_read:
            return Response(200, {}, b'{"dispatchId": %d}' % number)
        status = "sending" if self.launches[number] else "initiated"
        item = {"dispatchId": number, "status": status}
        return Response(200, {}, json.dumps({"total": 1, "items": [item]}).encode())

    async def close(self) -> None:
        pass


def client_of(outage: Outage, pace: Pace | None = None) -> DirectClient:
    client = DirectClient("key", clock=outage.clock, pace=pace)
    client._context.transport = outage  # type: ignore[assignment]
    return client


@pytest.mark.second_stage
@pytest.mark.parametrize("seconds", [0.5, 60])
@pytest.mark.parametrize("calls", [10, 1_000, pytest.param(10_000, marks=pytest.mark.second_stage)])
async def test_outage_leaves_nothing_unknown(calls: int, seconds: float) -> None:
    outage = Outage(FakeClock(), seconds)
    async with client_of(outage) as client:
        results = await asyncio.gather(*(client.start(number) for number in range(1, calls + 1)))
        statistics = client.statistics().budget
    assert [started.dispatch_id for started in results] == list(range(1, calls + 1))
    assert set(outage.launches.values()) == {1}
    assert outage.repeats <= RetryBudget.INITIAL_TOKENS + 0.1 * outage.first + RetryBudget.REFILL * seconds
    assert (statistics.refused, statistics.waiting) == (0, 0)


@pytest.mark.parametrize("calls", [500, pytest.param(3_000, marks=pytest.mark.second_stage)])
@pytest.mark.parametrize("latency", [0.05, 2])
async def test_outage_without_breaker_settles(calls: int, latency: float) -> None:
    outage = Outage(FakeClock(), 60, latency=latency)
    client = client_of(outage, Pace(failure_threshold=1, concurrency=calls))
    await asyncio.gather(*(client.start(number) for number in range(1, calls + 1)))
    assert set(outage.launches.values()) == {1}
    assert outage.first == calls
    assert outage.repeats <= RetryBudget.INITIAL_TOKENS + 0.1 * outage.first + RetryBudget.REFILL * 60


async def test_dead_provider_sees_refill_rate() -> None:
    outage = Outage(FakeClock(), math.inf)
    client = client_of(outage, Pace(failure_threshold=1))
    results = await asyncio.gather(*(client.start(number) for number in range(1, 201)), return_exceptions=True)
    assert {type(result) for result in results} == {OutcomeUnknownError}
    assert 200 < outage.repeats <= RetryBudget.INITIAL_TOKENS + 0.1 * 200 + RetryBudget.REFILL * 240
    errors = Counter(str(result).partition("; ")[2].rpartition(", and ")[2].partition("\n")[0] for result in results)
    assert "the retry budget of the client had no token for a state read before the deadline" in " ".join(errors)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def emptied(clock: FakeClock) -> RetryBudget:
    budget = RetryBudget(clock)
    for _ in range(int(RetryBudget.INITIAL_TOKENS)):
        assert await budget.withdraw(until=0.0)
    return budget


async def test_tokens_refill_in_order(clock: FakeClock) -> None:
    budget = await emptied(clock)
    got: list[tuple[int, float]] = []

    async def one(number: int) -> None:
        assert await budget.withdraw(until=math.inf)
        got.append((number, clock.time))

    await asyncio.gather(*map(one, range(5)))
    assert got == [(number, pytest.approx(number + 1)) for number in range(5)]


async def test_new_call_joins_queue_end(clock: FakeClock) -> None:
    budget = await emptied(clock)
    got: list[str] = []

    async def one(name: str) -> None:
        assert await budget.withdraw(until=math.inf)
        got.append(name)

    first = asyncio.create_task(one("first"))
    await asyncio.sleep(0)
    for _ in range(math.ceil(1 / RetryBudget.TOKEN_RATIO)):
        budget.deposit()
    await asyncio.gather(first, one("second"))
    assert got == ["first", "second"]


async def test_refill_stops_at_initial_tokens(clock: FakeClock) -> None:
    budget = await emptied(clock)
    await clock.sleep(3.5)
    assert budget.statistics() == BudgetStatistics(pytest.approx(3.5), 10, 0, 0)  # type: ignore[arg-type]
    await clock.sleep(3600)
    assert budget.statistics().tokens == RetryBudget.INITIAL_TOKENS


async def test_responses_double_allowed_retries(clock: FakeClock) -> None:
    budget = await emptied(clock)
    rounds = Counter[int]()

    async def one() -> None:
        assert await budget.withdraw(until=math.inf)
        rounds[int(clock.time / 0.1)] += 1
        await clock.sleep(0.1)
        budget.refund()

    await asyncio.gather(*(one() for _ in range(127)))
    assert [rounds[at] for at in range(10, 16)] == [1, 2, 4, 8, 16, 32]
    assert budget.statistics().spent == 137


async def test_late_token_is_refused(clock: FakeClock) -> None:
    budget = await emptied(clock)
    got = await asyncio.gather(*(budget.withdraw(until=until) for until in (9.0, 0.5, 1.5, 2.0, 9.0)))
    assert got == [True, False, False, True, True]
    assert clock.time == pytest.approx(3)
    assert not await budget.withdraw(until=clock.time - 1)
    assert budget.statistics().refused == 3


async def test_waiting_calls_are_woken_once(clock: FakeClock) -> None:
    budget = await emptied(clock)
    sleeps = 0
    sleep = clock.sleep

    def counted(seconds: float) -> Coroutine[object, object, None]:
        nonlocal sleeps
        sleeps += 1
        return sleep(seconds)

    clock.sleep = counted  # type: ignore[method-assign]
    waiting = [asyncio.ensure_future(budget.withdraw(until=30.5)) for _ in range(10_000)]
    await asyncio.wait(waiting)
    assert sum(task.result() for task in waiting) == 30
    assert sleeps <= 35, "one timer for all: it rings for each token, and at the deadline"
    assert budget.statistics().waiting == 0


async def test_cancelled_waiter_passes_token_on() -> None:
    clock = FakeClock(jumps=False)
    budget = await emptied(clock)
    first, second, third = (asyncio.ensure_future(budget.withdraw(until=99.0)) for _ in range(3))
    await asyncio.sleep(0)
    assert budget.statistics().waiting == 3
    first.cancel()
    await asyncio.wait([first])
    assert budget.statistics().waiting == 2
    budget.refund()
    second.cancel()  # it has its token, but has not run yet
    await asyncio.wait([second])
    assert await third
    assert second.cancelled()
    assert budget.statistics() == BudgetStatistics(1, 11, 0, 0)


async def test_cancelled_waiter_keeps_token() -> None:
    budget = await emptied(FakeClock(jumps=False))
    first, second = (asyncio.ensure_future(budget.withdraw(until=99.0)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    budget.refund()
    assert await second
    assert first.cancelled()
    assert budget.statistics() == BudgetStatistics(1, 11, 0, 0)


async def test_forked_child_has_no_waiters(clock: FakeClock) -> None:
    budget = await emptied(clock)
    waiting = asyncio.ensure_future(budget.withdraw(until=math.inf))
    await asyncio.sleep(0)
    theirs = budget.reset_after_fork()
    assert theirs != (None, None)
    assert budget.statistics().waiting == 0
    assert await budget.withdraw(until=math.inf)
    assert clock.time == pytest.approx(1)
    waiting.cancel()


@pytest.mark.parametrize("ending", ["close", "cancel", "stop"])
async def test_stop_ends_token_wait(ending: str) -> None:
    clock = FakeClock(jumps=False)
    client = client_of(Outage(clock, math.inf, latency=0.0), Pace(failure_threshold=1))
    for _ in range(int(RetryBudget.INITIAL_TOKENS)):
        assert await client._context.budget.withdraw(until=0.0)
    run = client.start_many([1])
    work: asyncio.Future[Any] = asyncio.ensure_future(anext(run) if ending == "stop" else client.start(1))
    while not client.statistics().budget.waiting:
        clock.advance(0.01)
        await asyncio.sleep(0)
    began = clock.time
    if ending == "close":
        await client.close()
    elif ending == "cancel":
        work.cancel()
    else:
        run.stop()
    (outcome,) = await asyncio.wait_for(asyncio.gather(work, return_exceptions=True), 5)
    assert clock.time == began
    error = outcome if isinstance(outcome, BaseException) else outcome.error
    assert isinstance(error, asyncio.CancelledError if ending == "cancel" else OutcomeUnknownError)
    assert client.statistics().budget.waiting == 0


async def test_repeat_waits_for_a_token(clock: FakeClock) -> None:
    transport = FakeTransport(
        clock, says=lambda played, _: TransportFailure("refused", sent=False) if len(played.seen) < 3 else None
    )
    client = DirectClient("key", clock=clock)
    client._context.transport = transport  # type: ignore[assignment]
    client._context.budget = await emptied(clock)
    await client.start(1, retry=RetryPolicy(wait=wait_none()))
    # The call itself brings 0.08 of the first token.
    assert [at for at, _ in transport.seen] == pytest.approx([0.0, 0.92, 1.92])


async def test_refused_retry_keeps_outcome(clock: FakeClock) -> None:
    transport = FakeTransport(clock, says=lambda *_: TransportFailure("refused", sent=False))
    client = DirectClient("key", clock=clock)
    client._context.transport = transport  # type: ignore[assignment]
    client._context.budget = await emptied(clock)
    with pytest.raises(NotSentError, match="refused") as caught:
        await client.start(1, timeout=2.0, retry=RetryPolicy(attempts=9, wait=wait_none()))
    assert len(caught.value.attempts) == 2
    assert clock.time == pytest.approx(1.8)


async def test_paused_token_is_refunded(clock: FakeClock) -> None:
    """The answer is of a state read, which waits out the pause, or of a repeat without time left."""
    outage = Outage(clock, 0.01)
    client = client_of(outage)
    client._context.budget = budget = await emptied(clock)
    settling = asyncio.ensure_future(client.start(2))
    await clock.sleep(0.5)
    assert budget.statistics().waiting == 1
    client._pacer.throttle(30.0)
    assert (await settling).settled
    assert clock.time == pytest.approx(30.55)
    assert budget.statistics().spent == 11

    transport = FakeTransport(clock, says=lambda *_: TransportFailure("refused", sent=False))
    client._context.transport = transport  # type: ignore[assignment]
    client._context.budget = budget = await emptied(clock)
    repeating = asyncio.ensure_future(client.start(3, retry=RetryPolicy(wait=wait_none())))
    await clock.sleep(0.5)
    assert budget.statistics().waiting == 1
    client._pacer.throttle(3000.0)
    with pytest.raises(NotSentError):
        await repeating
    assert budget.statistics().spent == 10


async def test_orphan_probes_cost_tokens(clock: FakeClock) -> None:
    outage = Outage(clock, math.inf)
    client = client_of(outage, Pace(failure_threshold=1))
    orphans = [client._call(StartDispatch(number), unclear_since=clock.now()) for number in range(1, 101)]
    await asyncio.gather(*(call.run() for call in orphans), return_exceptions=True)
    assert outage.repeats <= 100 + RetryBudget.INITIAL_TOKENS + 0.1 * 100 + RetryBudget.REFILL * 240

"""Any order of coming, going, giving up, being throttled and time passing keeps the promises of the pace."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from dispatchkit import Pace
from dispatchkit.core.pacing.pacer import Pacer
from dispatchkit.testing.clock import FakeClock, stillness
from tests.harness import acquire


class Attempt:
    """One that wants to start, may have started, and may be over."""

    def __init__(self, task: asyncio.Task[int], until: float) -> None:
        self.task = task
        self.until = until
        self.permit = 0
        self.over = False


class PaceMachine(RuleBasedStateMachine):
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()

    @initialize(
        rate=st.none() | st.sampled_from([1.0, 4.0, 10.0]),
        concurrency=st.integers(1, 5),
    )
    def begin(self, rate: float | None, concurrency: int) -> None:
        self.clock = FakeClock(jumps=False)
        self.interval = 0.0 if rate is None else 1 / rate
        self.concurrency = concurrency
        self.pacer = Pacer(Pace(rate=rate, concurrency=concurrency, failure_threshold=1), self.clock)
        self.paused_until = -math.inf
        self.all: list[Attempt] = []
        self.starts: list[float] = []

    @rule(target=attempts, count=st.integers(1, 4), timeout=st.just(math.inf) | st.floats(0, 5))
    def comes(self, count: int, timeout: float) -> object:
        until = self.clock.time + timeout
        came = [Attempt(self.loop.create_task(acquire(self.pacer, until=until)), until) for _ in range(count)]
        self.all += came
        self.settle()
        return multiple(*came)

    @rule(attempt=consumes(attempts), elapsed=st.floats(0, 1), answered=st.sampled_from([True, False, None]))
    def ends(self, attempt: Attempt, elapsed: float, answered: bool | None) -> None:
        if attempt.permit and not attempt.over:
            attempt.over = True
            self.pacer.release(attempt.permit, answered=answered, elapsed=elapsed)
            self.settle()

    @rule(attempt=consumes(attempts), pause=st.sampled_from([0.0, 0.3, 2.0, 9.5]))
    def is_throttled(self, attempt: Attempt, pause: float) -> None:
        if attempt.permit and not attempt.over:
            attempt.over = True
            self.pacer.release(attempt.permit, answered=True, elapsed=0.1, pause=pause)
            self.paused_until = max(self.paused_until, self.clock.time + pause)
            self.settle()

    @rule(attempt=consumes(attempts), first=attempts, pause=st.sampled_from([0.3, 2.0]))
    def one_ends_and_another_is_throttled_in_one_turn(self, attempt: Attempt, first: Attempt, pause: float) -> None:
        for each, wait in ((first, None), (attempt, pause)):
            if each.permit and not each.over:
                each.over = True
                self.pacer.release(each.permit, answered=True, elapsed=0.1, pause=wait)
                if wait is not None:
                    self.paused_until = max(self.paused_until, self.clock.time + wait)
        self.settle()

    @rule(attempt=consumes(attempts), ending=st.none() | attempts)
    def is_cancelled(self, attempt: Attempt, ending: Attempt | None) -> None:
        """Perhaps in the very turn in which another's end gives it leave."""
        if ending is not None and ending.permit and not ending.over:
            ending.over = True
            self.pacer.release(ending.permit, answered=True, elapsed=0.1)
        if not attempt.permit:
            attempt.task.cancel()
        self.settle()

    @rule(ending=consumes(attempts))
    def the_first_in_the_queue_is_cancelled_as_it_gets_leave(self, ending: Attempt) -> None:
        if ending.permit and not ending.over:
            ending.over = True
            self.pacer.release(ending.permit, answered=True, elapsed=0.1)
            first = next((attempt for attempt in self.all if not attempt.task.done()), None)
            if first is not None:
                first.task.cancel()
            self.settle()

    @rule(attempt=consumes(attempts))
    def withdraws(self, attempt: Attempt) -> None:
        if attempt.permit and not attempt.over:
            attempt.over = True
            self.pacer.cancel(attempt.permit)
            self.settle()

    @rule(seconds=st.sampled_from([0.05, 0.1, 0.25, 1.0, 3.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        # Advance to the next moment that a sleep waits for, as real time does.
        end = self.clock.time + seconds
        while (moment := self.next_moment()) <= end:
            self.clock.advance(moment - self.clock.time)
            self.settle()
        self.clock.advance(end - self.clock.time)
        self.settle()

    def next_moment(self) -> float:
        return min((at for at, _, future in self.clock._sleepers if not future.done()), default=math.inf)

    def settle(self) -> None:
        self.loop.run_until_complete(stillness())
        for attempt in self.all:
            if not attempt.permit and attempt.task.done() and not attempt.task.cancelled():
                attempt.permit = attempt.task.result()
                if attempt.permit:
                    self.starts.append(self.clock.time)
                    assert self.clock.time >= self.paused_until, "a start inside a pause"
                    assert self.clock.time <= attempt.until, "a start after its deadline"

    def teardown(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    @property
    def in_flight(self) -> int:
        return sum(1 for attempt in self.all if attempt.permit and not attempt.over)

    @invariant()
    def never_too_many(self) -> None:
        if hasattr(self, "pacer"):
            assert self.in_flight == self.pacer.statistics().in_flight <= self.concurrency

    @invariant()
    def never_too_fast(self) -> None:
        if hasattr(self, "pacer") and self.interval:
            for before, after in zip(self.starts, self.starts[1:], strict=False):
                assert after - before >= self.interval - 1e-9

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        if not hasattr(self, "pacer"):
            return
        waiting = [attempt for attempt in self.all if not attempt.task.done()]
        statistics = self.pacer.statistics()
        assert len(waiting) == statistics.waiting
        if waiting and not self.in_flight:
            assert self.next_moment() < math.inf, "no waiter has the timer"
            last = self.starts[-1] if self.starts else -math.inf
            assert self.next_moment() <= max(self.paused_until, last + self.interval) + 1e-6
        assert all(attempt.until >= self.clock.time for attempt in waiting)


class LongPaceMachine(PaceMachine):
    """The same, with more examples."""


TestPace = PaceMachine.TestCase
TestLongPace = pytest.mark.second_stage(LongPaceMachine.TestCase)
for _case, _examples in ((TestPace, 25), (TestLongPace, 120)):
    _case.settings = settings(
        max_examples=_examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )

"""Wait strategies of `RetryPolicy`: tenacity's own, and callables that may be wrong."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from tenacity import (
    RetryCallState,
    wait_chain,
    wait_exponential,
    wait_exponential_jitter,
    wait_fixed,
    wait_none,
    wait_random,
    wait_random_exponential,
)

from dispatchkit import (
    DispatchkitError,
    NotSentError,
    OutcomeUnknownError,
    Pace,
    RetryPolicy,
    StartDispatch,
    State,
    ThrottledError,
)
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.core.validators import MAX_SECONDS
from dispatchkit.testing import FakeClock
from tests.fake_transport import FakeTransport, throttled
from tests.harness import hide_state, played

ERROR = NotSentError("no connection")
THROTTLED = ThrottledError("slow down", code=None)


def delay(policy: RetryPolicy, number: int = 1, *, is_throttled: bool = False, **more: Any) -> float:
    return policy.delay(number, throttled=is_throttled, **{"after": 0.0, "drawn": 0.5, **more})


@pytest.mark.parametrize(
    ("strategy", "seconds"),
    [
        (wait_none(), [0, 0, 0]),
        (wait_fixed(3), [3, 3, 3]),
        (wait_exponential(multiplier=2, max=5), [2, 4, 5]),
        (wait_chain(wait_fixed(1), wait_fixed(7)), [1, 7, 7]),
        (wait_fixed(1) + wait_fixed(2), [3, 3, 3]),
        (lambda state: state.attempt_number / 2, [0.5, 1, 1.5]),
    ],
)
def test_any_strategy_gives_the_wait(strategy: Any, seconds: list[float]) -> None:
    policy = RetryPolicy(wait=strategy, throttled_wait=wait_fixed(9))
    assert [delay(policy, number) for number in (1, 2, 3)] == seconds
    assert delay(policy, is_throttled=True) == 9
    assert delay(policy, is_throttled=True, after=4.0) == 13


def test_default_draws_from_the_clock() -> None:
    policy = RetryPolicy()
    assert [delay(policy, number) for number in (1, 2, 7, 99)] == [0.25, 0.5, 15, 15]
    assert [delay(policy, number, is_throttled=True) for number in (1, 2)] == [1, 2]
    policy = RetryPolicy(wait=wait_random_exponential(multiplier=4, max=60, min=2))
    assert [delay(policy, number, drawn=drawn) for number, drawn in ((1, 0.0), (1, 0.5), (2, 1.0))] == [2, 3, 8]


def test_subclass_keeps_its_meaning() -> None:
    class Mine(wait_random_exponential):
        def __call__(self, retry_state: RetryCallState) -> float:
            return 7.0

    assert delay(RetryPolicy(wait=Mine())) == 7


def test_strategy_sees_the_call() -> None:
    seen: list[tuple[object, ...]] = []

    def strategy(state: RetryCallState) -> float:
        assert state.outcome is not None
        seen.append((state.attempt_number, state.outcome.exception(), state.seconds_since_start, state.idle_for))
        return 1

    delay(RetryPolicy(wait=strategy), 3, error=ERROR, elapsed=20.0, waited=5.0)
    delay(RetryPolicy(wait=strategy))
    assert seen == [(3, ERROR, 20.0, 5.0), (1, None, 0.0, 0.0)]


async def sleepy(_: RetryCallState) -> float:
    return 1.0


class Sleepy:
    async def __call__(self, state: RetryCallState) -> float:
        return 1.0


class SleepyWait(wait_fixed):
    async def __call__(self, retry_state: RetryCallState) -> float:  # type: ignore[override]
        return 1.0


@pytest.mark.parametrize(
    "strategy", [sleepy, partial(sleepy), Sleepy(), Sleepy().__call__, partial(Sleepy()), SleepyWait(1)]
)
def test_coroutine_is_no_strategy(strategy: Any) -> None:
    with pytest.raises(TypeError, match="wait must be a wait strategy such as"):
        RetryPolicy(wait=strategy)


@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, "3", None, True, [1]])
def test_nonsense_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="a wait strategy must return seconds"):
        delay(RetryPolicy(wait=lambda _: value))


@pytest.mark.parametrize("value", [2.6e11, 1e308, 10**400], ids=["date", "float", "int"])
async def test_endless_wait_is_still_rejected(value: float) -> None:
    policy = RetryPolicy(throttled_wait=lambda _: value)
    assert delay(policy, is_throttled=True) == MAX_SECONDS
    client, _ = played(says=lambda *_: throttled(), retry=policy, pace=Pace(max_pause=MAX_SECONDS))
    with pytest.raises(ThrottledError):
        await client.start(7)
    assert client.statistics().pace.paused_for == MAX_SECONDS


def raises(_: RetryCallState) -> float:
    raise KeyError("mine")


@pytest.mark.parametrize("strategy", [raises, lambda _: -1, lambda _: math.nan, lambda _: "soon"])
@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (TransportFailure("refused", sent=False), State.NOT_SENT),
        (throttled(), State.REJECTED),
        (TransportFailure("reset", sent=True), State.UNKNOWN),
    ],
)
async def test_failing_strategy_ends_in_outcome(strategy: Any, answer: Any, state: State) -> None:
    policy = RetryPolicy(wait=strategy, throttled_wait=strategy, state_lag=0)
    client, transport = played(says=lambda *_: answer, retry=policy)
    if state is State.UNKNOWN:
        hide_state(transport)
    with pytest.raises(DispatchkitError) as caught:
        await client.start(7, timeout=30)
    assert caught.value.state is state
    assert len(transport.seen) == 1
    if state is not State.UNKNOWN:  # state reads go on without the strategy, until the deadline
        assert isinstance(caught.value.__cause__, (KeyError, TypeError, ValueError))
        assert caught.value.__notes__ == ["it was not retried, since the wait strategy of the RetryPolicy failed"]
        assert pickle.loads(pickle.dumps(caught.value)).state is state


async def test_reraised_error_is_no_cause() -> None:
    policy = RetryPolicy(wait=lambda state: state.outcome.result() if state.outcome else 1.0)
    client, _ = played(says=lambda *_: TransportFailure("refused", sent=False), retry=policy)
    with pytest.raises(NotSentError) as caught:
        await client.start(7)
    assert caught.value.__cause__ is None
    assert caught.value.__notes__ == ["it was not retried, since the wait strategy of the RetryPolicy failed"]


@dataclass
class UnhashableError(Exception):
    """An exception that defines equality, and so no hash."""

    why: str


async def test_unhashable_exception_is_the_cause() -> None:
    def refuses(_: RetryCallState) -> float:
        raise UnhashableError("mine")

    client, _ = played(says=lambda *_: TransportFailure("refused", sent=False), retry=RetryPolicy(wait=refuses))
    with pytest.raises(NotSentError) as caught:
        await client.start(7)
    assert caught.value.__cause__ == UnhashableError("mine")
    assert caught.value.__notes__ == ["it was not retried, since the wait strategy of the RetryPolicy failed"]


async def test_call_waits_as_strategy_says() -> None:
    clock = FakeClock()

    def says(scene: FakeTransport, _: int) -> TransportFailure | None:
        return TransportFailure("refused", sent=False) if len(scene.seen) < 4 else None

    client, transport = played(clock, says=says, takes=lambda _: 0.0, retry=RetryPolicy(wait=wait_fixed(3)))
    await client.start(7)
    assert [at for at, _ in transport.seen] == [0, 3, 6, 9]


async def test_strategy_counts_what_was_waited() -> None:
    seen: list[tuple[float | None, float]] = []

    def strategy(state: RetryCallState) -> float:
        seen.append((state.seconds_since_start, state.idle_for))
        return 2.0

    policy = RetryPolicy(wait=strategy, attempts=4)
    client, _ = played(says=lambda *_: TransportFailure("refused", sent=False), takes=lambda _: 1.0, retry=policy)
    with pytest.raises(NotSentError):
        await client.start(7)
    assert seen == [(1.0, 0.0), (4.0, 2.0), (7.0, 4.0)]


async def test_strategy_sees_whole_error() -> None:
    seen: list[BaseException | None] = []

    def strategy(state: RetryCallState) -> float:
        seen.append(None if state.outcome is None else state.outcome.exception())
        return 2.0

    answers = [throttled(), TransportFailure("refused", sent=False), TransportFailure("reset", sent=True)]
    policy = RetryPolicy(wait=strategy, throttled_wait=strategy)
    client, transport = played(says=lambda *_: answers.pop(0) if answers else None, retry=policy)
    hide_state(transport)
    with pytest.raises(OutcomeUnknownError):
        await client.start(7, timeout=20)
    errors = [error for error in seen if isinstance(error, DispatchkitError)]
    kinds = [ThrottledError, ThrottledError, NotSentError, OutcomeUnknownError]  # the pause of the account asks first
    assert [type(error) for error in errors[:4]] == kinds
    assert {error.command for error in errors} == {StartDispatch(7)}
    assert [len(error.attempts) for error in errors[:4]] == [1, 1, 2, 3]


def test_strategy_sees_the_error() -> None:
    seen: list[BaseException | None] = []

    def strategy(call: RetryCallState) -> float:
        seen.append(None if call.outcome is None else call.outcome.exception())
        times.append((call.seconds_since_start, call.idle_for))
        return 1.0

    times: list[tuple[float | None, float]] = []
    policy = RetryPolicy(wait=strategy, throttled_wait=strategy)
    policy.delay(1, throttled=False, after=0.0, drawn=0.5, error=ERROR)
    policy.probe_delay(1, drawn=0.5, error=ERROR, elapsed=4.0, waited=2.0)
    policy.pause(THROTTLED)
    assert seen == [ERROR, ERROR, THROTTLED]
    assert times == [(0.0, 0.0), (4.0, 2.0), (0.0, 0.0)]


@pytest.mark.parametrize(("strategy", "pause"), [(None, 2.0), (wait_fixed(5), 5.0), (wait_none(), 0.0), (raises, 2.0)])
def test_account_pauses_for_longest_wait(strategy: Any, pause: float) -> None:
    policy = RetryPolicy() if strategy is None else RetryPolicy(throttled_wait=strategy)
    assert policy.pause(THROTTLED) == pause


def test_state_reads_have_growing_minimum() -> None:
    error = OutcomeUnknownError("x")

    def pauses(policy: RetryPolicy) -> list[float]:
        return [policy.probe_delay(number, drawn=1.0, error=error) for number in (1, 2, 3, 7, 9999)]

    assert pauses(RetryPolicy()) == [0.5, 1, 2, 30, 30]
    assert pauses(RetryPolicy(wait=wait_none())) == [0.25, 0.5, 1, 16, 30]
    assert pauses(RetryPolicy(wait=wait_fixed(5))) == [5, 5, 5, 16, 30]
    assert pauses(RetryPolicy(wait=raises)) == [0.25, 0.5, 1, 16, 30]
    assert RetryPolicy().probe_delay(1, drawn=0.0) == 0.25


@pytest.mark.parametrize(
    "make",
    [
        RetryPolicy,
        lambda: RetryPolicy(wait=wait_fixed(2)),
        lambda: RetryPolicy(wait=wait_fixed(2) + wait_random(0, 1)),
        lambda: RetryPolicy(wait=wait_chain(wait_fixed(1), wait_fixed(2))),
        lambda: RetryPolicy(throttled_wait=wait_exponential_jitter(initial=1, max=20)),
        lambda: RetryPolicy(wait=raises),
    ],
)
def test_policies_are_values(make: Any) -> None:
    one, other = make(), make()
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one


def test_different_policies_differ() -> None:
    assert RetryPolicy(wait=wait_fixed(2)) != RetryPolicy(wait=wait_fixed(3))
    assert RetryPolicy(wait=wait_fixed(2)) != RetryPolicy(wait=lambda _: 2)
    assert RetryPolicy(wait=wait_fixed(2)) != RetryPolicy(throttled_wait=wait_fixed(2))


def test_repr_shows_the_strategy() -> None:
    text = repr(RetryPolicy(wait=wait_fixed(2) + wait_none(), throttled_wait=raises))
    assert "wait=wait_combine(wait_funcs=(wait_fixed(wait_fixed=2.0), wait_none" in text
    assert "throttled_wait=raises" in text

"""RetryPolicy, the budget, Retry-After: the settings and the arithmetic, without any call."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from tenacity import wait_random_exponential

from dispatchkit import RetryPolicy
from dispatchkit.core.call.budget import RetryBudget
from dispatchkit.core.call.retry import retry_after
from tests.strategies import LETTERS

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
FOREVER = (datetime(9999, 12, 31, tzinfo=UTC) - NOW).total_seconds()


class FixedClock:
    """Chance always draws the same; sleeping is written down."""

    def __init__(self, drawn: float = 1.0) -> None:
        self.drawn = drawn
        self.time = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.time

    def boottime(self) -> float:
        return self.time

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.time)

    def random(self) -> float:
        return self.drawn

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


def after(text: str | None, date: str | None = None) -> float | None:
    headers = CIMultiDict[str]()
    if text is not None:
        headers["Retry-After"] = text
    if date is not None:
        headers["Date"] = date
    return retry_after(headers, NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("0", 0),
        ("-5", 0),
        ("1", 1),
        ("1.5", 1.5),
        (" 7 ", 7),
        ("4294967", 4294967),
        ("1767225600", 1767225600),
        ("inf", FOREVER),
        ("9" * 90, FOREVER),
        ("9" * 400, FOREVER),
        ("1e300", FOREVER),
        ("-inf", 0),
        ("-0.5", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", FOREVER),
        ("Sat, 01 Jan 0001 00:00:00 +2359", 0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Sun, 01 Mar 2026 15:00:30 +0300", 30),
        ("Sun, 01 Mar 2026 12:00:30", 30),
        ("Sun, 99 Mar 2026 12:00:30 GMT", None),
        ("Sun, 01 Mar 99999 12:00:30 GMT", None),
    ],
)
def test_retry_after_seconds_or_date(text: str | None, seconds: float | None) -> None:
    assert after(text) == seconds


def test_date_uses_server_clock() -> None:
    assert after("Sun, 01 Mar 2026 15:00:30 GMT", date="Sun, 01 Mar 2026 15:00:00 GMT") == 30
    assert after("Sun, 01 Mar 2026 12:00:30 GMT", date="nonsense") == 30
    assert after("Sun, 01 Mar 2026 12:00:30 GMT", date="Thu, 01 Jan 1970 00:00:00 GMT") == NOW.timestamp() + 30


@given(st.text(LETTERS), st.text(LETTERS) | st.none())
def test_retry_after_is_never_negative(text: str, date: str | None) -> None:
    wait = after(text, date)
    assert wait is None or 0 <= wait < math.inf


@given(st.integers(0, 10**6), st.integers(-3600, 3600))
def test_date_is_never_early(wait: int, skew: int) -> None:
    server = NOW + timedelta(seconds=skew)
    until = format_datetime(server + timedelta(seconds=wait), usegmt=True)
    assert after(until, date=format_datetime(server, usegmt=True)) == wait


@pytest.mark.parametrize(
    ("setting", "value", "error"),
    [
        ("attempts", 0, ValueError),
        ("attempts", True, TypeError),
        ("attempts", 2.0, TypeError),
        ("wait", 3, TypeError),
        ("throttled_wait", "1", TypeError),
        ("state_lag", -0.1, ValueError),
        ("retry_on", {"rejected"}, ValueError),
    ],
)
def test_meaningless_policy_is_refused(setting: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{setting} must "):
        RetryPolicy(**{setting: value})  # type: ignore[arg-type]


def test_refusal_names_all_reasons() -> None:
    with pytest.raises(TypeError, match=r"a set of not_sent, throttled, unknown, not str 'throttled'$"):
        RetryPolicy(retry_on="throttled")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be one of not_sent, throttled, unknown, not int 3$"):
        RetryPolicy(retry_on={3})  # type: ignore[arg-type]


def test_defaults_suit_a_launch() -> None:
    policy = RetryPolicy()
    assert (policy.attempts, policy.state_lag, policy.repeat_unclear) == (5, 60.0, True)
    assert policy.retry_on == {"not_sent", "throttled", "unknown"}
    assert RetryPolicy(attempts=1).attempts == 1


def test_wait_doubles_to_maximum() -> None:
    policy = RetryPolicy(wait=wait_random_exponential(multiplier=0.5, max=10))
    plain = [policy.delay(number, throttled=False, after=0, drawn=1.0) for number in range(1, 8)]
    throttled = [policy.delay(number, throttled=True, after=0, drawn=1.0) for number in range(1, 5)]
    assert plain == [0.5, 1, 2, 4, 8, 10, 10]
    assert throttled == [2, 4, 8, 16]
    assert policy.delay(10_000, throttled=False, after=0, drawn=1.0) == 10


@given(st.integers(1, 10**6), st.booleans(), st.floats(0, 1e8), st.floats(0, 0.999))
def test_wait_respects_retry_after(number: int, throttled: bool, least: float, drawn: float) -> None:
    policy = RetryPolicy()
    delay = policy.delay(number, throttled=throttled, after=least, drawn=drawn)
    assert least <= delay <= least + 30


def test_full_jitter_reaches_zero() -> None:
    assert RetryPolicy().delay(5, throttled=False, after=0, drawn=0.0) == 0


async def test_dead_provider_load_is_bounded() -> None:
    for calls in (500, 1_000, 10_000, 100_000):
        budget = RetryBudget(FixedClock())
        extra = 0
        for _ in range(calls):
            budget.deposit()
            while await budget.withdraw(until=-1.0):
                extra += 1
        assert extra <= calls / 10
        assert budget.statistics().spent == extra
        assert budget.statistics().refused == calls


async def test_responding_provider_is_not_limited() -> None:
    budget = RetryBudget(FixedClock())
    for _ in range(10_000):
        assert await budget.withdraw(until=-1.0)
        budget.refund()
    assert budget.statistics().tokens == RetryBudget.INITIAL_TOKENS


def test_quiet_budget_stops_at_maximum() -> None:
    budget = RetryBudget(FixedClock())
    for _ in range(10_000):
        budget.deposit()
        budget.refund()
    assert budget.statistics().tokens <= RetryBudget.MAX_TOKENS + RetryBudget.TOKEN_RATIO

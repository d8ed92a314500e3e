"""When a call is repeated. tenacity lives here.

Three questions, asked one after another: may this outcome be repeated at all (the caller of `retrying` says so, step by
step), how long to wait (`RetryPolicy.delay`: full jitter, never before the provider's Retry-After), and is there
anything left to repeat it with (attempts and time). Then the repeat waits for a token of the client's `RetryBudget`.

Full jitter: the wait before attempt ``n + 1`` is drawn evenly from 0 to ``min(cap, scale * 2 ** (n - 1))``. There are
two scales, since a provider that throttles asks for more patience than a connection that broke.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Generic, Literal, TypeVar

import attrs
from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from dispatchkit.core.call.http_date import http_date
from dispatchkit.core.clock import Clock
from dispatchkit.core.validators import a_kind, seconds, shown, true_or_false
from dispatchkit.errors import DispatchkitError

__all__ = ["DEFAULT_RETRY", "AttemptResult", "RetryPolicy", "RetryReason", "a_policy", "retry_after", "retrying"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

RetryReason = Literal["not_sent", "throttled", "unknown"]
"""Why an attempt may be repeated: no byte left; the provider asked to come back; the outcome was unclear, and either
its state denies it or the user vouches that it deduplicates."""

RETRY_REASONS: frozenset[RetryReason] = frozenset({"not_sent", "throttled", "unknown"})


def _attempts(instance: object, attribute: attrs.Attribute[int], value: object) -> None:
    del instance
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{attribute.name} must be an integer from 1 up, not {shown(value)}")
    if value < 1:
        raise ValueError(f"{attribute.name} must be an integer from 1 up, not {shown(value)}")


def _seconds(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    del instance
    if value != 0 or isinstance(value, bool):
        seconds(attribute.name, value)


def _flag(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    del instance
    true_or_false(attribute.name, value)


def _reason_set(value: Iterable[RetryReason]) -> frozenset[RetryReason]:
    allowed = f"retry_on must be a set of {', '.join(sorted(RETRY_REASONS))}"
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{allowed}, not {shown(value)}")
    items = tuple(value)
    for item in items:
        a_kind("each of retry_on", item, str, f"one of {', '.join(sorted(RETRY_REASONS))}")
    return frozenset(items)


def _reasons(instance: object, attribute: attrs.Attribute[frozenset[RetryReason]], value: frozenset[object]) -> None:
    del instance
    if not value <= RETRY_REASONS:
        raise ValueError(
            f"{attribute.name} must hold only {sorted(RETRY_REASONS)}, not {sorted(map(str, value - RETRY_REASONS))}"
        )


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """When and how a call is repeated. The defaults suit a launch: patient, and never twice.

    A refusal is never repeated, except one that names its own end (HTTP 429). An unclear outcome is settled first; it
    is repeated only if the provider's state denies it or the user vouches that the provider deduplicates it.

    Raises:
        TypeError: A setting is of another type.
        ValueError: A setting is out of range.

    Example:
        >>> RetryPolicy(attempts=3, cap=10).attempts
        3
        >>> sorted(RetryPolicy(retry_on={"not_sent", "throttled"}).retry_on)
        ['not_sent', 'throttled']
    """

    attempts: int = attrs.field(default=5, validator=_attempts)
    """The most attempts of one call, the first included. 1 repeats nothing."""
    scale: float = attrs.field(default=0.5, validator=_seconds)
    """Seconds: the upper bound of the first wait; doubled for each further one."""
    throttled_scale: float = attrs.field(default=2.0, validator=_seconds)
    """The same after HTTP 429."""
    cap: float = attrs.field(default=30.0, validator=_seconds)
    """Seconds: the longest wait that we choose ourselves. A call never repeats before its Retry-After."""
    retry_on: frozenset[RetryReason] = attrs.field(default=RETRY_REASONS, converter=_reason_set, validator=_reasons)
    """What is repeated: ``"not_sent"``, ``"throttled"``, ``"unknown"``."""
    state_lag: float = attrs.field(default=60.0, validator=_seconds)
    """Seconds for which the provider's state may lag behind what it did.

    Only a state that still denies an unclear call this long after its attempt is believed. No provider documents a
    bound; a minute is twice the longest delay that read replicas and queues of this kind are usually run with, and
    believing too early launches twice.
    """
    repeat_unclear: bool = attrs.field(default=True, validator=_flag)
    """Whether a call may be repeated after an unclear attempt. False: the provider's state is read; if it does not show
    that the call happened, the outcome stays unknown."""

    def delay(self, number: int, *, throttled: bool, after: float, clock: Clock) -> float:
        """Seconds to wait after attempt ``number``, at least ``after``."""
        scale = self.throttled_scale if throttled else self.scale
        # The exponent is bounded so that a long run of attempts cannot overflow.
        jitter = clock.random() * min(self.cap, scale * 2.0 ** min(number - 1, 60))
        return after + jitter if after > 0 else jitter


def a_policy(value: RetryPolicy) -> RetryPolicy:
    """A setting that is a policy.

    Raises:
        TypeError: It is none.
    """
    return a_kind("retry", value, RetryPolicy, "a RetryPolicy such as RetryPolicy(attempts=3)")


DEFAULT_RETRY = RetryPolicy()
"""The policy of a client that was given none."""


@attrs.frozen
class AttemptResult(Generic[R_co]):
    """What one round of a call came to: a result, or an error and, if it may be repeated, why."""

    result: R_co | None = None
    error: DispatchkitError | None = None
    retry: RetryReason | None = None
    retry_after: float = 0.0
    """Seconds that the provider asked to wait."""


async def retrying(
    first: AttemptResult[R],
    again: Callable[[], Awaitable[AttemptResult[R]]],
    *,
    policy: RetryPolicy,
    clock: Clock,
    sleep: Callable[[float], Awaitable[None]],
    spend: Callable[[], Awaitable[bool]],
    may_start: Callable[[float], bool],
    before_sleep: Callable[[int, AttemptResult[R], float], None],
) -> AttemptResult[R]:
    """Go on from a first step that failed until a step is final or nothing is left to repeat it with.

    Args:
        first: The step that failed. tenacity is entered only now: it costs more than the whole of an ordinary call.
        again: Makes one more attempt.
        policy: How often, and how long to wait.
        clock: Time and chance.
        sleep: Waits for so many seconds before an attempt.
        spend: Waits for what an attempt costs. False: it must not be made.
        may_start: Whether another attempt may start after so many seconds.
        before_sleep: Told the attempt's number, what it came to, and the seconds until the next.
    """
    latest: AttemptResult[R] | None = None

    async def attempt() -> AttemptResult[R]:
        nonlocal latest
        if latest is None:
            latest = first
            return first
        latest = await again() if await spend() else attrs.evolve(latest, retry=None)
        return latest

    def wanted(attempt_result: AttemptResult[R]) -> bool:
        return attempt_result.retry is not None and attempt_result.retry in policy.retry_on

    def wait(state: RetryCallState) -> float:
        attempt_result = _attempt_result(state)
        return policy.delay(
            state.attempt_number,
            throttled=attempt_result.retry == "throttled",
            after=attempt_result.retry_after,
            clock=clock,
        )

    def stop(state: RetryCallState) -> bool:
        return state.attempt_number >= policy.attempts or not may_start(state.upcoming_sleep)

    def _attempt_result(state: RetryCallState) -> AttemptResult[R]:
        assert state.outcome is not None  # noqa: S101 - tenacity asks only once there is one
        attempt_result: AttemptResult[R] = state.outcome.result()
        return attempt_result

    # Made anew for every call: an AsyncRetrying holds the state of one.
    loop = AsyncRetrying(
        sleep=sleep,
        retry=retry_if_result(wanted),
        wait=wait,
        stop=stop,
        before_sleep=lambda state: before_sleep(state.attempt_number, _attempt_result(state), state.upcoming_sleep),
        retry_error_callback=_attempt_result,
    )
    final: AttemptResult[R] = await loop(attempt)
    return final


_LAST_MOMENT = datetime(9999, 12, 31, tzinfo=UTC)
"""Beyond it, no date can be told."""


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait by an answer's ``Retry-After``, in seconds or as a date; None where it says nothing usable.

    Never raises, never early: a date counts from the answer's own ``Date`` where it has one, so that a clock of ours
    which runs ahead does not shorten the wait. It is what the provider says. `Pace.max_pause` bounds what the account
    makes of it.
    """
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    try:
        wait = float(text)
    except ValueError:
        until = http_date(text)
        if until is None:
            return None
        wait = (until - (http_date(headers.get("Date", "")) or now)).total_seconds()
    if math.isnan(wait):
        return None
    return min(max(wait, 0.0), (_LAST_MOMENT - now).total_seconds())

"""The retry policy of a call, and the ``Retry-After`` header.

`decide` answers three questions in turn. May this outcome be retried? How long is the wait? Are attempts, time and
budget left? The policy computes the wait with a strategy of tenacity. The wait is never less than the provider's
Retry-After. The default wait before attempt ``n + 1`` is uniform in ``[0, min(30, first * 2 ** (n - 1))]``. There are
two strategies, since a throttling provider needs longer waits than a broken connection.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, TypeVar

import attrs

from dispatchkit.core.call.http_date import http_date
from dispatchkit.core.call.wait import (
    FULL_JITTER,
    THROTTLED_JITTER,
    WaitStrategy,
    a_strategy,
    describe,
    identity,
    seconds_of,
)
from dispatchkit.core.durations import seconds_left
from dispatchkit.core.validators import a_kind, seconds, shown, true_or_false
from dispatchkit.errors import DispatchkitError

__all__ = ["DEFAULT_RETRY", "RetryPolicy", "RetryReason", "a_policy", "asked_wait", "retry_after"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

RetryReason = Literal["not_sent", "throttled", "unknown"]
"""Why an attempt may be retried.

- ``not_sent``: no byte left.
- ``throttled``: the provider answered HTTP 429.
- ``unknown``: the outcome was unclear, and either the state denies it or the user vouches for deduplication.
"""

MIN_PROBE_PAUSE = 0.25
"""Minimum seconds between two state reads."""
_MAX_PROBE_PAUSE = 30.0
"""Maximum of the growing minimum."""
_PAUSE = 2.0
"""Seconds of a pause whose strategy failed."""

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


def _strategy(instance: object, attribute: attrs.Attribute[WaitStrategy], value: object) -> None:
    del instance
    a_strategy(attribute.name, value)


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
    """When and how a call is retried. The defaults suit a launch: long waits, and no double launch.

    A refusal is never retried, except HTTP 429. An unclear outcome is settled first. It is retried only if the
    provider's state denies it, or if the user vouches for deduplication.

    Raises:
        TypeError: A setting is of another type.
        ValueError: A setting is out of range.

    Example:
        >>> from tenacity import wait_fixed
        >>> RetryPolicy(attempts=3, wait=wait_fixed(2)).attempts
        3
        >>> sorted(RetryPolicy(retry_on={"not_sent", "throttled"}).retry_on)
        ['not_sent', 'throttled']
    """

    attempts: int = attrs.field(default=5, validator=_attempts)
    """Maximum number of attempts of one call, including the first. 1 disables retries."""
    wait: WaitStrategy = attrs.field(default=FULL_JITTER, validator=_strategy, eq=identity, repr=describe)
    """The wait before a retry, in seconds: a strategy of tenacity, or a callable of a ``tenacity.RetryCallState``.

    Default: full jitter, ``tenacity.wait_random_exponential(multiplier=0.5, max=30)``. Strategies of that class draw
    from the client's clock. If a strategy raises, or returns no number from 0 up, the call is not retried.

    The reads of the provider's state wait as long, and at least 0.25 s, which doubles up to 30 s. So a strategy may be
    called more often than there are retries.
    """
    throttled_wait: WaitStrategy = attrs.field(
        default=THROTTLED_JITTER, validator=_strategy, eq=identity, repr=describe
    )
    """The same after HTTP 429, in addition to a Retry-After. Default: full jitter from 2 s to 30 s.

    Its longest first wait is also the pause of the account after HTTP 429 without a Retry-After.
    """
    retry_on: frozenset[RetryReason] = attrs.field(default=RETRY_REASONS, converter=_reason_set, validator=_reasons)
    """Which outcomes are retried: a set of ``"not_sent"``, ``"throttled"``, ``"unknown"``. Default: all."""
    state_lag: float = attrs.field(default=60.0, validator=_seconds)
    """Seconds for which the provider's state may lag behind its actions.

    A state that denies an unclear call counts only this long after the attempt. No provider documents a bound. The
    default is twice the longest usual delay of read replicas and queues. A value that is too small launches twice.
    """
    repeat_unclear: bool = attrs.field(default=True, validator=_flag)
    """Whether a call may be retried after an unclear attempt.

    If False, the provider's state is still read. The outcome stays unknown unless the state shows the effect.
    """

    @classmethod
    def for_tests(cls) -> RetryPolicy:
        """The default policy with short waits, for tests on the real clock. It makes the same decisions.

        Retries follow at once. The provider's state is read again after 5 to 100 ms. It is believed within a second,
        since dates in answers have whole seconds. A ``Retry-After`` is still honoured. A client with a
        `dispatchkit.testing.FakeClock` is faster and needs no such policy.

        Never use it for a real provider: ``state_lag=0`` launches twice where state lags.

        Example:
            >>> async with Sandbox() as sandbox:
            ...     sandbox.order(Fault.dropped())
            ...     retry = RetryPolicy.for_tests()
            ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, retry=retry) as direct:
            ...         await direct.start(7)  # by default, it takes a minute
            StartedDispatch(dispatch_id=7, settled=False)
        """
        return _QuickPolicy(wait=_no_wait, throttled_wait=_no_wait, state_lag=0.0)

    def delay(
        self,
        number: int,
        *,
        throttled: bool,
        after: float,
        drawn: float,
        error: DispatchkitError | None = None,
        elapsed: float = 0.0,
        waited: float = 0.0,
    ) -> float:
        """Seconds to wait after attempt ``number``, at least ``after``. See `seconds_of`."""
        strategy = self.throttled_wait if throttled else self.wait
        return after + seconds_of(strategy, number, drawn=drawn, error=error, elapsed=elapsed, waited=waited)

    def probe_delay(
        self,
        number: int,
        *,
        drawn: float,
        error: DispatchkitError | None = None,
        elapsed: float = 0.0,
        waited: float = 0.0,
    ) -> float:
        """Seconds to wait after state read ``number``. See `seconds_of`."""
        drawn = 0.5 + drawn / 2
        # The bound of the exponent prevents an overflow after many reads.
        least = min(_MAX_PROBE_PAUSE, MIN_PROBE_PAUSE * 2.0 ** min(number - 1, 60)) * drawn
        with contextlib.suppress(Exception):  # the strategy is the user's code: it must not end the settling
            delay = seconds_of(self.wait, number, drawn=drawn, error=error, elapsed=elapsed, waited=waited)
            return max(least, delay)
        return least

    def pause(self, error: DispatchkitError) -> float:
        """Seconds for which the account pauses after HTTP 429 without a ``Retry-After``."""
        with contextlib.suppress(Exception):  # the strategy is the user's code: the account pauses all the same
            return seconds_of(self.throttled_wait, 1, drawn=1.0, error=error)
        return _PAUSE


def _no_wait(_: object) -> float:
    return 0.0


@attrs.frozen(kw_only=True, repr=False)
class _QuickPolicy(RetryPolicy):
    """See `RetryPolicy.for_tests`."""

    def probe_delay(
        self,
        number: int,
        *,
        drawn: float,
        error: DispatchkitError | None = None,
        elapsed: float = 0.0,
        waited: float = 0.0,
    ) -> float:
        del drawn, error, elapsed, waited
        return min(0.1, 0.005 * 2.0 ** min(number - 1, 60))

    def __repr__(self) -> str:
        return "RetryPolicy.for_tests()"


def a_policy(value: RetryPolicy) -> RetryPolicy:
    """Check the setting ``retry``.

    Raises:
        TypeError: It is no RetryPolicy.
    """
    return a_kind("retry", value, RetryPolicy, "a RetryPolicy such as RetryPolicy(attempts=3)")


DEFAULT_RETRY = RetryPolicy()
"""The default policy of a client."""


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Parse a ``Retry-After`` header into seconds; None if it is absent or unreadable.

    A date counts from the answer's own ``Date``, if present: a fast local clock must not shorten the wait.
    The value is not bounded here: `Pace.max_pause` bounds the pause of the account.
    """
    text = headers.get("Retry-After", "")
    try:
        wait = float(text)
    except ValueError:
        until = http_date(text)
        if until is None:
            return None
        wait = (until - (http_date(headers.get("Date", "")) or now)).total_seconds()
    return asked_wait(wait, now)


def asked_wait(value: object, now: datetime) -> float | None:
    """Seconds that a provider asks to wait, as far as a date can name their end; None if they are no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    wait = float(min(max(value, 0.0), seconds_left(now)))
    return None if math.isnan(wait) else wait

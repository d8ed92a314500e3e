"""The retry policy of a call, and the retry loop on top of tenacity.

The loop answers three questions in turn. May this outcome be retried? Each `AttemptResult` says so. How long is the
wait? `RetryPolicy.delay` computes it with full jitter, never less than the provider's Retry-After. Are attempts and
time left? Then the retry waits for a token of the client's `RetryBudget`.

The wait before attempt ``n + 1`` is uniform in ``[0, min(cap, scale * 2 ** (n - 1))]``. There are two scales, since a
throttling provider needs longer waits than a broken connection.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal, TypeVar

import attrs

from dispatchkit.core.call.http_date import http_date
from dispatchkit.core.validators import a_kind, seconds, shown, true_or_false

__all__ = ["DEFAULT_RETRY", "RetryPolicy", "RetryReason", "a_policy", "retry_after"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

RetryReason = Literal["not_sent", "throttled", "unknown"]
"""Why an attempt may be retried.

- ``not_sent``: no byte left.
- ``throttled``: the provider answered HTTP 429.
- ``unknown``: the outcome was unclear, and either the state denies it or the user vouches for deduplication.
"""

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
    """When and how a call is retried. The defaults suit a launch: long waits, and no double launch.

    A refusal is never retried, except HTTP 429. An unclear outcome is settled first. It is retried only if the
    provider's state denies it, or if the user vouches for deduplication.

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
    """Maximum number of attempts of one call, including the first. 1 disables retries."""
    scale: float = attrs.field(default=0.5, validator=_seconds)
    """Seconds: upper bound of the first wait. It doubles with each retry."""
    throttled_scale: float = attrs.field(default=2.0, validator=_seconds)
    """The same after HTTP 429."""
    cap: float = attrs.field(default=30.0, validator=_seconds)
    """Seconds: upper bound of every wait. A longer Retry-After is still respected."""
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

    def delay(self, number: int, *, throttled: bool, after: float, drawn: float) -> float:
        """Seconds to wait after attempt ``number``, at least ``after``."""
        scale = self.throttled_scale if throttled else self.scale
        # The bound of the exponent prevents an overflow after many attempts.
        jitter = drawn * min(self.cap, scale * 2.0 ** min(number - 1, 60))
        return after + jitter if after > 0 else jitter

    def probe_delay(self, number: int, *, drawn: float, least: float) -> float:
        """Seconds to wait after state read ``number``."""
        growing = max(self.scale, least) * 2.0 ** min(number - 1, 60)
        return min(self.cap, growing) * (0.5 + drawn / 2)


def a_policy(value: RetryPolicy) -> RetryPolicy:
    """Check the setting ``retry``.

    Raises:
        TypeError: It is no RetryPolicy.
    """
    return a_kind("retry", value, RetryPolicy, "a RetryPolicy such as RetryPolicy(attempts=3)")


DEFAULT_RETRY = RetryPolicy()
"""The default policy of a client."""


_LAST_MOMENT = datetime(9999, 12, 31, tzinfo=UTC)
"""The latest date that can be formatted."""


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Parse a ``Retry-After`` header into seconds; None if it is absent or unreadable.

    A date counts from the answer's own ``Date``, if present: a fast local clock must not shorten the wait.
    The value is not bounded here: `Pace.max_pause` bounds the pause of the account.
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

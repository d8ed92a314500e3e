"""How long a provider has answered nothing of a run: neither an attempt nor a state read.

What counts is the time in which a call of the run is under way, or waits while the circuit breaker is open. A pause
that the provider asked for does not count, nor does time in which the run has nothing to launch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta

from dispatchkit.core.clock import Clock
from dispatchkit.core.pacing.pacer import Pacer

__all__ = ["watch_silence"]

_MAX_TICK = 1.0
_TICKS = 16
"""How often a silence is looked at before it is too long, at least."""


async def watch_silence(
    limit: float, *, clock: Clock, pacer: Pacer, answered_at: Callable[[], float], is_trying: Callable[[], bool]
) -> datetime:
    """Wait until the provider has been silent for too long.

    Args:
        limit: Seconds.
        clock: Time.
        pacer: What paces the account.
        answered_at: When the provider last answered an attempt of the run, on the clock's ``monotonic``.
        is_trying: Whether the run waits for the provider just now.

    Returns:
        Since when there was no answer, UTC.
    """
    began = now = clock.monotonic()
    tick = min(_MAX_TICK, limit / _TICKS)
    silent, heard = 0.0, -math.inf
    while silent < limit:
        before = now
        await clock.sleep(tick)
        now = clock.monotonic()
        if (answered := answered_at()) > heard:
            heard = answered
            silent = now - heard
        elif is_trying() and not pacer.throttled_for():
            # A process that was suspended has not listened meanwhile.
            silent += min(now - before, 2 * tick)
    unclear_since = max(began, heard)
    return clock.now() - timedelta(seconds=now - unclear_since)

"""The time for which a provider has answered nothing of a run: neither an attempt nor a state read.

Time counts while a call of the run is under way, or waits for the circuit breaker. A pause that the provider asked for
does not count. Time in which the run has nothing to launch does not count either.
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
"""The least number of checks before the limit is reached."""


async def watch_silence(
    limit: float, *, clock: Clock, pacer: Pacer, answered_at: Callable[[], float], is_trying: Callable[[], bool]
) -> datetime:
    """Wait until the provider has been silent for too long.

    Args:
        limit: Seconds of silence to wait for.
        clock: The source of time.
        pacer: The pacer of the account.
        answered_at: Gives the time of the provider's last answer to the run, on the clock's ``monotonic``.
        is_trying: Says whether the run waits for the provider now.

    Returns:
        The UTC time of the last answer, or of the start if there was none.
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
            # A suspended process could not receive an answer: count two ticks at most.
            silent += min(now - before, 2 * tick)
    unclear_since = max(began, heard)
    return clock.now() - timedelta(seconds=now - unclear_since)

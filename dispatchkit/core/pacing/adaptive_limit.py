"""The limit of attempts in flight: a fixed number, or an adaptive one as in TCP congestion control.

The only signal is latency. Below a provider's capacity, another attempt costs nothing. Beyond it, each attempt slows
the others. In slow start, the limit doubles every round until the provider throttles, or its latency reaches 1.5 times
the baseline. Then the limit falls in proportion to the slowdown, at most to a half. From there it grows by one a round
(AIMD).

A round is as many answers as the limit at its start. A round is scored by its 25th-percentile latency, because new
connections are several times slower. In slow start, every second connection is new.

A run also starts with one attempt (`AdaptiveLimit.ramp`): a wrong token fails one call, not hundreds. A fixed limit is
ramped up in the same way.

Measure the baseline at half load, or our own load would inflate it. So every 64 rounds, the limit is halved for one
round and the baseline is measured. If halving does not lower the latency, the slowdown is not our own.
"""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["AdaptiveLimit", "Auto"]

Auto = Literal["auto"]

_START = 4.0
_MAX_LIMIT = 1024.0
_SLOWER = 1.5
_TOLERANCE = 0.002
"""Seconds of latency that our own event loop may add."""
_BASELINE_EVERY = 64
_EPSILON = 1e-6


class AdaptiveLimit:
    """The limit, and the rules that change it."""

    __slots__ = (
        "_auto",
        "_baseline",
        "_before",
        "_cut_at",
        "_maximum",
        "_round",
        "_round_size",
        "_rounds",
        "_since",
        "_size",
        "_size_before_baseline",
        "_threshold",
        "is_fixed",
        "limit",
        "maximum",
        "slow",
    )

    def __init__(self, concurrency: int | Auto) -> None:
        self.slow = False
        """Whether the limit is in slow start from one, and has not reached its former value."""
        self._size = math.inf
        self._before: tuple[float, bool] | None = None
        """The limit and ``slow`` before a run's ramp; None without a ramp."""
        self._round: list[float] = []
        self._size_before_baseline: float | None = None
        self._cut_at = math.inf
        self.set(concurrency)

    def set(self, concurrency: int | Auto) -> None:
        """Change the setting. A slow start after a pause continues."""
        self._auto = concurrency == "auto"
        self._maximum = _MAX_LIMIT if concurrency == "auto" else float(concurrency)
        self.maximum = int(self._maximum)
        """Upper bound of the limit."""
        initial = _START if self._auto else self._maximum
        self._size = min(self._size, self._maximum) if self.slow else initial
        self._before = None if self._before is None else (initial, False)
        self._threshold = self._maximum
        self._baseline = math.inf
        self._rounds = 0
        self._new_round()
        self._update()

    def reset(self, *, throttled: bool) -> None:
        """Restart from one, after a pause."""
        if self._size_before_baseline is not None:
            self._size = self._size_before_baseline
        if self._auto and throttled and self._size >= 2:
            self._threshold = max(2.0, self._size / 2)
        self._size = 1.0
        self._before = None
        self.slow = True
        self._new_round()
        self._update()

    def ramp(self) -> None:
        """Start from one, for a run."""
        before = self._before or (self._size_before_baseline or self._size, self.slow)
        self.reset(throttled=False)
        self._before = before
        self._baseline = math.inf  # the first answers come on new connections
        self._update()

    def end_ramp(self) -> None:
        """Restore the limit from before the run, for calls outside of a run."""
        if self._before is not None and self.slow:
            size, self.slow = self._before
            self._size = max(self._size, size)
            self._new_round()
        self._before = None
        self._update()

    def grow(self) -> None:
        """Raise the limit by one without an answer."""
        self._size = min(self._threshold, self._size + 1)
        self._update()

    def observe(self, elapsed: float, *, busy: bool, now: float) -> None:
        """Record the latency of an answer.

        Args:
            elapsed: Latency in seconds.
            busy: Whether the limit was reached. An unused limit does not grow.
            now: The time, on any monotonic clock.
        """
        slow_start = self._size < self._threshold
        if slow_start and self._size_before_baseline is None and (busy or not self._auto):
            self._size = min(self._threshold, self._size + 1)  # one per answer doubles it every round
        # Ignore attempts that started before the limit was cut.
        if self._auto and now - elapsed >= self._since - _EPSILON:
            self._round.append(elapsed)
            if len(self._round) >= self._round_size:
                self._judge(now, busy=busy, slow_start=slow_start)
        self._update()

    def _judge(self, now: float, *, busy: bool, slow_start: bool) -> None:
        typical = sorted(self._round)[len(self._round) // 4]
        self._rounds += 1
        if self._size_before_baseline is not None:
            self._baseline = typical
            self._size = self._size_before_baseline
            self._new_round()
            return
        self._baseline = min(self._baseline, typical)
        if typical > self._baseline * _SLOWER + _TOLERANCE:
            if typical > self._cut_at * 0.9:
                self._baseline = typical  # the cut did not lower the latency
                self._new_round()
                return
            self._size = max(1.0, self._size * max(0.5, self._baseline / typical))
            self._threshold = self._size
            # In slow start, the limit has doubled since these attempts began: do not compare the next round with them.
            self._new_round(since=now, cut_at=math.inf if slow_start else typical)
        elif self._rounds % _BASELINE_EVERY == 0:
            self._new_round(since=now, size_before_baseline=self._size)
            self._size = self._round_size = max(1.0, self._size / 2)
        else:
            if busy and not slow_start:
                self._size = min(self._maximum, self._size + 1)
            self._new_round()

    def _new_round(
        self, *, since: float = -math.inf, cut_at: float = math.inf, size_before_baseline: float | None = None
    ) -> None:
        self._round.clear()
        self._round_size = self._size
        self._since = since
        self._cut_at = cut_at
        self._size_before_baseline = size_before_baseline

    def _update(self) -> None:
        self.limit = int(self._size)
        if self._size >= self._threshold:
            self.slow = False
        self.is_fixed = not self._auto and self._size == self._maximum
        """Whether a fixed limit is fully ramped up, so that answers need not be observed."""

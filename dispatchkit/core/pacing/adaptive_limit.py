"""How many attempts may be in flight: a number, or one that is found out as TCP finds a window.

What can be seen of a provider is how long it takes. While it has room, one attempt more costs nothing; beyond, each
one makes all the others slower. So the size doubles with every round (slow start) until the provider throttles or takes
half as long again as its baseline latency. Then it falls by the share by which the provider was slower, at most to a
half, and from there on creeps up by one a round until it is too much again (AIMD).

A round is as many answers as the size was when it began. What counts of it is its quicker quarter: an answer on a new
connection takes several times as long, and in slow start every second connection is new.

A run begins in the same way, with one (`AdaptiveLimit.ramp`): what refuses one call of it, such as a wrong token, most
likely refuses all of them. A fixed number is ramped up to, too, and is steady from then on.

The baseline latency must not be measured while we hurry the provider ourselves: what we cause would look like its
nature, and the size would grow for ever. So every 64 rounds the size is halved for one round, and that is measured
anew. And if halving does not make a provider quicker, then we are not what makes it slow.
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
"""Seconds: so much is our own event loop's."""
_BASELINE_EVERY = 64
_EPSILON = 1e-6


class AdaptiveLimit:
    """The size, and what moves it."""

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
        """Whether the size grows again from one, and has not come back to what it was."""
        self._size = math.inf
        self._before: tuple[float, bool] | None = None
        """The size before the ramp of a run, and whether it was slow then; None if there is no ramp."""
        self._round: list[float] = []
        self._size_before_baseline: float | None = None
        self._cut_at = math.inf
        self.set(concurrency)

    def set(self, concurrency: int | Auto) -> None:
        """Change the setting. A slow start after a pause goes on."""
        self._auto = concurrency == "auto"
        self._maximum = _MAX_LIMIT if concurrency == "auto" else float(concurrency)
        self.maximum = int(self._maximum)
        """What is never passed."""
        initial = _START if self._auto else self._maximum
        self._size = min(self._size, self._maximum) if self.slow else initial
        self._before = None if self._before is None else (initial, False)
        self._threshold = self._maximum
        self._baseline = math.inf
        self._rounds = 0
        self._new_round()
        self._update()

    def reset(self, *, throttled: bool) -> None:
        """Begin again at one, after a pause."""
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
        """Begin at one, for a run."""
        before = self._before or (self._size_before_baseline or self._size, self.slow)
        self.reset(throttled=False)
        self._before = before
        self._baseline = math.inf  # its first answers come on new connections
        self._update()

    def end_ramp(self) -> None:
        """The run is over: calls that are no part of a run find the size that was there before it."""
        if self._before is not None and self.slow:
            size, self.slow = self._before
            self._size = max(self._size, size)
            self._new_round()
        self._before = None
        self._update()

    def grow(self) -> None:
        """Let one more start, although there is no answer to learn from."""
        self._size = min(self._threshold, self._size + 1)
        self._update()

    def observe(self, elapsed: float, *, busy: bool, now: float) -> None:
        """Take note of an answer.

        Args:
            elapsed: Seconds.
            busy: Whether the limit was reached. What is not used shows nothing, so it does not grow.
            now: On any clock.
        """
        slow_start = self._size < self._threshold
        if slow_start and self._size_before_baseline is None and (busy or not self._auto):
            self._size = min(self._threshold, self._size + 1)  # it doubles with every round
        # What began before the size was cut shows what it was like before.
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
                self._baseline = typical  # fewer did not help
                self._new_round()
                return
            self._size = max(1.0, self._size * max(0.5, self._baseline / typical))
            self._threshold = self._size
            # In slow start the size has doubled since these began, so the next round cannot be compared with this.
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
        """Whether there is nothing to learn."""

"""How fast an account is used: rate, concurrency, the shared pause, the circuit breaker.

A provider knows accounts, not clients. So every client and every fan-out of one account in this process goes through
one `Pacer`, whichever event loop or thread it lives on: together they keep its rate and its concurrency, and what one
of them learns (a 429, a provider that is down) holds for all.

- **Rate.** Launches start one interval apart. Time that nobody used is not saved up, so there is never a burst.
- **Concurrency.** At most so many attempts are in flight. With ``"auto"`` the limit is found out: see `AdaptiveLimit`.
- **Ramp.** A run on an idle account starts with one attempt, and the limit doubles with each round of answers.
- **Pause.** One 429, or a ``Retry-After`` of a server that failed, stops every start until the provider's time, for at
  most `Pace.max_pause`. Afterwards the limit grows again from one, doubling. A person can lift a pause (`Pacer.lift`).
- **Breaker.** When most attempts get no answer, starts stop for a while; then a single one is tried. If it is answered
  the breaker closes, else it waits twice as long.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import threading
from collections import OrderedDict
from weakref import WeakSet

from dispatchkit.core.clock import Clock
from dispatchkit.core.pacing.adaptive_limit import AdaptiveLimit
from dispatchkit.core.pacing.breaker import Breaker
from dispatchkit.core.pacing.pace import Pace, PaceStatistics
from dispatchkit.core.pacing.pause_log import PauseLog
from dispatchkit.core.wakeup import Sleepers, rest, wake

__all__ = ["Pacer"]


class _Waiter:
    """Somebody who waits for leave to start. It is woken through a future that is new for every wait."""

    __slots__ = ("expired", "future", "loop", "permit", "previous", "slot", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] | None = None
        self.permit = 0
        self.expired = False
        self.slot = self.previous = -math.inf

    def wake(self) -> None:
        future, self.future = self.future, None
        if future is not None:
            wake(future)


_TIMER_SLACK = 0.005
"""Seconds by which a timer may be late. So much is made good, or a high rate would never be reached."""
SILENCE = 2.0
"""Seconds without an answer, after which a limit that grows from one lets one more attempt start."""


class Pacer:
    """The moving part behind a `Pace`. See the module's text for what it does.

    Between `acquire` (or `try_acquire`) and `release` stands one attempt, known by its permit: the number of the
    stretch between two pauses in which it began. What comes back from before a pause tells nothing of what came after
    it.

    Who cannot start at once stands in a queue, and leave is given to its head, never to who comes by. One in the queue
    keeps the time: it sleeps until time alone lets somebody start or makes somebody give up, and then another does. All
    state changes happen under one lock and never across a wait, so loops in several threads may share it.
    """

    def __init__(self, pace: Pace, clock: Clock) -> None:
        self._clock = clock
        self._pace = pace
        self._interval = 0.0 if pace.rate is None else 1.0 / pace.rate
        self._adaptive_limit = AdaptiveLimit(pace.concurrency)
        self._breaker = Breaker(pace.failure_threshold, pace.reset_timeout)
        self._last_start = -math.inf
        self._paused_until = -math.inf
        self._throttled_until = -math.inf
        """The pause that the provider asked for, without that of the breaker and of `hold`."""
        self._held_until = -math.inf
        self._log = PauseLog(clock)
        self.lifts = 0
        """How often a pause was lifted: what waits out a pause looks at it."""
        self._learnt = -math.inf  # when an answer, or silence, last let the limit grow
        self._started = 0
        self._throttled = 0
        self._pauses = 0
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Leave what is in flight, and who waits, to the process that this one was forked from."""
        self._lock = threading.Lock()
        self._adaptive_limit.end_ramp()
        self._runs: WeakSet[object] = WeakSet()
        self._sleepers = Sleepers(self._clock)
        self._generation = 1
        self._in_flight = 0
        self._stale_in_flight = 0  # of those in flight, how many began before the latest pause
        self._waiters: OrderedDict[_Waiter, None] = OrderedDict()
        self._deadlines: list[tuple[float, int, _Waiter]] = []
        self._numbers = itertools.count()
        self._timer_waiter: _Waiter | None = None
        self._wake_at = math.inf
        self._next_start = math.inf  # the start for which the timer waiter sleeps

    @property
    def pace(self) -> Pace:
        """The settings in force."""
        return self._pace

    def set(self, pace: Pace) -> None:
        """Change the settings, for everything that uses the account. What was learnt stays where it still applies."""
        with self._lock:
            before, self._pace = self._pace, pace
            self._interval = 0.0 if pace.rate is None else 1.0 / pace.rate
            if pace.concurrency != before.concurrency:
                self._adaptive_limit.set(pace.concurrency)
            self._breaker.set(pace.failure_threshold, pace.reset_timeout)
            if pace.max_pause < before.max_pause:
                latest = self._clock.monotonic() + pace.max_pause
                self._paused_until = min(self._paused_until, latest)
                self._throttled_until = min(self._throttled_until, latest)
            self._grant()

    def begin_run(self, run: object, *, ramp: bool) -> None:
        """A run begins. On an account with nothing in flight here, it starts with one attempt.

        Args:
            run: The run. It is not kept alive.
            ramp: False if it is known that the provider accepts what the run sends.
        """
        with self._lock:
            if ramp and not self._in_flight and not self._waiters:
                self._adaptive_limit.ramp()
            self._runs.add(run)

    def end_run(self, run: object) -> None:
        """The run is over. What follows outside of a run does not go on with its ramp."""
        with self._lock:
            self._runs.discard(run)
            if not self._runs:
                self._adaptive_limit.end_ramp()
                self._grant()

    def try_acquire(self) -> int:
        """Leave to start one attempt now: its permit, or 0. The short way of `acquire`."""
        with self._lock:
            if self._waiters:
                return 0
            now = self._clock.monotonic()
            if not self._has_room() or self._opens_at() > now:
                return 0
            return self._start(now)

    async def acquire(self, *, until: float = math.inf) -> int:
        """Wait for leave to start one attempt. Every permit is followed by one `release` or `cancel`.

        Args:
            until: On the clock's ``monotonic``: when to give up.

        Returns:
            The permit, or 0 as soon as it is certain that the turn would come too late, if those before keep theirs.
        """
        if self._clock.monotonic() > until:
            return 0
        if permit := self.try_acquire():
            return permit
        waiter = _Waiter(until)
        with self._lock:
            if max(self._opens_at() + len(self._waiters) * self._interval, self._clock.monotonic()) > until:
                return 0
            self._enqueue(waiter)
        try:
            return await self._wait(waiter)
        except BaseException:
            with self._lock:
                self._waiters.pop(waiter, None)
                if waiter.permit:
                    self._revoke(waiter)
                self._grant()
            raise

    def _enqueue(self, waiter: _Waiter) -> None:
        self._waiters[waiter] = None
        if waiter.until < math.inf:
            if len(self._deadlines) > 2 * len(self._waiters) + 64:
                # Of those that got in long before, nothing may stay.
                self._deadlines = [entry for entry in self._deadlines if entry[2] in self._waiters]
                heapq.heapify(self._deadlines)
            heapq.heappush(self._deadlines, (waiter.until, next(self._numbers), waiter))

    async def _wait(self, waiter: _Waiter) -> int:
        while True:
            with self._lock:
                if self._timer_waiter is waiter:
                    self._wake_at = math.inf  # it is awake: set it anew
                now = self._grant()
                if waiter.permit and (waiter.permit != self._generation or self._paused_until > now):
                    # A pause came between the leave and the start. It keeps its place.
                    self._revoke(waiter)
                    if waiter.until >= self._opens_at():
                        self._waiters[waiter] = None
                        self._waiters.move_to_end(waiter, last=False)
                        heapq.heappush(self._deadlines, (waiter.until, next(self._numbers), waiter))
                        now = self._grant()
                    else:
                        waiter.expired = True
                if waiter.permit and now > waiter.until:
                    self._revoke(waiter)
                    self._grant()
                    return 0
                if waiter.permit or waiter.expired:
                    return waiter.permit
                waiter.future = future = waiter.loop.create_future()
                wait = (
                    max(self._wake_at - now, 2 * math.ulp(self._wake_at)) if self._timer_waiter is waiter else math.inf
                )
            await (future if wait == math.inf else rest(self._clock, future, wait))

    def _opens_at(self) -> float:
        """When time next allows a start."""
        return max(self._paused_until, self._last_start + self._interval)

    def _has_room(self) -> bool:
        # An attempt from before the pause may hang for long: it must not keep the slow start waiting.
        return (
            self._in_flight - self._stale_in_flight < self._adaptive_limit.limit
            and self._in_flight < self._adaptive_limit.maximum
        )

    def _start(self, slot: float) -> int:
        self._in_flight += 1
        self._started += 1
        self._last_start = slot
        if self._breaker.state == "open":
            self._breaker.state = "half-open"
        return self._generation

    def _cancel(self, permit: int) -> None:
        self._in_flight -= 1
        self._started -= 1
        if permit != self._generation:
            self._stale_in_flight -= 1

    def _revoke(self, waiter: _Waiter) -> None:
        self._cancel(waiter.permit)
        waiter.permit = 0
        if self._last_start == waiter.slot:
            self._last_start = waiter.previous

    def can_start(self) -> bool:
        """Whether time gives leave to start now, and nobody waits for it."""
        with self._lock:
            return not self._waiters and self._opens_at() <= self._clock.monotonic()

    def is_current(self, permit: int) -> bool:
        """Whether leave that was not used at once is still good: no pause has begun since."""
        with self._lock:
            return permit == self._generation and self._paused_until <= self._clock.monotonic()

    def postpone(self) -> float:
        """Take the next start, for a permit that was not used at once. Returns the seconds until then."""
        with self._lock:
            now = self._clock.monotonic()
            self._last_start = max(now, self._last_start + self._interval)
            return self._last_start - now

    def cancel(self, permit: int) -> None:
        """Give back what `acquire` or `try_acquire` gave: nothing was started after all."""
        with self._lock:
            self._cancel(permit)
            self._grant()

    def release(
        self,
        permit: int,
        *,
        answered: bool | None,
        elapsed: float,
        pause: float | None = None,
        grows: bool = True,
        by: str = "Retry-After",
    ) -> None:
        """One attempt is over.

        Args:
            permit: What `acquire` or `try_acquire` gave for it.
            answered: Whether the provider answered it; None where it cannot be said (it was cancelled).
            elapsed: Seconds.
            pause: If the provider asked for a pause, by a 429 or in an answer that is unclear: its seconds.
            grows: Whether the answer lets one more start. Not a refusal of the token or of the account.
            by: How it asked.
        """
        with self._lock:
            is_current = permit == self._generation
            busy = self._in_flight - self._stale_in_flight >= self._adaptive_limit.limit
            self._in_flight -= 1
            if not is_current:
                self._stale_in_flight -= 1
            # What began before the pause says nothing of an open breaker, or of the new size.
            if answered is not None and (is_current or self._breaker.state == "closed"):
                if self._breaker.record(answered=answered):
                    self._pause(self._breaker.reset_timeout)
                    self._adaptive_limit.reset(throttled=False)
                elif answered and is_current and pause is None and grows and not self._adaptive_limit.is_fixed:
                    self._learnt = self._clock.monotonic()
                    self._adaptive_limit.observe(elapsed, busy=busy, now=self._learnt)
            if pause is not None:
                self._throttle(pause, again=permit != self._generation, refused=answered is True)
            if self._waiters:
                self._grant()
        if pause is not None:
            self._log_pause(pause, by)

    def throttle(self, pause: float, *, refused: bool = True, by: str = "Retry-After") -> None:
        """The provider asked for a pause elsewhere: start nothing for so many seconds, at most `Pace.max_pause`.

        Args:
            pause: Seconds.
            refused: Whether it was a 429.
            by: How the provider asked.
        """
        with self._lock:
            self._throttle(pause, again=self._paused_until > self._clock.monotonic(), refused=refused)
        self._log_pause(pause, by)

    def _throttle(self, pause: float, *, again: bool, refused: bool) -> None:
        self._throttled += refused
        pause = min(pause, self._pace.max_pause)
        until = self._clock.monotonic() + pause
        self._throttled_until = max(self._throttled_until, until)
        if again:
            # Of the same volley as one before: it can make the pause longer, and tells nothing else that is new.
            self._paused_until = max(self._paused_until, until)
            return
        self._pause(pause)
        self._adaptive_limit.reset(throttled=refused)

    def _log_pause(self, asked: float, by: str) -> None:
        self._log.pause(self.throttled_for(), asked=asked, most=self._pace.max_pause, by=by)

    def hold(self, seconds: float) -> None:
        """Start nothing for so many seconds, for a reason of this process. `lift` does not end it."""
        with self._lock:
            now = self._clock.monotonic()
            self._held_until = max(self._held_until, now + seconds)
            if self._paused_until > now:
                self._paused_until = max(self._paused_until, self._held_until)
                return
            self._pause(seconds)
            self._adaptive_limit.reset(throttled=False)

    def lift(self, left: float = 0.0) -> bool:
        """End the pause, or let it end in ``left`` seconds if that is sooner. What waits for its end goes on.

        Returns:
            Whether the pause became shorter.
        """
        with self._lock:
            now = self._clock.monotonic()
            until = now + left if left > 0 else -math.inf
            if self._paused_until <= max(now, until, self._held_until):
                return False
            self._paused_until = max(until, self._held_until)
            self._throttled_until = until
            self.lifts += 1
            self._grant()
        self.wake()
        self._log.lift(until)
        return True

    async def sleep(self, seconds: float) -> None:
        """Sleep for so many seconds, at most until a pause is lifted or a client of the account is closed."""
        await self._sleepers.sleep(seconds)

    def wake(self) -> None:
        """End each `sleep`: who sleeps looks whether its reason holds."""
        self._sleepers.wake()

    def _pause(self, wait: float) -> None:
        self._pauses += 1
        self._generation += 1
        self._stale_in_flight = self._in_flight
        self._paused_until = max(self._paused_until, self._clock.monotonic() + wait)

    def paused_for(self) -> float:
        """Seconds until the pause is over; 0 when nothing pauses."""
        return max(0.0, self._paused_until - self._clock.monotonic())

    def throttled_for(self) -> float:
        """Seconds until the pause is over that the provider asked for; 0 where there is none."""
        return max(0.0, self._throttled_until - self._clock.monotonic())

    def is_failing(self) -> bool:
        """Whether the breaker lets nothing start, or a single attempt."""
        return self._breaker.state != "closed"

    def _grant(self) -> float:
        """Give leave to all that may start now, and see to it that somebody keeps the time. Returns the time."""
        now = self._clock.monotonic()
        waiters = self._waiters
        if not waiters:
            self._timer_waiter = None
            self._wake_at = self._next_start = math.inf
            return now
        opens = self._opens_at()
        timed = opens == self._next_start
        self._expire(max(now, opens))
        if self._adaptive_limit.slow and self._silent_at() <= now:
            self._adaptive_limit.grow()
            self._learnt = now
        while waiters and opens <= now and self._has_room():
            waiter, _ = waiters.popitem(last=False)
            if waiter.loop.is_closed():
                continue  # nobody waits there any more
            waiter.previous = self._last_start
            waiter.slot = opens if timed and now - opens <= _TIMER_SLACK else now
            waiter.permit = self._start(waiter.slot)
            waiter.wake()
            opens = self._opens_at()
        if self._has_room():
            self._keep_time(opens, opens)
        else:
            self._keep_time(math.inf, self._silent_at() if self._adaptive_limit.slow else math.inf)
        return now

    def _silent_at(self) -> float:
        """When the account has been silent for so long that one more attempt may start, beyond a limit that grows."""
        # An open breaker lets a single attempt decide, however long it takes.
        if self._breaker.state != "closed" or self._in_flight - self._stale_in_flight < self._adaptive_limit.limit:
            return math.inf
        return max(self._last_start, self._learnt) + SILENCE

    def _expire(self, before: float) -> None:
        """Whoever must start before this moment has waited in vain."""
        while self._deadlines and self._deadlines[0][0] < before:
            _, _, waiter = heapq.heappop(self._deadlines)
            if waiter in self._waiters:
                del self._waiters[waiter]
                waiter.expired = True
                waiter.wake()

    def _keep_time(self, next_start: float, wake_at: float) -> None:
        while self._deadlines and self._deadlines[0][2] not in self._waiters:
            heapq.heappop(self._deadlines)
        first = self._deadlines[0][0] if self._deadlines else math.inf
        # Just beyond its deadline: at the deadline itself it may still start.
        wake_at = min(wake_at, math.nextafter(first, math.inf))
        self._next_start = next_start
        if self._timer_waiter not in self._waiters:
            self._timer_waiter = next(iter(self._waiters), None)
        elif wake_at >= self._wake_at:
            return  # it will look again then
        self._wake_at = wake_at
        if self._timer_waiter is not None and wake_at < math.inf:
            self._timer_waiter.wake()

    def statistics(self) -> PaceStatistics:
        """A snapshot."""
        with self._lock:
            return PaceStatistics(
                started=self._started,
                in_flight=self._in_flight,
                concurrency_limit=self._adaptive_limit.limit,
                waiting=len(self._waiters),
                paused_for=self.paused_for(),
                throttled=self._throttled,
                pauses=self._pauses,
                breaker=self._breaker.state,
            )

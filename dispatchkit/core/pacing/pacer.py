"""The pacer of an account: rate, concurrency, shared pause and circuit breaker.

Providers limit accounts, not clients. So all clients and fan-outs of one account in this process share one `Pacer`,
across event loops and threads. They share its rate and its concurrency, and a 429 or a failing provider stops them all.

- **Rate.** Attempts start one interval apart. Unused time is not saved up, so there is no burst.
- **Concurrency.** The number of attempts in flight is limited. With ``"auto"``, the limit adapts: see `AdaptiveLimit`.
- **Ramp.** A run on an idle account starts with one attempt. The limit doubles with each round of answers.
- **Pause.** A 429, or a ``Retry-After`` of a failed server, stops all starts, for at most `Pace.max_pause`. Then the
  limit grows again from one, doubling. `Pacer.lift` ends a pause early.
- **Breaker.** If most attempts get no answer, the breaker stops all starts for a while. Then one attempt decides: an
  answer closes the breaker, a failure doubles the wait.
"""

from __future__ import annotations

import asyncio
import math
import threading
from weakref import WeakSet

from dispatchkit.core.clock import Clock
from dispatchkit.core.pacing.adaptive_limit import AdaptiveLimit
from dispatchkit.core.pacing.breaker import Breaker
from dispatchkit.core.pacing.pace import Pace, PaceStatistics
from dispatchkit.core.pacing.pause_log import PauseLog
from dispatchkit.core.pacing.timer import PaceTimer
from dispatchkit.core.pacing.waiters import Waiter, WaiterQueue
from dispatchkit.core.pacing.watchers import Watchers
from dispatchkit.core.wakeup import Sleepers, current_loop, wake

__all__ = ["Pacer"]


_TIMER_SLACK = 0.005
"""Timer slack in seconds; starts this late are backdated so that high rates are reached."""
SILENCE = 2.0
"""Seconds without an answer after which a limit in slow start grows by one."""


class Pacer:
    """Enforces the `Pace` of one account. See the module's docstring for the rules.

    `try_acquire` gives a permit at once, and `line_up` also a place in the queue, for `wait`. Each permit needs one
    `release` after its attempt, or one `cancel`. It is the number of the generation in which the attempt started. Each
    pause begins a new generation. Results of attempts that started before a pause are ignored.

    Waiters are served in FIFO order. One timer admits them, in the event loop of one of them: see `PaceTimer`. It fires
    at most once a millisecond. At higher rates it admits several waiters at once, so that the rate is reached. Event
    loops in several threads may share a pacer: every state change holds one lock, and no ``await`` interrupts it.
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
        """End of the provider's pause, without those of the breaker and of `hold`."""
        self._held_until = -math.inf
        self._log = PauseLog(clock)
        self.watchers = Watchers(clock)
        """The observers of the account's clients."""
        self.lifts = 0
        """Number of lifted pauses. A sleep during a pause ends when it changes."""
        self._learnt = -math.inf  # when an answer or silence last raised the limit
        self._started = 0
        self._throttled = 0
        self._pauses = 0
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Drop waiters and attempts in flight in a forked child: they belong to the parent."""
        # Reentrant: the garbage collector may end calls of a dead event loop while this thread holds it.
        self._lock = threading.RLock()
        self._granting = self._grant_again = False
        self._adaptive_limit.end_ramp()
        self._runs: WeakSet[object] = WeakSet()
        self._breaker_opened = False
        self._sleepers = Sleepers(self._clock)
        self._generation = 1
        self._in_flight = 0
        self._stale_in_flight = 0  # attempts in flight that started before the latest pause
        self._waiters = WaiterQueue()
        self._timer = PaceTimer(self._clock, self._tick)
        self._next_start = math.inf  # the start for which the timer is set
        self._due_start = math.inf  # a start that was due when the queue ran empty

    @property
    def pace(self) -> Pace:
        """The settings in force."""
        return self._pace

    def set(self, pace: Pace) -> None:
        """Change the settings for all users of the account. An unchanged concurrency keeps its adapted limit."""
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
        """Register a run. On an account with nothing in flight, the run starts with one attempt.

        Args:
            run: The run. It is held weakly.
            ramp: False if the provider is known to accept the run's requests.
        """
        with self._lock:
            if ramp and not self._in_flight and not self._waiters:
                self._adaptive_limit.ramp()
            self._runs.add(run)

    def end_run(self, run: object) -> None:
        """Unregister a run. The last one ends its ramp."""
        with self._lock:
            self._runs.discard(run)
            if not self._runs:
                self._adaptive_limit.end_ramp()
                self._grant()

    def try_acquire(self) -> int:
        """Acquire a permit without waiting; 0 if there is none now."""
        with self._lock:
            return 0 if self._waiters.in_order else self._try_acquire(self._clock.monotonic())

    def _try_acquire(self, now: float) -> int:
        # Each attempt asks this while nothing waits, so it is written out.
        opens = self._last_start + self._interval
        if opens < self._paused_until:  # noqa: PLR1730 - a call of `max` costs more
            opens = self._paused_until
        in_flight, limit = self._in_flight, self._adaptive_limit
        if opens > now:
            return 0
        if in_flight - self._stale_in_flight >= limit.limit or in_flight >= limit.maximum:
            return 0
        if opens == self._due_start and now - opens <= _TIMER_SLACK:
            permit = self._start(opens)
            opens += self._interval
            self._due_start = opens if opens <= now else math.inf
            return permit
        self._in_flight = in_flight + 1
        self._started += 1
        self._last_start = now
        if self._breaker.state == "open":
            self._breaker.state = "half-open"
        return self._generation

    def line_up(self, until: float) -> int | Waiter:
        """Acquire a permit, or a place in the queue.

        Args:
            until: The latest start, on the clock's ``monotonic``.

        Returns:
            The permit, 0 if `until` cannot be met, or a place. A place needs one `wait`.
        """
        with self._lock:
            is_first, has_deadline = not self._waiters.in_order, until < math.inf
            if is_first or has_deadline:
                now = self._clock.monotonic()
                if now > until:
                    return 0
                if is_first and (permit := self._try_acquire(now)):
                    return permit
                if has_deadline and max(self._opens_at() + len(self._waiters) * self._interval, now) > until:
                    return 0
            waiter = Waiter(until)
            self._waiters.append(waiter)
            # Behind others, the timer is set already: nothing has changed for them.
            if is_first or has_deadline or self._timer.loop is not waiter.loop:
                self._grant()
            return waiter

    async def wait(self, waiter: Waiter) -> int:
        """Wait in the queue. Returns the permit, or 0 once the latest start of the place cannot be met."""
        try:
            await waiter.future
            while not self._is_admitted(waiter):
                await waiter.future
        except BaseException:
            with self._lock:
                self._waiters.remove(waiter)
                if waiter.permit:
                    self._revoke(waiter)
                self._grant()
            raise
        return waiter.permit

    def _is_admitted(self, waiter: Waiter) -> bool:
        """Whether the wait of a waiter is over, with a permit or without one. If not, it waits for a new future."""
        if waiter.error is not None:
            raise waiter.error
        now = self._clock.monotonic()
        # Without the lock, as in `is_current`.
        if waiter.permit == self._generation and self._paused_until <= now <= waiter.until:
            return True
        with self._lock:
            if waiter.permit and (waiter.permit != self._generation or self._paused_until > now):
                # A pause began after the permit was granted: back to the head of the queue.
                self._revoke(waiter)
                if waiter.until >= self._opens_at():
                    waiter.future = waiter.loop.create_future()
                    self._waiters.put_back(waiter)
                    now = self._grant()
                else:
                    waiter.expired = True
            if waiter.permit and now > waiter.until:
                self._revoke(waiter)
                waiter.expired = True
                self._grant()
            return bool(waiter.permit or waiter.expired)

    def _opens_at(self) -> float:
        """The earliest next start by pause and rate."""
        opens = self._last_start + self._interval
        return opens if opens > self._paused_until else self._paused_until  # noqa: FURB136 - `max` costs more

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

    def _revoke(self, waiter: Waiter) -> None:
        self._cancel(waiter.permit)
        waiter.permit = 0
        if self._last_start == waiter.slot:
            self._last_start = waiter.previous

    def can_start(self) -> bool:
        """Whether pause and rate allow a start now, and no attempt waits."""
        with self._lock:
            return not self._waiters and self._opens_at() <= self._clock.monotonic()

    def is_current(self, permit: int) -> bool:
        """Whether an unused permit is still valid: no pause has begun since."""
        # Without the lock: a pause changes both, and one of them is enough.
        return permit == self._generation and self._paused_until <= self._clock.monotonic()

    def postpone(self) -> float:
        """Reserve the next start for an unused permit. Returns the seconds until then."""
        with self._lock:
            now = self._clock.monotonic()
            self._last_start = max(now, self._last_start + self._interval)
            return self._last_start - now

    def cancel(self, permit: int) -> None:
        """Return an unused permit."""
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
        """Return the permit of an attempt that has ended, with its result.

        Args:
            permit: The permit.
            answered: Whether the provider answered; None if the attempt was cancelled.
            elapsed: Duration of the attempt in seconds.
            pause: Seconds of the pause that the provider asked for; None for no pause.
            grows: Whether the answer may raise the limit. False for a refusal of the token or the account.
            by: What asked for the pause, for the log.
        """
        with self._lock:
            is_current, breaker, limit = permit == self._generation, self._breaker, self._adaptive_limit
            in_flight = self._in_flight
            self._in_flight = in_flight - 1
            if not is_current:
                self._stale_in_flight -= 1
            # Attempts from before the pause must not close an open breaker or raise the limit.
            if answered is not None and (is_current or breaker.state == "closed"):
                if breaker.record(answered=answered):
                    self._pause(breaker.reset_timeout)
                    self._breaker_opened = True
                    limit.reset(throttled=False)
                elif not limit.is_fixed and answered and is_current and pause is None and grows:
                    self._learnt = self._clock.monotonic()
                    limit.observe(elapsed, busy=in_flight - self._stale_in_flight >= limit.limit, now=self._learnt)
            if pause is not None:
                self._throttle(pause, again=permit != self._generation, refused=answered is True)
            # While only the rate holds the waiters back, the timer admits the next one.
            if self._waiters.in_order and (self._next_start == math.inf or self._paused_until > self._next_start):
                self._grant()
        if pause is not None or not answered:
            self._tell_failure(pause, by)

    def throttle(self, pause: float, *, refused: bool = True, by: str = "Retry-After") -> None:
        """Pause the account because the provider asked outside of an attempt, for at most `Pace.max_pause`.

        Args:
            pause: Seconds.
            refused: Whether the answer was a 429.
            by: What asked for the pause, for the log.
        """
        with self._lock:
            self._throttle(pause, again=self._paused_until > self._clock.monotonic(), refused=refused)
        self._tell_pause(pause, by)

    def _throttle(self, pause: float, *, again: bool, refused: bool) -> None:
        self._throttled += refused
        pause = min(pause, self._pace.max_pause)
        until = self._clock.monotonic() + pause
        self._throttled_until = max(self._throttled_until, until)
        if again:
            # Another 429 for a request sent before the pause: extend the pause only.
            self._paused_until = max(self._paused_until, until)
            return
        self._pause(pause)
        self._adaptive_limit.reset(throttled=refused)

    def _tell_failure(self, pause: float | None, by: str) -> None:
        """Log a pause, and tell the observers of what an attempt has stopped. Call it without the lock."""
        with self._lock:
            opened, self._breaker_opened = self._breaker_opened, False
        if pause is not None:
            self._tell_pause(pause, by)
        if opened:
            self.watchers.breaker_opened(self._breaker.reset_timeout)

    def _tell_pause(self, asked: float, by: str) -> None:
        left = self.throttled_for()
        self._log.pause(left, asked=asked, most=self._pace.max_pause, by=by)
        self.watchers.paused(left, by)

    def hold(self, seconds: float) -> None:
        """Start nothing for so many seconds, for a local reason. `lift` does not end this pause."""
        with self._lock:
            now = self._clock.monotonic()
            self._held_until = max(self._held_until, now + seconds)
            if self._paused_until > now:
                self._paused_until = max(self._paused_until, self._held_until)
                return
            self._pause(seconds)
            self._adaptive_limit.reset(throttled=False)

    def lift(self, left: float = 0.0) -> bool:
        """End the pause now or in ``left`` seconds, and wake its waiters. A pause is never extended.

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
        self._sleepers.wake()
        self._log.lift(until)
        self.watchers.lifted()
        return True

    async def sleep(self, seconds: float) -> None:
        """Sleep for so many seconds, or until a pause is lifted."""
        await self._sleepers.sleep(seconds)

    def _pause(self, wait: float) -> None:
        self._pauses += 1
        self._generation += 1
        self._stale_in_flight = self._in_flight
        self._paused_until = max(self._paused_until, self._clock.monotonic() + wait)

    @property
    def in_flight(self) -> int:
        """The number of attempts that are under way now."""
        return self._in_flight

    def paused_for(self) -> float:
        """Seconds until the pause ends; 0 without a pause."""
        return max(0.0, self._paused_until - self._clock.monotonic())

    def throttled_for(self) -> float:
        """Seconds until the provider's pause ends; 0 without one."""
        return max(0.0, self._throttled_until - self._clock.monotonic())

    def is_failing(self) -> bool:
        """Whether the breaker is open or half-open."""
        return self._breaker.state != "closed"

    def _tick(self, here: asyncio.AbstractEventLoop, error: BaseException | None) -> None:
        """Admit the waiters that the timer was set for."""
        with self._lock:
            self._timer.stop(here=here)
            try:
                if error is not None:
                    raise error
                self._grant(here)
            except BaseException as broken:  # noqa: BLE001 - the waiters raise it
                self._waiters.fail(broken)

    def _grant(self, here: asyncio.AbstractEventLoop | None = None) -> float:
        """Admit all waiters that may start now, and set the timer for the next one. Returns the current time.

        Args:
            here: The event loop that this thread runs now; None looks for it. Each look takes a system call.
        """
        if self._granting:  # a call of a dead event loop ended in the midst of it
            self._grant_again = True
            return self._clock.monotonic()
        self._granting = True
        try:
            now = self._grant_now(here)
            while self._grant_again:
                self._grant_again = False
                now = self._grant_now(here)
            return now
        finally:
            self._granting = False

    def _grant_now(self, here: asyncio.AbstractEventLoop | None) -> float:
        now = self._clock.monotonic()
        waiters, limit = self._waiters, self._adaptive_limit
        if not waiters.in_order:
            self._next_start = math.inf
            if self._timer.waiter is not None:
                self._timer.clear(here=current_loop())
            return now
        here = here or current_loop()
        opens = self._opens_at()
        timed = opens == self._next_start or (opens == self._due_start and now - opens <= _TIMER_SLACK)
        if waiters.deadlines:
            waiters.expire(max(now, opens), here=here)
        if limit.slow and self._silent_at() <= now:
            limit.grow()
            self._learnt = now
        # Attempts from before the pause may hang: they must not block the slow start.
        in_flight = self._in_flight
        room, most = limit.limit - in_flight + self._stale_in_flight, limit.maximum - in_flight
        if room > most:  # noqa: PLR1730 - a call of `min` costs more
            room = most
        while opens <= now and room > 0 and (head := waiters.popleft()) is not None:
            head.previous = self._last_start
            slot = opens if timed else now
            if slot < now - _TIMER_SLACK:  # noqa: PLR1730 - a call of `max` costs more
                slot = now - _TIMER_SLACK
            head.slot = slot
            head.permit = self._start(slot)
            wake(head.future, head.loop, here=here)
            opens, room = slot + self._interval, room - 1
        has_room = room > 0
        waiter = self._timer.waiter
        if waiter is None or waiter not in waiters.in_order or waiter.loop.is_closed():
            waiter = waiters.last()  # it stays longest
        if waiter is None:
            # A timer may be later than an interval: the attempts in flight start the rest of what was due.
            self._due_start = opens if timed and has_room and opens <= now else math.inf
            self._next_start = math.inf
            self._timer.clear(here=here)
            return now
        self._due_start = math.inf
        self._next_start = opens if has_room else math.inf
        wake_at = opens if has_room else self._silent_at() if limit.slow else math.inf
        if waiters.deadlines:
            # Wake just after the deadline: at the deadline itself, the waiter may still start.
            wake_at = min(wake_at, math.nextafter(waiters.first_deadline(), math.inf))
        self._timer.set(waiter, wake_at, now, here=here)
        return now

    def _silent_at(self) -> float:
        """When a limit in slow start grows by one, because no answer has come for `SILENCE`."""
        # With an open breaker, a single attempt decides, however long it takes.
        if self._breaker.state != "closed" or self._in_flight - self._stale_in_flight < self._adaptive_limit.limit:
            return math.inf
        return max(self._last_start, self._learnt) + SILENCE

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

"""How fast an account is used: rate, concurrency, the shared pause, the circuit breaker.

A provider knows accounts, not clients. So every client and every fan-out of one account in this process goes through
one `Pacer`, whichever event loop or thread it lives on: together they keep its rate and its concurrency, and what one
of them learns (a 429, a provider that is down) holds for all.

- **Rate.** Launches start one interval apart. Time that nobody used is not saved up, so there is never a burst.
- **Concurrency.** At most so many attempts are in flight. With ``"auto"`` the limit is found as TCP finds a window: it
  doubles (slow start) until the provider throttles or slows down, then creeps up by one and falls back by a share
  (AIMD). "Slows down" means that a window's worth of answers took twice as long as the fastest that were seen.
- **Pause.** One 429 stops every start until the provider's time. Afterwards the limit grows again from one.
- **Breaker.** When most attempts get no answer, starts stop for a while; then a single one is tried. If it is answered
  the breaker closes, else it waits twice as long.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from typing import Literal
from weakref import WeakValueDictionary

import attrs

from dispatchkit.core.check import seconds
from dispatchkit.core.clock import Clock

__all__ = ["DEFAULT_PACE", "Pace", "PaceStatistics", "Pacer", "pacer_of"]

Auto = Literal["auto"]


def _rate(instance: object, attribute: attrs.Attribute[float | None], value: float | None) -> None:
    del instance
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{attribute.name} must be launches a second, not {type(value).__name__} {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{attribute.name} must be positive and finite, not {value!r}")


def _concurrency(instance: object, attribute: attrs.Attribute[int | Auto], value: object) -> None:
    del instance
    if value == "auto":
        return
    if type(value) is not int:
        raise TypeError(f"{attribute.name} must be an integer from 1 up, or 'auto', not {value!r}")
    if value < 1:
        raise ValueError(f"{attribute.name} must be an integer from 1 up, or 'auto', not {value!r}")


def _share(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    del instance
    if not 0 < value <= 1:
        raise ValueError(f"{attribute.name} must be over 0 and at most 1, not {value!r}")


def _duration(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    del instance
    seconds(attribute.name, value)


@attrs.frozen(kw_only=True)
class Pace:
    """How fast an account may be used.

    Raises:
        TypeError: A setting is of another type.
        ValueError: A setting is out of range.
    """

    rate: float | None = attrs.field(default=None, validator=_rate)
    """Launches a second, evenly spaced; None sets no rate."""
    concurrency: int | Auto = attrs.field(default=1024, validator=_concurrency)
    """How many attempts may be in flight; ``"auto"`` finds out."""
    breaker: float = attrs.field(default=0.5, validator=_share)
    """The share of attempts without an answer, of the latest 64, that opens the breaker. 1 never does."""
    cooldown: float = attrs.field(default=5.0, validator=_duration)
    """Seconds until an open breaker tries again; doubled each time that fails, up to a minute."""


DEFAULT_PACE = Pace()
"""The pace of an account for which none was set."""


@attrs.frozen
class PaceStatistics:
    """What a `Pacer` is doing."""

    started: int
    """Attempts so far."""
    in_flight: int
    limit: int
    """How many may be in flight now."""
    waiting: int
    paused_for: float
    """Seconds until the next start is allowed; 0 when nothing pauses."""
    throttled: int
    """Answers 429 so far."""
    pauses: int
    """Pauses so far, by a 429 or by the breaker."""
    breaker: Literal["closed", "open", "half-open"]


@attrs.define(eq=False)
class _Waiter:
    future: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop

    def wake(self) -> None:
        self.loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


_AUTO_START = 4.0
_AUTO_MOST = 1024
_SLOWER = 2.0
_BACK_OFF = 0.7
_SEEN = 64
_LONGEST_COOLDOWN = 60.0


class Pacer:
    """The moving part behind a `Pace`. See the module's text for what it does.

    Between `admit` and `release` stands one attempt. All state changes happen under one lock and never across a wait,
    so loops in several threads may share it.
    """

    def __init__(self, pace: Pace, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiters: deque[_Waiter] = deque()
        self._in_flight = 0
        self._started = 0
        self._throttled = 0
        self._pauses = 0
        self._next_start = 0.0
        self._paused_until = 0.0
        self._breaker: Literal["closed", "open", "half-open"] = "closed"
        self._latest: deque[bool] = deque(maxlen=_SEEN)
        self._unanswered = 0
        self._fastest = math.inf
        self._round: list[float] = []
        self.set(pace)

    @property
    def pace(self) -> Pace:
        """The settings in force."""
        return self._pace

    def set(self, pace: Pace) -> None:
        """Change the settings, for everything that uses the account."""
        with self._lock:
            self._pace = pace
            self._interval = 0.0 if pace.rate is None else 1.0 / pace.rate
            self._cooldown = pace.cooldown
            self._most = float(_AUTO_MOST if pace.concurrency == "auto" else pace.concurrency)
            self._window = _AUTO_START if pace.concurrency == "auto" else self._most
            self._threshold = self._most
            self._wake()

    def enter(self) -> bool:
        """Start one attempt now, if nothing forbids it. The short way of `admit`."""
        with self._lock:
            if self._interval:
                return False
            return self._claim() is None

    async def admit(self, *, until: float = math.inf) -> bool:
        """Wait for leave to start one attempt. Every `admit` that returns True is followed by one `release`.

        Args:
            until: On the clock's ``monotonic``: when to give up. False says so, as soon as it is certain.
        """
        while True:
            if self._clock.monotonic() > until:
                return False
            admitted = await self._turn(until)
            if admitted is not None:
                return admitted

    async def _turn(self, until: float) -> bool | None:
        """One try: admitted, given up, or (None) to be tried again."""
        waiter: _Waiter | None = None
        with self._lock:
            wait = self._claim()
            pauses = self._pauses
            slot = self._reserve(until) if wait is None else 0.0
            if wait == 0:
                loop = asyncio.get_running_loop()
                waiter = _Waiter(loop.create_future(), loop)
                self._waiters.append(waiter)
        if wait is None:
            return await self._wait_for_slot(slot, pauses) if slot else slot is not None
        left = until - self._clock.monotonic()
        if waiter is not None:
            await self._wait_for_room(waiter, left)
        elif wait > left:
            return False
        else:
            await self._clock.sleep(wait)
        return None

    def _claim(self) -> float | None:
        """Start now (None), or come back after so many seconds, or when woken (0)."""
        now = self._clock.monotonic()
        if self._paused_until > now:
            return self._paused_until - now
        if self._breaker == "open":
            self._breaker = "half-open"
        if self._in_flight >= int(self._window) or (self._breaker == "half-open" and self._in_flight):
            return 0
        self._in_flight += 1
        self._started += 1
        return None

    def _reserve(self, until: float) -> float | None:
        """Take the next slot of the rate; seconds until it comes, or None if that is too late."""
        if not self._interval:
            return 0.0
        now = self._clock.monotonic()
        slot = max(self._next_start, now)
        if slot > until:
            self._give_back()
            return None
        self._next_start = slot + self._interval
        return slot - now

    def _give_back(self) -> None:
        self._in_flight -= 1
        self._started -= 1
        self._wake()

    def withdraw(self) -> None:
        """Give back what `admit` or `enter` gave: nothing was started after all."""
        with self._lock:
            self._give_back()

    async def _wait_for_slot(self, wait: float, pauses: int) -> bool | None:
        try:
            await self._clock.sleep(wait)
        except asyncio.CancelledError:
            self.withdraw()
            raise
        with self._lock:
            if pauses == self._pauses:
                return True
            # A pause came while this one waited for its slot, so the slot is no longer its own.
            self._give_back()
            return None

    async def _wait_for_room(self, waiter: _Waiter, left: float) -> None:
        try:
            async with asyncio.timeout(None if left == math.inf else left):
                await waiter.future
        except (asyncio.CancelledError, TimeoutError) as error:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                else:
                    self._wake()  # it had its turn: that goes to another
            if isinstance(error, asyncio.CancelledError):
                raise

    def release(self, *, answered: bool | None, took: float, throttled: bool = False, pause: float = 0.0) -> None:
        """One attempt is over.

        Args:
            answered: Whether the provider answered it; None where it cannot be said (it was cancelled).
            took: Seconds.
            throttled: Whether the answer was 429.
            pause: Seconds for which the provider asked to wait.
        """
        with self._lock:
            self._in_flight -= 1
            if throttled:
                self._throttled += 1
                self._pause(max(pause, self._interval))
            elif answered is not None:
                self._learn(answered, took)
            self._wake()

    def _pause(self, wait: float) -> None:
        """Stop every start for a while, then begin again slowly."""
        now = self._clock.monotonic()
        if now >= self._paused_until:
            # The first of those that come back at once; the others tell nothing new.
            self._pauses += 1
            self._threshold = max(1.0, self._window / 2) if self._pace.concurrency == "auto" else self._most
            self._window = 1.0
            self._round.clear()
        self._paused_until = max(self._paused_until, now + wait)
        self._next_start = self._paused_until  # the slots that were given out are void

    def _learn(self, answered: bool, took: float) -> None:
        if self._breaker == "half-open":
            self._breaker = "closed"
            if answered:
                self._cooldown = self._pace.cooldown
            else:
                self._cooldown = min(self._cooldown * 2, _LONGEST_COOLDOWN)
                self._open()
                return
        if len(self._latest) == _SEEN:
            self._unanswered -= self._latest[0]
        self._latest.append(not answered)
        self._unanswered += not answered
        full = len(self._latest) == _SEEN
        if full and self._pace.breaker < 1 and self._unanswered >= _SEEN * self._pace.breaker:
            self._open()
        elif answered and (self._window < self._most or self._pace.concurrency == "auto"):
            self._widen(took)

    def _open(self) -> None:
        self._latest.clear()
        self._unanswered = 0
        self._pause(self._cooldown)
        self._breaker = "open"

    def _widen(self, took: float) -> None:
        if self._window < self._threshold:
            self._window = min(self._most, self._window + 1)  # slow start: it doubles with every round
        if self._pace.concurrency != "auto":
            return
        self._round.append(took)
        if len(self._round) < self._window:
            return
        typical = sorted(self._round)[len(self._round) // 2]
        self._round.clear()
        # Forgotten slowly: a provider may become slower for good.
        self._fastest = min(self._fastest * 1.01, typical)
        if typical > self._fastest * _SLOWER:
            self._window = max(1.0, self._window * _BACK_OFF)
            self._threshold = self._window
        elif self._window >= self._threshold:
            self._window = min(self._most, self._window + 1)

    def _wake(self) -> None:
        room = int(self._window) - self._in_flight
        while room > 0 and self._waiters:
            self._waiters.popleft().wake()
            room -= 1

    def statistics(self) -> PaceStatistics:
        """A snapshot."""
        with self._lock:
            return PaceStatistics(
                started=self._started,
                in_flight=self._in_flight,
                limit=int(self._window),
                waiting=len(self._waiters),
                paused_for=max(0.0, self._paused_until - self._clock.monotonic()),
                throttled=self._throttled,
                pauses=self._pauses,
                breaker=self._breaker,
            )


_pacers: WeakValueDictionary[tuple[object, ...], Pacer] = WeakValueDictionary()
_pacers_lock = threading.Lock()


def pacer_of(account: tuple[object, ...], pace: Pace | None, clock: Clock) -> Pacer:
    """The pacer of an account: the one in use, or a new one. A pace that is given holds for all its users."""
    key = (*account, clock)
    with _pacers_lock:
        pacer = _pacers.get(key)
        if pacer is None:
            pacer = _pacers[key] = Pacer(pace or DEFAULT_PACE, clock)
        elif pace is not None:
            pacer.set(pace)
        return pacer

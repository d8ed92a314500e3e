"""`Watchers`: tell the observers of an account's clients of its pauses."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakSet

from dispatchkit.core.clock import Clock
from dispatchkit.core.observe import Observers

if TYPE_CHECKING:
    from dispatchkit.core.events import Event

__all__ = ["Watchers"]

_UNTOLD = 1.0
"""Seconds: a shorter extension of a pause is not told."""


class Watchers:
    """The observers of all clients of one account in this process. Call it without a lock: an observer may look at it.

    Each step is one operation on a set, so event loops in several threads share it.
    """

    __slots__ = ("_clock", "_groups", "_until")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._groups: WeakSet[Observers] = WeakSet()
        self._until = -math.inf
        """End of the latest pause that was told, on the clock's ``monotonic``."""

    def add(self, observers: Observers) -> None:
        """Tell a client's observers from now on. They are held weakly."""
        self._groups.add(observers)

    def discard(self, observers: Observers) -> None:
        """Undo `add`."""
        self._groups.discard(observers)

    def paused(self, left: float, by: str) -> None:
        """Tell of the provider's pause, unless it was told.

        Args:
            left: Seconds until it ends.
            by: What asked for it.
        """
        if left <= 0 or not self._groups:
            return
        now = self._clock.monotonic()
        if now < self._until and now + left < self._until + _UNTOLD:
            return
        self._until = now + left
        from dispatchkit.core.events import Paused  # noqa: PLC0415 - the client with observers has imported it

        self._tell(lambda at, to: Paused(at=at, provider=to.provider, base_url=to.base_url, seconds=left, by=by))

    def lifted(self) -> None:
        """Forget the pause: the next one is new."""
        self._until = -math.inf

    def breaker_opened(self, seconds: float) -> None:
        """Tell that the breaker opened for so many seconds."""
        if self._groups:
            from dispatchkit.core.events import BreakerOpened  # noqa: PLC0415 - see above

            self._tell(lambda at, to: BreakerOpened(at=at, provider=to.provider, base_url=to.base_url, seconds=seconds))

    def _tell(self, make: Callable[[datetime, Observers], Event]) -> None:
        told: set[object] = set()
        for group in list(self._groups):
            group.tell(partial(self._made, make, group), told)

    def _made(self, make: Callable[[datetime, Observers], Event], group: Observers) -> Event:
        return make(self._clock.now(), group)

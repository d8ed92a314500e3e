"""The launches of this process that a provider's log cannot tell apart.

An entry of such a log names the mailing, not the request. So it settles a launch only if no other launch of the mailing
may have made it. All clients of one host share this record.
"""

from __future__ import annotations

import math
import os
import threading

from dispatchkit.core.clock import Clock

__all__ = ["Launches", "launches_at"]

KEEP = 6 * 3600.0
"""Minimum seconds for which the end of a launch is kept, up to `MAX_KEYS` logs."""
MAX_KEYS = 50_000
"""Logs in one generation: about 10 MB."""

_NONE = (None, -math.inf, -math.inf)


class Launches:
    """The launches of one host: those in flight, and the end of the latest one of each log.

    Ends are kept in two generations, and the older one is dropped as a whole. Earlier ends are then unknown. Each step
    is one operation on a dict, so event loops in several threads share it without a lock.
    """

    __slots__ = ("_ended", "_forgotten", "_in_flight", "_older", "_sealed")

    def __init__(self) -> None:
        self._in_flight: dict[object, int] = {}
        # By log: the latest launch's request id, its end, and the latest end of a launch with another id.
        self._ended: dict[int, tuple[str | None, float, float]] = {}
        self._older: dict[int, tuple[str | None, float, float]] = {}
        self._sealed = self._forgotten = -math.inf
        """Upper bounds of the ends in the older generation and of the dropped ends."""

    def begin(self, launch: object, key: int) -> None:
        """Note a launch that is about to start."""
        self._in_flight[launch] = key

    def end(self, launch: object, key: int, request_id: str | None, now: float, *, acted: bool) -> None:
        """Note the end of a launch. A rejected or unsent launch has not acted."""
        self._in_flight.pop(launch, None)
        if acted:
            latest, end, other = self._latest(key)
            self._ended[key] = (request_id, now, other if latest == request_id else end)
            if len(self._ended) >= MAX_KEYS or now - self._sealed > KEEP:
                self._older, self._ended = self._ended, {}
                self._sealed, self._forgotten = now, self._sealed

    def another_ended(self, key: int, request_id: str | None, moment: float) -> bool:
        """Whether another launch of this log may have acted and ended since ``moment``. True if that is unknown."""
        return self.other_end(key, request_id) >= moment

    def other_end(self, key: int, request_id: str | None) -> float:
        """The latest end of another launch of this log that may have acted, or an upper bound of it.

        A launch with the same request id is not another one: one process may resume its own run.
        """
        latest, end, other = self._latest(key)
        return max(other if latest == request_id else end, self._forgotten)

    def others_in_flight(self, launch: object, key: int) -> bool:
        """Whether another launch of this log is in flight."""
        return any(other_key == key and other is not launch for other, other_key in list(self._in_flight.items()))

    def leave_to_parent(self, now: float) -> None:
        """After a fork: launches in flight continue in the parent and may act."""
        in_flight, self._in_flight = self._in_flight, {}
        for key in in_flight.values():
            self.end(None, key, "", now, acted=True)

    def _latest(self, key: int) -> tuple[str | None, float, float]:
        return self._ended.get(key) or self._older.get(key, _NONE)


_hosts: dict[tuple[str, int], tuple[Launches, Clock]] = {}
_hosts_lock = threading.Lock()


def launches_at(host: str, clock: Clock) -> Launches:
    """The launches of a host, shared by all its clients for the life of the process."""
    with _hosts_lock:
        # The entry keeps the clock alive, so its id stays unique.
        return _hosts.setdefault((host, id(clock)), (Launches(), clock))[0]


def _leave_to_parent() -> None:
    global _hosts_lock  # noqa: PLW0603
    _hosts_lock = threading.Lock()
    for launches, clock in list(_hosts.values()):
        launches.leave_to_parent(clock.monotonic())


if hasattr(os, "register_at_fork"):  # there is none on Windows
    os.register_at_fork(after_in_child=_leave_to_parent)

"""The launches of this process that the log of a provider cannot tell apart.

An entry of such a log names the mailing, not the request. So a start settles a launch only if no other launch of the
same mailing may have made it, through any client of the same host.
"""

from __future__ import annotations

import math
import os
import threading

from dispatchkit.core.clock import Clock

__all__ = ["Launches", "launches_at"]

KEEP = 6 * 3600.0
"""Seconds for which the end of a launch is remembered, at least, unless there are too many."""
MAX_KEYS = 50_000
"""Logs of which the latest launches are remembered, at least: some 10 MB."""

_NONE = (None, -math.inf, -math.inf)


class Launches:
    """The launches of one host: which are in flight, and when the latest of each log ended.

    Ends are kept in two generations, of which the older one is forgotten as a whole. Whether a launch ended before
    that, is then not known. Each step is one operation on a dict, so loops in several threads share it without a lock.
    """

    __slots__ = ("_ended", "_forgotten", "_in_flight", "_older", "_sealed")

    def __init__(self) -> None:
        self._in_flight: dict[object, int] = {}
        # Of each log: the request id and the end of the latest launch, and the latest end of one with another id.
        self._ended: dict[int, tuple[str | None, float, float]] = {}
        self._older: dict[int, tuple[str | None, float, float]] = {}
        self._sealed = self._forgotten = -math.inf
        """No end of the older generation, and no end that was forgotten, is later."""

    def begin(self, launch: object, key: int) -> None:
        """A launch is about to start."""
        self._in_flight[launch] = key

    def end(self, launch: object, key: int, request_id: str | None, now: float, *, acted: bool) -> None:
        """A launch has ended. If it was rejected or not sent, it has not acted."""
        self._in_flight.pop(launch, None)
        if acted:
            latest, end, other = self._latest(key)
            self._ended[key] = (request_id, now, other if latest == request_id else end)
            if len(self._ended) >= MAX_KEYS or now - self._sealed > KEEP:
                self._older, self._ended = self._ended, {}
                self._sealed, self._forgotten = now, self._sealed

    def another_ended(self, key: int, request_id: str | None, moment: float) -> bool:
        """Whether a launch of this log that may have acted has ended since then, or that cannot be known.

        One with the same request id is no other: a run may be resumed by the process that began it.
        """
        latest, end, other = self._latest(key)
        return (other if latest == request_id else end) >= moment or self._forgotten >= moment

    def others_in_flight(self, launch: object, key: int) -> bool:
        """Whether another launch of this log is under way."""
        return any(other == key and each is not launch for each, other in list(self._in_flight.items()))

    def leave_to_parent(self, now: float) -> None:
        """After a fork: what was in flight goes on in the parent, and may act there."""
        in_flight, self._in_flight = self._in_flight, {}
        for key in in_flight.values():
            self.end(None, key, "", now, acted=True)

    def _latest(self, key: int) -> tuple[str | None, float, float]:
        return self._ended.get(key) or self._older.get(key, _NONE)


_hosts: dict[tuple[str, int], tuple[Launches, Clock]] = {}
_hosts_lock = threading.Lock()


def launches_at(host: str, clock: Clock) -> Launches:
    """The launches of a host in this process, as long as the process lives: another client may have begun them."""
    with _hosts_lock:
        # The entry holds the clock, so the id is not another's.
        return _hosts.setdefault((host, id(clock)), (Launches(), clock))[0]


def _leave_to_parent() -> None:
    global _hosts_lock  # noqa: PLW0603
    _hosts_lock = threading.Lock()
    for launches, clock in list(_hosts.values()):
        launches.leave_to_parent(clock.monotonic())


if hasattr(os, "register_at_fork"):  # there is none on Windows
    os.register_at_fork(after_in_child=_leave_to_parent)

"""Watch targets after their launch: read their state again and again, and hand on what changed."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from datetime import datetime
from typing import Generic, TypeAlias, TypeVar

import attrs

from dispatchkit.core.clock import Clock
from dispatchkit.core.validators import seconds
from dispatchkit.errors import DispatchkitError, NotFoundError, RejectedError, ThrottledError
from dispatchkit.values import Value

__all__ = ["TargetProgress", "WatchEnd", "Watching", "poll"]


class WatchEnd(enum.StrEnum):
    """Why the watch of a target ended.

    Example:
        >>> WatchEnd("stalled").text
        'stalled'
    """

    FINAL = "final"
    """Its state is final. That is not to say that every message was delivered."""
    UNKNOWN_TARGET = "unknown_target"
    """The provider lists no such target."""
    REFUSED = "refused"
    """The provider refuses to show it; `TargetProgress.unread` says why."""
    STALLED = "stalled"
    """Status and counters did not change for ``stalled_after`` seconds."""
    TIMED_OUT = "timed_out"
    """The watch reached its ``timeout``."""

    @property
    def text(self) -> str:
        """The end in words."""
        return _TEXTS[self]


_TEXTS = {
    WatchEnd.FINAL: "final",
    WatchEnd.UNKNOWN_TARGET: "unknown to the provider",
    WatchEnd.REFUSED: "could not be read",
    WatchEnd.STALLED: "stalled",
    WatchEnd.TIMED_OUT: "deadline passed",
}


@attrs.frozen(kw_only=True)
class TargetProgress(Value):
    """The base of what a watch says of a target at one moment."""

    target: int
    at: datetime = attrs.field(eq=False)
    """When it was read, UTC."""
    end: WatchEnd | None = None
    """Why the watch of this target ended; None while it goes on. Each target has exactly one value with an end."""
    unread: str | None = None
    """Why the last read failed. Status and counters are then those of the read before."""

    @property
    def is_well(self) -> bool:
        """Whether the target came to a good end."""
        return self.end is WatchEnd.FINAL


P = TypeVar("P", bound=TargetProgress)

Found: TypeAlias = tuple[int, P | DispatchkitError]


@attrs.define
class Watching:
    """The times of a watch, checked.

    Args:
        every: Seconds from the end of one round of reads to the next one.
        timeout: Seconds until the watch ends in any case; None: never.
        stalled_after: Seconds without a change after which a target counts as stalled; None: never.

    Raises:
        TypeError: One is not a number.
        ValueError: One is not positive.
    """

    every: float
    timeout: float | None
    stalled_after: float | None

    def __attrs_post_init__(self) -> None:
        seconds("every", self.every)
        for name in ("timeout", "stalled_after"):
            if (value := getattr(self, name)) is not None:
                seconds(name, value)


@attrs.define
class _Watched(Generic[P]):
    changed_at: float
    last: P


async def poll(
    ids: Iterable[int],
    read: Callable[[list[int], float | None], AsyncGenerator[Found[P]]],
    blank: Callable[[int, datetime], P],
    watching: Watching,
    clock: Clock,
) -> AsyncGenerator[P]:
    """Each target's progress when it changes, and its last one, which has an end.

    Args:
        ids: The targets.
        read: Reads targets within so many seconds. It gives the progress of each, or the error of its read.
        blank: Makes the progress of a target that was never read.
        watching: The times.
        clock: The clock.
    """
    began = clock.monotonic()
    left = {target: _Watched(began, blank(target, clock.now())) for target in ids}
    never_read = {*left}
    deadline = None if watching.timeout is None else began + watching.timeout
    while left:
        within = None if deadline is None else max(0.0, deadline - clock.monotonic())
        async with aclosing(read([*left], within)) as reading:
            async for target, found in reading:
                watched, now = left[target], clock.monotonic()
                value = _with_error(watched.last, found, clock) if isinstance(found, DispatchkitError) else found
                if not _is_same(value, watched.last):
                    watched.changed_at = now
                if value.end is None and _is_stalled(watched.changed_at, now, watching):
                    value = attrs.evolve(value, end=WatchEnd.STALLED)
                if value.end is not None:
                    del left[target]
                if value != watched.last or target in never_read:
                    never_read.discard(target)
                    watched.last = value
                    yield value
        remaining = watching.every if deadline is None else min(watching.every, deadline - clock.monotonic())
        if remaining <= 0:
            for watched in left.values():
                yield attrs.evolve(watched.last, at=clock.now(), end=WatchEnd.TIMED_OUT)
            return
        if left:
            await clock.sleep(remaining)


def _is_stalled(changed_at: float, now: float, watching: Watching) -> bool:
    return watching.stalled_after is not None and now - changed_at >= watching.stalled_after


def _is_same(value: P, other: P) -> bool:
    """Whether status and counters are the same. A read that failed changes neither."""
    return attrs.evolve(value, end=None, unread=None) == attrs.evolve(other, end=None, unread=None)


def _with_error(last: P, error: DispatchkitError, clock: Clock) -> P:
    end = None
    if isinstance(error, NotFoundError):
        end = WatchEnd.UNKNOWN_TARGET
    elif isinstance(error, RejectedError) and not isinstance(error, ThrottledError):
        end = WatchEnd.REFUSED
    return attrs.evolve(last, at=clock.now(), end=end, unread=error.summary)

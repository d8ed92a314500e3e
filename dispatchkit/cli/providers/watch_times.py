"""The times of a watch, from the options."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from dispatchkit.cli.durations import every_seconds, time_seconds
from dispatchkit.cli.translate import _

if TYPE_CHECKING:
    from dispatchkit.cli.options import WatchOptions

__all__ = ["WatchTimes", "watch_times"]


class WatchTimes(TypedDict):
    """Keywords of the ``watch`` of both clients."""

    every: float
    timeout: float | None
    stalled_after: float | None


def watch_times(options: WatchOptions) -> WatchTimes:
    """The times of a watch.

    Raises:
        ValueError: One is no duration, or stands without ``--watch``.
    """
    given = {"--every": options.every, "--deadline": options.deadline, "--stalled-after": options.stalled_after}
    for name, value in given.items():
        if value is not None and not options.watch:
            raise ValueError(_("{name} goes with --watch").format(name=name))
    return WatchTimes(
        every=every_seconds(options.every),
        timeout=time_seconds("--deadline", options.deadline),
        stalled_after=time_seconds("--stalled-after", options.stalled_after),
    )

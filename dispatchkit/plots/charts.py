"""The charts of a run. Each takes the buckets of `Ledger.series`, and returns one ``<svg>`` element.

They share their arguments:

- ``buckets``: in any order. Without one, the chart says that there is no outcome yet.
- ``until``: the end of the axis, for a run that still goes on. Default: the end of the last bucket.
- ``ident``: prefix of the ids in the SVG. Two charts of a page need two. Default: the kind of the chart.
- ``width``, ``height``: of the coordinates. `STYLE` fits the chart into its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from dispatchkit.ledger.run import Counts
from dispatchkit.ledger.series import Bucket, percentile
from dispatchkit.plots.points import regular
from dispatchkit.plots.scale import Axis, duration, number, numbers, seconds, times
from dispatchkit.plots.svg import Frame, Line, chart, empty

__all__ = ["latency_over_time", "outcomes_over_time", "rate_over_time"]

_STATES: tuple[tuple[str, str, str, Callable[[Bucket | Counts], int]], ...] = (
    ("done", "done", "", lambda counts: counts.done),
    ("rejected", "rejected", "7 3", lambda counts: counts.rejected),
    ("not sent", "not-sent", "2 3", lambda counts: counts.not_sent),
    ("unknown", "unknown", "9 3 2 3", lambda counts: counts.unknown),
)
"""Label, CSS class, dashes and number of each state."""
_NONE = "No outcome yet."


def outcomes_over_time(
    buckets: Sequence[Bucket],
    *,
    until: datetime | None = None,
    ident: str = "outcomes",
    width: int = 720,
    height: int = 260,
    counts: Counts | None = None,
) -> str:
    """The number of outcomes so far, one line for each state that occurred.

    An outcome that a resume replaced stays in its line, see `Bucket`. With ``counts``, which were read after the
    buckets, the label of such a line says how many are left.
    """
    points = regular(buckets, until=until)
    title = "Outcomes over time"
    totals = {label: sum(map(count, points)) for label, _, _, count in _STATES}
    now = totals if counts is None else {label: read(counts) for label, _, _, read in _STATES}
    said = ", ".join(
        f"{total:,} {label}{f' (now {now[label]:,})' if now[label] < total else ''}"
        for label, total in totals.items()
        if total or label == "done"
    )
    frame = Frame(ident, title, f"{_span(points)}{said}." if points else _NONE, width, height)
    if not points:
        return empty(frame, _NONE)
    across, up = _times(points), numbers(max(totals.values()), "outcomes so far", is_whole=True)
    begin = points[0].start.timestamp()
    lines: list[Line] = []
    for label, name, dashes, count in _STATES:
        if totals[label] or label == "done":
            sum_so_far = 0
            places: list[tuple[float, float]] = [(across.place(begin), 0.0)]
            for bucket in points:
                sum_so_far += count(bucket)
                places.append((across.place(bucket.start.timestamp() + bucket.seconds), up.place(sum_so_far)))
            left = f", now {number(now[label])}" if now[label] < totals[label] else ""
            lines.append(Line(f"{label} {number(totals[label])}{left}", name, dashes, places))
    return chart(frame, across, up, lines)


def rate_over_time(
    buckets: Sequence[Bucket],
    *,
    until: datetime | None = None,
    ident: str = "rate",
    width: int = 720,
    height: int = 200,
) -> str:
    """The outcomes a second: all, and those that are not done. A bucket that still goes on counts its time so far."""
    points = regular(buckets, until=until)
    title = "Rate"
    lengths = [_length(bucket, until) for bucket in points]
    rates = [
        sum(count(bucket) for *_, count in _STATES) / length for bucket, length in zip(points, lengths, strict=True)
    ]
    failed = [rate - bucket.done / length for rate, bucket, length in zip(rates, points, lengths, strict=True)]
    said = f"At most {number(max(rates))} outcomes a second." if points else _NONE
    frame = Frame(ident, title, _span(points) + said, width, height)
    if not points:
        return empty(frame, _NONE)
    across, up = _times(points), numbers(max(rates), f"outcomes a second, mean of {duration(points[0].seconds)}")
    lines = [Line("all", "other", "", [*_steps(points, rates, across.place, up.place)], is_filled=True)]
    if max(failed) > 0:
        lines.append(Line("not done", "unknown", "7 3", [*_steps(points, failed, across.place, up.place)]))
    return chart(frame, across, up, lines)


def _length(bucket: Bucket, until: datetime | None) -> float:
    """The seconds of a bucket that have passed. The latest one of a live run is not over."""
    if until is None:
        return bucket.seconds
    return min(bucket.seconds, max(1.0, (until - bucket.start).total_seconds()))


def latency_over_time(
    buckets: Sequence[Bucket],
    *,
    until: datetime | None = None,
    ident: str = "latency",
    width: int = 720,
    height: int = 200,
) -> str:
    """The median and the 95th percentile of the time from a claim to its outcome, see `dispatchkit.ledger.series`.

    A line breaks where no outcome has a latency. The axis is logarithmic if the values differ much.
    """
    points = regular(buckets, until=until)
    medians, highs = ([percentile(bucket.latency, share) for bucket in points] for share in (0.5, 0.95))
    known = [value for value in (*medians, *highs) if value is not None]
    said = f"Median {duration(min(known))} or more, 95 % at most {duration(max(known))}." if known else _NONE
    frame = Frame(ident, "Latency", _span(points) + said, width, height)
    if not known:
        return empty(frame, _NONE)
    across, up = _times(points), seconds(min(known), max(known), "from claim to outcome")
    return chart(
        frame,
        across,
        up,
        [
            Line("95 % below", "rejected", "7 3", [*_steps(points, highs, across.place, up.place)]),
            Line("median", "other", "", [*_steps(points, medians, across.place, up.place)]),
        ],
    )


def _times(points: Sequence[Bucket]) -> Axis:
    last = points[-1]
    return times(points[0].start, last.start + timedelta(seconds=last.seconds))


def _steps(
    points: Sequence[Bucket],
    values: Sequence[float | None],
    across: Callable[[float], float],
    up: Callable[[float], float],
) -> Iterator[tuple[float, float] | None]:
    """A line that is level within each bucket."""
    for bucket, value in zip(points, values, strict=True):
        if value is None:
            yield None
            continue
        start = bucket.start.timestamp()
        yield across(start), up(value)
        yield across(start + bucket.seconds), up(value)


def _span(points: Sequence[Bucket]) -> str:
    if not points:
        return ""
    end = points[-1].start + timedelta(seconds=points[-1].seconds)
    return f"From {points[0].start.astimezone(UTC):%Y-%m-%d %H:%M:%S} to {end.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC. "

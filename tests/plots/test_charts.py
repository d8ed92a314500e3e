"""The charts of a run: well-formed, labelled, bounded, and safe under a strict Content-Security-Policy."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatchkit import Bucket
from dispatchkit.ledger.run import Counts
from dispatchkit.ledger.series import LATENCY_BOUNDS, slot_of
from dispatchkit.plots import MAX_POINTS, STYLE, latency_over_time, outcomes_over_time, rate_over_time, regular
from dispatchkit.plots.scale import numbers, seconds, times
from dispatchkit.plots.svg import Frame, Line, chart, element

START = datetime(2026, 1, 31, 9, tzinfo=UTC)
CHARTS: list[Callable[..., str]] = [outcomes_over_time, rate_over_time, latency_over_time]
SVG = "{http://www.w3.org/2000/svg}"


def slots(*latencies: float) -> tuple[int, ...]:
    counts = [0] * (len(LATENCY_BOUNDS) + 1)
    for latency in latencies:
        counts[slot_of(START, START + timedelta(seconds=latency))] += 1
    return tuple(counts)


def at(second: float, **more: Any) -> Bucket:
    return Bucket(START + timedelta(seconds=second), **{"done": 2, "latency": slots(0.04, 0.3), **more})


MIXED = [at(0), at(10, rejected=3), at(40, not_sent=1, unknown=2), at(50, done=0)]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in parsed(svg).iter(f"{SVG}text")]


def lines(svg: str) -> dict[str, ElementTree.Element]:
    """The lines by their class."""
    paths = [path for path in parsed(svg).iter(f"{SVG}path") if "dk-line" in path.get("class", "")]
    return {path.get("class", "").removeprefix("dk-line dk-"): path for path in paths}


@pytest.mark.parametrize("draw", CHARTS)
@pytest.mark.parametrize("buckets", [[], [at(0)], MIXED], ids=["none", "one", "mixed"])
def test_chart_describes_itself(draw: Callable[..., str], buckets: list[Bucket]) -> None:
    svg = parsed(draw(buckets, ident='a"<b>'))
    assert svg.get("role") == "img"
    title, description = (svg.find(f"{SVG}{name}") for name in ("title", "desc"))
    assert title is not None
    assert description is not None
    assert svg.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text
    assert ("No outcome yet." in (description.text or "")) == (not buckets)


@pytest.mark.parametrize("draw", CHARTS)
def test_strict_policy_holds(draw: Callable[..., str]) -> None:
    svg = draw(MIXED)
    assert not re.search(r"style=|<script|<style|\bon\w+=|href|url\(", svg)
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert {line.split()[0] for line in STYLE.splitlines() if "{" in line} == {".dk-plot", "@media"}


def test_lines_differ_without_colour() -> None:
    for draw in CHARTS:
        found = lines(draw(MIXED))
        assert len({line.get("stroke-dasharray") for line in found.values()}) == len(found) > 1
        assert {line.get("stroke") for line in found.values()} == {"currentColor"}


def test_states_are_labelled_with_totals() -> None:
    svg = outcomes_over_time(MIXED)
    assert {"done 6", "rejected 3", "not sent 1", "unknown 2", "outcomes so far"} <= {*texts(svg)}
    assert "time (UTC), 2026-01-31" in texts(svg)
    assert "From 2026-01-31 09:00:00 to 2026-01-31 09:01:00 UTC. 6 done, 3 rejected, 1 not sent, 2 unknown." in svg
    assert {*lines(outcomes_over_time([at(0)]))} == {"done"}
    assert {*lines(outcomes_over_time([at(0, done=0, rejected=1)]))} == {"done", "rejected"}


def test_replaced_outcomes_are_labelled() -> None:
    svg = outcomes_over_time(MIXED, counts=Counts(done=7, rejected=3, unknown=2))
    assert {"done 6", "rejected 3", "not sent 1, now 0", "unknown 2"} <= {*texts(svg)}
    assert "6 done, 3 rejected, 1 not sent (now 0), 2 unknown." in svg


def test_outcomes_add_up() -> None:
    path = lines(outcomes_over_time([at(0), at(20, done=6)]))["done"].get("d", "")
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]
    top, bottom = 40.0, 218.0
    assert heights == pytest.approx([bottom, *(bottom - (bottom - top) * n / 8 for n in (2, 2, 8))], abs=0.1)


def test_rate_counts_all_outcomes() -> None:
    svg = rate_over_time([at(0, done=100, rejected=20)])
    assert "At most 12 outcomes a second." in svg
    assert {"all", "not done"} <= {*texts(svg)}
    assert {*lines(rate_over_time([at(0)]))} == {"other"}


def test_latency_line_breaks() -> None:
    svg = latency_over_time([at(0), at(50)])
    assert lines(svg)["other"].get("d", "").count("M") == 2
    assert "No outcome yet." in latency_over_time([at(0, latency=slots())])


def test_wide_latencies_are_logarithmic() -> None:
    svg = latency_over_time([at(0, latency=slots(0.04)), at(10, latency=slots(200))])
    assert {"from claim to outcome, logarithmic", "10 ms", "100 ms", "1 s", "10 s", "1 min", "10 min"} <= {*texts(svg)}


@given(
    st.lists(st.integers(0, 10**8), min_size=1, max_size=40),
    st.integers(2, MAX_POINTS),
    st.integers(0, 10**7),
)
def test_regular_keeps_every_outcome(places: list[int], points: int, later: int) -> None:
    buckets = [at(10 * place, rejected=place % 3) for place in places]
    until = START + timedelta(seconds=10 * max(places) + later)
    found = regular(buckets, until=until, max_points=points)
    assert len(found) <= points
    assert found[0].start <= START + timedelta(seconds=10 * min(places))
    assert found[-1].start + timedelta(seconds=found[-1].seconds) >= until
    assert sum(bucket.done for bucket in found) == 2 * len(places)
    assert sum(bucket.rejected for bucket in found) == sum(place % 3 for place in places)
    assert sum(sum(bucket.latency) for bucket in found) == 2 * len(places)
    assert {bucket.seconds for bucket in found} == {found[0].seconds}


@pytest.mark.second_stage
def test_long_run_has_few_points() -> None:
    buckets = [at(10 * place) for place in range(100_000)]
    assert len(regular(buckets)) <= MAX_POINTS
    for draw in CHARTS:
        assert len(draw(buckets)) < 40_000


@pytest.mark.parametrize("draw", CHARTS)
def test_chart_goes_on_until_now(draw: Callable[..., str]) -> None:
    svg = draw([at(0)], until=START.astimezone(timezone(timedelta(hours=3))) + timedelta(minutes=5))
    assert {"09:01", "09:05"} <= {*texts(svg)}


@given(st.floats(1e-6, 1e12), st.booleans())
def test_axis_holds_every_value(top: float, is_whole: bool) -> None:
    axis = numbers(top, "", is_whole=is_whole)
    assert 0 <= axis.place(top) <= 1 + 1e-9
    assert 2 <= len(axis.ticks) <= 7
    assert len({tick.label for tick in axis.ticks}) == len(axis.ticks) or top > 100


@given(st.floats(0.001, 3600), st.floats(1, 1e6))
def test_axis_holds_every_duration(low: float, ratio: float) -> None:
    axis = seconds(low, low * ratio, "")
    assert 0 <= axis.place(low) <= axis.place(low * ratio) <= 1 + 1e-9


@given(st.integers(10, 10**8))
def test_time_has_few_ticks(span: int) -> None:
    axis = times(START, START + timedelta(seconds=span))
    assert len(axis.ticks) <= 7
    assert all(0 <= tick.place <= 1 for tick in axis.ticks)


@pytest.mark.parametrize("counts", [(1000, 1, 1, 1), (1000, 1000, 1000, 999), (9, 5, 5, 5)], ids=str)
def test_labels_do_not_overlap(counts: tuple[int, ...]) -> None:
    done, rejected, not_sent, unknown = counts
    svg = outcomes_over_time([at(0, done=done, rejected=rejected, not_sent=not_sent, unknown=unknown)])
    found = sorted(
        float(text.get("y", ""))
        for text in parsed(svg).iter(f"{SVG}text")
        if text.text and text.text.split()[0] in {"done", "rejected", "not", "unknown"}
    )
    assert len(found) == 4
    assert min(high - low for low, high in pairwise(found)) >= 13
    assert found[0] >= 40
    assert found[-1] < 240


def test_text_is_escaped() -> None:
    frame = Frame("i", "<b>&", "<script>", 100, 100)
    axis = numbers(1, "<i>")
    svg = chart(frame, axis, axis, [Line("<u>", "done", "", [(0, 0), (1, 1)])])
    assert {"<b>&", "<i>", "<u>"} <= {*texts(svg)}
    assert "<script>" not in svg
    assert element("a", "&amp;", class_='"') == '<a class="&quot;">&amp;</a>'


def test_live_rate_uses_elapsed_time() -> None:
    start = datetime(2026, 1, 31, 9, tzinfo=UTC)
    buckets = [Bucket(start, done=1000), Bucket(start + timedelta(seconds=10), done=300)]
    live = rate_over_time(buckets, until=start + timedelta(seconds=13))
    assert "At most 100 outcomes a second." in live
    first = rate_over_time(buckets[1:], until=start + timedelta(seconds=13))
    assert "At most 100 outcomes a second." in first
    assert "At most 30 outcomes a second." in rate_over_time(buckets[1:])
    assert "At most 300 outcomes a second." in rate_over_time(buckets[1:], until=start + timedelta(seconds=10))

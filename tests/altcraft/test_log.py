"""Whatever a mailing's log holds, it settles a launch only by a start that is not older than the launch."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from dispatchkit import LaunchBroadcast
from dispatchkit.altcraft.codec import WireForm, codec
from dispatchkit.altcraft.commands import AltcraftWire
from dispatchkit.altcraft.models import LogEntry
from dispatchkit.core.command import Answer, TimeWindow, UnreadableAnswerError, Verdict
from dispatchkit.core.secret import Secret
from tests.drawn import LETTERS

SINCE = datetime(2026, 3, 1, 12, 0, 0, 456789, tzinfo=UTC)
WINDOW = TimeWindow(SINCE, SINCE + timedelta(hours=2))
WIRE = AltcraftWire(Secret("token", environment="NONE"), codec("json"), 10**7, 10**8, deduplicates=True)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(LETTERS, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(LETTERS, max_size=5), inner, max_size=3),
    max_leaves=8,
)
OFFSETS = st.integers(-3600, 3600) | st.sampled_from([-1, 0, 1])


def verdict(data: object, **more: object) -> Verdict | None:
    """What the log says; None if it cannot be read."""
    probe = LaunchBroadcast(7).probe(SINCE)
    body = json.dumps({"data": data, "error": 0, "error_text": "", **more}).encode()
    try:
        return probe.settle(probe.command.result(Answer(200, CIMultiDict(), body), WIRE), WINDOW).verdict
    except UnreadableAnswerError:
        return None


@given(JSON)
def test_what_is_no_log_settles_nothing(data: object) -> None:
    assert verdict(data) in {None, Verdict.UNSEEN}


@given(st.lists(st.tuples(st.sampled_from(["start", "end", "", "Start"]), OFFSETS), max_size=6))
def test_a_launch_is_settled_by_a_start_that_is_not_older(entries: list[tuple[str, int]]) -> None:
    data = [{"state": state, "time": (SINCE + timedelta(seconds=offset)).isoformat()} for state, offset in entries]
    starts = sum(state == "start" and offset >= 0 for state, offset in entries)
    assert verdict(data) is (Verdict.UNSEEN, Verdict.HAPPENED, Verdict.HIDDEN)[min(starts, 2)]


@given(st.text(LETTERS, max_size=30))
def test_a_time_that_cannot_be_read_makes_the_log_unreadable_or_is_read_right(text: str) -> None:
    said = verdict([{"state": "start", "time": text}])
    assert said in {None, Verdict.HAPPENED, Verdict.UNSEEN, Verdict.HIDDEN, Verdict.UNDECIDED}
    if said is Verdict.HAPPENED:
        assert WINDOW.first - timedelta(milliseconds=1) <= datetime.fromisoformat(text) <= WINDOW.last


def test_the_log_counts_in_milliseconds() -> None:
    assert verdict([{"state": "start", "time": "2026-03-01T12:00:00.456Z"}]) is Verdict.HAPPENED
    assert verdict([{"state": "start", "time": "2026-03-01T12:00:00.455Z"}]) is Verdict.UNSEEN


START = {"state": "start", "time": "2026-03-01T12:00:01Z"}


@pytest.mark.parametrize("state", ["start", "end", ""])
def test_time_without_zone_settles_nothing(state: str) -> None:
    assert verdict([START, {"state": state, "time": "2026-03-01T12:00:01"}]) is Verdict.HIDDEN


@pytest.mark.parametrize("total", [0, 2, 140])
def test_total_that_contradicts_the_entries(total: int) -> None:
    assert verdict([START], total_count=total) is Verdict.UNDECIDED
    assert verdict([START], total_count=1) is Verdict.HAPPENED


def test_start_later_than_the_launch() -> None:
    assert verdict([{"state": "start", "time": "2026-03-01T14:00:01Z"}]) is Verdict.UNSEEN


def test_replayed_log_is_no_answer() -> None:
    probe = LaunchBroadcast(7).probe(SINCE)
    body = json.dumps({"data": [START], "error": 0, "error_text": ""}).encode()
    answer = Answer(200, CIMultiDict({"Duplicate-Request": "true"}), body)
    with pytest.raises(UnreadableAnswerError, match="earlier request"):
        probe.command.result(answer, WIRE)


@pytest.mark.parametrize("form", ["json", "xml"])
def test_entry_keeps_its_time_as_said(form: WireForm) -> None:
    converter = codec(form).converter
    assert converter.structure({"time": "2026-03-01T12:00:01", "state": "end"}, LogEntry).time.tzinfo is None
    assert converter.structure({"time": "2026-03-01T12:00:01Z", "state": "end"}, LogEntry).time == datetime(
        2026, 3, 1, 12, 0, 1, tzinfo=UTC
    )


def test_log_that_may_be_cut_settles_nothing() -> None:
    assert verdict([START] + [{"state": "", "time": START["time"]}] * 999) is Verdict.UNDECIDED
    assert verdict([START] + [{"state": "", "time": START["time"]}] * 998) is Verdict.HAPPENED

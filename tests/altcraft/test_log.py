"""Whatever a mailing's log holds, it settles a launch only by a start that is not older than the launch."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from dispatchkit import LaunchBroadcast
from dispatchkit.altcraft.base import AltcraftWire
from dispatchkit.altcraft.codec import WireForm, codec
from dispatchkit.altcraft.models import LogEntry
from dispatchkit.core.command import Evidence, Response, TimeWindow, UnexpectedResponseError
from dispatchkit.core.secret import Secret
from tests.strategies import LETTERS

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


def evidence(data: object, **more: object) -> Evidence | None:
    """What the log says; None if it cannot be read."""
    probe = LaunchBroadcast(7).probe(SINCE)
    body = json.dumps({"data": data, "error": 0, "error_text": "", **more}).encode()
    try:
        return probe.settle(probe.command.result(Response(200, CIMultiDict(), body), WIRE), WINDOW).evidence
    except UnexpectedResponseError:
        return None


@given(JSON)
def test_invalid_log_settles_nothing(data: object) -> None:
    assert evidence(data) in {None, Evidence.ABSENT}


@given(st.lists(st.tuples(st.sampled_from(["start", "end", "", "Start"]), OFFSETS), max_size=6))
def test_newer_log_start_settles_launch(entries: list[tuple[str, int]]) -> None:
    data = [{"state": state, "time": (SINCE + timedelta(seconds=offset)).isoformat()} for state, offset in entries]
    starts = sum(state == "start" and offset >= 0 for state, offset in entries)
    assert evidence(data) is (Evidence.ABSENT, Evidence.APPLIED, Evidence.UNAVAILABLE)[min(starts, 2)]


@given(st.text(LETTERS, max_size=30))
def test_unreadable_log_time(text: str) -> None:
    said = evidence([{"state": "start", "time": text}])
    assert said in {None, Evidence.APPLIED, Evidence.ABSENT, Evidence.UNAVAILABLE, Evidence.INCONCLUSIVE}
    if said is Evidence.APPLIED:
        assert WINDOW.first - timedelta(milliseconds=1) <= datetime.fromisoformat(text) <= WINDOW.last


def test_the_log_counts_in_milliseconds() -> None:
    assert evidence([{"state": "start", "time": "2026-03-01T12:00:00.456Z"}]) is Evidence.APPLIED
    assert evidence([{"state": "start", "time": "2026-03-01T12:00:00.455Z"}]) is Evidence.ABSENT


START = {"state": "start", "time": "2026-03-01T12:00:01Z"}


@pytest.mark.parametrize("state", ["start", "end", ""])
def test_time_without_zone_settles_nothing(state: str) -> None:
    assert evidence([START, {"state": state, "time": "2026-03-01T12:00:01"}]) is Evidence.UNAVAILABLE


@pytest.mark.parametrize("total", [0, 2, 140])
def test_total_that_contradicts_the_entries(total: int) -> None:
    assert evidence([START], total_count=total) is Evidence.INCONCLUSIVE
    assert evidence([START], total_count=1) is Evidence.APPLIED


def test_start_later_than_the_launch() -> None:
    assert evidence([{"state": "start", "time": "2026-03-01T14:00:01Z"}]) is Evidence.ABSENT


def test_replayed_log_is_no_answer() -> None:
    probe = LaunchBroadcast(7).probe(SINCE)
    body = json.dumps({"data": [START], "error": 0, "error_text": ""}).encode()
    response = Response(200, CIMultiDict({"Duplicate-Request": "true"}), body)
    with pytest.raises(UnexpectedResponseError, match="earlier request"):
        probe.command.result(response, WIRE)


@pytest.mark.parametrize("form", ["json", "xml"])
def test_log_entry_keeps_time(form: WireForm) -> None:
    converter = codec(form).converter
    assert converter.structure({"time": "2026-03-01T12:00:01", "state": "end"}, LogEntry).time.tzinfo is None
    assert converter.structure({"time": "2026-03-01T12:00:01Z", "state": "end"}, LogEntry).time == datetime(
        2026, 3, 1, 12, 0, 1, tzinfo=UTC
    )


def test_truncated_log_settles_nothing() -> None:
    assert evidence([START] + [{"state": "", "time": START["time"]}] * 999) is Evidence.INCONCLUSIVE
    assert evidence([START] + [{"state": "", "time": START["time"]}] * 998) is Evidence.APPLIED

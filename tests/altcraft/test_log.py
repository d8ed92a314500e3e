"""Whatever a mailing's log holds, it settles a launch only by a start that is not older than the launch."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from dispatchkit import LaunchBroadcast
from dispatchkit.altcraft.codec import codec
from dispatchkit.altcraft.commands import AltcraftWire
from dispatchkit.core.command import Answer, UnreadableAnswerError, Verdict
from dispatchkit.core.secret import Secret
from tests.drawn import LETTERS

SINCE = datetime(2026, 3, 1, 12, 0, 0, 456789, tzinfo=UTC)
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


def verdict(data: object) -> Verdict | None:
    """What the log says; None if it cannot be read."""
    probe = LaunchBroadcast(7).probe(SINCE)
    body = json.dumps({"data": data, "error": 0, "error_text": ""}).encode()
    try:
        return probe.settle(probe.command.result(Answer(200, CIMultiDict(), body), WIRE)).verdict
    except UnreadableAnswerError:
        return None


@given(JSON)
def test_what_is_no_log_settles_nothing(data: object) -> None:
    assert verdict(data) in {None, Verdict.UNSEEN}


@given(st.lists(st.tuples(st.sampled_from(["start", "end", "", "Start"]), OFFSETS), max_size=6))
def test_a_launch_is_settled_by_a_start_that_is_not_older(entries: list[tuple[str, int]]) -> None:
    data = [{"state": state, "time": (SINCE + timedelta(seconds=offset)).isoformat()} for state, offset in entries]
    happened = any(state == "start" and offset >= 0 for state, offset in entries)
    assert verdict(data) is (Verdict.HAPPENED if happened else Verdict.UNSEEN)


@given(st.text(LETTERS, max_size=30))
def test_a_time_that_cannot_be_read_makes_the_log_unreadable_or_is_read_right(text: str) -> None:
    said = verdict([{"state": "start", "time": text}])
    assert said in {None, Verdict.HAPPENED, Verdict.UNSEEN}
    if said is Verdict.HAPPENED:
        moment = datetime.fromisoformat(text)
        assert moment.replace(tzinfo=moment.tzinfo or UTC) >= SINCE.replace(microsecond=456000)


def test_the_log_counts_in_milliseconds() -> None:
    assert verdict([{"state": "start", "time": "2026-03-01T12:00:00.456Z"}]) is Verdict.HAPPENED
    assert verdict([{"state": "start", "time": "2026-03-01T12:00:00.455Z"}]) is Verdict.UNSEEN

"""What Altcraft does with a request that it has seen before."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sandbox.scripts import Clock, altcraft, ask, error

DAY = 86_400


def launch(provider, headers=None, **fields):
    return ask(provider, "activate/", headers, run_now=True, **fields)


@pytest.mark.parametrize(
    ("generation", "sent", "marks"),
    [
        ("newer", "Request-ID", {"Duplicate-Request": "true", "Duplicate-Key": "one"}),
        ("older", "X-Request-ID", {"X-Duplicate-Request": "true", "X-Duplicate-Key": "one"}),
    ],
)
def test_repeat_replays_first_response(generation, sent, marks):
    provider = altcraft(replay_generation=generation)
    first = launch(provider, {sent: "one"})
    second = launch(provider, {sent: "one"})
    assert second.body == first.body
    assert second.headers == {**first.headers, **marks}
    assert not marks.keys() & first.headers.keys()
    assert provider.launches == {82: 1}
    assert [act.request_id for act in provider.acts] == ["one"]


@pytest.mark.parametrize(("generation", "sent"), [("newer", "X-Request-ID"), ("older", "Request-ID")])
def test_other_generation_header_is_ignored(generation, sent):
    provider = altcraft(replay_generation=generation)
    launch(provider, {sent: "one"}, content={"run": 1})
    launch(provider, {sent: "one"}, content={"run": 2})
    assert provider.launches == {82: 2}
    assert [act.request_id for act in provider.acts] == [None, None]


def test_unknown_generation_is_an_error():
    with pytest.raises(ValueError, match="replay_generation"):
        altcraft(replay_generation="newest")


def test_id_alone_identifies_request():
    provider = altcraft()
    launch(provider, {"Request-ID": "one"})
    assert launch(provider, {"Request-ID": "one"}, id=83).headers["Duplicate-Request"] == "true"
    assert ask(provider, "deactivate", {"Request-ID": "one"}).headers["Duplicate-Request"] == "true"
    assert provider.launches == {82: 1}


def test_another_id_launches_again():
    provider = altcraft()
    launch(provider, {"Request-ID": "one"})
    launch(provider, {"Request-ID": "two"})
    assert provider.launches == {82: 2}


def test_response_expires_after_a_day():
    clock = Clock()
    provider = altcraft(clock)
    launch(provider, {"Request-ID": "one"})
    clock.pass_(DAY / 2)
    launch(provider, {"Request-ID": "two"})
    clock.pass_(DAY / 2 - 1)
    launch(provider, {"Request-ID": "one"})
    assert provider.launches == {82: 2}
    clock.pass_(1)
    launch(provider, {"Request-ID": "one"})
    launch(provider, {"Request-ID": "two"})
    assert provider.launches == {82: 3}


def test_newer_generation_deduplicates_without_id():
    provider = altcraft()
    launch(provider)
    swallowed = launch(provider)
    assert (error(swallowed), swallowed.headers["Duplicate-Request"]) == (0, "true")
    launch(provider, {"X-Other": "header"})
    launch(provider, content={"other": "body"})
    assert provider.launches == {82: 3}


def test_endpoints_deduplicate_separately():
    provider = altcraft(active=[82])
    ask(provider, "activate/", run_now=True)
    ask(provider, "broadcasts/start", run_now=True)
    assert provider.launches == {82: 2}


def test_older_generation_needs_id():
    provider = altcraft(replay_generation="older")
    launch(provider)
    launch(provider)
    assert provider.launches == {82: 2}


def test_deactivation_deduplicates_by_id_only():
    provider = altcraft(active=[82])
    ask(provider, "deactivate")
    ask(provider, "activate/", {"Request-ID": "on"})
    assert "Duplicate-Request" not in ask(provider, "deactivate").headers
    ask(provider, "activate/", {"Request-ID": "on again"})
    ask(provider, "deactivate", {"Request-ID": "off"})
    assert ask(provider, "deactivate", {"Request-ID": "off"}).headers["Duplicate-Request"] == "true"


def test_reads_are_never_replayed():
    clock = Clock()
    provider = altcraft(clock)
    before = ask(provider, "get_status", {"Request-ID": "one"}).body
    launch(provider, {"Request-ID": "one"})
    after = ask(provider, "get_status", {"Request-ID": "one"})
    assert json.loads(before)["data"] != json.loads(after.body)["data"]
    assert "Duplicate-Request" not in after.headers
    assert provider.launches == {82: 1}


def test_deduplication_can_be_off():
    provider = altcraft(deduplicates=False)
    launch(provider, {"Request-ID": "one"})
    assert "Duplicate-Request" not in launch(provider, {"Request-ID": "one"}).headers
    assert provider.launches == {82: 2}
    assert [act.request_id for act in provider.acts] == ["one", "one"]


@pytest.mark.parametrize(("replays_errors", "second"), [(True, 402), (False, 0)])
def test_refusal_replay_is_configurable(replays_errors, second):
    provider = altcraft(tariff_limit=0, replays_errors=replays_errors)
    assert error(launch(provider, {"Request-ID": "one"})) == 402
    provider.tariff_limit = None
    assert error(launch(provider, {"Request-ID": "one"})) == second


def test_refused_token_is_never_replayed():
    provider = altcraft()
    assert error(launch(provider, {"Request-ID": "one"}, token="wrong")) == 403
    assert error(launch(provider, {"Request-ID": "one"})) == 0
    assert error(launch(provider, {"Request-ID": "one"}, token="wrong")) == 403


@settings(deadline=None)
@given(requests=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, DAY)), max_size=30))
def test_id_acts_once_a_day(requests):
    clock = Clock(0)
    provider = altcraft(clock)
    first: dict[str, float] = {}
    expected = 0
    for request_id, seconds in requests:
        acts = request_id not in first or clock.now - first[request_id] >= DAY
        if acts:
            first[request_id] = clock.now
            expected += 1
        reply = launch(provider, {"Request-ID": request_id})
        assert ("Duplicate-Request" in reply.headers) is not acts
        clock.pass_(seconds)
    assert provider.launches[82] == expected

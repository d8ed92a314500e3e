"""Altcraft as the contract has it, in JSON and without HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatchkit.sandbox import Act, Call
from tests.sandbox.scripts import JSON_HEADERS, Clock, altcraft, ask, error, log, states

SUCCESS = {"data": None, "error": 0, "error_text": "Successful operation"}
PDF = {"name": "Полис.pdf", "data": "data:application/pdf;base64,JVBERg=="}


def status(provider, mailing_id=82):
    return json.loads(ask(provider, "get_status", id=mailing_id).body)["data"]


def test_activate_does_not_launch():
    provider = altcraft()
    assert json.loads(ask(provider, "activate/").body) == SUCCESS
    assert [act.action for act in provider.acts] == ["activate"]
    assert not provider.launches
    assert status(provider)["is_active"] is True


def test_run_now_is_one_launch():
    clock = Clock()
    provider = altcraft(clock)
    ask(provider, "activate/", {"Request-ID": "one"}, run_now=True)
    assert provider.acts == [Act("altcraft", "launch", 82, clock.now, "one")]
    assert provider.launches == {82: 1}
    assert status(provider)["is_active"] is True


def test_repeated_activation_is_no_act():
    provider = altcraft(active=[82])
    assert error(ask(provider, "activate/")) == 0
    assert not provider.acts


def test_regular_start_needs_regular_mailing():
    provider = altcraft(active=[90, 91], regulars=[91])
    assert error(ask(provider, "regulars/start", id=91)) == 0
    assert (provider.launches[91], status(provider, 91)["is_active"]) == (1, True)
    assert error(ask(provider, "regulars/start", id=90)) == 400
    assert error(ask(provider, "broadcasts/start", id=91)) == 400
    assert ask(provider, "regulars/start/", id=91).status == 404
    assert [act.target for act in provider.acts] == [91]


def test_broadcast_needs_active_mailing():
    provider = altcraft(active=[90])
    assert error(ask(provider, "broadcasts/start", id=90)) == 0
    reply = ask(provider, "broadcasts/start", id=91)
    assert error(reply) == 400
    assert "not active" in json.loads(reply.body)["error_text"]
    assert provider.launches == {90: 1}


def test_a_second_launch_launches_again():
    provider = altcraft(active=[82], deduplicates=False)
    ask(provider, "broadcasts/start")
    ask(provider, "broadcasts/start")
    assert provider.launches == {82: 2}


def test_deactivate_aborts_on_request():
    clock = Clock()
    provider = altcraft(clock, active=[82], run_seconds=30)
    ask(provider, "broadcasts/start")
    clock.pass_(1)
    ask(provider, "deactivate")
    assert (status(provider)["is_active"], states(provider)) == (False, ["start"])
    clock.pass_(1)
    ask(provider, "deactivate", abort_if_running=True)
    assert states(provider) == ["start", "end"]
    ask(provider, "deactivate", abort_if_running=True)
    assert [act.action for act in provider.acts] == ["launch", "deactivate", "deactivate"]


def test_log_shows_start_and_end():
    clock = Clock(1_535_155_200.25)
    provider = altcraft(clock, active=[82], run_seconds=30)
    ask(provider, "broadcasts/start")
    entry = {"level": "INFO", "message": "Begin campaign", "state": "start", "value": ""}
    begun = {**entry, "time": "2018-08-25T00:00:00.250Z"}
    assert log(provider) == {**SUCCESS, "data": [begun], "total_count": 1}
    assert status(provider) == {"is_active": True, "is_completed": False, "status": "Active"}
    clock.pass_(30)
    assert states(provider) == ["start", "end"]
    assert status(provider)["is_completed"] is True


def test_log_takes_time_and_limit():
    clock = Clock(1_535_155_200.0)
    provider = altcraft(clock, active=[82], run_seconds=5, deduplicates=False)
    for _ in range(3):
        ask(provider, "broadcasts/start")
        clock.pass_(10)
    assert states(provider) == ["start", "end"] * 3
    assert states(provider, limit=3) == ["start", "end", "start"]
    assert states(provider, limit=0) == []
    assert log(provider, limit=3)["total_count"] == 6
    assert states(provider, from_time="2018-08-25T00:00:15Z") == ["end", "start", "end"]
    assert states(provider, from_time="2018-08-25T03:00:16.000+03:00") == ["start", "end"]
    assert log(provider, from_time="2018-08-25T00:00:16Z")["total_count"] == 2


def test_read_lag_hides_recent_acts():
    clock = Clock()
    provider = altcraft(clock, read_lag=5)
    ask(provider, "activate/", run_now=True)
    assert (status(provider)["is_active"], states(provider)) == (False, [])
    clock.pass_(5)
    assert (status(provider)["is_active"], states(provider)) == (True, ["start"])


steps = st.lists(
    st.tuples(st.sampled_from(["activate/", "broadcasts/start", "deactivate"]), st.integers(0, 20)), max_size=10
)


@pytest.mark.second_stage
@settings(deadline=None)
@given(steps=steps, lag=st.integers(0, 60), aborts=st.booleans())
def test_lagging_reader_sees_past_state(steps, lag, aborts):
    clock = Clock(0)
    provider = altcraft(clock, deduplicates=False, run_seconds=10)
    truth = {}
    for method, seconds in steps:
        ask(provider, method, run_now=True, abort_if_running=aborts)
        for _ in range(seconds):
            truth[clock.now] = (status(provider), log(provider))
            clock.pass_(1)
    provider.read_lag = lag
    for moment, seen in truth.items():
        clock.now = moment + lag
        assert (status(provider), log(provider)) == seen


def test_token_may_be_bearer():
    provider = altcraft()
    assert error(ask(provider, "get_status", {"Authorization": "Bearer sandbox"}, body=b'{"id": 82}')) == 0


@pytest.mark.parametrize(
    ("token", "header", "expected"),
    [
        (None, None, 401),
        ("", None, 401),
        (None, "Basic sandbox", 401),
        ("wrong", None, 403),
        (None, "Bearer wrong", 403),
        (7, None, 400),
    ],
)
def test_tokens_are_required_and_checked(token, header, expected):
    provider = altcraft()
    headers = {} if header is None else {"Authorization": header}
    assert error(ask(provider, "activate/", headers, token=token, run_now=True)) == expected
    assert not provider.acts


@pytest.mark.parametrize(
    "fields",
    [
        {"id": None},
        {"id": "82"},
        {"id": 82.0},
        {"id": True},
        {"id": 101},
        {"run_now": 1},
        {"run_now": "true"},
        {"override_source_type": "list", "run_now": True},
        {"override_source_id": 1, "run_now": True},
        {"override_source_type": "list", "override_source_id": 1},
        {"override_source_type": "list", "override_source_id": 1, "run_now": False},
        {"override_source_type": "file", "override_source_id": 1, "run_now": True},
        {"override_source_type": 1, "override_source_id": 1, "run_now": True},
        {"override_limit": -1},
        {"override_limit": "300"},
        {"content": "text"},
        {"attach": {}},
        {"attach": ["file"]},
        {"attach": [{"data": PDF["data"]}]},
        {"attach": [{"name": "a.pdf", "data": "JVBERg=="}]},
        {"attach": [{"name": "a.pdf", "data": "data:application/pdf;base64,?"}]},
        {"attach": [{"name": "a.pdf", "data": 1}]},
    ],
)
def test_invalid_activation_does_nothing(fields):
    provider = altcraft()
    assert error(ask(provider, "activate/", **fields)) == 400
    assert not provider.acts


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("deactivate", {"abort_if_running": "yes"}),
        ("log_v2", {"limit": -1}),
        ("log_v2", {"from_time": 5}),
        ("log_v2", {"from_time": "yesterday"}),
        ("log_v2", {"from_time": "2018-08-25T00:00:00"}),
        ("log_v2", {"from_time": "2018-02-30T00:00:00Z"}),
        ("broadcasts/start", {"override_source_type": "segment"}),
    ],
)
def test_incorrect_fields_are_refused(method, fields):
    provider = altcraft(active=[82])
    assert error(ask(provider, method, **fields)) == 400
    assert not provider.acts


def test_every_documented_field_is_taken():
    provider = altcraft()
    overrides: dict[str, Any] = {"override_source_type": "segment", "override_source_id": 5, "override_limit": 300}
    extras: dict[str, Any] = {"content": {"field": {"deep": [1]}}, "attach": [PDF]}
    assert error(ask(provider, "activate/", run_now=True, **overrides, **extras)) == 0
    assert error(ask(provider, "broadcasts/start", **overrides, **extras)) == 0
    assert provider.launches == {82: 2}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_unreadable_body_is_incorrect_request(body):
    assert error(ask(altcraft(), "activate/", body=body)) == 400


@pytest.mark.parametrize("media_type", ["", "text/plain", "text/xml"])
def test_other_content_types_are_refused(media_type):
    assert error(ask(altcraft(), "activate/", {"Content-Type": media_type})) == 400


def test_tariff_limit_ends_launches():
    provider = altcraft(tariff_limit=1)
    assert error(ask(provider, "activate/", run_now=True)) == 0
    assert error(ask(provider, "activate/", id=83, run_now=True)) == 402
    assert error(ask(provider, "broadcasts/start", id=82)) == 402
    assert error(ask(provider, "activate/", id=83)) == 0
    assert provider.launches == {82: 1}


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1.1/campaigns/activate",
        "/api/v1.1/campaigns/broadcasts/start/",
        "/api/v1.1/campaigns/deactivate/",
        "/api/v1.1/campaigns/get_status/",
        "/api/v1.1/campaigns/log_v2/",
        "/api/v1.1/campaigns/delete",
    ],
)
def test_wrong_path_gets_web_page(path):
    provider = altcraft()
    reply = provider.answer(Call("POST", path, {}, JSON_HEADERS, b'{"token": "sandbox", "id": 82, "run_now": true}'))
    assert (reply.status, reply.headers["Content-Type"]) == (404, "text/html")
    assert not provider.acts


def test_everything_is_a_post():
    assert altcraft().answer(Call("GET", "/api/v1.1/campaigns/get_status")).status == 404


def test_attachments_raise_body_limit():
    provider = altcraft()
    mib = 1024 * 1024
    assert ask(provider, "activate/", content={"field": "x" * (10 * mib)}).status == 413
    file = {"name": "big.bin", "data": "data:application/octet-stream;base64," + "AAAA" * (3 * mib)}
    assert ask(provider, "get_status", attach=[file]).status == 413
    assert error(ask(provider, "activate/", attach=[file])) == 0
    reply = ask(provider, "activate/", body=bytes(100 * mib + 1))
    assert (reply.status, reply.headers["Content-Type"]) == (413, "text/html")

"""Direct as the contract has it, without HTTP."""

from __future__ import annotations

import base64
import json
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatchkit.sandbox import Act, Call, Ids
from tests.sandbox.scripts import (
    DIRECT_HEADERS,
    Clock,
    add_messages,
    direct,
    list_,
    listed_status,
    refusal,
    start,
    stop,
)


def test_start_returns_id():
    provider = direct(dispatches=[10000000125])
    reply = start(provider, 10000000125)
    assert (reply.status, json.loads(reply.body)) == (200, {"dispatchId": 10000000125})
    assert provider.launches == {10000000125: 1}
    assert provider.acts == [Act("direct", "start", 10000000125, 1_600_000_000.0)]


def test_started_dispatch_follows_clock():
    clock = Clock()
    provider = direct(clock, scheduled=1, sending=30, awaiting=10)
    assert listed_status(provider) == "initiated"
    start(provider)
    seen = []
    for seconds in (0, 0.5, 0.5, 29, 1, 9, 1):
        clock.pass_(seconds)
        seen.append(listed_status(provider))
    assert seen == ["scheduled", "scheduled", "sending", "sending", "awaiting", "awaiting", "done"]


def test_second_start_launches_again():
    clock = Clock()
    provider = direct(clock)
    start(provider)
    clock.pass_(100)
    assert start(provider).status == 200
    assert provider.launches == {5: 2}
    assert listed_status(provider) == "scheduled"


def test_second_start_can_be_refused():
    provider = direct(second_start="refused")
    start(provider)
    assert refusal(start(provider)) == (403, 4031)
    assert provider.launches == {5: 1}


def test_invalid_second_start_is_error():
    with pytest.raises(ValueError, match="second_start"):
        direct(second_start="perhaps")


def test_stop_returns_empty_body():
    provider = direct()
    start(provider)
    reply = stop(provider)
    assert (reply.status, reply.body) == (200, b"")
    assert listed_status(provider) == "stopped"
    assert [act.action for act in provider.acts] == ["start", "stop"]


def test_stop_needs_running_dispatch():
    clock = Clock()
    provider = direct(clock)
    assert refusal(stop(provider)) == (403, 4031)
    start(provider)
    stop(provider)
    assert refusal(stop(provider)) == (403, 4031)
    start(provider, 6)
    clock.pass_(61)
    assert refusal(stop(provider, 6)) == (403, 4031)
    assert [act.action for act in provider.acts] == ["start", "stop", "start"]


@pytest.mark.parametrize("what", ["start", "stop", "messages"])
def test_unknown_dispatch_is_not_found(what):
    provider = direct()
    reply = provider.answer(Call("POST", f"/api/v1/dispatch/10000100/{what}", {}, DIRECT_HEADERS, b"[]"))
    assert refusal(reply) == (404, 4040)
    assert "10000100" in json.loads(reply.body)["error"]["msg"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (401, 4010)),
        ({"Authorization": ""}, (401, 4010)),
        ({"Authorization": "Basic "}, (401, 4010)),
        ({"Authorization": "c2FuZGJveDpzYW5kYm94"}, (401, 4010)),
        ({"Authorization": "Bearer c2FuZGJveDpzYW5kYm94"}, (401, 4010)),
        ({"Authorization": "Basic wrong"}, (401, 4012)),
        ({"Authorization": "Basic  c2FuZGJveDpzYW5kYm94"}, (401, 4012)),
        ({"Authorization": "Basic " + base64.b64encode(b"c2FuZGJveDpzYW5kYm94").decode()}, (401, 4012)),
        ({"Authorization": "Basic c2FuZGJveDpzeXN0ZW0="}, (403, 4030)),
    ],
)
def test_credentials_are_looked_at_first(headers, expected):
    provider = direct()
    for call in (Call("POST", "/api/v1/dispatch/999/start", {}, headers), Call("GET", "/api/v1/dispatch", {}, headers)):
        assert refusal(provider.answer(call)) == expected
    assert not provider.acts


def test_header_names_have_no_case():
    provider = direct()
    headers = {"X-Other": "1", "authorization": DIRECT_HEADERS["Authorization"]}
    assert provider.answer(Call("POST", "/api/v1/dispatch/5/start", {}, headers)).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/dispatch/5/start"),
        ("POST", "/api/v1/dispatch"),
        ("POST", "/api/v1/dispatch/5/pause"),
        ("POST", "/api/v1/dispatch/five/start"),
        ("POST", "/api/v1/dispatch/5/start/"),
        ("GET", "/"),
    ],
)
def test_undocumented_path_gets_sandbox_404(method, path):
    reply = direct().answer(Call(method, path, {}, DIRECT_HEADERS))
    assert reply.status == 404
    assert reply.body.startswith(b"dispatchkit sandbox:")


def test_messages_are_judged_individually():
    clock = Clock()
    provider = direct(clock)
    reply = add_messages(
        provider,
        [
            {"destination": "79818269375", "substitutions": {"name": "A"}},
            {"destination": "+7981"},
            {"destination": "7"},
        ],
    )
    taken, refused, also_taken = json.loads(reply.body)
    assert UUID(taken.pop("messageUuid")) != UUID(also_taken["messageUuid"])
    assert taken == {"destination": "79818269375"}
    assert refused == {"destination": "+7981", "errorCode": 7401}
    assert provider.acts == [Act("direct", "add_messages", 5, clock.now)]
    assert json.loads(list_(provider, dispatch_id=5).body)["items"][0]["messages"]["total"] == 1235 + 2


def test_refused_messages_are_no_act():
    provider = direct()
    assert json.loads(add_messages(provider, [{"destination": "x"}]).body) == [{"destination": "x", "errorCode": 7401}]
    assert not provider.acts


def test_started_dispatch_refuses_messages():
    provider = direct()
    add_messages(provider, [{"destination": "7"}])
    start(provider)
    assert refusal(add_messages(provider, [{"destination": "7"}])) == (403, 4031)


@pytest.mark.parametrize(
    "batch",
    [
        b"[",
        b"\xff",
        b"[" * 100_000,
        {"destination": "7"},
        ["7"],
        [{}],
        [{"destination": 7}],
        [{"destination": "7", "substitutions": []}],
    ],
)
def test_malformed_batch_has_no_code(batch):
    provider = direct()
    reply = add_messages(provider, batch)
    assert reply.status == 400
    assert reply.body.startswith(b"dispatchkit sandbox:")
    assert not provider.acts


def test_messages_need_json_type():
    assert add_messages(direct(), [], **{"Content-Type": "text/plain"}).status == 400  # type: ignore[arg-type]
    assert add_messages(direct(), [], **{"Content-Type": "application/json; charset=utf-8"}).body == b"[]"  # type: ignore[arg-type]


def test_listed_dispatch_has_documented_fields():
    provider = direct(Clock(1_594_152_000.0))
    start(provider)
    assert json.loads(list_(provider, dispatch_id=5).body) == {
        "total": 1,
        "items": [
            {
                "dispatchId": 5,
                "dispatchName": "рассылка 5",
                "created": "2020-07-07T20:00:00Z",
                "localSendTime": "2020-07-07 20:00:01",
                "localCompletionTime": "2020-07-07 20:01:01",
                "useLocalTime": True,
                "status": "scheduled",
                "source": "sendername",
                "message": "текст сообщения",
                "trafficCenterId": 12,
                "trafficCenterName": "ЦРТ для рассылок",
                "base": {
                    "included": {"type": "FILE", "name": "имя_файла.xlsx"},
                    "excluded": {"type": "FILE", "name": "исключаемые_абоненты.xlsx"},
                },
                "parts": {"total": 1235, "delivered": 0, "undelivered": 0, "unsent": 1235, "sent": 0, "sending": 0},
                "messages": {"total": 1235, "delivered": 0, "undelivered": 0, "unsent": 1235, "sent": 0, "sending": 0},
            }
        ],
    }


def test_the_counts_follow_the_status():
    clock = Clock()
    provider = direct(clock)
    start(provider)
    seen = []
    for seconds in (1, 30, 30):
        clock.pass_(seconds)
        counts = json.loads(list_(provider, dispatch_id=5).body)["items"][0]["parts"]
        seen.append(next(name for name, number in counts.items() if number and name != "total"))
    assert seen == ["sending", "sent", "delivered"]


def listed(provider, **query):
    answer = json.loads(list_(provider, **query).body)
    assert answer["total"] == len(answer["items"])
    return [item["dispatchId"] for item in answer["items"]]


def test_every_documented_filter_filters():
    clock = Clock(1_594_152_000.0)
    provider = direct(clock, dispatches=range(1, 4))
    start(provider, 2)
    assert listed(provider) == [1, 2, 3]
    assert listed(provider, dispatch_id=3) == [3]
    assert listed(provider, dispatch_id=4) == []
    assert listed(provider, status="scheduled") == [2]
    assert listed(provider, dispatch_id=1, status="scheduled") == []
    assert listed(provider, dispatch_name="рассылка 3") == [3]
    assert listed(provider, traffic_center_id=12) == [1, 2, 3]
    assert listed(provider, traffic_center_id=13) == []
    assert listed(provider, created_from="2020-07-07T20:00:00Z", created_to="2020-07-07T20:00:00Z") == [1, 2, 3]
    assert listed(provider, created_from="2020-07-07T20:00:01Z") == []
    assert listed(provider, created_to="2020-07-07T19:59:59Z") == []
    assert listed(provider, not_documented="x") == [1, 2, 3]


@pytest.mark.parametrize("query", [{"dispatch_id": "1_0"}, {"traffic_center_id": "x"}, {"created_from": "2020-07-07"}])
def test_malformed_filter_has_no_code(query):
    reply = list_(direct(), **query)
    assert reply.status == 400
    assert reply.body.startswith(b"dispatchkit sandbox:")


def test_huge_provider_stays_cheap():
    visited = []

    class Counted(Ids):
        """Counts the ids that are looked at one by one."""

        def __iter__(self):
            for number in super().__iter__():
                visited.append(number)
                assert len(visited) < 10
                yield number

    provider = direct(dispatches=Counted(range(1, 10_000_001), [10000000125]), listed=3)
    start(provider, 9_999_999)
    start(provider, 10000000125)
    assert listed(provider) == [1, 2, 3, 9_999_999, 10000000125]
    assert refusal(start(provider, 10_000_001)) == (404, 4040)
    assert visited == [1, 2, 3]


def test_reading_keeps_nothing():
    provider = direct(listed=0)
    assert listed(provider, dispatch_id=7) == [7]
    assert listed(provider) == []


def test_read_lag_hides_recent_starts():
    clock = Clock()
    provider = direct(clock, read_lag=5)
    start(provider)
    assert listed_status(provider) == "initiated"
    clock.pass_(5)
    assert listed_status(provider) == "scheduled"
    provider.read_lag = 0
    assert listed_status(provider) == "sending"
    assert provider.status(5) == "sending"
    assert provider.status(6) == "initiated"


steps = st.lists(st.tuples(st.sampled_from(["start", "stop", "wait"]), st.integers(0, 40)), max_size=12)


@pytest.mark.second_stage
@settings(deadline=None)
@given(steps=steps, lag=st.integers(0, 60), second_start=st.sampled_from(["acts", "refused"]))
def test_lagging_list_shows_past_state(steps, lag, second_start):
    clock = Clock(0)
    provider = direct(clock, second_start=second_start)
    truth = {}
    for action, seconds in steps:
        if action != "wait":
            (start if action == "start" else stop)(provider)
        for _ in range(seconds):
            truth[clock.now] = listed_status(provider)
            clock.pass_(1)
    provider.read_lag = lag
    # Read from long after: nothing that happened since may have changed the past.
    for moment, status in truth.items():
        clock.now = moment + lag
        assert listed_status(provider) == status


@settings(deadline=None)
@given(steps=steps)
def test_launches_are_the_start_acts(steps):
    clock = Clock(0)
    provider = direct(clock)
    accepted = 0
    for action, seconds in steps:
        accepted += action == "start" and start(provider).status == 200
        if action == "stop":
            stop(provider)
        clock.pass_(seconds)
    assert provider.launches[5] == accepted == sum(act.action == "start" for act in provider.acts)

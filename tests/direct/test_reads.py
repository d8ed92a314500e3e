"""Reading dispatches: what is asked, what an answer means, and that a read never does more than read."""

from __future__ import annotations

import asyncio
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatchkit import (
    DirectClient,
    Dispatch,
    DispatchkitError,
    Listing,
    NotFoundError,
    NotSentError,
    RejectedError,
    RetryPolicy,
    StartDispatch,
    State,
)
from dispatchkit.core.command import Evidence, Response, UnexpectedResponseError
from dispatchkit.core.secret import Secret
from dispatchkit.core.transport.slices import parsed_in_slices
from dispatchkit.direct.commands import DirectAuth, ReadDispatch, ReadDispatches
from dispatchkit.errors import BadCredentialsError, ResponseLostError
from dispatchkit.sandbox import Fault, Sandbox
from tests.strategies import LETTERS
from tests.wire import Instant, Listener, failure, http, once

WIRE = DirectAuth(Secret("c2VjcmV0", environment="NONE"))
MOSCOW = timezone(timedelta(hours=3))

# The provider's own example.
SAMPLE: dict[str, Any] = {
    "dispatchId": 1234,
    "dispatchName": "имя рассылки",
    "created": "2020-07-07T20:00:00Z",
    "localSendTime": "2020-07-08 10:00:00",
    "localCompletionTime": "2020-07-08 20:00:00",
    "useLocalTime": True,
    "status": "sending",
    "source": "sendername",
    "message": "текст сообщения",
    "trafficCenterId": 12,
    "trafficCenterName": "ЦРТ для рассылок",
    "base": {
        "included": {"type": "FILE", "name": "имя_файла.xlsx"},
        "excluded": {"type": "FILE", "name": "исключаемые_абоненты.xlsx"},
    },
    "parts": {"total": 1235, "delivered": 1000, "undelivered": 100, "unsent": 30, "sent": 45, "sending": 60},
    "messages": {"total": 1235, "delivered": 1000, "undelivered": 100, "unsent": 30, "sent": 45, "sending": 60},
}

FIELDS = {
    name: field.name
    for name in SAMPLE
    for field in attrs.fields(Dispatch)
    if field.name.replace("_", "") == name.lower()
}


def listed(*items: object, **more: object) -> dict[str, object]:
    return {"total": len(items), "items": list(items), **more}


def read(body: object, **filters: Any) -> Listing[Dispatch]:
    return ReadDispatches(**filters).result(Response(200, {}, json.dumps(body).encode()), WIRE)


def test_provider_example_is_read_fully() -> None:
    (dispatch,) = read(listed(SAMPLE))
    assert dispatch.dispatch_id == 1234
    assert dispatch.dispatch_name == "имя рассылки"
    assert dispatch.created == datetime(2020, 7, 7, 20, tzinfo=UTC)
    assert dispatch.local_send_time == datetime(2020, 7, 8, 10)
    assert dispatch.local_completion_time == datetime(2020, 7, 8, 20)
    assert dispatch.use_local_time is True
    assert (dispatch.status, dispatch.source, dispatch.message) == ("sending", "sendername", "текст сообщения")
    assert (dispatch.traffic_center_id, dispatch.traffic_center_name) == (12, "ЦРТ для рассылок")
    assert dispatch.base is not None
    assert dispatch.base.included is not None
    assert dispatch.base.excluded is not None
    assert (dispatch.base.included.type, dispatch.base.excluded.name) == ("FILE", "исключаемые_абоненты.xlsx")
    for counts in (dispatch.parts, dispatch.messages):
        assert counts is not None
        said = (counts.total, counts.delivered, counts.undelivered, counts.unsent, counts.sent, counts.sending)
        assert said == (1235, 1000, 100, 30, 45, 60)
    assert not dispatch.extra
    assert pickle.loads(pickle.dumps(dispatch)) == dispatch
    assert {dispatch: 1}[dispatch] == 1


def test_dispatch_repr_hides_message() -> None:
    shown = repr(read(listed({**SAMPLE, "secret": "x-in-more"})))
    assert "текст" not in shown
    assert "x-in-more" not in shown
    assert "message=<15 characters>" in shown


@pytest.mark.parametrize("word", ["initiated", "changing", "paused", "stopped", "совсем новый", ""])
def test_any_status_is_passed_on(word: str) -> None:
    assert read(listed({"dispatchId": 3, "status": word}))[0].status == word


@pytest.mark.parametrize("name", [name for name in SAMPLE if name not in {"dispatchId", "status"}])
@pytest.mark.parametrize("value", [None, 5.5, [], {"x": 1}, "not a time"])
def test_odd_optional_field_hides_nothing(name: str, value: object) -> None:
    whole = read(listed(SAMPLE))[0]
    (without,) = read(listed({key: item for key, item in SAMPLE.items() if key != name}))
    (odd,) = read(listed({**SAMPLE, name: value}))
    field = FIELDS[name]
    assert getattr(without, field) is None
    assert not without.extra
    for other in attrs.fields(Dispatch):
        if other.name not in {field, "extra"}:
            assert getattr(odd, other.name) == getattr(without, other.name) == getattr(whole, other.name)
    if getattr(odd, field) is None and value is not None:
        assert odd.extra == {name: value}, "what was said is kept"


def test_extra_fields_are_kept() -> None:
    parts = {**SAMPLE["parts"], "read": 7, "sent": "many"}
    (dispatch,) = read(listed({**SAMPLE, "channel": {"a": [1]}, "parts": parts}, next="x"))
    assert dispatch.extra == {"channel": {"a": [1]}}
    assert dispatch.parts is not None
    assert (dispatch.parts.total, dispatch.parts.sent) == (1235, None)
    assert dispatch.parts.extra == {"read": 7, "sent": "many"}


UNREADABLE: list[object] = [
    {},
    [],
    [SAMPLE],
    {"total": 0},
    {"items": None},
    {"items": {}},
    {"items": ""},
    {"items": {"0": SAMPLE}},
    listed(None),
    listed([]),
    listed({}),
    listed({"dispatchId": 3}),
    listed({"status": "sending"}),
    listed({"dispatchId": "3", "status": "sending"}),
    listed({"dispatchId": True, "status": "sending"}),
    listed({"dispatchId": 3.0, "status": "sending"}),
    listed({"dispatchId": 0, "status": "sending"}),
    listed({"dispatchId": -3, "status": "sending"}),
    listed({"dispatchId": 2**63, "status": "sending"}),
    listed({"dispatchId": 3, "status": None}),
    listed({"dispatchId": 3, "status": 5}),
    listed(SAMPLE, {"dispatchId": 3}),
]


@pytest.mark.parametrize("body", UNREADABLE, ids=lambda body: repr(body)[:40])
def test_invalid_list_is_not_empty(body: object) -> None:
    with pytest.raises(UnexpectedResponseError):
        read(body)


@pytest.mark.parametrize("total", [None, "12", -1, True, 2.5, {}])
def test_invalid_count_hides_no_dispatch(total: object) -> None:
    listing = read({"items": [SAMPLE], "total": total})
    assert (len(listing), listing.total, listing.missing) == (1, None, 0)


def test_incomplete_list_is_marked() -> None:
    listing = read({"items": [SAMPLE], "total": 12})
    assert (len(listing), listing.total, listing.missing) == (1, 12, 11)


def test_mismatched_dispatches_are_left_out() -> None:
    items = [{"dispatchId": number, "status": word} for number, word in ((1, "sending"), (2, "done"), (3, "Sending"))]
    assert [dispatch.dispatch_id for dispatch in read(listed(*items), status="sending")] == [1]
    assert read(listed(*items), status="sending").missing == 2
    assert [dispatch.dispatch_id for dispatch in read(listed(*items), dispatch_id=2)] == [2]
    assert len(read(listed(*items), dispatch_name="x")) == 3, "what a name matches is for the provider to say"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(LETTERS, max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*SAMPLE, "items", "total", "included", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(more=st.dictionaries(st.sampled_from([*SAMPLE, "x", "extra"]), json_values, max_size=8))
@settings(max_examples=100, deadline=None)
def test_no_field_breaks_list(more: dict[str, object]) -> None:
    item = {**more, "dispatchId": 3, "status": "sending"}
    (dispatch,) = read(listed(item))
    assert (dispatch.dispatch_id, dispatch.status) == (3, "sending")
    for name, value in item.items():
        field = next(
            (field.name for field in attrs.fields(Dispatch) if field.name.replace("_", "") == name.lower()), "extra"
        )
        if field == "extra" or (getattr(dispatch, field) is None and value is not None):
            assert dispatch.extra[name] == value
    assert read(listed(item)) == read(listed(item))


@given(body=json_values)
@settings(max_examples=100, deadline=None)
def test_no_answer_crashes_a_read(body: object) -> None:
    for command in (ReadDispatches(), ReadDispatch(3)):
        try:
            command.result(Response(200, {}, json.dumps(body).encode()), WIRE)
        except (UnexpectedResponseError, RejectedError):
            continue
        assert isinstance(body, dict)
        assert isinstance(body["items"], list)


@given(body=json_values)
@settings(max_examples=100, deadline=None)
def test_status_settles_lost_start(body: dict[str, object]) -> None:
    probe = StartDispatch(3).probe(datetime(2026, 1, 1, tzinfo=UTC))
    item = {**SAMPLE, "base": body, "parts": body, "created": body, "dispatchId": 3, "status": "sending"}
    response = Response(200, {}, json.dumps(listed(item)).encode())
    assert probe.settle(probe.command.result(response, WIRE)).evidence is Evidence.APPLIED


async def test_filters_match_documentation() -> None:
    async with Listener(http(200, listed())) as listener, DirectClient("key", base_url=listener.url) as direct:
        assert len(await direct.dispatches()) == 0
        await direct.dispatches(
            created_from=datetime(2026, 1, 31, 2, 30, 15, 999, tzinfo=MOSCOW),
            created_to=datetime(2026, 2, 1, tzinfo=UTC),
            status="sending",
            dispatch_id=10000000125,
            dispatch_name="акция & 50% +1 #?",
            traffic_center_id=12,
        )
    plain, filtered = listener.requests
    assert plain.line == "GET /api/v1/dispatch HTTP/1.1"
    assert filtered.line == (
        "GET /api/v1/dispatch?dispatch_id=10000000125&status=sending"
        "&dispatch_name=%D0%B0%D0%BA%D1%86%D0%B8%D1%8F%20%26%2050%25%20%2B1%20%23%3F&traffic_center_id=12"
        "&created_from=2026-01-30T23:30:15Z&created_to=2026-02-01T00:00:00Z HTTP/1.1"
    )
    assert filtered.headers["Authorization"] == "Basic key"
    assert filtered.body == b""


@pytest.mark.parametrize(
    ("filters", "error_type", "text"),
    [
        ({"status": ""}, ValueError, "status must not be empty"),
        ({"status": 5}, TypeError, "status must be text"),
        ({"status": "\ud800"}, ValueError, "surrogate"),
        ({"dispatch_name": ""}, ValueError, "dispatch_name must not be empty"),
        ({"dispatch_id": 0}, ValueError, "dispatch_id must be a positive integer"),
        ({"traffic_center_id": "12"}, TypeError, "traffic_center_id must be a positive integer"),
        ({"created_from": "2026-01-31"}, TypeError, "created_from must be a datetime"),
        ({"created_to": datetime(2026, 1, 31)}, ValueError, "created_to must say its zone"),
        ({"created_to": datetime.min.replace(tzinfo=MOSCOW)}, ValueError, "created_to must be a time that UTC can say"),
    ],
)
async def test_invalid_filter_is_not_sent(filters: dict[str, Any], error_type: type[Exception], text: str) -> None:
    async with Listener(http(200, listed())) as listener, DirectClient("key", base_url=listener.url) as direct:
        with pytest.raises(error_type, match=text):
            await direct.dispatches(**filters)
    assert not listener.requests


async def test_sandbox_applies_filters() -> None:
    async with Sandbox(dispatches=range(1, 51)) as sandbox:
        sandbox.direct.scheduled = 0
        async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
            await direct.start(7)
            await direct.start(8)
            await direct.stop(8)
            assert [dispatch.dispatch_id for dispatch in await direct.dispatches(status="sending")] == [7]
            assert [dispatch.dispatch_id for dispatch in await direct.dispatches(status="stopped")] == [8]
            assert len(await direct.dispatches(status="initiated")) == 48
            (seventh,) = await direct.dispatches(dispatch_name="рассылка 7")
            assert seventh == await direct.dispatch(7)
            assert len(await direct.dispatches(traffic_center_id=12)) == 50
            assert len(await direct.dispatches(traffic_center_id=13)) == 0
            now = datetime.now(UTC)
            assert len(await direct.dispatches(created_from=now - timedelta(hours=1), created_to=now)) == 50
            assert len(await direct.dispatches(created_to=now - timedelta(hours=1))) == 0
    assert [act.action for act in sandbox.acts] == ["start", "start", "stop"]


async def test_missing_dispatch_is_not_found() -> None:
    async with Sandbox(dispatches=[1]) as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        error = await failure(direct.dispatch(2))
    assert isinstance(error, NotFoundError)
    assert (error.status, error.code, error.command) == (200, None, ReadDispatch(2))
    assert len(error.attempts) == 1


async def test_duplicate_dispatch_is_unexpected() -> None:
    twice = http(200, listed(SAMPLE, {**SAMPLE, "status": "done"}))
    async with Listener(twice) as listener, DirectClient("key", base_url=listener.url, **once()) as direct:
        assert isinstance(await failure(direct.dispatch(1234)), ResponseLostError)


@pytest.mark.parametrize(
    "fault", [Fault.lost_answer(), Fault.html(500, acts=False), Fault.http(429), Fault.http(200, b"<html>")]
)
async def test_read_is_always_repeated(fault: Fault) -> None:
    async with Sandbox(dispatches=[1]) as sandbox:
        sandbox.order(fault)
        async with DirectClient(sandbox.direct_token, base_url=sandbox.url, clock=Instant()) as direct:
            assert (await direct.dispatch(1)).status == "initiated"
    assert sandbox.requests == 2


async def test_failed_read_did_nothing() -> None:
    async with Listener(http(200, b"<html>")) as listener:  # noqa: SIM117
        async with DirectClient("key", base_url=listener.url, clock=Instant()) as direct:
            error = await failure(direct.dispatches(status="sending"))
    assert isinstance(error, ResponseLostError)
    assert error.state is State.UNKNOWN
    assert len(error.attempts) == len(listener.requests) == RetryPolicy().attempts
    assert "nothing was changed" in str(error)
    assert "act twice" not in str(error)


async def test_policy_applies_to_reads() -> None:
    policy = RetryPolicy(retry_on=frozenset({"not_sent"}))
    async with Listener(http(500)) as listener:  # noqa: SIM117
        async with DirectClient("key", base_url=listener.url, clock=Instant(), retry=policy) as direct:
            assert isinstance(await failure(direct.dispatch(1)), ResponseLostError)
    assert len(listener.requests) == 1


async def test_refused_repeated_read_is_rejected() -> None:
    refusal = http(401, {"error": {"code": 4012, "msg": "Bad credentials"}})
    async with Listener(http(500), refusal) as listener:  # noqa: SIM117
        async with DirectClient("key", base_url=listener.url, clock=Instant()) as direct:
            assert type(await failure(direct.dispatch(1))) is BadCredentialsError
    assert len(listener.requests) == 2


async def test_unsent_read_is_not_sent() -> None:
    async with DirectClient("key", base_url="http://127.0.0.1:1", **once()) as direct:
        assert type(await failure(direct.dispatches())) is NotSentError


async def test_endless_read_response_is_bounded() -> None:
    endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b'{"items": [' + b" " * (9 * 2**20)
    async with Listener(endless) as listener, DirectClient("key", base_url=listener.url, **once()) as direct:
        error = await failure(direct.dispatch(1))
    assert isinstance(error, ResponseLostError)
    assert error.summary == "the answer is larger than 8 MiB"


@pytest.mark.parametrize("status", [200, 400], ids=["list", "refusal"])
async def test_list_has_own_bound(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadDispatches, "max_response_bytes", 10 * 2**20)
    large = listed(*({**SAMPLE, "dispatchId": number} for number in range(1, 9001)), {**SAMPLE, "message": "x" * 2**20})
    async with Listener(http(status, large), http(200, f"{large}{' ' * 2**22}")) as listener:  # noqa: SIM117
        async with DirectClient("key", base_url=listener.url, **once()) as direct:
            if status == 200:
                assert len(await direct.dispatches()) == 9001
                error = await failure(direct.dispatches())
                assert error.summary == "the answer is larger than 10 MiB"
            else:
                assert (await failure(direct.dispatches())).summary == "the answer is larger than 8 MiB"


LARGE = [{**SAMPLE, "dispatchId": number, "status": "done" if number % 3 else "sending"} for number in range(1, 1501)]


@pytest.mark.second_stage
async def test_long_list_is_read_whole() -> None:
    item = json.dumps(SAMPLE, ensure_ascii=False).partition(",")[2]
    items = ",".join(f'{{"dispatchId": {number},{item}' for number in range(1, 100_001))
    body = f'{{"total": 100000, "items": [{items}]}}'.encode()
    assert len(body) > 64 * 2**20
    async with Listener(http(200, body)) as listener, DirectClient("key", base_url=listener.url) as direct:
        listing = await direct.dispatches()
    assert (len(listing), listing.missing, listing[-1].dispatch_id) == (100_000, 0, 100_000)


async def test_slices_give_same_list() -> None:
    body = json.dumps({"total": 1502, "items": LARGE, "next": 1}).encode()
    for command in (ReadDispatches(), ReadDispatches(status="sending"), ReadDispatches(dispatch_id=9)):
        async with Listener(http(200, body)) as listener, DirectClient("key", base_url=listener.url) as direct:
            listing = await direct.perform(command)
        assert listing == command.result(Response(200, {}, body), WIRE)
        assert (listing.total, listing.received) == (1502, 1500)
        assert (len(listing) == 1500) is (command == ReadDispatches())


@pytest.mark.parametrize(
    "damage",
    [lambda body: body[:-1], lambda body: body[: len(body) // 2], lambda body: body.replace(b'"sending"', b"7", 1)],
    ids=["last byte", "half", "no status"],
)
async def test_damaged_slices_are_refused(damage: Any) -> None:
    body = damage(json.dumps({"total": 1500, "items": LARGE}).encode())
    for answer in (http(200, body), b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body):
        async with Listener(answer) as listener, DirectClient("key", base_url=listener.url, **once()) as direct:
            assert isinstance(await failure(direct.dispatches()), ResponseLostError)


async def test_parsing_lets_loop_work() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.ensure_future(count_turns())
    response = Response(200, {}, json.dumps({"items": LARGE * 4}).encode())
    slices = ReadDispatches().request(WIRE, None).slices
    assert slices is not None
    parsed = (await parsed_in_slices(response, slices)).parsed
    counting.cancel()
    assert isinstance(parsed, dict)
    assert len(parsed["items"]) == 6000
    assert turns > 4


async def test_endless_list_is_requested_once() -> None:
    response = http(200, {"total": 10**9, "items": [SAMPLE] * 3, "next": "/api/v1/dispatch?page=2"})
    async with Listener(response) as listener, DirectClient("key", base_url=listener.url) as direct:
        listing = await direct.dispatches()
    assert (len(listing), listing.missing) == (3, 10**9 - 3)
    assert len(listener.requests) == 1


async def test_large_list_is_complete() -> None:
    response = http(200, listed(*({**SAMPLE, "dispatchId": number} for number in range(1, 3001))))
    async with Listener(response) as listener, DirectClient("key", base_url=listener.url) as direct:
        assert [dispatch.dispatch_id for dispatch in await direct.dispatches()] == [*range(1, 3001)]


def test_a_listing_is_a_sequence() -> None:
    listing = Listing((1, 2, 3), 5)
    assert (list(listing), listing[0], listing[-1], listing[1:]) == ([1, 2, 3], 1, 3, (2, 3))
    assert 2 in listing
    assert bool(listing)
    assert not Listing(())
    assert pickle.loads(pickle.dumps(listing)) == listing


def test_read_error_is_for_reads() -> None:
    assert issubclass(ResponseLostError, DispatchkitError)
    assert not StartDispatch(1).is_read_only


async def test_cancelled_read_did_nothing() -> None:
    async with Listener(None) as listener, DirectClient("key", base_url=listener.url) as direct:
        call = direct._call(ReadDispatch(3))
        task = asyncio.create_task(call.run())
        await asyncio.wait_for(listener.arrived.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert type(call.known_outcome()) is ResponseLostError


async def test_unsent_read_repeat_was_sent() -> None:
    class Leaving(Instant):
        async def sleep(self, seconds: float) -> None:
            listener._server.close()
            await super().sleep(seconds)

    async with Listener(http(500, Connection="close")) as listener:  # noqa: SIM117
        async with DirectClient("key", base_url=listener.url, clock=Leaving()) as direct:
            error = await failure(direct.dispatch(3))
    assert [attempt.sent for attempt in error.attempts][:2] == [True, False]
    assert type(error) is ResponseLostError

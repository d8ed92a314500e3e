"""What Direct's answers mean, and that nothing but the documented success is one."""

from __future__ import annotations

import json
import re

import pytest
from aioresponses import aioresponses
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatchkit import DirectClient, DispatchkitError, OutcomeUnknownError, RejectedError, StartDispatch, StopDispatch
from dispatchkit.core.call.classify import classify
from dispatchkit.core.clock import SYSTEM
from dispatchkit.core.command import Response, UnexpectedResponseError
from dispatchkit.core.secret import Secret
from dispatchkit.direct import commands
from dispatchkit.direct.commands import DirectAuth
from dispatchkit.direct.models import StartedDispatch
from dispatchkit.errors import (
    AccessDeniedError,
    BadCredentialsError,
    InappropriateStatusError,
    NotAuthenticatedError,
    NotFoundError,
    ThrottledError,
)
from tests.strategies import LETTERS
from tests.wire import Listener, failure, http, once

WIRE = DirectAuth(Secret("c2VjcmV0", environment="NONE"))

DOCUMENTED = [
    (401, 4010, "Not Authenticated", NotAuthenticatedError),
    (401, 4012, "Bad credentials", BadCredentialsError),
    (403, 4030, "Access Denied", AccessDeniedError),
    (403, 4031, "Inappropriate dispatch status", InappropriateStatusError),
    (404, 4040, "Dispatch 10000100 not found", NotFoundError),
]


@pytest.mark.parametrize("action", ["start", "stop"])
@pytest.mark.parametrize(("status", "code", "text", "error_type"), DOCUMENTED)
async def test_documented_code_has_its_error(
    action: str, status: int, code: int, text: str, error_type: type[RejectedError]
) -> None:
    response = http(status, {"error": {"code": code, "msg": text}})
    async with Listener(response) as listener, DirectClient("k", base_url=listener.url, **once()) as direct:
        error = await failure(getattr(direct, action)(10000100))
    assert type(error) is error_type
    assert (error.status, error.code, error.message) == (status, code, text)
    assert error.state == "rejected"
    assert len(listener.requests) == len(error.attempts) == 1
    assert error.attempts[0].sent
    assert error.command == (StartDispatch if action == "start" else StopDispatch)(10000100)
    assert error.request_id is None, "Direct has none"


@pytest.mark.parametrize("status", [200, 400, 403, 404, 409])
def test_code_decides_not_status(status: int) -> None:
    for _, code, text, kind in DOCUMENTED:
        assert type(read(status, {"error": {"code": code, "msg": text}})) is kind


@pytest.mark.parametrize("status", [200, 400, 403, 422])
def test_unknown_code_keeps_provider_message(status: int) -> None:
    error = read(status, {"error": {"code": 7401, "msg": "Нет такого"}, "more": 1})
    assert type(error) is RejectedError
    assert (error.status, error.code, error.message) == (status, 7401, "Нет такого")


def read(status: int, body: object, command: StartDispatch | StopDispatch | None = None) -> object:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(command or StartDispatch(3), Response(status, {}, raw), WIRE, SYSTEM)


UNREADABLE: list[object] = [
    b"<html><body>Bad gateway</body></html>",
    b" ",
    b"\n",
    b"null",
    b"true",
    b"3",
    b"[]",
    b'{"dispatchId": 3',
    b'{"dispatchId": 3}{"dispatchId": 3}',
    b'{"dispatchId": NaN}',
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"dispatchId": ' + b"9" * 5000 + b"}",
    {"dispatchId": "3"},
    {"dispatchId": True},
    {"dispatchId": 3.0},
    {"dispatchId": None},
    {"dispatchId": [3]},
    {"dispatchId": 4},
    {"dispatchId": -3},
    {"dispatchid": 3},
    {"data": {"dispatchId": 3}},
    {},
    [{"dispatchId": 3}],
    {"error": None},
    {"error": "Access Denied"},
    {"error": []},
    {"error": {}},
    {"error": {"msg": "Access Denied"}},
    {"error": {"code": "4030", "msg": "Access Denied"}},
    {"error": {"code": True, "msg": "Access Denied"}},
    {"error": {"code": 4030.0}},
    {"error": {"code": None}},
    {"dispatchId": 3, "error": None},
    b'{"dispatchId": 3, "dispatchId": 4}',
    b'{"dispatchId": 4, "dispatchId": 3}',
    b'{"error": {"code": 4030, "code": 4031, "msg": ""}}',
]


@pytest.mark.parametrize("command", [StartDispatch(3), StopDispatch(3)], ids=["start", "stop"])
@pytest.mark.parametrize("body", UNREADABLE, ids=lambda body: repr(body)[:40])
@pytest.mark.parametrize("status", [200, 201, 204, 301, 400, 403, 500])
def test_nearly_right_answer_is_unknown(command: StartDispatch | StopDispatch, body: object, status: int) -> None:
    error = read(status, body, command)
    assert type(error) is OutcomeUnknownError
    assert len(str(error)) < 400


@pytest.mark.parametrize("body", [b'{"dispatchId":3}', b'{"dispatchId": 3}'])
@pytest.mark.parametrize("content_type", [None, "application/json", "application/json; charset=UTF-8"])
def test_documented_start_needs_no_parser(
    body: bytes, content_type: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "read_json", None)
    headers = {} if content_type is None else {"Content-Type": content_type}
    result = classify(StartDispatch(3), Response(200, headers, body), WIRE, SYSTEM)
    assert result == StartedDispatch(3)


@pytest.mark.parametrize(
    "body",
    [b'{"dispatchId":03}', b'{"dispatchId":-3}', b'{"dispatchId":3}\0', b'{"dispatchId":33}', b'{"dispatchId":}'],
)
def test_almost_documented_start_is_unknown(body: bytes) -> None:
    assert type(read(200, body)) is OutcomeUnknownError


@pytest.mark.parametrize("charset", ["utf-16", "utf-32", "cp037", "none-such"])
def test_start_follows_its_charset(charset: str) -> None:
    headers = {"Content-Type": f"application/json; charset={charset}"}
    answered = Response(200, headers, b'{"dispatchId":3}')
    assert type(classify(StartDispatch(3), answered, WIRE, SYSTEM)) is OutcomeUnknownError


def test_empty_response_is_no_start() -> None:
    assert type(read(200, b"")) is OutcomeUnknownError


@pytest.mark.parametrize("body", [b"{}", b'{"dispatchId": 3}', b'""', b"0", b"OK", b"null"])
def test_stop_needs_empty_response(body: bytes) -> None:
    assert type(read(200, body, StopDispatch(3))) is OutcomeUnknownError


@pytest.mark.parametrize("status", [201, 202, 204, 206, 301, 302, 304, 400, 401, 403, 404, 500, 503])
def test_only_200_is_a_success(status: int) -> None:
    assert type(read(status, {"dispatchId": 3})) is OutcomeUnknownError
    assert type(read(status, b"", StopDispatch(3))) is OutcomeUnknownError


def test_unknown_fields_pass() -> None:
    assert read(200, {"dispatchId": 3, "queue": {"a": [1]}, "errors": []}) == StartedDispatch(3)
    error = read(403, {"error": {"code": 4031, "msg": "no", "trace": "x"}, "timestamp": 1})
    assert type(error) is InappropriateStatusError


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 520, 599])
@pytest.mark.parametrize("body", [b"", b"<html>", {"dispatchId": 3}, {"error": {"code": 4030, "msg": "no"}}])
def test_server_error_vouches_for_nothing(status: int, body: object) -> None:
    assert type(read(status, body)) is OutcomeUnknownError
    assert type(read(status, body, StopDispatch(3))) is OutcomeUnknownError


@pytest.mark.parametrize("body", [b"", b"<html>", {"x": 3}, {"error": {"code": 4030, "msg": "no"}}, b"[[["])
def test_429_is_throttled_regardless(body: object) -> None:
    error = read(429, body)
    assert type(error) is ThrottledError
    assert error.status == 429
    assert error.code == (4030 if isinstance(body, dict) and "error" in body else None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(status: int) -> None:
    async with Listener(http(200, {"dispatchId": 3})) as elsewhere:  # noqa: SIM117
        async with (
            Listener(http(status, Location=f"{elsewhere.url}/api/v1/dispatch/3/start")) as listener,
            DirectClient("k", base_url=listener.url, **once()) as direct,
        ):
            assert type(await failure(direct.start(3))) is OutcomeUnknownError
    assert elsewhere.requests == []
    assert [request.line for request in listener.requests if request.startswith(b"POST")] == [
        "POST /api/v1/dispatch/3/start HTTP/1.1"
    ]


@pytest.mark.parametrize("body", [b"<html>", b"", {"dispatchId": "3"}, {"dispatchId": 4}])
async def test_unreadable_response_is_not_repeated(body: object) -> None:
    async with Listener(http(200, body)) as listener, DirectClient("k", base_url=listener.url, **once()) as direct:
        error = await failure(direct.start(3))
    assert type(error) is OutcomeUnknownError
    assert len([request for request in listener.requests if request.startswith(b"POST")]) == 1


ANSWER = http(200, {"dispatchId": 3})


@pytest.mark.parametrize("end", range(0, len(ANSWER), 3))
async def test_cut_response_is_unknown(end: int) -> None:
    cut = ANSWER[:end].replace(b"HTTP/1.1 200 Whatever\r\n", b"HTTP/1.1 200 Whatever\r\nConnection: close\r\n")
    if b"Connection: close\r\n" not in cut:
        cut += b"\r\nConnection: close\r\n"  # not HTTP at all
    async with Listener(cut) as listener, DirectClient("k", base_url=listener.url, **once()) as direct:
        assert type(await failure(direct.start(3))) is OutcomeUnknownError


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(LETTERS, max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dispatchId", "error", "code", "msg", "items", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)
bodies = st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode())
statuses = st.sampled_from([200, 201, 204, 301, 400, 401, 403, 404, 429, 500, 503]) | st.integers(200, 599)


@given(status=statuses, body=bodies)
@settings(max_examples=200, deadline=None)
def test_only_documented_bytes_are_success(status: int, body: bytes) -> None:
    for command in (StartDispatch(3), StopDispatch(3)):
        attempt_outcome = read(status, body, command)
        if isinstance(attempt_outcome, DispatchkitError):
            assert attempt_outcome.state in {"rejected", "unknown"}
            assert len(str(attempt_outcome).splitlines()) <= 2
        elif isinstance(command, StopDispatch):
            assert (status, body) == (200, b"")
        else:
            assert status == 200
            said = json.loads(body)
            assert said["dispatchId"] == 3
            assert type(said["dispatchId"]) is int
            assert "error" not in said


@given(body=st.binary(min_size=1, max_size=300))
@settings(max_examples=200, deadline=None)
def test_unreadable_text_is_not_quoted(body: bytes) -> None:
    with pytest.raises(UnexpectedResponseError) as unreadable:
        StartDispatch(3).result(Response(200, {}, b"\x00" + body), WIRE)
    assert re.fullmatch(r"not JSON \(\d+ bytes\)", str(unreadable.value))
    assert unreadable.value.__context__ is None


async def test_mocked_stop_needs_no_length() -> None:
    with aioresponses() as provider:
        provider.post("https://direct.i-dgtl.ru/api/v1/dispatch/7/stop", status=200)
        async with DirectClient("key") as direct:
            assert await direct.stop(7) is None  # type: ignore[func-returns-value]

"""From the reply to an attempt to its outcome, for a command that reads any body."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from multidict import CIMultiDict
from tenacity import wait_fixed

from dispatchkit import NotSentError, OutcomeUnknownError, RejectedError, RetryPolicy, ThrottledError
from dispatchkit.core.call.classify import classify, pause_after, paused_by, unknown
from dispatchkit.core.command import (
    Command,
    ContradictoryAnswerError,
    Request,
    Response,
    UnexpectedResponseError,
)
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.errors import ResponseLostError
from dispatchkit.testing import FakeClock

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
POLICY = RetryPolicy(throttled_wait=wait_fixed(4))


@attrs.frozen
class Ping(Command[None, str]):
    """Its answer is its body, unless that names an error."""

    success_statuses = frozenset({200, 202})

    def request(self, wire: None, request_id: str | None) -> Request:
        raise NotImplementedError

    def result(self, response: Response, wire: None) -> str:
        match response.body:
            case b"no":
                raise RejectedError("no", status=response.status, code=7)
            case b"both":
                raise ContradictoryAnswerError("it claims success")
            case b"?":
                raise UnexpectedResponseError("no JSON")
        return response.body.decode()


class AcceptedPing(Ping):
    success_statuses = frozenset({202, 300})


class ReadPing(Ping):
    is_read_only = True


def reply(status: int = 200, body: bytes = b"yes", undecoded: str | None = None, **headers: str) -> Response:
    return Response(
        status, CIMultiDict({name.replace("_", "-"): text for name, text in headers.items()}), body, undecoded
    )


def outcome(answer: Response | TransportFailure, command: Command[None, str] | None = None) -> Any:
    return classify(command or Ping(), answer, None, FakeClock())


@pytest.mark.parametrize("status", [200, 202, 400, 404, 429])
def test_body_decides(status: int) -> None:
    assert outcome(reply(status)) == "yes"


def test_body_of_200_always_decides() -> None:
    assert outcome(reply(200), AcceptedPing()) == "yes"


def test_redirect_is_never_a_success() -> None:
    assert type(outcome(reply(300), AcceptedPing())) is OutcomeUnknownError


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (500, "the server failed (HTTP 500)"),
        (502, "the server failed (HTTP 502)"),
        (407, "a proxy on the way, not the provider, demands credentials (HTTP 407)"),
        (408, "the request was given up on the way (HTTP 408)"),
        (499, "the request was given up on the way (HTTP 499)"),
        (201, "this is no answer of the provider: HTTP 201"),
        (199, "this is no answer of the provider: HTTP 199"),
        (302, "this is no answer of the provider: HTTP 302"),
        (399, "this is no answer of the provider: HTTP 399"),
    ],
)
@pytest.mark.parametrize("body", [b"yes", b"no"])
def test_status_outranks_the_body(status: int, text: str, body: bytes) -> None:
    error = outcome(reply(status, body))
    assert type(error) is OutcomeUnknownError
    assert error.summary.startswith(text)


@pytest.mark.parametrize("status", [200, 403])
def test_refusal_is_final(status: int) -> None:
    error = outcome(reply(status, b"no"))
    assert type(error) is RejectedError
    assert (error.status, error.code, error.__traceback__) == (status, 7, None)


@pytest.mark.parametrize(("body", "text", "code"), [(b"no", "no", 7), (b"?", "too many requests", None)])
def test_status_429_is_throttling(body: bytes, text: str, code: int | None) -> None:
    clock = FakeClock()
    error = classify(Ping(), reply(429, body, Retry_After="5"), None, clock)
    assert isinstance(error, ThrottledError)
    assert (error.message, error.code, error.retry_after) == (text, code, 5.0)
    assert error.retry_at is not None
    assert (error.retry_at - clock.now()).total_seconds() == 5
    error = classify(Ping(), reply(429, body), None, clock)
    assert isinstance(error, ThrottledError)
    assert (error.retry_after, error.retry_at) == (None, None)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (reply(200, b"both"), "HTTP 200, it claims success"),
        (reply(429, b"both"), "HTTP 429, it claims success"),
        (reply(200, b"?"), "HTTP 200, no JSON"),
        (reply(404, b"?"), "HTTP 404, no JSON"),
        (reply(undecoded="bad gzip"), "HTTP 200, bad gzip"),
    ],
)
def test_unreadable_answer_proves_nothing(answer: Response, text: str) -> None:
    error = outcome(answer)
    assert type(error) is OutcomeUnknownError
    assert error.summary.endswith(text)


def test_request_without_an_answer() -> None:
    assert type(outcome(TransportFailure("reset", sent=True))) is OutcomeUnknownError
    assert type(outcome(TransportFailure("reset", sent=True), ReadPing())) is ResponseLostError
    assert type(outcome(TransportFailure("refused", sent=False))) is NotSentError
    assert type(unknown(Ping(), "lost")) is OutcomeUnknownError


@pytest.mark.parametrize(
    ("answer", "pause", "by"),
    [
        (reply(429, b"no"), 4.0, "HTTP 429"),
        (reply(429, b"no", Retry_After="9"), 9.0, "Retry-After"),
        (reply(429, b"no", Retry_After="0"), 0.0, "Retry-After"),
        (reply(503, b"", Retry_After="9"), 9.0, "Retry-After"),
        (reply(503, b"", Retry_After="0"), None, "Retry-After"),
        (reply(503, b""), None, "HTTP 429"),
        (reply(403, b"no", Retry_After="9"), None, "Retry-After"),
        (TransportFailure("reset", sent=True), None, "HTTP 429"),
    ],
)
def test_reply_may_pause_the_account(answer: Response | TransportFailure, pause: float | None, by: str) -> None:
    assert pause_after(outcome(answer), answer, policy=POLICY, now=lambda: NOON) == pause
    assert paused_by(answer) == by

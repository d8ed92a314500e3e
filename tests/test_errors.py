"""The errors: one tree whose branches are the outcomes; they pickle whole, and say it in two lines."""

from __future__ import annotations

import copy
import pickle
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatchkit import (
    ActivateMailing,
    AltcraftClient,
    Audience,
    DirectClient,
    DispatchkitError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    StartDispatch,
    State,
    ThrottledError,
    errors,
)
from dispatchkit.errors import Attempt
from tests.strategies import LETTERS
from tests.wire import Listener, failure, http, once

ATTEMPTS = (
    Attempt(1, datetime(2026, 1, 1, tzinfo=UTC), 0.5, "connection refused", sent=False),
    Attempt(2, datetime(2026, 1, 2, tzinfo=UTC), 1.5, "HTTP 403", sent=True),
)
EXCEPTIONS = [
    kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type) and issubclass(kind, Exception)
]
KINDS = [kind for kind in EXCEPTIONS if issubclass(kind, DispatchkitError)]
REFUSALS = [kind for kind in KINDS if issubclass(kind, RejectedError)]
COMMAND = ActivateMailing(82, run_now=True, audience=Audience("list", 1), content={"a": [1, None]})


def made(error_type: type[DispatchkitError], text: str = "no", **more: Any) -> DispatchkitError:
    if issubclass(error_type, RejectedError):
        return error_type(text, status=403, code=4031, **more)
    return error_type(text, **more)


def test_error_branch_matches_outcome() -> None:
    branches = {RejectedError: State.REJECTED, NotSentError: State.NOT_SENT, OutcomeUnknownError: State.UNKNOWN}
    for kind in KINDS:
        if kind is not DispatchkitError:
            (outcome,) = [state for branch, state in branches.items() if issubclass(kind, branch)]
            assert made(kind).state is outcome == outcome.value


def test_tree_matches_drawing() -> None:
    drawn = errors.__doc__ or ""
    for kind in EXCEPTIONS:
        assert kind.__name__ in drawn


def test_ledger_error_is_no_outcome() -> None:
    made: list[tuple[Exception, str]] = [
        (errors.LedgerError("no disk"), "no disk"),
        (errors.RunStoppedError("it was stopped"), "it was stopped"),
        (errors.AccountMismatchError("another account"), "another account"),
        (
            errors.RunHeldError("friday", pid=7, host="here"),
            "is held by process 7 on here: wait until that",
        ),
        (errors.RunHeldError("friday", pid=7, host="here", silent_for=95), r"silent for 95 s\. .* --end-holder"),
        (errors.ChunkHeldError("friday", 3, pid=7, host="here", retry_after=12), "chunk 3 .* again in 12 s"),
        (errors.RepeatedTargetsError("launched at noon", runs={"noon": 2}), "launched at noon"),
        (
            errors.ProviderSilentError("friday", 3, since=datetime(2026, 1, 1, tzinfo=UTC), left=7),
            "chunk 3 .* 7 targets left",
        ),
    ]
    for error, text in made:
        twin = pickle.loads(pickle.dumps(error))
        assert type(twin) is type(error)
        assert vars(twin) == vars(error)
        assert str(twin) == str(error)
        assert re.search(text, str(error))
    assert {kind for kind in EXCEPTIONS if kind not in KINDS} == {type(error) for error, _ in made}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error_type", [error_type for error_type in KINDS if error_type is not DispatchkitError])
def test_an_error_pickles_whole(error_type: type[DispatchkitError], protocol: int) -> None:
    error = made(error_type, "нет", command=COMMAND, attempts=ATTEMPTS, request_id="an-id")
    error.add_note("a note")
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is error_type
        assert vars(twin) == vars(error)
        assert (twin.state, twin.command, twin.attempts, twin.request_id) == (
            error_type.state,
            COMMAND,
            ATTEMPTS,
            "an-id",
        )
        assert (str(twin), repr(twin), twin.args) == (str(error), repr(error), error.args)
        assert twin.__notes__ == ["a note"]
        if isinstance(twin, RejectedError):
            assert (twin.status, twin.code, twin.message) == (403, 4031, "нет")


def test_context_is_added_to_copy() -> None:
    error = OutcomeUnknownError("no answer", is_final=True)
    error.__cause__, error.__suppress_context__ = KeyError("mine"), False
    error.add_note("a note")
    whole = error.with_context(COMMAND, ATTEMPTS, "an-id")
    whole.add_note("another")
    assert (error.command, error.attempts, error.request_id, error.__notes__) == (None, (), None, ["a note"])
    assert (whole.command, whole.attempts, whole.request_id) == (COMMAND, ATTEMPTS, "an-id")
    assert (type(whole), whole.is_final, whole.__notes__) == (OutcomeUnknownError, True, ["a note", "another"])
    assert (whole.__cause__, whole.__suppress_context__) == (error.__cause__, False)


def test_throttled_error_pickles_retry_time() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    twin = pickle.loads(pickle.dumps(ThrottledError("slow", retry_after=5.0, retry_at=at)))
    assert (twin.status, twin.code, twin.message, twin.retry_after, twin.retry_at) == (429, None, "slow", 5.0, at)


@pytest.mark.parametrize("form", ["json", "xml"])
async def test_call_error_pickles_whole(form: Any) -> None:
    body = (
        '{"error": 400, "error_text": "плохо"}'
        if form == "json"
        else "<xml><error>400</error><error_text>плохо</error_text></xml>"
    )
    async with (
        Listener(http(200, body)) as listener,
        AltcraftClient(listener.url, "t", wire=form, **once()) as altcraft,
    ):
        error = await failure(altcraft.perform(COMMAND))
    twin = pickle.loads(pickle.dumps(error))
    assert isinstance(twin, errors.IncorrectRequestError)
    assert (twin.status, twin.code, twin.message) == (200, 400, "плохо")
    assert twin.request_id == listener.requests[0].headers["Request-ID"]
    assert twin.command == COMMAND
    assert twin.attempts == error.attempts
    assert [attempt.result for attempt in twin.attempts] == ["HTTP 200"]


HOSTILE = [
    "one\ntwo\r\nthree",
    "x" * 10_000,
    "\x1b[2J\x1b]0;title\x07",
    "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg",
    "\u202egpj",
    "\x00\x7f\x9b",
    "",
]


def tidy(text: str) -> None:
    lines = text.split("\n")
    assert len(text.splitlines()) == len(lines) <= 2
    assert all(line.isprintable() for line in lines)
    assert len(text) < 1500


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("error_type", [error_type for error_type in KINDS if error_type is not DispatchkitError])
def test_error_is_two_lines(error_type: type[DispatchkitError], text: str) -> None:
    error = made(error_type, text, command=StartDispatch(3), attempts=ATTEMPTS)
    tidy(str(error))
    tidy(repr(error))
    assert str(error).startswith(f"StartDispatch(dispatch_id=3): {error_type.state.value.replace('_', ' ')}: ")
    if isinstance(error, RejectedError):
        assert error.message == text
        assert "(code 4031, HTTP 403)" in str(error)


@given(text=st.text(LETTERS))
def test_no_text_breaks_error(text: str) -> None:
    for kind in REFUSALS:
        tidy(str(made(kind, text)))


def test_endless_code_is_cut() -> None:
    tidy(str(RejectedError("no", status=403, code=10**4000)))


def test_invalid_command_is_shown_safely() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "a\nb\x1b[2J" + "c" * 10_000

    tidy(str(NotSentError("no", command=Odd())))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_refusal_is_two_lines(text: str) -> None:
    answer = http(403, {"error": {"code": 4031, "msg": text}})
    async with Listener(answer) as listener, DirectClient("a-token", base_url=listener.url, **once()) as direct:
        error = await failure(direct.start(3))
    assert isinstance(error, RejectedError)
    assert error.message == text
    tidy(str(error))


@pytest.mark.parametrize("host", ["127.0.0.1:1", "[::1]:1", "no-such-host.invalid"])
async def test_closed_port_is_not_sent(host: str) -> None:
    async with DirectClient("t", base_url=f"http://{host}", insecure=True, **once()) as direct:
        error = await failure(direct.start(3))
    assert type(error) is NotSentError
    assert [attempt.sent for attempt in error.attempts] == [False]
    assert error.command == StartDispatch(3)
    tidy(str(error))

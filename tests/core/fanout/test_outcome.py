"""The four outcomes as values."""

from __future__ import annotations

import pickle
import sys
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

import dispatchkit
from dispatchkit import (
    ActivateMailing,
    DeactivateMailing,
    Done,
    LaunchBroadcast,
    NotSent,
    NotSentError,
    Outcome,
    OutcomeUnknownError,
    Rejected,
    RejectedError,
    StartDispatch,
    State,
    StopDispatch,
    ThrottledError,
    Unknown,
)
from dispatchkit.altcraft.reads import ReadLog, ReadStatus
from dispatchkit.core.fanout.outcome import failed
from dispatchkit.direct.commands import ReadDispatch, ReadDispatches
from dispatchkit.direct.models import StartedDispatch
from dispatchkit.errors import Attempt, DispatchkitError, ResponseLostError
from tests.harness import played

ATTEMPTS = (Attempt(1, datetime(2026, 1, 31, tzinfo=UTC), 0.5, "HTTP 400", sent=True),)
COMMAND = StartDispatch(7)
ERRORS = [
    (RejectedError("no", status=400, code=1, attempts=ATTEMPTS, request_id="r"), Rejected, State.REJECTED),
    (ThrottledError("slow", attempts=ATTEMPTS, request_id="r"), Rejected, State.REJECTED),
    (NotSentError("down", attempts=ATTEMPTS, request_id="r"), NotSent, State.NOT_SENT),
    (OutcomeUnknownError("lost", attempts=ATTEMPTS, request_id="r"), Unknown, State.UNKNOWN),
    (ResponseLostError("lost", attempts=ATTEMPTS, request_id="r"), Unknown, State.UNKNOWN),
]


@pytest.mark.parametrize(("error", "cls", "state"), ERRORS, ids=lambda value: getattr(value, "__name__", ""))
def test_error_becomes_its_outcome(error: DispatchkitError, cls: type, state: State) -> None:
    outcome = failed(3, COMMAND, error)
    assert type(outcome) is cls
    assert (outcome.state, outcome.index, outcome.target, outcome.command) == (state, 3, 7, COMMAND)
    assert (outcome.error, outcome.attempts, outcome.request_id) == (error, ATTEMPTS, "r")
    assert not hasattr(outcome, "result")


def test_other_error_is_no_outcome() -> None:
    with pytest.raises(TypeError, match="DispatchkitError stands for no outcome"):
        failed(0, COMMAND, DispatchkitError("neither"))


def test_done_has_a_result() -> None:
    outcome = Done(3, COMMAND, StartedDispatch(7), ATTEMPTS, "r")
    assert (outcome.state, outcome.error, outcome.target, outcome.result.dispatch_id) == (State.DONE, None, 7, 7)
    assert (outcome.attempts, outcome.request_id) == (ATTEMPTS, "r")


def test_positional_patterns_take_the_payload() -> None:
    found: list[object] = []
    for outcome in (Done(0, COMMAND, "result"), *(failed(0, COMMAND, error) for error, _, _ in ERRORS)):
        match outcome:
            case Done(payload) | Rejected(payload) | NotSent(payload) | Unknown(payload):
                found.append(payload)
    assert found == ["result", *(error for error, _, _ in ERRORS)]


def test_outcomes_pickle() -> None:
    done = Done(3, COMMAND, StartedDispatch(7), ATTEMPTS, "r")
    copy = pickle.loads(pickle.dumps(done))
    assert copy == done
    assert hash(copy) == hash(done)
    for error, cls, state in ERRORS:
        copy = pickle.loads(pickle.dumps(failed(3, COMMAND, error)))
        assert (type(copy), copy.state, copy.command, copy.attempts) == (cls, state, COMMAND, ATTEMPTS)
        assert (type(copy.error), str(copy.error)) == (type(error), str(error))


def test_outcomes_compare_by_value() -> None:
    error = NotSentError("down")
    assert Done(0, COMMAND, 1) == Done(0, COMMAND, 1) != Done(1, COMMAND, 1)
    assert failed(0, COMMAND, error) == failed(0, COMMAND, error) != failed(0, StopDispatch(7), error)
    assert len({failed(0, COMMAND, error), failed(0, COMMAND, error)}) == 1


def test_outcomes_are_small_and_frozen() -> None:
    done: Any = Done(3, COMMAND, None)
    for outcome in (done, failed(3, COMMAND, ERRORS[0][0])):
        assert not hasattr(outcome, "__dict__")
        assert sys.getsizeof(outcome) <= 88
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        done.index = 1


def test_outcome_is_alias_with_parameter() -> None:
    alias: Any = Outcome
    assert alias[StartedDispatch].__args__ == (Done[StartedDispatch], Rejected, NotSent, Unknown)
    assert dispatchkit.sync.Outcome is Outcome


@pytest.mark.parametrize(
    "command",
    [
        StartDispatch(7),
        StopDispatch(7),
        ReadDispatch(7),
        ReadDispatches(dispatch_id=7),
        ActivateMailing(7),
        LaunchBroadcast(7),
        DeactivateMailing(7),
        ReadStatus(7),
        ReadLog(7),
    ],
    ids=lambda command: type(command).__name__,
)
def test_target_is_id_of_command(command: Any) -> None:
    assert command.target == 7
    assert Done(0, command, None).target == 7


async def test_no_id_no_target() -> None:
    assert ReadDispatches().target is None
    client, _ = played()
    [outcome] = [outcome async for outcome in client.start_many([-7])]
    assert isinstance(outcome, NotSent)
    assert outcome.target is None

"""The factories make outcomes that look like those of real calls."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from dispatchkit import (
    ActivateMailing,
    AuthenticationError,
    Done,
    MailingAccepted,
    NotFoundError,
    Outcome,
    RejectedError,
    State,
    ThrottledError,
    testing,
)
from dispatchkit.errors import BadCredentialsError
from dispatchkit.testing import outcomes
from tests.schema import fits

ALL: dict[State, Callable[..., Outcome[object]]] = {
    State.DONE: outcomes.done,
    State.REJECTED: outcomes.rejected,
    State.NOT_SENT: outcomes.not_sent,
    State.UNKNOWN: outcomes.unknown,
}


@pytest.mark.parametrize("state", State)
def test_outcomes_look_real(state: State) -> None:
    outcome: Outcome[object] = ALL[state](9, index=3)
    assert (outcome.state, outcome.target, outcome.index) == (state, 9, 3)
    assert [attempt.sent for attempt in outcome.attempts] == [state is not State.NOT_SENT]
    fits(outcome.to_dict(), "Outcome")
    fits(outcome.to_dict(flat=True), "OutcomeRow")
    if outcome.error is not None:
        assert outcome.error.command == outcome.command
        assert pickle.loads(pickle.dumps(outcome.error)).target == 9


@pytest.mark.parametrize("state", State)
def test_commands_can_be_given(state: State) -> None:
    command, result = ActivateMailing(82), MailingAccepted(82)
    outcome: Outcome[object]
    if state is State.DONE:
        outcome = outcomes.done(command=command, result=result)
        assert isinstance(outcome, Done)
        assert outcome.result is result
    else:
        outcome = ALL[state](command=command)
    assert (outcome.target, outcome.command) == (82, command)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(NotFoundError, 404, 4040), (BadCredentialsError, 401, 4012), (AuthenticationError, 400, None)],
)
def test_refusals_get_codes(error: type[RejectedError], status: int, code: int | None) -> None:
    made = outcomes.rejected(error=error).error
    assert (type(made), made.status, made.code) == (error, status, code)


def test_errors_can_be_given() -> None:
    error = ThrottledError("slower", retry_after=5)
    eight, nine = outcomes.rejected(8, error=error).error, outcomes.rejected(9, error=error).error
    assert (eight.target, nine.target, error.target) == (8, 9, None)
    assert isinstance(eight, ThrottledError)
    assert eight.retry_after == 5
    assert outcomes.not_sent(summary="no route").error.summary == "no route"
    assert outcomes.unknown(is_final=True).error.is_final


def test_missing_names_are_told() -> None:
    with pytest.raises(AttributeError, match=r"module 'dispatchkit\.testing' has no attribute 'nothing'"):
        testing.nothing  # noqa: B018

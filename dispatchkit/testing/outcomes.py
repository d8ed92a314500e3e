"""Outcomes and errors of each kind, made without a client: for tests of what a program does with them.

Each function returns an outcome of `dispatchkit.StartDispatch`, or of the ``command`` that is given. It looks like one
of a real call: it has an attempt, and its error has the command. To have a mock raise the error, take it from the
outcome::

    direct.start.side_effect = outcomes.unknown(7).error
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Never, TypeVar, overload

from dispatchkit.core.fanout.outcome import Done, NotSent, Rejected, Unknown
from dispatchkit.direct.commands import StartDispatch
from dispatchkit.direct.models import StartedDispatch
from dispatchkit.errors import (
    AccessDeniedError,
    Attempt,
    BadCredentialsError,
    InappropriateStatusError,
    NotFoundError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    ThrottledError,
)
from dispatchkit.testing.clock import START

if TYPE_CHECKING:
    from dispatchkit.core.command import Command

__all__ = ["done", "not_sent", "rejected", "unknown"]

R = TypeVar("R")

_REFUSALS: dict[type[RejectedError], tuple[str, int, int | None]] = {
    BadCredentialsError: ("Bad credentials", 401, 4012),
    AccessDeniedError: ("Access denied", 403, 4030),
    InappropriateStatusError: ("Inappropriate dispatch status", 403, 4031),
    NotFoundError: ("Dispatch not found", 404, 4040),
    ThrottledError: ("Too Many Requests", 429, None),
}
"""Message, status and code of the refusals of i-Digital Direct."""


@overload
def done(target: int = 7, *, index: int = 0) -> Done[StartedDispatch]: ...


@overload
def done(target: int = 7, *, command: Command[Never, R], result: R, index: int = 0) -> Done[R]: ...


def done(
    target: int = 7, *, command: Command[Never, object] | None = None, result: object = None, index: int = 0
) -> Done[object]:
    """Make a `Done`, by default of a dispatch that was started at the first attempt.

    Args:
        target: The dispatch. With a ``command``, its own target counts.
        command: The command; give its ``result`` too.
        result: The result of the command.
        index: The place in the list.

    >>> done(8).result
    StartedDispatch(dispatch_id=8, settled=False)
    """
    if command is None:
        command, result = StartDispatch(target), StartedDispatch(target)
    return Done(index, command, result, (_attempt("HTTP 200", sent=True),))


def rejected(
    target: int = 7,
    *,
    error: RejectedError | type[RejectedError] = InappropriateStatusError,
    command: Command[Never, object] | None = None,
    index: int = 0,
) -> Rejected:
    """Make a `Rejected`, by default for the status of the dispatch.

    Args:
        target: The dispatch. With a ``command``, its own target counts.
        error: The refusal, or its class, such as `NotFoundError`. A class gets the provider's status and code.
        command: The command.
        index: The place in the list.

    >>> rejected(error=NotFoundError).error.code
    4040
    """
    if isinstance(error, type):
        message, status, code = _REFUSALS.get(error, ("Refused", 400, None))
        error = error(message, status=status, code=code)
    command = StartDispatch(target) if command is None else command
    attempts = (_attempt(f"HTTP {error.status}", sent=True),)
    return Rejected(index, command, error.with_context(command, attempts, None))


def not_sent(
    target: int = 7,
    *,
    summary: str = "connection refused",
    command: Command[Never, object] | None = None,
    index: int = 0,
) -> NotSent:
    """Make a `NotSent`, by default for a refused connection.

    Args:
        target: The dispatch. With a ``command``, its own target counts.
        summary: What happened.
        command: The command.
        index: The place in the list.

    >>> not_sent().error.attempts[0].sent
    False
    """
    command = StartDispatch(target) if command is None else command
    error = NotSentError(summary).with_context(command, (_attempt(summary, sent=False),), None)
    return NotSent(index, command, error)


def unknown(
    target: int = 7,
    *,
    summary: str = "no answer within 70 s",
    is_final: bool = False,
    command: Command[Never, object] | None = None,
    index: int = 0,
) -> Unknown:
    """Make an `Unknown`, by default for an answer that did not come.

    Args:
        target: The dispatch. With a ``command``, its own target counts.
        summary: What happened.
        is_final: Whether nothing can settle it.
        command: The command.
        index: The place in the list.

    >>> unknown(9).error.target
    9
    """
    command = StartDispatch(target) if command is None else command
    error = OutcomeUnknownError(summary, is_final=is_final)
    return Unknown(index, command, error.with_context(command, (_attempt(summary, sent=True),), None))


def _attempt(result: str, *, sent: bool) -> Attempt:
    return Attempt(1, START, 0.05, result, sent)

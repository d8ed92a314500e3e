"""What an attempt means for the call: its result, or the error that says which outcome it is."""

from __future__ import annotations

from datetime import timedelta
from typing import Never, TypeVar

from dispatchkit.core.clock import Clock
from dispatchkit.core.command import Answer, Command, UnreadableAnswerError
from dispatchkit.core.retry import retry_after
from dispatchkit.core.transport import Failure
from dispatchkit.errors import (
    AnswerLostError,
    DispatchkitError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    ThrottledError,
)

__all__ = ["judge", "unknown"]

R = TypeVar("R")
W = TypeVar("W")


def judge(command: Command[W, R], reply: Answer | Failure, wire: W, clock: Clock) -> R | DispatchkitError:
    """Judge one attempt.

    The provider's own body is asked first, then HTTP. Two kinds of HTTP status outrank the body: a server that failed
    (5xx) cannot vouch for what it did before it failed, and 429 is a refusal in any words.
    """
    if isinstance(reply, Failure):
        return unknown(command, reply.what) if reply.sent else NotSentError(reply.what)
    if reply.status >= 500:
        return unknown(command, f"the server failed (HTTP {reply.status})")
    try:
        return command.result(reply, wire)
    except RejectedError as refusal:
        if reply.status != 429:
            # The frames below hold the answer.
            return refusal.with_traceback(None)
        message, code = refusal.message, refusal.code
    except UnreadableAnswerError as unreadable:
        if reply.status != 429:
            return unknown(command, f"this is no answer of the provider: HTTP {reply.status}, {unreadable}")
        message, code = "too many requests", None
    now = clock.now()
    wait = retry_after(reply.headers, now)
    until = None if wait is None else now + timedelta(seconds=wait)
    return ThrottledError(message, code=code, retry_after=wait, retry_at=until)


def unknown(command: Command[Never, object], what: str) -> OutcomeUnknownError:
    """The error of a command whose answer was lost: a read did nothing, whatever became of it."""
    return AnswerLostError(what) if command.reads else OutcomeUnknownError(what)

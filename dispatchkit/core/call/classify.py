"""Classify the reply to an attempt: a result or an error, and perhaps a pause of the account."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Never, TypeVar

from dispatchkit.core.call.echo import mask_echo
from dispatchkit.core.call.retry import RetryPolicy, asked_wait, retry_after
from dispatchkit.core.clock import Clock
from dispatchkit.core.command import (
    Command,
    ContradictoryAnswerError,
    Response,
    UnexpectedResponseError,
    means_refusal,
)
from dispatchkit.core.durations import moment_after
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.errors import (
    DispatchkitError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    ResponseLostError,
    ThrottledError,
)

__all__ = ["classify", "pause_after", "paused_by", "unknown"]

R = TypeVar("R")
W = TypeVar("W")


def classify(command: Command[W, R], reply: Response | TransportFailure, wire: W, clock: Clock) -> R | DispatchkitError:
    """Classify the reply to one attempt.

    For HTTP 200 (or `Command.success_statuses`) and most 4xx, the provider's body decides. Every other status outranks
    the body: a server failure (5xx), a dropped request (408, 499) and a redirect prove nothing. HTTP 429 is a refusal,
    unless the body holds a success.
    """
    if isinstance(reply, TransportFailure):
        return unknown(command, reply.what) if reply.sent else NotSentError(reply.what)
    if reply.status != 200 and (doubt := _doubt(command, reply.status)) is not None:
        return unknown(command, doubt)
    try:
        if reply.undecoded is not None:
            raise UnexpectedResponseError(reply.undecoded)
        return command.result(reply, wire)
    except asyncio.CancelledError:
        # This code awaits nothing, so the command's own code has raised it.
        return unknown(command, f"this answer cannot be read: HTTP {reply.status}, CancelledError was raised")
    except RejectedError as refusal:
        if reply.status != 429:
            if isinstance(refusal, ThrottledError):  # of a provider's own code, which may ask for any wait
                refusal.retry_after = asked_wait(refusal.retry_after, clock.now())
            # The locals of the traceback hold the answer.
            return refusal.with_message(mask_echo(refusal.message, command)).with_traceback(None)
        message, code = mask_echo(refusal.message, command), refusal.code
    except ContradictoryAnswerError as contradiction:
        text = mask_echo(str(contradiction), command)
        return unknown(command, f"the answer proves nothing: HTTP {reply.status}, {text}")
    except UnexpectedResponseError as unreadable:
        if reply.status != 429:
            text = mask_echo(str(unreadable), command)
            return unknown(command, f"this is no answer of the provider: HTTP {reply.status}, {text}")
        message, code = "too many requests", None
    now = clock.now()
    wait = retry_after(reply.headers, now)
    until = None if wait is None else moment_after(now, wait)
    return ThrottledError(message, code=code, retry_after=wait, retry_at=until)


def _doubt(command: Command[W, R], status: int) -> str | None:
    """Why an HTTP status proves nothing; None if the body decides."""
    if status >= 500:
        return f"the server failed (HTTP {status})"
    if status == 407:
        return (
            "a proxy on the way, not the provider, demands credentials (HTTP 407): give them in "
            "proxy='http://user:password@host:port'"
        )
    if status >= 400:
        return None if means_refusal(status) else f"the request was given up on the way (HTTP {status})"
    if 200 <= status < 300 and status in command.success_statuses:
        return None
    return f"this is no answer of the provider: HTTP {status}"


def pause_after(
    attempt_outcome: DispatchkitError,
    reply: Response | TransportFailure,
    *,
    policy: RetryPolicy,
    now: Callable[[], datetime],
) -> float | None:
    """Seconds for which the account pauses after a reply; None if the provider asks for no pause."""
    if isinstance(attempt_outcome, ThrottledError):
        return policy.pause(attempt_outcome) if attempt_outcome.retry_after is None else attempt_outcome.retry_after
    if isinstance(attempt_outcome, OutcomeUnknownError) and isinstance(reply, Response):
        # A failed server cannot say what it did, but it can say when to retry.
        return retry_after(reply.headers, now()) or None
    return None


def paused_by(reply: Response | TransportFailure) -> str:
    """What asked for the pause: the ``Retry-After`` header or the status itself."""
    return "Retry-After" if isinstance(reply, Response) and "Retry-After" in reply.headers else "HTTP 429"


def unknown(command: Command[Never, object], what: str) -> OutcomeUnknownError:
    """The error of a command whose answer was lost."""
    return ResponseLostError(what) if command.is_read_only else OutcomeUnknownError(what)

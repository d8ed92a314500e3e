"""A call: one command on its way to its outcome."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import Generic, TypeVar

from dispatchkit.core.command import Answer, Command, Request, UnreadableAnswerError
from dispatchkit.core.transport import Failure, Transport
from dispatchkit.errors import (
    Attempt,
    DispatchkitError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    ThrottledError,
)

__all__ = ["Call"]

R = TypeVar("R")
W = TypeVar("W")


class Call(Generic[W, R]):
    """One command on its way: what was tried so far, and what came of it.

    Made by `Client.call`. It outlives its own cancellation, so whoever holds it can still read `attempts`.
    """

    __slots__ = ("_attempt_timeout", "_timeout", "_transport", "_wire", "attempts", "command", "request", "request_id")

    def __init__(
        self,
        command: Command[W, R],
        wire: W,
        transport: Transport,
        *,
        timeout: float,
        attempt_timeout: float,
    ) -> None:
        self.command = command
        self.request_id = str(uuid.uuid4()) if command.identified else None
        self.request = _request(command, wire, self.request_id)
        self.attempts: tuple[Attempt, ...] = ()
        self._wire = wire
        self._transport = transport
        self._timeout = timeout
        self._attempt_timeout = attempt_timeout

    async def run(self) -> R:
        """Perform the command. See `Client.perform`."""
        started, clock = datetime.now(UTC), time.monotonic()
        reply = await self._transport.send(self.request, timeout=min(self._timeout, self._attempt_timeout))
        verdict = judge(self.command, reply, self._wire)
        sent = not isinstance(reply, Failure) or reply.sent
        what = reply.what if isinstance(reply, Failure) else f"HTTP {reply.status}"
        self.attempts += (Attempt(len(self.attempts) + 1, started, time.monotonic() - clock, what, sent),)
        if isinstance(verdict, DispatchkitError):
            raise verdict.of(self.command, self.attempts, self.request_id)
        return verdict


def _request(command: Command[W, R], wire: W, request_id: str | None) -> Request:
    try:
        return command.request(wire, request_id)
    except (TypeError, ValueError) as error:
        # The frames below this one hold the body.
        mistake = error.with_traceback(None)
    raise mistake


def judge(command: Command[W, R], reply: Answer | Failure, wire: W) -> R | DispatchkitError:
    """What an attempt means for the call: its result, or the error that says which outcome it is."""
    if isinstance(reply, Failure):
        return OutcomeUnknownError(reply.what) if reply.sent else NotSentError(reply.what)
    if reply.status >= 500:
        # Whatever its body says: a server that failed cannot vouch for what it did before.
        return OutcomeUnknownError(f"the server failed (HTTP {reply.status})")
    try:
        return command.result(reply, wire)
    except RejectedError as refusal:
        if reply.status != 429:
            return refusal.with_traceback(None)
        return ThrottledError(refusal.message, status=429, code=refusal.code)
    except UnreadableAnswerError as unreadable:
        if reply.status == 429:
            return ThrottledError("too many requests", status=429, code=None)
        return OutcomeUnknownError(f"this is no answer of the provider: HTTP {reply.status}, {unreadable}")

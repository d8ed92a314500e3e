"""What bounds a call while it waits: its deadline, a stop, the account's pace, and the ledger's claims."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Generic, TypeVar

from dispatchkit.core.call.context import ClientContext
from dispatchkit.core.call.gate import Gate
from dispatchkit.core.command import Command
from dispatchkit.core.log import log, logger
from dispatchkit.errors import Attempt, DispatchkitError, State

__all__ = ["BoundedCall"]

R = TypeVar("R")
W = TypeVar("W")


class BoundedCall(Generic[W, R]):
    """The part of a `Call` that decides when a request may start."""

    __slots__ = (
        "_permit",
        "_timeout",
        "attempts",
        "command",
        "context",
        "deadline",
        "gate",
        "request_id",
        "stop",
    )

    def __init__(
        self, command: Command[W, R], context: ClientContext[W], request_id: str | None, *, timeout: float
    ) -> None:
        self.command = command
        self.context = context
        self.request_id = request_id
        self._timeout = timeout
        self.deadline = 0.0
        """On the clock's ``monotonic``."""
        self.attempts: tuple[Attempt, ...] = ()
        self.stop = context.stop
        """Tells to start no further attempt. A fan-out's call has the one of its run."""
        self.gate: Gate = context.gate
        """Says when an attempt may start. A fan-out's call has one of its run."""
        self._permit = 0
        """The pacer's permit of the attempt in flight; 0 if there is none."""

    @property
    def is_over(self) -> bool:
        """Whether no further attempt may start."""
        return self.stop.is_set or self.context.stop.is_set

    @property
    def latest_start(self) -> float:
        """The latest start of a request, on the clock's ``monotonic``.

        It is before the deadline: a request that the deadline cuts short has an unclear outcome.
        """
        return self.deadline - min(1.0, self._timeout / 10)

    def _obstacle(self) -> str:
        """Why no attempt may start."""
        if self.is_over:
            return "it was told to stop"
        if obstacle := self.gate.obstacle():
            return obstacle
        if not self.context.pacer.paused_for():
            return "the pace of the account left no time for it before the deadline"
        return self._pause()

    def _pause(self) -> str:
        """A description of a pause that lasts beyond the deadline."""
        pacer = self.context.pacer
        until = self.context.clock.now() + timedelta(seconds=pacer.paused_for())
        why = "the account is paused" if pacer.throttled_for() else "nothing starts, since most attempts got no answer,"
        return f"{why} until {until:%Y-%m-%d %H:%M:%S} UTC, beyond the deadline{self._latest_failure()}"

    def _latest_failure(self) -> str:
        """The result of the latest attempt, as a suffix for an error's summary."""
        latest = next((attempt.result for attempt in reversed(self.attempts) if attempt.result != "cancelled"), "")
        return latest and f"; its latest attempt: {latest}"

    def _log(self, level: int, text: str, *, error: DispatchkitError | None = None, delay: float | None = None) -> None:
        log(
            logger,
            level,
            "%r: %s",
            self.command,
            text,
            extra=lambda: {
                "command": repr(self.command),
                "request_id": self.request_id,
                "attempt": len(self.attempts),
                "outcome": None if error is None else error.state.value,
                "delay": delay,
            },
        )

    def _log_end(self, text: str, error: DispatchkitError) -> None:
        self._log(logging.WARNING if error.state is State.UNKNOWN else logging.INFO, text, error=error)

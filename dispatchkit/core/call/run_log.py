"""`RunLog`: keeps the log of a fan-out short, however many of its calls fail in the same way."""

from __future__ import annotations

import contextlib
import logging
import math
from collections import Counter

from dispatchkit.core.clock import Clock
from dispatchkit.core.log import log, logger
from dispatchkit.errors import DispatchkitError, State

__all__ = ["RunLog"]

FIRST = 10
"""Records of one kind that a run logs at INFO. Further ones are logged at DEBUG, and counted."""
INTERVAL = 60.0
"""Seconds between two counts."""


class RunLog:
    """The log of one fan-out.

    A warning is never left out: it is about an outcome that a person has to look at.

    Args:
        name: The name of the run; None without a ledger.
        clock: The source of time.
    """

    __slots__ = ("_clock", "_counted_at", "_kinds", "_more", "name")

    def __init__(self, name: str | None, clock: Clock) -> None:
        self.name = name
        self._clock = clock
        self._kinds: Counter[str] = Counter()
        self._more: Counter[str] = Counter()
        self._counted_at = -math.inf

    def level(self, kind: str) -> int:
        """The level of a record at INFO: DEBUG if the run has logged enough of its kind.

        Args:
            kind: What the record is about, such as ``"rejected (NotFoundError)"``.
        """
        if not logger.isEnabledFor(logging.INFO):
            return logging.INFO
        self._kinds[kind] += 1
        if self._kinds[kind] <= FIRST:
            return logging.INFO
        self._more[kind] += 1
        with contextlib.suppress(Exception):  # the clock itself may fail
            now = self._clock.monotonic()
            if self._counted_at == -math.inf:
                self._counted_at = now
                self._log("more calls end like these: each is logged at DEBUG, and counted every %.0f s", INTERVAL)
            elif now - self._counted_at >= INTERVAL:
                self._counted_at = now
                self.count()
        return logging.DEBUG

    def log_unsendable(self, index: int, command: object, error: DispatchkitError) -> None:
        """Log the outcome of a command that has no call: it could not be built, or there was no token."""
        kind = f"{error.state.value} ({type(error).__name__})"
        level = logging.WARNING if error.state is State.UNKNOWN else self.level(kind)
        run = "" if self.name is None else f" (run {self.name!r})"
        log(
            logger,
            level,
            "%r%s: %s",
            command,
            run,
            error.summary,
            extra=lambda: {
                "command": repr(command),
                "run": self.name,
                "index": index,
                "request_id": None,
                "attempt": 0,
                "outcome": error.state.value,
                "delay": None,
            },
        )

    def count(self) -> None:
        """Log how many records were left out since the last count, if any were. The end of the run calls it, too."""
        if self._more:
            self._log("also: %s", ", ".join(f"{count:,} {kind}" for kind, count in self._more.most_common()))
            self._more.clear()

    def _log(self, text: str, *args: object) -> None:
        prefix = "" if self.name is None else f"run {self.name!r}: "
        log(logger, logging.INFO, f"%s{text}", prefix, *args, extra=lambda: {"run": self.name, "index": None})

"""The guards that end a run before its last command, and the reason why it ended."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Literal, TypeAlias

import attrs

from dispatchkit.core.log import log, logger
from dispatchkit.core.validators import int_in_range, seconds
from dispatchkit.errors import AuthenticationError, DispatchkitError, RejectedError, ThrottledError
from dispatchkit.values import Value

__all__ = ["Guards", "StopKind", "StopReason", "refuses_all"]

StopKind: TypeAlias = Literal[
    "stopped",
    "stopped_elsewhere",
    "max_launches",
    "stop_after_failures",
    "gave_up",
    "canary",
    "window",
    "refused",
    "failed",
]
"""The kinds of an early end:

- ``"stopped"``: `FanOut.stop` or `FanOut.close`.
- ``"stopped_elsewhere"``: the run was stopped in its ledger, or another process has taken it over.
- ``"max_launches"``: as many commands were started as allowed, and there may be more.
- ``"stop_after_failures"``: this number of outcomes were not done.
- ``"gave_up"``: the provider answered neither an attempt nor a state read for ``give_up_after`` seconds.
- ``"canary"``: one of the first ``canary`` targets is not done, or was not seen to go out.
- ``"window"``: the end of the ``window`` has come.
- ``"refused"``: the provider refused the token or the account.
- ``"failed"``: the iterator of commands or the ledger raised, or a worker was cancelled.
"""

_WARNED: frozenset[StopKind] = frozenset({"stop_after_failures", "gave_up", "canary", "window", "refused"})


@attrs.frozen
class StopReason(Value):
    """Why a run ended before its last command. ``str()`` says it in a few words.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     fan_out = direct.start_many(range(1, 101), max_launches=10)
        ...     report = await fan_out.finish()
        ...     fan_out.stop_reason.kind
        'max_launches'
    """

    kind: StopKind
    """The kind of the end; see `StopKind`."""
    text: str
    """The same in words, such as ``"3 failures (stop_after_failures=3)"``."""
    in_flight: int = 0
    """The number of other calls that were under way then."""
    silent_since: datetime | None = None
    """UTC time of the provider's last answer to an attempt of the run. Without an answer, it is the run's start. None
    unless the run gave up."""

    def __str__(self) -> str:
        return self.text


class Guards:
    """The guards of one run, and the reason why it ended, once it did.

    Raises:
        TypeError: A guard is of another type.
        ValueError: A guard is out of range.
    """

    __slots__ = ("_run", "give_up_after", "max_launches", "reason", "stop_after_failures")

    def __init__(
        self,
        *,
        max_launches: int | None,
        stop_after_failures: int | None,
        give_up_after: float | None,
        run: str | None = None,
    ) -> None:
        self._run = run
        for name, value in (("max_launches", max_launches), ("stop_after_failures", stop_after_failures)):
            if value is not None:
                int_in_range(name, value, minimum=1)
        self.max_launches = max_launches
        self.stop_after_failures = stop_after_failures
        self.give_up_after = None if give_up_after is None else seconds("give_up_after", give_up_after)
        self.reason: StopReason | None = None

    def explain(self, kind: StopKind, text: str, *, in_flight: int, silent_since: datetime | None = None) -> None:
        """Record and log why the run ends. The first reason stays."""
        if self.reason is None:
            self.reason = StopReason(kind, text, in_flight, silent_since)
            level = logging.WARNING if kind in _WARNED else logging.INFO
            named = "" if self._run is None else f"{self._run!r} "
            extra = {"run": self._run, "index": None}
            log(logger, level, "the run %sends early: %s; %d in flight", named, text, in_flight, extra=lambda: extra)


def refuses_all(error: DispatchkitError, *, is_first: bool) -> bool:
    """Whether an error would meet every other command of the run, too.

    Args:
        error: The error of one command.
        is_first: Whether it is the provider's first answer. A later refusal of the account may concern the target
            only.
    """
    if not isinstance(error, RejectedError) or error.concerns_target:
        return False
    return isinstance(error, AuthenticationError) or (is_first and not isinstance(error, ThrottledError))

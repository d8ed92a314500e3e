"""The outcomes of a fan-out's commands: one class for each, and the report that counts them."""

from __future__ import annotations

from typing import ClassVar, Generic, Literal, Never, TypeAlias, TypeVar

import attrs

from dispatchkit.core.command import Command
from dispatchkit.core.reprs import html_table
from dispatchkit.errors import (
    Attempt,
    DispatchkitError,
    NotSentError,
    OutcomeUnknownError,
    RejectedError,
    State,
)
from dispatchkit.values import SHOWN, OutcomeValue, Value

__all__ = ["Done", "NotSent", "Outcome", "Rejected", "Report", "Unknown", "failed"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@attrs.frozen(match_args=False)
class _Outcome(OutcomeValue):
    """The fields that the four outcomes have in common."""

    index: int
    """The command's place in the input, from 0."""
    command: Command[Never, object]
    """The command that was performed."""

    @property
    def target(self) -> int | None:
        """The id that the command acts on; None if the command could not be built, or has no id."""
        return self.command.target


@attrs.frozen(match_args=False)
class Done(_Outcome, Generic[R_co]):
    """The provider said yes, or its state shows that the command had its effect.

    Only this outcome has a ``result``. Its ``error`` is always None.

    >>> from dispatchkit import StartDispatch
    >>> from dispatchkit.direct.models import StartedDispatch
    >>> outcome: Outcome[StartedDispatch] = Done(0, StartDispatch(7), StartedDispatch(7))
    >>> match outcome:
    ...     case Done(started):
    ...         print(outcome.target, started.settled)
    ...     case Rejected(error) | NotSent(error) | Unknown(error):
    ...         print(outcome.target, error)
    7 False
    """

    __match_args__: ClassVar = ("result",)
    state: ClassVar[Literal[State.DONE]] = State.DONE
    error: ClassVar[None] = None

    result: R_co
    """The result of the call, as the client's single call returns it."""
    attempts: tuple[Attempt, ...] = ()
    """Every attempt: when it began, its result, its duration."""
    request_id: str | None = None
    """The id by which the provider deduplicates the call; None where the provider has none."""


@attrs.frozen(match_args=False)
class _Failed(_Outcome):
    """The fields that the three outcomes other than done have in common."""

    error: DispatchkitError

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every attempt: when it began, its result, its duration."""
        return self.error.attempts

    @property
    def request_id(self) -> str | None:
        """The id by which the provider deduplicates the call; None where the provider has none."""
        return self.error.request_id


@attrs.frozen(match_args=False)
class Rejected(_Failed):
    """The provider said no and did nothing.

    >>> from dispatchkit import RejectedError, StartDispatch
    >>> outcome = Rejected(0, StartDispatch(7), RejectedError("No such dispatch", status=404, code=4040))
    >>> outcome.target, outcome.state.value, outcome.error.code
    (7, 'rejected', 4040)
    """

    __match_args__: ClassVar = ("error",)
    state: ClassVar[Literal[State.REJECTED]] = State.REJECTED

    error: RejectedError
    """The refusal: status, code and message of the provider."""


@attrs.frozen(match_args=False)
class NotSent(_Failed):
    """Not one byte of the request left this process: the command is safe to repeat.

    Example:
        >>> outcome = NotSent(0, StartDispatch(7), NotSentError("connection refused"))
        >>> outcome.target, outcome.state.value, outcome.error.summary
        (7, 'not_sent', 'connection refused')
    """

    __match_args__: ClassVar = ("error",)
    state: ClassVar[Literal[State.NOT_SENT]] = State.NOT_SENT

    error: NotSentError
    """The cause, such as a refused connection."""


@attrs.frozen(match_args=False)
class Unknown(_Failed):
    """The command may have had its effect, and the provider's state could not settle it.

    Example:
        >>> outcome = Unknown(0, StartDispatch(7), OutcomeUnknownError("no answer within 70 s"))
        >>> outcome.target, outcome.state.value, outcome.error.summary
        (7, 'unknown', 'no answer within 70 s')
    """

    __match_args__: ClassVar = ("error",)
    state: ClassVar[Literal[State.UNKNOWN]] = State.UNKNOWN

    error: OutcomeUnknownError
    """The cause, such as a lost response."""


Outcome: TypeAlias = Done[R] | Rejected | NotSent | Unknown
"""The outcome of one command: ``Outcome[R]`` is ``Done[R] | Rejected | NotSent | Unknown``.

``match``, ``isinstance``, and a comparison of ``state`` or of ``error`` with None tell the classes apart. A type
checker sees that there is no fifth class.
"""


def failed(index: int, command: Command[Never, object], error: DispatchkitError) -> Rejected | NotSent | Unknown:
    """The outcome that an error stands for.

    Raises:
        TypeError: The error stands for no outcome.
    """
    if isinstance(error, RejectedError):
        return Rejected(index, command, error)
    if isinstance(error, NotSentError):
        return NotSent(index, command, error)
    if isinstance(error, OutcomeUnknownError):
        return Unknown(index, command, error)
    raise TypeError(f"{type(error).__name__} stands for no outcome")


@attrs.frozen
class Report(Value):
    """The number of a fan-out's commands with each outcome.

    >>> Report(done=2, rejected=1).to_dict(flat=True)["total"]
    3
    """

    __to_dict_also__: ClassVar[tuple[str, ...]] = ("total", "failed")

    done: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0
    not_started: int | None = None
    """Commands that were never started; None if their number cannot be known (an iterator without a length)."""
    previously_finished: int = 0
    """Commands of the above that an earlier fan-out of the run finished: a resumed run does not repeat them."""
    repeats: int = 0
    """Commands that were left out, because the same command came before: see ``repeats`` in `FanOutOptions`."""
    launched_elsewhere: int = attrs.field(default=0, repr=False, metadata=SHOWN)
    """Commands that a resumed run leaves out, because another run launched them: see `FanOutOptions`."""

    @property
    def total(self) -> int:
        """All commands with an outcome."""
        return self.done + self.rejected + self.not_sent + self.unknown

    @property
    def failed(self) -> int:
        """All commands with another outcome than done."""
        return self.total - self.done

    def _repr_html_(self) -> str:
        names = ("done", "rejected", "not_sent", "unknown", "not_started", "repeats", "launched_elsewhere")
        counts: dict[str, int | None] = {name: getattr(self, name) for name in names}
        rows = [(name.replace("_", " "), count) for name, count in counts.items() if count or name in names[:4]]
        return html_table(f"{self.total:,} commands, {self.failed:,} not done", ("outcome", "count"), rows)

"""What all errors of a call share: state, attempts, and how they are pickled."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Self, cast

import attrs

from dispatchkit.values import TypedValue, Value, json_schema, target_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["Attempt", "DispatchkitError", "State", "one_line", "rebuild"]


def one_line(text: str, longest: int) -> str:
    """Text for a terminal or a log: one line, printable, at most ``longest`` characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: longest * 4]).split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


class State(enum.StrEnum):
    """The four outcomes of a call. A member equals its text: ``State.DONE == "done"``.

    Example:
        >>> State("not_sent") is State.NOT_SENT, State.DONE == "done"
        (True, True)
    """

    DONE = "done"
    """The provider accepted the command, or its state shows the effect."""
    REJECTED = "rejected"
    """The provider refused the command and did nothing."""
    NOT_SENT = "not_sent"
    """Not one byte of the request left this process."""
    UNKNOWN = "unknown"
    """The command may have taken effect, and no state could settle it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from dispatchkit.pydantic_schema import enum_schema  # noqa: PLC0415 - pydantic is no dependency

        return enum_schema(cls, cast("Mapping[str, object]", json_schema()["$defs"]))


@attrs.frozen
class Attempt(Value):
    """One attempt of a call to send its request."""

    number: int
    """1 for the first attempt of the call."""
    started: datetime
    """Start, UTC."""
    duration: float
    """Duration in seconds."""
    result: str
    """Short description of the end: ``"HTTP 200"``, ``"connection refused"``, ``"no answer within 70 s"``."""
    sent: bool
    """Whether any byte of the request may have left this process."""


class DispatchkitError(TypedValue, Exception):
    """Base of every error of a call. `state` is the outcome.

    Errors can be pickled, including their command. They hold no token, and no part of an answer except the provider's
    message. Their text shows no content and no file.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient("wrong", base_url=sandbox.url) as direct:
        ...     try:
        ...         await direct.start(7)
        ...     except DispatchkitError as error:
        ...         print(error.state, error.command, [attempt.result for attempt in error.attempts])
        rejected StartDispatch(dispatch_id=7) ['HTTP 401']
    """

    __to_dict_also__: ClassVar[tuple[str, ...]] = (
        "summary",
        "message",
        "hint",
        "status",
        "code",
        "retry_after",
        "retry_at",
        "is_final",
        "state",
        "target",
        "command",
        "request_id",
        "attempts",
    )

    __schema_name__ = "Error"

    state: ClassVar[State]
    hint: str = ""
    """What to do about the error, in one line. A call may set a more specific hint than the class."""

    def __init__(
        self,
        summary: str,
        *,
        command: object = None,
        attempts: tuple[Attempt, ...] = (),
        request_id: str | None = None,
    ) -> None:
        summary = one_line(summary, 500)
        super().__init__(summary)
        self.summary = summary
        """What happened, in one line."""
        self.command = command
        """The command of the call."""
        self.attempts = attempts
        """Every attempt of the call, with its start, duration and result."""
        self.request_id = request_id
        """The request id of the call; None if the provider has none."""

    @property
    def target(self) -> int | None:
        """The id that the command acts on; None if there is no command, or if it has no id."""
        return target_of(self.command)

    def with_context(self, command: object, attempts: tuple[Attempt, ...], request_id: str | None) -> Self:
        """A copy with the command, its attempts and its request id."""
        copied = cast("Self", rebuild(type(self), self.args, self.__dict__))
        if "__notes__" in self.__dict__:
            copied.__notes__ = [*self.__notes__]
        copied.__cause__, copied.__context__ = self.__cause__, self.__context__
        copied.__suppress_context__ = self.__suppress_context__
        copied.command, copied.attempts, copied.request_id = command, attempts, request_id
        return copied

    def __str__(self) -> str:
        subject = f"{one_line(repr(self.command), 500)}: " if self.command is not None else ""
        first = f"{subject}{self.state.value.replace('_', ' ')}: {self.summary}"
        return f"{first}\n{self.hint}" if self.hint else first

    def __reduce__(self) -> tuple[object, ...]:
        # By default, pickle rebuilds an exception from `args` alone, which would lose every keyword.
        return rebuild, (type(self), self.args, self.__dict__)


def rebuild(cls: type[Exception], args: tuple[object, ...], state: dict[str, object]) -> Exception:
    """Make an error again from its class, its arguments and its attributes, for pickle."""
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error

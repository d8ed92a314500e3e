"""A target of a run: for display and export, and for its next launch."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Never, Self, TypeAlias

import attrs

from dispatchkit.errors import LedgerError
from dispatchkit.json_rows import Json
from dispatchkit.values import HIDDEN, Value, shown_as, target_of

if TYPE_CHECKING:
    from dispatchkit.core.command import Command

__all__ = ["Target", "TargetRow", "Unsettled"]


@functools.lru_cache(maxsize=1)  # the keys of a target need it one after the other
def _command(text: str) -> Command[Never, object] | None:
    from dispatchkit.ledger.codec import decode  # noqa: PLC0415 - it loads the providers, which only a display needs

    try:
        return decode(text, partial=True)
    except LedgerError:
        return None


def _command_dict(text: str) -> dict[str, Json] | None:
    command = _command(text)
    return None if command is None else command.to_dict()


def _command_repr(text: str) -> str:
    """The command without its content, which its text has."""
    command = _command(text)
    return "<a command that this release cannot read>" if command is None else repr(command)


@attrs.frozen
class Target(Value):
    """A target with its state, for display and export.

    Its `to_dict` shows the command itself, without its content; None if this release cannot read it.

    Example:
        >>> target = Target(0, '{"type":"direct.start","version":1,"dispatch_id":7}', "planned")
        >>> target.to_dict()["command"]
        {'type': 'StartDispatch', 'dispatch_id': 7}
        >>> async with Sandbox() as sandbox, Ledger("launch.db") as ledger:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         report = await direct.start_many([7], ledger=ledger, run="black-friday").finish()
        ...     [(target.index, target.state) async for target in ledger.targets("black-friday")]
        [(0, 'done')]
    """

    __to_dict_also__: ClassVar[tuple[str, ...]] = ("target",)

    index: int
    command: str = attrs.field(repr=_command_repr, metadata=shown_as("command", _command_dict))
    """As `codec` writes it."""
    state: str
    """``planned``, ``sending``, or the value of a `State`."""
    summary: str = ""
    code: int | str | None = None
    request_id: str | None = None
    attempts: int = 0
    at: datetime | None = None
    is_final: bool = False
    """Whether the outcome is unknown and nothing can settle it, so that a resume leaves it alone."""
    since: datetime | None = attrs.field(default=None, eq=False, repr=False, metadata=HIDDEN)
    """When its request began: the first one that is unclear, or else the latest; None if there was none."""

    @property
    def target(self) -> int | None:
        """The id that the command acts on; None if this release cannot read the command."""
        return target_of(_command(self.command))

    @classmethod
    def of_row(cls, row: TargetRow) -> Self:
        """The target of a row."""
        index, command, state, summary, code, request_id, attempts, at, is_final = row
        moment = None if at is None else datetime.fromisoformat(at)
        return cls(index, command, state, summary, code, request_id, attempts, moment, bool(is_final))


TargetRow: TypeAlias = tuple[int, str, str, str, int | str | None, str | None, int, str | None, int]
"""The fields of a `Target` up to ``is_final``. Its time is text (ISO 8601), and ``is_final`` may be 0 or 1."""


@attrs.define
class Unsettled:
    """A target that is not final: planned, not sent, left in flight, or unknown and not `Record.is_final`.

    It never changes: a frozen class would only take longer to make.
    """

    index: int
    command: str = attrs.field(repr=False)
    """The command, encoded by `codec`."""
    request_id: str | None = None
    since: datetime | None = None
    """Start of the first unclear request; for a planned target of a `Run.restored` run, the run's creation."""
    acting_for: float = 0.0
    """Seconds from now for which an earlier process's request may still reach the provider; negative once it cannot.

    They are left until ``claimed_at + CLAIM_AGE + attempt_timeout``. A planned target of a `Run.restored` run may have
    lost its claim, so the start of the hold replaces ``claimed_at``.
    """
    repeats: int = 0
    """Number of later holds that may have sent the request again. Holds whose outcome has no attempt do not count."""
    key: bytes = attrs.field(default=b"", eq=False)
    """The key that the command was planned with."""

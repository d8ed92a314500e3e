"""What comes of the commands of a fan-out: one by one, and counted."""

from __future__ import annotations

from typing import Generic, Never, TypeVar

import attrs

from dispatchkit.core.command import Command
from dispatchkit.errors import Attempt, DispatchkitError, State

__all__ = ["Outcome", "Report"]

R_co = TypeVar("R_co", covariant=True)


@attrs.frozen
class Outcome(Generic[R_co]):
    """What came of one command of a fan-out."""

    index: int
    """The command's place in what was given, from 0."""
    command: Command[Never, R_co]
    state: State
    result: R_co | None
    """What the provider answered, if ``state`` is done."""
    error: DispatchkitError | None
    """Why it is not done."""
    attempts: tuple[Attempt, ...]
    """Every attempt: when, what came of it, how long it took."""
    request_id: str | None = None
    """The id by which the provider deduplicates the call; None where the provider has none."""


@attrs.frozen
class Report:
    """How many of a fan-out's commands came to which outcome."""

    done: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0
    not_started: int | None = None
    """Commands that were never begun; None if their number cannot be known (an iterator without a length)."""
    previously_finished: int = 0
    """How many of the above came to their outcome before this fan-out: a run that is resumed leaves them alone."""
    repeats: int = 0
    """Commands that were left out, because the same command came before: see ``repeats`` of `FanOut`."""

    def __repr__(self) -> str:
        names = [field.name for field in attrs.fields(Report) if field.name != "repeats" or self.repeats]
        return f"Report({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    @property
    def total(self) -> int:
        """All that came to an outcome."""
        return self.done + self.rejected + self.not_sent + self.unknown

    @property
    def failed(self) -> int:
        """All that came to another outcome than done."""
        return self.total - self.done

    def count(self, state: State) -> Report:
        """The report with one more of this outcome."""
        return attrs.evolve(self, **{state.value: getattr(self, state.value) + 1})

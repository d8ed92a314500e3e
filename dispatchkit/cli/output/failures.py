"""``--failures``: a CSV of all targets that are not done, which ``--from`` reads unchanged.

Each row is written with its outcome, so a killed run leaves its rows. The ids that were not started follow at the end
of the run. With a ledger, the file is written at the end, from the ledger.

A file that is not empty is never written to. The rows of an earlier run may be the only trace of an unknown outcome.
Rows of two runs in one file would also mix retried ids with others.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

import attrs

from dispatchkit.cli.option_names import as_options
from dispatchkit.cli.output.tables import as_csv
from dispatchkit.cli.text import escape_control, write
from dispatchkit.cli.translate import _
from dispatchkit.errors import RejectedError, State
from dispatchkit.ledger.codec import decode
from dispatchkit.values import Value, columns

if TYPE_CHECKING:
    from pathlib import Path

    from dispatchkit import Outcome
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.ledger.target import Target

__all__ = ["NOT_DONE", "Failure", "FailuresFile", "LiveFailuresFile"]

_BATCH_SIZE = 4096

NOT_DONE = ("planned", "sending", *(state.value for state in State if state is not State.DONE))
"""The states of what did not come to done."""


@attrs.frozen
class Failure(Value):
    """A row of the file. The id stands first and the row is read only whole: see `from_lines`."""

    id: int | str | None
    """The target, or a range of those that were not started: ``"5-9"``."""
    outcome: str
    """The value of a `State`, ``"not_started"``, or ``"planned"``: what a resume of its run launches, too."""
    code: int | str | None = None
    error: str | None = None
    """The summary of the error, in one line."""
    request_id: str | None = None

    @classmethod
    def of(cls, target: Target) -> Failure:
        """The row of a target of a ledger, whose words are those of outcomes.

        What was left in flight may have happened.
        """
        outcome = "unknown" if target.state == "sending" else target.state
        summary = target.summary or ("it was left in flight" if target.state == "sending" else "")
        number = decode(target.command, partial=True).target
        return cls(number, outcome, target.code, as_options(escape_control(summary)), target.request_id)


class FailuresFile:
    """The file.

    Args:
        path: Where it is. It stays empty while nothing fails.

    Raises:
        ValueError: The file holds something.
        OSError: It cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.whole = True
        """Whether all could be written so far."""
        # Appending: another run that was given the same file by mistake must not be written over.
        self._stream = path.open("a", encoding="utf-8", newline="")
        status = os.fstat(self._stream.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size:
            self._stream.close()
            raise ValueError(
                _("{path} is not empty, and --failures writes over nothing: name another file").format(path=path)
            )
        self._headed = False

    def write(self, rows: Iterable[Failure]) -> bool:
        """Write rows. Returns whether all could be written so far."""
        headed, self._headed = self._headed, True
        text = as_csv(None if headed else columns(Failure), (row.to_dict(flat=True) for row in rows))
        self.whole = self.whole and write(self._stream, text)
        return self.whole

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class LiveFailuresFile(FailuresFile):
    """The file, written as the outcomes come, and what is under way.

    Args:
        path: Where it is. It stays empty while nothing fails.
        targets: All ids, in the order in which they are taken.

    Raises:
        ValueError: The file holds something.
        OSError: It cannot be written to.
    """

    def __init__(self, path: Path, targets: Targets) -> None:
        super().__init__(path)
        self._targets = targets
        self._taken = 0
        self._in_hand: dict[int, int] = {}

    def track(self, numbers: Iterable[int]) -> Iterator[int]:
        """The ids themselves. Those that are taken from here and come to no outcome were not started."""
        for number in numbers:
            self._in_hand[self._taken] = number
            self._taken += 1
            yield number

    def outcome(self, outcome: Outcome[object]) -> bool:
        """Write an outcome unless it is done. Returns whether it could be written."""
        number = self._in_hand.pop(outcome.index)
        error = outcome.error
        if error is None:
            return True
        code = error.code if isinstance(error, RejectedError) else None
        summary = as_options(escape_control(error.summary))
        return self.write([Failure(number, outcome.state.value, code, summary, outcome.request_id)])

    def close(self) -> None:
        """At the end of a run: write what was not started, a long range of ids as one row."""
        left = chain(((number, number) for number in self._in_hand.values()), self._targets.after(self._taken))
        rows = (Failure(low if low == high else f"{low}-{high}", "not_started") for low, high in left)
        while batch := list(islice(rows, _BATCH_SIZE)):
            if not self.write(batch):
                break
        super().close()

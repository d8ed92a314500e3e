"""One mailing of the played Altcraft: its history, and the entries of its log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:
    from dispatchkit.sandbox.wire import Json

_MESSAGES = {"start": "Begin campaign", "end": "End campaign", "": "Messages could not be handed over"}


@define(weakref_slot=False)
class Run:
    """One run of a mailing, in seconds since the epoch."""

    start: float
    end: float


@define(weakref_slot=False)
class MailingHistory:
    """What happened to one mailing, oldest first; kept whole, because readers may look at the past."""

    at_first: bool
    switches: tuple[tuple[float, bool], ...] = ()
    runs: tuple[Run, ...] = ()
    errors: tuple[float, ...] = ()

    def is_active(self, moment: float) -> bool:
        """Whether it is active at a moment."""
        return next((active for at, active in reversed(self.switches) if at <= moment), self.at_first)

    def is_completed(self, moment: float) -> bool:
        """Whether it has runs that began until a moment, and all of them have ended."""
        begun = [run for run in self.runs if run.start <= moment]
        return bool(begun) and all(run.end <= moment for run in begun)

    def log(self, moment: float) -> list[tuple[float, str]]:
        """The entries of the log until a moment: time and state, oldest first."""
        entries = [(run.start, "start") for run in self.runs] + [(run.end, "end") for run in self.runs]
        entries += [(at, "") for at in self.errors]
        # Sorted by time alone: within one moment a run starts before it ends.
        return sorted((entry for entry in entries if entry[0] <= moment), key=lambda entry: entry[0])


def log_entry(at: float, state: str) -> dict[str, Json]:
    """An entry of the log; one without a state is of the level ERROR."""
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return {
        "level": "INFO" if state else "ERROR",
        "message": _MESSAGES[state],
        "state": state,
        "time": moment.replace("+00:00", "Z"),
        "value": "",
    }

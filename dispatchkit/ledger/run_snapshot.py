"""One run of a ledger at one moment, and its stop, for the command line and the control room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar, Protocol

import attrs

from dispatchkit.errors import LedgerError
from dispatchkit.ledger.store import LEASE_TIMEOUT, Counts, Holder, Run
from dispatchkit.ledger.watch import run_is_over
from dispatchkit.values import Value

if TYPE_CHECKING:
    from dispatchkit.ledger.ledger import Ledger

__all__ = ["RunSnapshot", "RunStop", "nothing_to_stop", "silence", "stop_run", "take_snapshot"]


@attrs.frozen
class RunSnapshot(Value):
    """A run at one moment."""

    __to_dict_also__: ClassVar[tuple[str, ...]] = ("state", "left", "over")

    run: Run
    counts: Counts
    holders: Sequence[Holder]
    paused_until: datetime | None = None
    """Until when the run's account is paused, where its ledger is shared."""

    @property
    def left(self) -> int:
        """Targets that are not final."""
        counts = self.counts
        return counts.planned + counts.sending + counts.not_sent + counts.unknown - counts.unknown_for_good

    @property
    def over(self) -> bool:
        """Whether nothing more happens unless the run is resumed."""
        return run_is_over(self.run, self.counts, is_held=bool(self.holders))

    @property
    def can_stop(self) -> bool:
        """Whether there is anything to stop."""
        return not self.run.plan_complete or bool(self.left) or bool(self.holders)

    @property
    def state(self) -> str:
        """The state of the run, in one or two words."""
        if self.run.stopped:
            return "stopping" if self.holders else "stopped"
        if self.holders:
            return "running"
        if not self.run.plan_complete:
            return "plan not complete"
        return "to be resumed" if self.left else "over"


async def take_snapshot(ledger: Ledger, run: Run) -> RunSnapshot:
    """See how a run is.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    holders = {holder.token: holder for chunk in await ledger.chunks(run.name) if (holder := chunk.holder) is not None}
    return RunSnapshot(run, await ledger.counts(run.name), [*holders.values()])


def silence(holder: Holder) -> float:
    """Seconds since the last heartbeat of a process that exists and is silent; 0 if it gives heartbeats."""
    return LEASE_TIMEOUT - holder.lease_left if holder.exists and holder.lease_left < 0 else 0.0


class Plural(Protocol):
    """Chooses the text for a count, as `gettext.ngettext` does."""

    def __call__(self, singular: str, plural: str, count: int, /) -> str:
        """The text for a count."""
        ...


def _english(singular: str, plural: str, count: int, /) -> str:
    return singular if count == 1 else plural


@attrs.frozen
class RunStop:
    """A run that was stopped, in the words that a person reads.

    The command line looks them up in its catalogue. So ``pybabel`` finds the texts here by the names of the parameters.
    """

    snapshot: RunSnapshot
    """The run after the stop."""
    until: datetime
    """From then on, no process launches any more of the run."""

    def accepted(self, _: Callable[[str], str] = str, ngettext: Plural = _english) -> str:
        """What is said while a suspended process may still launch."""
        count = self.snapshot.counts.sending
        text = (
            ngettext(
                "Run {name!r} is stopped ({count:,} call in flight). Waiting until {time} UTC.",
                "Run {name!r} is stopped ({count:,} calls in flight). Waiting until {time} UTC.",
                count,
            )
            if self.snapshot.holders
            else _("Run {name!r} is stopped (no process holds it). Waiting until {time} UTC.")
        )
        return text.format(name=self.snapshot.run.name, count=count, time=_whole_second(self.until))

    def interrupted(self, _: Callable[[str], str] = str) -> str:
        """What is said if the wait until then is cut short."""
        return _(
            "Run {name!r} is stopped all the same. A process that was suspended may still launch until {time} UTC."
        ).format(name=self.snapshot.run.name, time=_whole_second(self.until))

    def confirmed(self, _: Callable[[str], str] = str) -> str:
        """What is said from then on."""
        return _("Run {name!r} is stopped: no process launches any more of it after {time} UTC.").format(
            name=self.snapshot.run.name, time=_whole_second(self.until)
        )


def nothing_to_stop(name: str, _: Callable[[str], str] = str) -> str:
    """What is said of a run without targets that are left."""
    return _("Run {name!r} is over: nothing to stop.").format(name=name)


async def stop_run(ledger: Ledger, run: Run, resume_line: Callable[..., str]) -> RunStop | None:
    """Stop a run in all processes.

    Args:
        ledger: The ledger of the run.
        run: The run.
        resume_line: Makes the line that resumes a run, with more options.

    Returns:
        The stop; None if there is nothing to stop.

    Raises:
        LedgerError: The run was not stopped. The message says what to do.
    """
    snapshot = await take_snapshot(ledger, run)
    if not snapshot.can_stop:
        return None
    try:
        until = await ledger.stop(run.name)
    except LedgerError as error:
        if not snapshot.holders:
            raise
        # A process that is suspended while it writes keeps the file locked.
        holder, line = snapshot.holders[0], resume_line(run, "--end-holder")
        raise LedgerError(
            f"{error}. The run was not stopped: process {holder.pid} on {holder.host} holds it. If it is "
            f"suspended, continue it. To end it and resume the run: {line}"
        ) from None
    return RunStop(await take_snapshot(ledger, run), until)


def _whole_second(moment: datetime) -> str:
    """The time of day of a moment, rounded up: the promise holds from then on."""
    return f"{moment + timedelta(microseconds=-moment.microsecond % 1_000_000):%H:%M:%S}"

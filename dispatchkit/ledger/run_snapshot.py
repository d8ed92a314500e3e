"""One run of a ledger at one moment, and its stop, for the command line and the control room."""

# The package uses what is private to the callers of a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar, Protocol

import attrs

from dispatchkit.core.fanout.id_set import IdSet
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.chunk import LEASE_TIMEOUT, Holder
from dispatchkit.ledger.plan import find_repeats
from dispatchkit.ledger.repeat import Repeat
from dispatchkit.ledger.run import Counts, Run
from dispatchkit.ledger.watch import run_is_over
from dispatchkit.values import HIDDEN, Value

if TYPE_CHECKING:
    from dispatchkit.ledger.ledger import Ledger

__all__ = [
    "RunSnapshot",
    "RunStop",
    "TakenOver",
    "find_taken_over",
    "nothing_to_stop",
    "silence",
    "stop_run",
    "take_snapshot",
    "with_taken_over",
]


@attrs.frozen
class RunSnapshot(Value):
    """A run at one moment."""

    __to_dict_also__: ClassVar[tuple[str, ...]] = ("state", "left", "over")

    run: Run
    counts: Counts
    holders: Sequence[Holder]
    paused_until: datetime | None = None
    """Until when the run's account is paused, where its ledger is shared."""
    launched_elsewhere: int = attrs.field(default=0, metadata=HIDDEN)
    """Targets that are not final, and that a resume leaves out. See `with_taken_over`; 0 if that was not looked up."""

    @property
    def left(self) -> int:
        """Targets that are not final. A resume settles or launches them, unless another run took them over."""
        return self.counts.left - self.launched_elsewhere

    @property
    def over(self) -> bool:
        """Whether nothing more happens unless the run is resumed."""
        return self.state == "over" or run_is_over(self.run, self.counts, is_held=bool(self.holders))

    @property
    def can_stop(self) -> bool:
        """Whether there is anything to stop."""
        return not self.run.plan_complete or bool(self.left) or bool(self.holders)

    @property
    def state(self) -> str:
        """The state of the run, in one or two words. An unfinished run has targets that are `left`."""
        if self.run.stopped:
            return "stopping" if self.holders else "stopped"
        if self.holders:
            return "running"
        if not self.run.plan_complete:
            return "plan not complete"
        return "unfinished" if self.left else "over"


async def take_snapshot(ledger: Ledger, run: Run) -> RunSnapshot:
    """See how a run is.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    holders = {holder.token: holder for chunk in await ledger.chunks(run.name) if (holder := chunk.holder) is not None}
    return RunSnapshot(run, await ledger.counts(run.name), [*holders.values()])


@attrs.frozen
class TakenOver:
    """Targets of a run that other runs have launched since, or launch now. A resume leaves them out."""

    repeats: Sequence[Repeat] = ()
    """The other runs, the latest first. A target may be in several."""
    indexes: IdSet = attrs.field(factory=IdSet)
    count: int = 0


async def find_taken_over(ledger: Ledger, run: Run, *, within: float | None = None) -> TakenOver:
    """Find the targets that a resume of a run leaves out. Each target costs a look-up for each other run.

    Args:
        ledger: The ledger of the run.
        run: The run. The longer one of its own ``repeat_window`` and ``within`` applies.
        within: Seconds; None leaves only the run's own window.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    if not run.plan_complete:
        return TakenOver()
    repeats = await find_repeats(await ledger._open_store(), run, chunk=None, within=within)
    indexes = IdSet()
    count = sum(len(indexes.add_new(repeat.indexes)) for repeat in repeats)
    return TakenOver(sorted(repeats, key=lambda repeat: repeat.latest, reverse=True), indexes, count)


async def with_taken_over(ledger: Ledger, snapshot: RunSnapshot) -> RunSnapshot:
    """The snapshot, without the targets that a resume leaves out. See `find_taken_over`.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    if not snapshot.left or snapshot.holders:
        return snapshot
    return attrs.evolve(snapshot, launched_elsewhere=(await find_taken_over(ledger, snapshot.run)).count)


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

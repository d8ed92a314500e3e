"""One run of a ledger at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import attrs

from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.core.transport.url import origin
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.store import LEASE_TIMEOUT, Counts, Holder, Run
from dispatchkit.ledger.watch import run_is_over
from dispatchkit.providers import parse_settings
from dispatchkit.values import Value

if TYPE_CHECKING:
    from dispatchkit.ledger.ledger import Ledger

__all__ = ["RunSnapshot", "resolve_run", "resume_line", "silence", "take_snapshot"]

_SHOWN = 5


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
        return self.counts.left

    @property
    def over(self) -> bool:
        """Whether nothing more happens unless the run is resumed."""
        return run_is_over(self.run, self.counts, is_held=bool(self.holders))

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


def resume_line(ledger_ref: LedgerRef, run: Run, *options: str) -> str:
    """The command that resumes a run, with what the run itself needs."""
    needed: list[str] = []
    if run.account is not None and not ledger_ref.invocation.given("account"):
        needed += ["--account", run.account]
    if _needs_insecure(run) and not ledger_ref.invocation.given("insecure"):
        needed.append("--insecure")
    return ledger_ref.resume(run.name, *needed, *options)


def _needs_insecure(run: Run) -> bool:
    """Whether the run's host takes plain http, and is another machine. False for damaged settings."""
    with suppress(LedgerError, ValueError):
        host = parse_settings(run.settings).get("base_url", "")
        origin(host, insecure=True)
        try:
            origin(host)
        except ValueError:
            return True
    return False


async def take_snapshot(ledger: Ledger, run: Run) -> RunSnapshot:
    """See how a run is.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    holders = {holder.token: holder for chunk in await ledger.chunks(run.name) if (holder := chunk.holder) is not None}
    return RunSnapshot(run, await ledger.counts(run.name), [*holders.values()])


async def resolve_run(ledger: Ledger, ledger_ref: LedgerRef) -> Run:
    """The run that is meant: that of the name, or the only one.

    Raises:
        ValueError: There is none, or more than one.
        LedgerError: There is none of this name, or the ledger cannot be read.
    """
    if ledger_ref.run is not None:
        return await ledger.run(ledger_ref.run)
    runs = await ledger.runs()
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise ValueError(f"{ledger_ref} holds no run")
    names = ", ".join(repr(run.name) for run in runs[:_SHOWN]) + (", ..." if len(runs) > _SHOWN else "")
    raise ValueError(f"{ledger_ref} holds {len(runs):,} runs: name one of {names}")


def silence(holder: Holder) -> float:
    """Seconds since the last heartbeat of a process that exists and is silent; 0 if it gives heartbeats."""
    return LEASE_TIMEOUT - holder.lease_left if holder.exists and holder.lease_left < 0 else 0.0

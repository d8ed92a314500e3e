"""The state of a launch's run in its ledger, and of other runs, before the question."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

import attrs
import typer

from dispatchkit.cli.fitted import fitted
from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.cli.output.reporter import LAUNCHED_BEFORE
from dispatchkit.cli.run.earlier import Earlier, find_earlier
from dispatchkit.cli.run.ledger_run import LedgerRun, check_same_plan
from dispatchkit.cli.run.takeover import Hindrances, hindrances
from dispatchkit.cli.text import counted, escape_control, write
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.cli.views.snapshot import take_snapshot
from dispatchkit.core.fanout.id_set import IdSet
from dispatchkit.ledger.codec import decode
from dispatchkit.ledger.run import Counts
from dispatchkit.ledger.run_snapshot import TakenOver, find_taken_over

if TYPE_CHECKING:
    from dispatchkit import Run
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.run.spec import LaunchSpec
    from dispatchkit.core.call.client import Client
    from dispatchkit.ledger.ledger import Ledger


__all__ = ["KnownRun", "all_launched_before", "describe_earlier", "inspect_run"]

R = TypeVar("R")
W = TypeVar("W")


@attrs.frozen
class KnownRun:
    """The state of the ledger's run before the question."""

    hindrances: Hindrances = attrs.field(factory=lambda: Hindrances(None))
    left: int | None = None
    """The number of targets that are left; None if there is no such run."""
    compared: Run | None = None
    """The run, if its plan is complete and has these commands."""
    earlier: Earlier = attrs.field(factory=Earlier)
    """What other runs launched."""
    leaves_out: bool = False
    """Whether the run exists, and was planned without what other runs launched."""
    counts: Counts = attrs.field(factory=Counts)
    """The numbers of the run's targets by state."""
    canary: int | None = None
    """The canary that the run was planned with."""
    unplanned: IdSet | None = None
    """The ids that the complete plan lacks. They belong to the same launch only if they may not be launched."""
    taken_over: TakenOver = attrs.field(factory=TakenOver)
    """What other runs launched since the run was planned. They are not left."""
    difference: str = ""
    """Why it is another launch, if one of them may be launched."""


async def inspect_run(
    ledger_ref: LedgerRef,
    spec: LaunchSpec[W, R],
    client: Client[W],
    targets: Targets,
    window: float | None,
    *,
    again: bool,
) -> KnownRun:
    """Read the state of the run, and what other runs launched. ``again``: whether that is launched, too.

    Raises:
        ValueError: The run has other commands.
        LedgerError: The ledger cannot be read.
    """
    async with ledger_ref.open() as ledger:
        name = ledger_ref.run or ""
        found = await hindrances(ledger, name)
        earlier = Earlier()
        if window is not None:
            earlier = await find_earlier(ledger, name, client, spec.command, targets, within=window)
        is_demanded = spec.check is not None and spec.check.is_demanded
        if found.run is None or (is_demanded and not found.run.plan_complete):
            # Nothing of a part of a plan was launched, and only the check tells what the whole plan is.
            return KnownRun(found, earlier=earlier)
        ledger_run, leaves_out, rest = LedgerRun(ledger, ledger_ref), False, earlier.without(targets)
        if not found.run.plan_complete and not again and len(rest):
            targets, leaves_out = rest, True  # a part of a plan may be the beginning of both lists
        unplanned, difference = None, ""
        try:
            is_planned, targets, leaves_out = await _compare(ledger_run, spec, targets, rest, leaves_out=leaves_out)
        except ValueError as error:
            if spec.check is None or not spec.check.skips or not found.run.plan_complete:
                raise
            unplanned, planned = await _split(ledger, name, rest if len(rest) else targets)
            if not len(planned) or not await _is_same(ledger_run, spec, planned):
                raise
            is_planned, targets, leaves_out, difference = True, planned, bool(earlier.count), str(error)
        taken_over = await find_taken_over(ledger, found.run, within=None if again else window)
        snapshot = await take_snapshot(ledger, found.run)
        return KnownRun(
            found,
            snapshot.left + len(targets) - found.run.total - taken_over.count,
            found.run if is_planned else None,
            earlier if leaves_out else Earlier(),
            leaves_out,
            snapshot.counts,
            found.run.canary,
            unplanned,
            taken_over,
            difference,
        )


async def _compare(
    ledger_run: LedgerRun, spec: LaunchSpec[W, R], targets: Targets, rest: Targets, *, leaves_out: bool
) -> tuple[bool, Targets, bool]:
    """Whether the plan is complete, what it is about, and whether it lacks what other runs launched.

    Raises:
        ValueError: It is neither about all targets nor about the rest.
    """
    try:
        return await check_same_plan(ledger_run, spec.command, targets), targets, leaves_out
    except ValueError:
        if leaves_out or not len(rest) or len(rest) == len(targets):
            raise
    return await check_same_plan(ledger_run, spec.command, rest), rest, True


async def _split(ledger: Ledger, run: str, targets: Targets) -> tuple[IdSet, Targets]:
    """The ids that a run's plan lacks, and the targets without them."""
    planned, unplanned = IdSet(), IdSet()
    async for target in ledger.targets(run):
        if (number := decode(target.command, partial=True).target) is not None:
            planned.add(number)
    unplanned.add_new(targets.without(planned))
    return unplanned, targets.without(unplanned)


async def _is_same(ledger_run: LedgerRun, spec: LaunchSpec[W, R], targets: Targets) -> bool:
    try:
        return await check_same_plan(ledger_run, spec.command, targets)
    except ValueError:
        return False


def describe_earlier(earlier: Earlier, again: bool, ledger_ref: LedgerRef | None) -> tuple[tuple[str, str], ...]:
    """What other runs launched, for the question."""
    if not earlier.count or ledger_ref is None:
        return ()
    name = _("again") if again else _("left out")
    text = _("{count:,} launched before, {runs}").format(count=earlier.count, runs=earlier)
    return ((name, text + _to_settle(earlier, ledger_ref)),)


def _to_settle(earlier: Earlier, ledger_ref: LedgerRef) -> str:
    unclear = next((run for run in earlier.runs if not run.is_clear), None)
    if unclear is None:
        return ""
    return _(". To see what is left of that run: {line}").format(line=ledger_ref.show(unclear.name))


def all_launched_before(spec: LaunchSpec[W, R], earlier: Earlier, count: int, ledger_ref: LedgerRef) -> typer.Exit:
    """Say that nothing is left to launch."""
    launched = (
        _("The {noun} was launched before, or may have been: {runs}.").format(
            noun=ngettext(*spec.noun, 1), runs=earlier
        )
        if count == 1
        else _("All {targets} were launched before, or may have been: {runs}.").format(
            targets=counted(count, *spec.noun), runs=earlier
        )
    )
    nothing = _("Nothing was sent{to_settle}. To launch all the same: {line}").format(
        to_settle=_to_settle(earlier, ledger_ref), line=ledger_ref.launch_all_the_same()
    )
    text = f"{launched} {nothing}"
    write(sys.stderr, fitted(sys.stderr, f"{escape_control(text)}\n"))
    return typer.Exit(LAUNCHED_BEFORE)

"""``dispatchkit ledger prune``: delete the contents of old runs of a ledger, or the runs."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from dispatchkit.cli.input.ledger_ref import LedgerRef, parse_ledger_args
from dispatchkit.cli.input.question import Description, ask
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.text import counted, escape_control, write
from dispatchkit.core.clock import SYSTEM
from dispatchkit.ledger.prune import is_prunable

if TYPE_CHECKING:
    from dispatchkit.cli.commands.ledger import PruneOptions

__all__ = ["prune"]

_NAMED = 5
"""Runs that are named where they are kept."""


def prune(options: PruneOptions) -> None:
    """Count the old runs, ask, and prune them.

    Raises:
        typer.Exit: The ledger cannot be used, or the runs are not to be pruned.
    """
    days = counted(options.older_than, "day")
    with exit_on_user_error():
        ledger_ref = parse_ledger_args(options.where or [], run=False)
        age = timedelta(days=options.older_than)
        count, left, kept = run_loop(_count(ledger_ref, age, whole=options.runs))
    if kept:
        named = ", ".join(map(repr, kept[:_NAMED])) + (f" and {len(kept) - _NAMED:,} more" if kept[_NAMED:] else "")
        write(sys.stderr, f"Kept {counted(len(kept), 'old run')}, held or not finished: {escape_control(named)}.\n")
    if not count:
        what = "run" if options.runs else "finished run with contents"
        write(sys.stdout, f"No {what} is older than {days}.\n")
        return
    runs = f"{counted(count, 'run')} older than {days}"
    if not options.yes:
        details = [("ledger", str(ledger_ref))]
        if options.runs:
            details += [("not launched yet", counted(left, "target")), ("repeats", "are no longer noticed")]
        else:
            details.append(("what stays", "ids and outcomes, so repeats are still noticed"))
        action = f"delete {runs}" if options.runs else f"delete the contents of {runs}"
        ask(Description(action, tuple(details)), nothing="Nothing was deleted.")
    with exit_on_user_error():
        names = run_loop(_prune(ledger_ref, age, whole=options.runs))
    what = "" if options.runs else "the contents of "
    write(sys.stdout, f"Deleted {what}{counted(len(names), 'run')}.\n")


async def _count(ledger_ref: LedgerRef, age: timedelta, *, whole: bool) -> tuple[int, int, list[str]]:
    """Count the runs to prune and the targets left in them, and name the old runs that are kept."""
    count, left, kept = 0, 0, list[str]()
    async with ledger_ref.open() as ledger:
        store = await ledger._open_store()
        for run in await ledger.runs():
            if run.created >= SYSTEM.now() - age:
                continue
            if await is_prunable(store, run, whole=whole):
                count += 1
                left += (await ledger.counts(run.name)).left
            elif whole or await store.has_contents(run.number):
                kept.append(run.name)
    return count, left, kept


async def _prune(ledger_ref: LedgerRef, age: timedelta, *, whole: bool) -> list[str]:
    async with ledger_ref.open() as ledger:
        return await ledger.prune(older_than=age.total_seconds(), runs=whole)

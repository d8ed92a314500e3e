"""``dispatchkit ledger prune``: delete old runs of a ledger."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from dispatchkit.cli.input.ledger_ref import LedgerRef, parse_ledger_args
from dispatchkit.cli.input.question import Description, ask
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.text import counted, write
from dispatchkit.cli.views.snapshot import take_snapshot
from dispatchkit.core.clock import SYSTEM

if TYPE_CHECKING:
    from dispatchkit.cli.commands.ledger import PruneOptions

__all__ = ["prune"]


def prune(options: PruneOptions) -> None:
    """Count the old runs, ask, and delete them.

    Raises:
        typer.Exit: The ledger cannot be used, or the runs are not to be deleted.
    """
    with exit_on_user_error():
        ledger_ref = parse_ledger_args(options.where or [], run=False)
        age = timedelta(days=options.older_than)
        count, left = run_loop(_count(ledger_ref, age))
    if not count:
        write(sys.stdout, f"No run is older than {counted(options.older_than, 'day')}.\n")
        return
    if not options.yes:
        runs = f"{counted(count, 'run')} older than {counted(options.older_than, 'day')}"
        details = (("ledger", str(ledger_ref)), ("not launched yet", counted(left, "target")))
        ask(Description(f"delete {runs}", details), nothing="Nothing was deleted.")
    with exit_on_user_error():
        names = run_loop(_prune(ledger_ref, age))
    write(sys.stdout, f"Deleted {counted(len(names), 'run')}.\n")


async def _count(ledger_ref: LedgerRef, age: timedelta) -> tuple[int, int]:
    """The number of old runs that no process holds, and of targets that are left in them."""
    count = left = 0
    async with ledger_ref.open() as ledger:
        for run in await ledger.runs():
            if run.created < SYSTEM.now() - age and not (snapshot := await take_snapshot(ledger, run)).holders:
                count += 1
                left += snapshot.left
    return count, left


async def _prune(ledger_ref: LedgerRef, age: timedelta) -> list[str]:
    async with ledger_ref.open() as ledger:
        return await ledger.prune(older_than=age.total_seconds())

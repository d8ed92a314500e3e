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
from dispatchkit.cli.translate import _, ngettext
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
    days = counted(options.older_than, "day", "days")
    with exit_on_user_error():
        ledger_ref = parse_ledger_args(options.where or [], run=False)
        age = timedelta(days=options.older_than)
        count, left, kept = run_loop(_count(ledger_ref, age, whole=options.runs))
    if kept:
        named = ", ".join(map(repr, kept[:_NAMED])) + (
            _(" and {count:,} more").format(count=len(kept) - _NAMED) if kept[_NAMED:] else ""
        )
        text = ngettext(
            "Kept {count:,} old run, held or not finished: {names}.",
            "Kept {count:,} old runs, held or not finished: {names}.",
            len(kept),
        )
        write(sys.stderr, text.format(count=len(kept), names=escape_control(named)) + "\n")
    if not count:
        none = (
            _("No run is older than {days}.")
            if options.runs
            else _("No finished run with contents is older than {days}.")
        )
        write(sys.stdout, none.format(days=days) + "\n")
        return
    if not options.yes:
        details = [(_("ledger"), str(ledger_ref))]
        if options.runs:
            details += [
                (_("not launched yet"), counted(left, "target", "targets")),
                (_("repeats"), _("are no longer noticed")),
            ]
        else:
            details.append((_("what stays"), _("ids and outcomes, so repeats are still noticed")))
        action = (
            ngettext("delete {count:,} run older than {days}", "delete {count:,} runs older than {days}", count)
            if options.runs
            else ngettext(
                "delete the contents of {count:,} run older than {days}",
                "delete the contents of {count:,} runs older than {days}",
                count,
            )
        ).format(count=count, days=days)
        ask(Description(action, tuple(details)), nothing=_("Nothing was deleted."))
    with exit_on_user_error():
        names = run_loop(_prune(ledger_ref, age, whole=options.runs))
    deleted = (
        ngettext("Deleted {count:,} run.", "Deleted {count:,} runs.", len(names))
        if options.runs
        else ngettext("Deleted the contents of {count:,} run.", "Deleted the contents of {count:,} runs.", len(names))
    )
    write(sys.stdout, deleted.format(count=len(names)) + "\n")


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

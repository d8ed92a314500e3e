"""Targets of a run that other runs took over, as the question and the end of a resume show them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from dispatchkit.cli.fitted import fitted
from dispatchkit.cli.output.reporter import LAUNCHED_BEFORE
from dispatchkit.cli.run.earlier import in_other_runs
from dispatchkit.cli.text import escape_control, utc, write
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.ledger.plan import name_targets

if TYPE_CHECKING:
    from dispatchkit.cli.input.ledger_ref import LedgerRef
    from dispatchkit.ledger.repeat import Repeat
    from dispatchkit.ledger.run import Counts
    from dispatchkit.ledger.run_snapshot import TakenOver

__all__ = ["describe_taken_over", "left_out_text", "name_runs", "nothing_left", "unclear_text"]

_NAMED = 5
"""Other runs that are named."""


def name_runs(repeats: Sequence[Repeat]) -> str:
    """The other runs, with the first targets of each."""
    named = [
        _("{count:,} in run {name!r}, the latest at {time} UTC ({ids})").format(
            count=repeat.count, name=repeat.run, time=utc(repeat.latest), ids=name_targets(repeat)
        )
        for repeat in repeats[:_NAMED]
    ]
    return "; ".join([*named, *in_other_runs(len(repeats) - _NAMED)])


def describe_taken_over(taken_over: TakenOver, ledger_ref: LedgerRef) -> tuple[tuple[str, str], ...]:
    """What a resume leaves out, for the question."""
    if not taken_over.count:
        return ()
    text = _("{count:,} that other runs launched, or launch now: {runs}.").format(
        count=taken_over.count, runs=name_runs(taken_over.repeats)
    )
    return ((_("left out"), f"{text}{_to_show(taken_over, ledger_ref)}"),)


def _to_show(taken_over: TakenOver, ledger_ref: LedgerRef) -> str:
    """The line that shows the run with most of what is left out."""
    if not taken_over.repeats:
        return ""
    other = max(taken_over.repeats, key=lambda repeat: repeat.count).run
    return _(" To show run {run!r}: {line}").format(run=other, line=ledger_ref.show(other))


def unclear_text(unclear: int) -> str:
    """What to do about targets that are left out, and whose outcome is unclear in this run, too."""
    return ngettext(
        "The outcome of {count:,} target that is left out is unclear in this run, too: look at the provider, then "
        "launch what did not happen with --again.",
        "The outcome of {count:,} targets that are left out is unclear in this run, too: look at the provider, then "
        "launch what did not happen with --again.",
        unclear,
    ).format(count=unclear)


def left_out_text(taken_over: TakenOver, count: int, unclear: int, ledger_ref: LedgerRef) -> str:
    """What a resume left out, and the line that shows the run with most of it.

    Args:
        taken_over: What other runs have launched by now, or launch now. Their window may have passed meanwhile.
        count: The targets that were left out.
        unclear: How many of these have an unclear outcome in this run, too.
        ledger_ref: The ledger.
    """
    text = ngettext(
        "{count:,} target is left out: another run launched it, or launches it now{runs}.",
        "{count:,} targets are left out: another run launched them, or launches them now{runs}.",
        count,
    ).format(count=count, runs=(taken_over.repeats and f": {name_runs(taken_over.repeats)}") or "")
    more = f" {unclear_text(unclear)}" if unclear > 0 else ""
    return f"{text}{more}{_to_show(taken_over, ledger_ref)}"


def nothing_left(name: str, taken_over: TakenOver, counts: Counts, ledger_ref: LedgerRef) -> typer.Exit:
    """Say that other runs took over all that is left of a run."""
    from dispatchkit.cli.views.ledger import unknown_for_good  # noqa: PLC0415 - a launch does without

    nothing = _("Nothing is left to resume in run {name}.").format(name=repr(name))
    kept = f" {unknown_for_good(counts.unknown_for_good)}" if counts.unknown_for_good else ""
    unclear = counts.sending + counts.unknown - counts.unknown_for_good
    text = f"{nothing}{kept} {left_out_text(taken_over, taken_over.count, unclear, ledger_ref)}"
    write(sys.stderr, fitted(sys.stderr, f"{escape_control(text)}\n"))
    return typer.Exit(LAUNCHED_BEFORE)

"""``dispatchkit ledger report``: what a run did, as one HTML file to mail, print and keep, or as JSON."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from dispatchkit.cli.input.ledger_ref import LedgerRef, parse_ledger_args
from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.loop import run_loop
from dispatchkit.cli.output.report_file import HTML_START, JSON_START, ReportFile
from dispatchkit.cli.text import escape_control, write
from dispatchkit.cli.translate import _
from dispatchkit.cli.views.report_facts import make_report
from dispatchkit.cli.views.report_html import as_page
from dispatchkit.cli.views.target_lines import TargetLines
from dispatchkit.values import as_json

if TYPE_CHECKING:
    from dispatchkit.cli.commands.ledger import ReportOptions

__all__ = ["report_run"]


def report_run(options: ReportOptions) -> None:
    """Write the report of a run.

    Raises:
        typer.Exit: With status 2, if the run cannot be read, or a file not be written.
    """
    with exit_on_user_error():
        if options.output is None and not options.json:
            raise ValueError(_("name the file: -o FILE, or -o - for standard output"))
        ledger_ref = parse_ledger_args(options.where or [], run=True)
        start = JSON_START if options.json else HTML_START
        output = ReportFile("-" if options.output is None else options.output, start, replaces=options.force)
        lines = TargetLines("csv")
        targets = None if options.targets is None else ReportFile(options.targets, lines.header, replaces=options.force)
        if targets is not None and targets.is_same_as(output):
            raise ValueError(_("--output and --targets are the same: name two files"))
        run_loop(_write(ledger_ref, output, targets, lines, as_html=not options.json))


async def _write(
    ledger_ref: LedgerRef, output: ReportFile, targets: ReportFile | None, lines: TargetLines, *, as_html: bool
) -> None:
    async with ledger_ref.open() as ledger:
        with output, targets or nullcontext():
            if targets is not None:
                targets.write(lines.header)
            report = await make_report(ledger, ledger_ref, targets, lines)
            named = None if targets is None or targets.is_standard_output else targets.path.name
            output.write(as_page(report, targets_file=named) if as_html else f"{as_json(report)}\n")
    name = repr(report.snapshot.run.name)
    _say(output, _("The report of run {name} is in {path}."), name)
    if targets is not None:
        _say(targets, _("All targets of run {name} are in {path}."), name)


def _say(file: ReportFile, text: str, name: str) -> None:
    """Say where a file is. Standard output may hold the other file."""
    if not file.is_standard_output:
        write(sys.stderr, f"{escape_control(text.format(name=name, path=file.name))}\n")

"""The text of a summary: lines, a table of counts, and lines. Only a terminal gets colours, and only they need Rich."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, TextIO

from dispatchkit.cli.output.tables import cell_width
from dispatchkit.cli.translate import _

__all__ = ["Count", "summary_text"]

_FORCING = ("FORCE_COLOR", "TTY_COMPATIBLE")
"""Variables that let Rich take a file for a terminal."""


class Count(NamedTuple):
    """A row of the table."""

    outcome: str
    number: int
    style: str = ""
    """As Rich names it."""


def summary_text(stream: TextIO, before: Sequence[str], counts: Sequence[Count], after: Sequence[str]) -> str:
    """The text for a stream.

    Args:
        stream: What it will be written to.
        before: The lines above the table.
        counts: The rows of the table.
        after: The lines below it.
    """
    if stream.isatty() or any(os.environ.get(name) for name in _FORCING):
        return _styled(stream, before, counts, after)
    return "".join(f"{line}\n" for line in (*before, *_plain(counts), *after))


def _plain(counts: Sequence[Count]) -> list[str]:
    rows = [(_("outcome"), _("count")), *((row.outcome, f"{row.number:,}") for row in counts)]
    left, right = (max(map(cell_width, column)) for column in zip(*rows, strict=True))
    return [
        f"{outcome}{' ' * (left - cell_width(outcome))}  {' ' * (right - cell_width(count))}{count}"
        for outcome, count in rows
    ]


def _styled(stream: TextIO, before: Sequence[str], counts: Sequence[Count], after: Sequence[str]) -> str:
    from rich.console import Console  # noqa: PLC0415 - see the module
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    # A catalogue may hold markup: it is text.
    table = Table(box=None, pad_edge=False)
    table.add_column(Text(_("outcome")))
    table.add_column(Text(_("count")), justify="right")
    for outcome, number, style in counts:
        table.add_row(Text(outcome), f"{number:,}", style=style)
    console = Console(file=stream, emoji=False)
    with console.capture() as captured:
        for line in before:
            console.print(Text(line), highlight=False, soft_wrap=True)
        console.print(table, highlight=False)
        for line in after:
            console.print(Text(line), highlight=False, soft_wrap=True)
    return captured.get()

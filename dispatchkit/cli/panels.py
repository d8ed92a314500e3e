"""Help in panels, as Typer's ``rich_help_panel`` names them, in plain text.

Rich would nearly double the time of ``--help``.
"""

from __future__ import annotations

from typing import Any

import typer.core

from dispatchkit.cli.translate import _

_OPTIONS = _("Options")
__all__ = ["CONNECTION", "GUARDS", "IDS", "LAUNCH", "LEDGER", "OUTPUT", "PACE", "WATCH", "PanelCommand", "write_panels"]

IDS = _("Which ids")
LAUNCH = _("What is launched")
GUARDS = _("Guards")
LEDGER = _("Ledger")
PACE = _("Pace")
CONNECTION = _("Connection")
OUTPUT = _("Output")
WATCH = _("Watch")
_PANELS = (IDS, LAUNCH, WATCH, GUARDS, LEDGER, PACE, CONNECTION, OUTPUT)


class PanelCommand(typer.core.TyperCommand):
    """A command whose help shows its options by panel."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options."""
        write_panels(self, ctx, formatter)


def write_panels(command: Any, ctx: Any, formatter: Any) -> None:
    """Write the arguments and options of a command, those of one panel together; what has no panel comes last."""
    panels: dict[str, list[tuple[str, str]]] = {name: [] for name in (*_PANELS, _OPTIONS)}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            panel = getattr(parameter, "rich_help_panel", None) or _OPTIONS
            panels.setdefault(panel, []).append(record)
    for name, records in panels.items():
        if records:
            with formatter.section(name):
                formatter.write_dl(records)

"""Help in panels, as Typer's ``rich_help_panel`` names them, in plain text.

Rich would nearly double the time of ``--help``.
"""

from __future__ import annotations

from typing import Any

import typer.core

from dispatchkit.cli.translate import _
from dispatchkit.cli.unconverted import leave_texts

__all__ = [
    "CONNECTION",
    "GUARDS",
    "IDS",
    "LAUNCH",
    "LEDGER",
    "OUTPUT",
    "PACE",
    "WATCH",
    "PanelCommand",
    "write_panels",
    "write_usage",
]

IDS = _("Which ids")
LAUNCH = _("What is launched")
GUARDS = _("Guards")
LEDGER = _("Ledger")
PACE = _("Pace")
CONNECTION = _("Connection")
OUTPUT = _("Output")
WATCH = _("Watch")
_OPTIONS = _("Options")
_PANELS = (IDS, LAUNCH, WATCH, GUARDS, LEDGER, PACE, CONNECTION, OUTPUT)


class PanelCommand(typer.core.TyperCommand):
    """A command whose help shows its options by panel."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, with ``--help``."""
        return leave_texts(super().get_params(ctx))

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the line of the usage."""
        write_usage(self, ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options."""
        write_panels(self, ctx, formatter)


def write_usage(command: Any, ctx: Any, formatter: Any) -> None:
    """Write how a command is called."""
    formatter.write_usage(ctx.command_path, " ".join(command.collect_usage_pieces(ctx)), prefix=_("Usage:") + " ")


def write_panels(command: Any, ctx: Any, formatter: Any) -> None:
    """Write the arguments and options of a command, those of one panel together; what has no panel comes last."""
    panels: dict[str, list[tuple[str, str]]] = {name: [] for name in (*_PANELS, _OPTIONS)}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            panel = getattr(parameter, "rich_help_panel", None) or _OPTIONS
            shown, text = record
            panels.setdefault(panel, []).append((shown, _(text)))  # Typer's own options have an English text
    for name, records in panels.items():
        if records:
            with formatter.section(name):
                formatter.write_dl(records)

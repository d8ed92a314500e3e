"""``dispatchkit profile``: list and check the profiles of ``config.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from dispatchkit.cli.lazy import CommandRef, group
from dispatchkit.cli.options import Options
from dispatchkit.cli.parameters.output import JsonLines
from dispatchkit.cli.translate import _

__all__ = ["CheckOptions", "ListProfilesOptions", "app"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ListProfilesOptions(Options):
    """Options of ``list``."""

    json: JsonLines = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CheckOptions(Options):
    """Options of ``check``."""

    name: Annotated[str | None, typer.Argument(metavar="NAME", help=_("The profile. Default: all."))] = None


app = group(
    {
        "list": CommandRef(
            help=_("List the profiles: provider, host, account, and where the token comes from."),
            options="dispatchkit.cli.commands.profile:ListProfilesOptions",
            body="dispatchkit.cli.views.profiles:list_profiles",
            reads=True,
        ),
        "check": CommandRef(
            help=_(
                "Check profiles: the file and its mode, each value, and that the token command writes a token.\n\n"
                "No request is sent."
            ),
            options="dispatchkit.cli.commands.profile:CheckOptions",
            body="dispatchkit.cli.views.profiles:check_profiles",
            reads=True,
        ),
    },
    help=_("List and check the profiles of accounts in config.toml."),
)

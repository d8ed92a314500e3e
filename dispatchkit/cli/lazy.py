"""Commands by reference: a group holds a table of names, and imports a command when the command line names it.

``dispatchkit --help`` therefore imports no command at all: each row of the table holds the help of its command, too.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from typing import Any, ClassVar

import typer
import typer.core
import typer.main

from dispatchkit.cli.options import Options, options_from
from dispatchkit.cli.panels import PanelCommand, write_panels, write_usage
from dispatchkit.cli.redacting_group import RedactingGroup
from dispatchkit.cli.streams import write
from dispatchkit.cli.translate import _
from dispatchkit.cli.unconverted import leave_texts

__all__ = ["CommandRef", "GroupRef", "LazyGroup", "group", "load"]

_OF_WORKERS = {"procrastinate", "psycopg"}
_EXTRA_OF_LEDGER = "dispatchkit[ledger]"
_WORKERS = ("dispatchkit.workers", "dispatchkit.cli.run.worker")
"""Their extra brings that of the ledger, too."""


def load(reference: str) -> Any:
    """The object that ``"module:attribute"`` names. Its module is imported now.

    Raises:
        ImportError: The module needs an extra that is not installed. The message says how to install it.
    """
    module, _separator, attribute = reference.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in _OF_WORKERS:
            raise
        raise ImportError(_("workers need an extra: pip install 'dispatchkit[workers]'")) from missing
    except ImportError as missing:
        if _EXTRA_OF_LEDGER not in str(missing) or not module.startswith(_WORKERS):
            raise
        raise ImportError(_("workers need an extra: pip install 'dispatchkit[workers]'")) from missing


@dataclass(frozen=True, kw_only=True)
class CommandRef:
    """A command: its options, and what it does."""

    help: str
    options: str
    """The reference of a class of options."""
    body: str
    """The reference of a function that takes such options. It is imported once they are parsed."""
    reads: bool = False
    """Whether the command only reads. Only such a command is suggested for a mistyped one."""

    def build(self, name: str) -> typer.core.TyperCommand:
        """The command itself."""
        options: type[Options] = load(self.options)

        def body(values: Options) -> None:
            try:
                command = load(self.body)
            except ImportError as missing:  # an extra
                write(sys.stderr, f"dispatchkit: {missing}\n")
                raise typer.Exit(2) from None
            command(values)

        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        function = options_from(options)(body)
        app.command(name, cls=PanelCommand, help=self.help)(function)
        command: typer.core.TyperCommand = typer.main.get_command(app)  # type: ignore[assignment]
        leave_texts(command.params, signature(function).parameters)
        return command


@dataclass(frozen=True, kw_only=True)
class GroupRef:
    """A group of commands."""

    help: str
    app: str
    """The reference of a `typer.Typer`, such as `group` makes."""
    reads: bool = False
    """Whether all of its commands only read."""
    only: frozenset[str] | None = None
    """The commands that the group shows; None shows all."""

    def build(self, name: str) -> typer.core.TyperGroup:
        """The group itself."""
        app: typer.Typer = load(self.app)
        table: Mapping[str, CommandRef | GroupRef] | None = getattr(app.info.cls, "table", None)
        if self.only is not None and table is not None:
            app = group({each: ref for each, ref in table.items() if each in self.only}, help=app.info.help)
        built = typer.main.get_group(app)
        if self.only is not None:  # a group of another package need not be lazy
            built.commands = {each: command for each, command in built.commands.items() if each in self.only}
        built.name = name
        return built


class LazyGroup(RedactingGroup):
    """A group whose commands are those of a table."""

    table: ClassVar[Mapping[str, CommandRef | GroupRef]] = {}

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, with ``--help``."""
        return leave_texts(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the table."""
        del ctx
        return [*self.table]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, imported when it is first asked for."""
        del ctx
        if cmd_name not in self.commands and cmd_name in self.table:
            self.commands[cmd_name] = self.table[cmd_name].build(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments begin with.

        For a mistyped name, only commands that read are suggested. A shell can run a suggested line with one key, and
        that must not launch. Otherwise, all names are listed.
        """
        if args and not args[0].startswith("-") and not ctx.resilient_parsing:
            try:
                message = None if args[0] in self.table else _no_such_command(args[0], self.table)
            except (ImportError, ValueError) as error:  # it is a provider, whose package is broken
                message = str(error)
            if message is not None:
                ctx.fail(message)
        return super().resolve_command(ctx, args)

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the line of the usage."""
        write_usage(self, ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options by panel, then the commands, without importing any."""
        write_panels(self, ctx, formatter)
        with formatter.section(_("Commands")):
            formatter.write_dl([(name, ref.help.partition("\n")[0]) for name, ref in self.table.items()])


def group(
    table: Mapping[str, CommandRef | GroupRef],
    *,
    help: str | None = None,  # noqa: A002 - Typer's name
    epilog: str | None = None,
    completion: bool = False,
) -> typer.Typer:
    """A Typer whose commands are those of a table."""
    return typer.Typer(
        cls=type("Group", (LazyGroup,), {"table": table}),
        help=typer.models.Default(None) if help is None else help,
        epilog=epilog,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        # Rich would double the time that --help takes.
        rich_markup_mode=None,
        # A local variable may hold a token.
        pretty_exceptions_enable=False,
        add_completion=completion,
    )


def _no_such_command(name: str, table: Mapping[str, CommandRef | GroupRef]) -> str:
    reading = [known for known, ref in table.items() if ref.reads]
    close: Sequence[str] = get_close_matches(name, reading)
    if close:
        return _("There is no command {name!r}. Did you mean {names}?").format(
            name=name, names=_(" or ").join(map(repr, close))
        )
    return _("There is no command {name!r}. The commands are: {names}.").format(name=name, names=", ".join(table))

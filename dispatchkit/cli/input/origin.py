"""The command that a row of a file names, seen from the command that reads the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Never

import attrs

from dispatchkit.cli.input.damage import shown
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.providers import command_lines, find_provider

if TYPE_CHECKING:
    from dispatchkit.providers import Provider

__all__ = ["ForeignCommandError", "Origin", "Reader"]

Origin = Literal["same", "stopped", "other"]
"""The command of a row: the one that reads the row, one that it stops, or another one."""


class ForeignCommandError(ValueError):
    """A row is of a command of another provider."""


@attrs.frozen(kw_only=True)
class Reader:
    """The command that reads a file."""

    provider: Provider[Never]
    type: str
    """The name of its class, as rows have it."""
    names: Mapping[str, str]
    """By class name of the provider's commands: the name in the registry."""
    stops: frozenset[str] = frozenset()
    """The commands that it stops, by their names in the registry."""
    only_reads: bool = False
    """Whether it changes nothing. Such a command takes all ids, whatever their state."""

    @classmethod
    def of(
        cls, provider: Provider[Never], command: str, stops: frozenset[str] = frozenset(), *, only_reads: bool = False
    ) -> Reader:
        """The command of a provider that has this class."""
        return cls(provider=provider, type=command, names=_names(provider), stops=stops, only_reads=only_reads)

    @property
    def name(self) -> str:
        """The name of the command in messages."""
        return self.names.get(self.type, self.type)

    @property
    def id_key(self) -> str:
        """The key of the id in what the provider lists, such as ``dispatch_id``."""
        return f"{self.provider.noun[0]}_id"

    def origin(self, command: str) -> Origin:
        """The origin of a row. A row with an empty name counts as this command's.

        Raises:
            ForeignCommandError: The row is of another provider.
        """
        if command in {"", self.type}:
            return "same"
        name = self.names.get(command)
        if name is None:
            raise ForeignCommandError(_foreign(command, self.provider))
        return "stopped" if name in self.stops else "other"


def _names(provider: Provider[Never]) -> dict[str, str]:
    return {cls.__name__: name.partition(".")[2] for name, cls in provider.command_types().items()}


def _foreign(command: str, own: Provider[Never]) -> str:
    for name in command_lines():
        other = find_provider(name)
        if other is not None and command in _names(other):
            return _("{command} is about {others} of {other}, not {own_nouns} of {own}: nothing was started").format(
                command=shown(command),
                others=ngettext(*other.noun, 2),
                other=other.name.capitalize(),
                own_nouns=ngettext(*own.noun, 2),
                own=own.name.capitalize(),
            )
    return _("{command} is no command of {provider}: nothing was started").format(
        command=shown(command), provider=own.name.capitalize()
    )

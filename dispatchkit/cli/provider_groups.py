"""The command lines of the providers, as the registry knows them: groups of ``dispatchkit``, and of its ``plan``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dispatchkit.cli.lazy import GroupRef
from dispatchkit.cli.translate import _
from dispatchkit.providers import command_lines, find_provider

__all__ = ["ProviderGroups"]


@dataclass(frozen=True)
class ProviderGroups(Mapping[str, GroupRef]):
    """The group of each provider that has a command line, as a table.

    A provider is looked up when its name is asked for. Only a list of all of them looks for installed packages.
    """

    plannable: bool = False
    """Whether each group shows only commands that a ledger can hold."""

    def __getitem__(self, name: str) -> GroupRef:
        provider = find_provider(name)
        if provider is None or provider.command_line is None:
            raise KeyError(name)
        return GroupRef(
            help=_(provider.help),
            app=provider.command_line,
            only=frozenset(provider.commands) if self.plannable else None,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(command_lines())

    def __len__(self) -> int:
        return len(command_lines())

"""Specification of a command: its ids, its client, and its names in messages."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from dispatchkit.cli.durations import HOUR
from dispatchkit.cli.input.origin import Reader
from dispatchkit.cli.input.question import PRODUCTION, Description, describe_ids
from dispatchkit.cli.text import counted
from dispatchkit.cli.translate import _, ngettext
from dispatchkit.profiles import is_loopback
from dispatchkit.providers import installed_provider

if TYPE_CHECKING:
    from dispatchkit import LaunchCheck
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.options import ActingOptions, RunOptions
    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command
    from dispatchkit.sandbox import Sandbox

__all__ = ["CheckSpec", "LaunchSpec", "describe", "describe_account", "describe_host", "describe_rest"]

R = TypeVar("R")
W = TypeVar("W")


@attrs.frozen(kw_only=True)
class CheckSpec(Generic[W]):
    """How the targets of a command are checked, and whether they have to be."""

    read: Callable[[Client[W], Iterable[int], float | None], AsyncGenerator[tuple[int, LaunchCheck]]]
    """Reads with a client, for each target within so many seconds. It gives the place of a target, and its check."""
    is_demanded: bool = False
    """Whether a target that something speaks against is not launched."""
    skips: bool = False
    """Whether such a target is left out; otherwise it refuses the whole launch."""


@attrs.frozen(kw_only=True)
class LaunchSpec(Generic[W, R]):
    """The command for each id, and the client that performs it."""

    verb: str
    provider: str
    """The name of the provider in the registry."""
    base_url: str | None
    command: Callable[[int], Command[W, R]]
    connect: Callable[[str, str], Client[W]]
    """A client, from a host and a token."""
    wire: Callable[[str], W]
    """Makes the wire format of requests from a token, without a client."""
    sandbox: Callable[[Targets], Sandbox]
    """A sandbox that knows the ids."""
    token_of_sandbox: Callable[[Sandbox], str]
    prepare: str | None = None
    """The reference of a function ``(sandbox, id)`` that a sandbox needs before the command makes sense for an id."""
    stops: frozenset[str] = frozenset()
    """The commands that this one stops, by their names in the registry."""
    repeat_window: float | None = HOUR
    """Seconds within which a target is not launched again, unless that is said; None: it may always be."""
    overrides: tuple[tuple[str, str], ...] = ()
    """The overrides of a launch, as text: names and sizes, never a value of a content."""
    check: CheckSpec[W] | None = None
    """How targets are checked before the launch; None: they are not."""
    targets: Targets | None = None
    """The ids, where the options do not name them."""
    token: str | None = attrs.field(default=None, repr=False)
    """The token, where it was read already."""

    @property
    def noun(self) -> tuple[str, str]:
        """One target, and many."""
        return installed_provider(self.provider).noun

    @property
    def reader(self) -> Reader:
        """The command, as far as a file of ids is concerned."""
        provider = installed_provider(self.provider)
        return Reader.of(provider, type(self.command(1)).__name__, self.stops)

    @property
    def token_variable(self) -> str:
        """The environment variable that holds the token."""
        return installed_provider(self.provider).token_variable

    def host(self, *, sandbox: bool) -> str:
        """The host of the client that checks the commands.

        Args:
            sandbox: Whether the launch goes to a sandbox, which gets its port when it starts.

        Raises:
            ValueError: There is none.
        """
        if sandbox:
            return "http://127.0.0.1"
        if self.base_url is None:
            variable = installed_provider(self.provider).url_variable
            missing = (
                _("no host: add --base-url https://your-platform")
                if variable is None
                else _("no host: add --base-url https://your-platform, or set {variable}")
            )
            raise ValueError(missing.format(variable=variable))
        return self.base_url


def describe(
    options: RunOptions,
    spec: LaunchSpec[W, R],
    targets: Targets,
    host: str,
    *,
    more: tuple[tuple[str, str], ...] = (),
) -> Description:
    """The launch in words, for the question and for the report. ``more`` are further rows."""
    action = _("{verb} {targets}: {ids}").format(
        verb=_(spec.verb), targets=counted(len(targets), *spec.noun), ids=describe_ids(targets)
    )
    plan = options.invocation.plan
    if plan is not None:
        action = _("plan run {run!r}, to {action}").format(run=plan.run, action=action)
    where = describe_host(options, host, spec.token_variable)
    if options.sandbox:
        where = ((_("host"), _("a sandbox on this machine")), (_("account"), _("the sandbox's")))
    return Description(action, (*where, *spec.overrides, *more))


def describe_rest(
    description: Description, spec: LaunchSpec[W, R], targets: Targets, *, run: str, left: int
) -> Description:
    """The launch in words, where its run exists already."""
    action = ngettext(
        "{verb} the rest of run {run!r}: {left:,} of {targets} is left, of {ids}",
        "{verb} the rest of run {run!r}: {left:,} of {targets} are left, of {ids}",
        left,
    ).format(
        verb=_(spec.verb),
        run=run,
        left=left,
        targets=counted(len(targets), *spec.noun),
        ids=describe_ids(targets),
    )
    return attrs.evolve(description, action=action)


def describe_host(options: ActingOptions, host: str, variable: str) -> tuple[tuple[str, str], ...]:
    """Where a launch goes: the profile, the host, and the account."""
    profile = options.invocation.profile
    is_production = not is_loopback(host) if profile is None else profile.is_production_at(host)
    named = () if profile is None else ((_("profile"), profile.name),)
    shown = f"{host}{PRODUCTION}" if is_production else host
    return (*named, (_("host"), shown), (_("account"), describe_account(options, variable)))


def describe_account(options: ActingOptions, variable: str) -> str:
    """Whose account it is: its name, or else where its token comes from."""
    place, profile = options.token_file, options.invocation.profile
    source = _("the token on standard input")
    if place != "-":
        source = _("the token in {place}").format(place=place or variable)
    if place is None and profile is not None and not os.environ.get(variable):
        source = _("the token of profile {name!r}").format(name=profile.name)
    return (
        source
        if options.account is None
        else _("{account!r}, with {source}").format(account=options.account, source=source)
    )

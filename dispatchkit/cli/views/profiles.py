"""Output of ``dispatchkit profile``. No line shows a token."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import attrs

from dispatchkit.cli.input.values import exit_on_user_error
from dispatchkit.cli.output.tables import Rows, form_of
from dispatchkit.cli.text import escape_control, write
from dispatchkit.cli.translate import N_, _
from dispatchkit.core.secret import Secret
from dispatchkit.profiles import Profile, load_profile, profiles_file, read_profiles
from dispatchkit.providers import installed_provider
from dispatchkit.values import Value

if TYPE_CHECKING:
    from dispatchkit.cli.commands.profile import CheckOptions, ListProfilesOptions

__all__ = ["check_profiles", "list_profiles"]


@attrs.frozen
class ProfileRow(Value):
    """What is shown of a profile."""

    profile: str
    provider: str
    host: str
    account: str | None
    token: str
    production: bool


_COLUMNS = (N_("profile"), N_("provider"), N_("host"), N_("account"), N_("token"), N_("production"))


def _row(profile: Profile) -> ProfileRow:
    return ProfileRow(
        profile.name, profile.provider, profile.host, profile.account, profile.token_source, profile.is_production
    )


def list_profiles(options: ListProfilesOptions) -> None:
    """List the profiles.

    Raises:
        typer.Exit: With status 2, if the file cannot be used.
    """
    with exit_on_user_error():
        profiles = read_profiles()
        if not profiles and not options.json:
            write(
                sys.stdout,
                _("There are no profiles in {path}.").format(path=escape_control(str(profiles_file()))) + "\n",
            )
            return
    rows = Rows(form_of(json=options.json, csv=False), ProfileRow, _COLUMNS, flexible=("host", "account"))
    for profile in profiles.values():
        row = _row(profile)
        rows.add(row, *(getattr(row, name) for name in _COLUMNS))
    rows.flush()


def check_profiles(options: CheckOptions) -> None:
    """Check one profile, or all.

    Raises:
        typer.Exit: With status 2, if a profile cannot be used.
    """
    with exit_on_user_error():
        profiles = read_profiles()
        chosen = [*profiles.values()] if options.name is None else [load_profile(options.name)]
        if not chosen:
            raise ValueError(
                _("there are no profiles in {path}: begin one with [profiles.NAME]").format(path=profiles_file())
            )
        for profile in chosen:
            _check(profile)
    write(sys.stdout, _("No request was sent.") + "\n")


def _check(profile: Profile) -> None:
    provider = installed_provider(profile.provider)
    variable, url_variable = provider.token_variable, provider.url_variable or ""
    own = os.environ.get(url_variable)  # it goes before the profile's host in a launch, too
    profile.check_environment()
    if not (host := own or profile.host):
        raise ValueError(
            _("profile {name!r} has no url, and the provider {provider!r} has no host of its own: add {line}").format(
                name=profile.name, provider=profile.provider, line='url = "https://..."'
            )
        )
    secret = Secret(os.environ.get(variable) or profile.read_token() or "", environment=variable)
    try:
        secret.check()
    except ValueError as error:
        raise ValueError(_("profile {name!r}: {error}").format(name=profile.name, error=error)) from None
    source = variable if os.environ.get(variable) else profile.token_source
    kind = _("production") if profile.is_production_at(host) else _("not production")
    fine = (
        _("{name}: {provider} at {host} ({kind}), token from {source}: fine")
        if profile.account is None
        else _("{name}: {provider} at {host} ({kind}), account {account!r}, token from {source}: fine")
    )
    text = fine.format(
        name=profile.name,
        provider=profile.provider,
        host=_("{host} of {variable}").format(host=host, variable=url_variable) if own else host,
        kind=kind,
        account=profile.account,
        source=source,
    )
    write(sys.stdout, f"{escape_control(text)}\n")

"""``--profile``: options that neither the command line nor the environment sets come from a profile."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from dispatchkit.cli.options import ActingOptions, ConnectionOptions
from dispatchkit.cli.translate import _
from dispatchkit.profiles import VARIABLE, load_profile

if TYPE_CHECKING:
    from typing import Never

    from dispatchkit.profiles import Profile
    from dispatchkit.providers import Provider

__all__ = ["with_profile"]

O = TypeVar("O", bound=ConnectionOptions)  # noqa: E741 - a class of options


def with_profile(options: O, provider: Provider[Never] | Provider[Any]) -> O:
    """The options, completed by the profile that they or the environment name.

    Raises:
        ValueError: There is no such profile, it is of another provider, or its file is damaged or open to others.
    """
    if getattr(options, "sandbox", False):
        if options.profile is not None:
            raise ValueError(_("--profile does not go with --sandbox: the sandbox has an account of its own"))
        return options
    name = options.profile or os.environ.get(VARIABLE)
    if not name:
        return options
    profile = load_profile(name, provider=provider.name)
    given, changes = options.invocation.given, dict[str, Any]()
    if not given("base_url"):
        if options.token_file is None:
            profile.check_environment()
        if hasattr(options, "base_url") and profile.url and not os.environ.get(provider.url_variable or ""):
            changes["base_url"] = profile.url
    changes |= {name: value for name, value in profile.settings.items() if hasattr(options, name) and not given(name)}
    if isinstance(options, ActingOptions):
        changes |= {key: value for key, value in _of_launches(profile).items() if value is not None and not given(key)}
    invocation = options.invocation
    if invocation.plan is not None:  # its pace is that of all workers together, which `plan` itself names
        changes.pop("rate", None)
        changes.pop("concurrency", None)
    return replace(options, **changes, invocation=replace(invocation, profile=profile))


def _of_launches(profile: Profile) -> dict[str, object]:
    pace = profile.pace
    if pace is None:
        return {"account": profile.account}
    concurrency = None if pace.concurrency == type(pace)().concurrency else str(pace.concurrency)
    return {"account": profile.account, "rate": pace.rate, "concurrency": concurrency}

"""The registry of providers: what a ledger, a worker and the command line know of each.

A provider is loaded when its name is asked for. Those of this package are named here; others come from the entry points
of installed packages, or from `register`.

The help of the command line lists all providers. It must not pay for what only other functions need: these import it.
"""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Never, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from dispatchkit.core.call.client import Client
    from dispatchkit.core.command import Command
    from dispatchkit.errors import LedgerError

__all__ = [
    "ENTRY_POINTS",
    "Provider",
    "StoredRun",
    "command_lines",
    "connect_run",
    "find_provider",
    "installed_provider",
    "parse_settings",
    "provider_of",
    "register",
]

W = TypeVar("W")

ENTRY_POINTS = "dispatchkit.providers"
"""The group of entry points in which an installed package names its providers: ``sms = "sms_kit:SMS"``."""

_BUILT_IN = {
    "direct": "dispatchkit.built_in.direct:PROVIDER",
    "altcraft": "dispatchkit.built_in.altcraft:PROVIDER",
}
_NAME = re.compile("[a-z][a-z0-9_-]{0,39}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Provider(Generic[W]):
    """A provider's entry in the registry. ``W`` is its wire, as in `Client`.

        SMS = Provider(name="sms", client=SmsClient, commands={"start": StartSms}, token_variable="SMS_TOKEN")

    A class may be given by its place, ``"sms_kit.client:SmsClient"``: then it is imported when it is needed.

    Raises:
        ValueError: ``name`` is not lower-case letters, digits, ``-`` and ``_``, or there are no commands.
    """

    name: str
    """The name that the provider's commands have as `Command.provider`. Ledgers keep it, so it never changes."""
    client: Callable[..., Client[W]] | str
    """The client's class. Its constructor takes ``token``, ``base_url``, the options of `Client` and the `settings`."""
    commands: Mapping[str, type[Command[W, object]] | str]
    """What can be launched, by its name in ledgers: ``"start"`` is stored as ``"sms.start"``. Names never change."""
    token_variable: str
    """The environment variable that holds the token."""
    url_variable: str | None = None
    """The environment variable that holds the host."""
    base_url: str | None = None
    """The provider's host, where it has one for all accounts."""
    noun: tuple[str, str] = ("target", "targets")
    """What a target is called: one, and many."""
    settings: Mapping[str, Callable[[str], object]] = field(default_factory=dict[str, Callable[[str], object]])
    """What `Client._settings` adds to provider and host, each with what reads its text. It raises `ValueError`."""
    command_line: str | None = None
    """The Typer group of its command line, as ``"module:attribute"``: ``dispatchkit NAME``.

    ``dispatchkit plan`` takes those of its commands that have a name of `commands`.
    """
    help: str = ""
    """What the command line says of this group, in one line."""

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ValueError(
                f"name must be lower-case letters, digits, - and _, beginning with a letter, not {self.name!r}"
            )
        if not self.commands:
            raise ValueError(f"the provider {self.name!r} has no commands")

    @property
    def is_built_in(self) -> bool:
        """Whether it is part of this package."""
        return self.name in _BUILT_IN

    def command_types(self) -> dict[str, type[Command[W, object]]]:
        """The classes of the commands, by their stored names.

        Raises:
            TypeError: A class names another provider.
        """
        classes = dict[str, "type[Command[W, object]]"]()
        for name, given in self.commands.items():
            cls = cast("type[Command[W, object]]", _load(given) if isinstance(given, str) else given)
            if cls.provider != self.name:
                raise TypeError(f"{cls.__name__}.provider must be {self.name!r}, not {cls.provider!r}")
            classes[f"{self.name}.{name}"] = cls
        return classes

    def own_url(self, given: str | None = None) -> str:
        """The host that this machine is set up for: what is given, else the environment's, else the provider's own.

        Raises:
            ValueError: There is none.
        """
        url = given or (self.url_variable and os.environ.get(self.url_variable)) or self.base_url
        if not url:
            variable = "" if self.url_variable is None else f", or set {self.url_variable}"
            raise ValueError(f"no host for the provider {self.name!r}: pass its URL{variable}")
        return url

    def connect(
        self, settings: Mapping[str, str], *, token: str | None = None, base_url: str | None = None, **options: object
    ) -> Client[W]:
        """Make a client of the settings that a run was planned with.

        Args:
            settings: What `Client._settings` gave.
            token: None takes the environment's.
            base_url: The host; None takes that of the settings.
            options: Options of the client that are not among the settings, such as ``proxy``.

        Raises:
            LedgerError: The settings are damaged, or a newer release wrote them.
            ValueError: There is no token, or an option is out of range.
        """
        known = {"provider", "base_url", *self.settings}
        wrong = sorted(name for name in {*settings, *known} if (name in settings) != (name in known))
        read = dict[str, object]()
        for name, reader in self.settings.items():
            try:
                read[name] = reader(settings.get(name, ""))
            except ValueError:
                wrong.append(name)
        if wrong:
            raise _ledger_error(
                f"the settings of the run do not fit the provider {self.name!r}: {', '.join(sorted({*wrong}))}. "
                "They are damaged, or a newer release wrote them. Upgrade, or restore the ledger from a copy"
            )
        client = cast("Callable[..., Client[W]]", _load(self.client) if isinstance(self.client, str) else self.client)
        return client(token=token, base_url=base_url or settings["base_url"], **read, **options)


_registered: dict[str, Provider[Never]] = {}


def register(provider: Provider[W]) -> None:
    """Make a provider known in this process. The same entry may be registered again, also if an entry point names it.

    Other processes, such as workers, know only what an entry point names (group `ENTRY_POINTS`).

    Raises:
        ValueError: Another provider has the name.
    """
    entry = cast("Provider[Never]", provider)
    if _is_installed(entry):
        return
    if _registered.get(entry.name, entry) is not entry or entry.name in _BUILT_IN or entry.name in _installed():
        raise ValueError(f"there is a provider {entry.name!r} already: give this one another name")
    _registered[entry.name] = entry


def _is_installed(entry: Provider[Never]) -> bool:
    """Whether an entry point names this entry. Its package may be in the middle of its own import."""
    point = _installed().get(entry.name)
    if point is None or isinstance(point, ValueError):
        return False
    return getattr(sys.modules.get(point.module), point.attr, None) is entry


def find_provider(name: str) -> Provider[Never] | None:
    """The provider of a name, which is loaded now; None if there is none.

    Raises:
        ImportError: Its package cannot be loaded.
        ValueError: Two installed packages bring it, or what a package brings has another name.
    """
    return _registered.get(name) or _find_installed(name)


@cache
def _find_installed(name: str) -> Provider[Never] | None:
    if name in _BUILT_IN:
        return cast("Provider[Never]", _load(_BUILT_IN[name]))
    point = _installed().get(name)
    if point is None:
        return None
    if isinstance(point, ValueError):
        raise point.with_traceback(None)
    try:
        found: object = point.load()
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise ImportError(f"the provider {name!r} cannot be loaded from {point.value} ({what})") from error
    if not isinstance(found, Provider) or found.name != name:
        raise ValueError(f"{point.value} must be a Provider of the name {name!r}, which its entry point says")
    return cast("Provider[Never]", found)


@cache
def _installed() -> Mapping[str, EntryPoint | ValueError]:
    """The entry points of other packages, by the provider's name. Nothing of them is imported.

    A name that two packages bring has an error in place of an entry point. All other names stay usable.
    """
    if not _may_be_named():
        return {}
    from importlib.metadata import entry_points  # noqa: PLC0415 - see above

    places = {name: {place} for name, place in _BUILT_IN.items()}
    points = dict[str, "EntryPoint | ValueError"]()
    for point in entry_points(group=ENTRY_POINTS):
        named = places.setdefault(point.name, set())
        named.add(point.value)
        points[point.name] = point
        if len(named) > 1:
            points[point.name] = ValueError(
                f"two packages bring a provider {point.name!r}: {' and '.join(sorted(named))}; remove one"
            )
    return points


def _may_be_named() -> bool:
    """Whether an installed package may name the group: false if no file of entry points has its name.

    `importlib.metadata` itself would take a fifth of the time of ``dispatchkit --help`` to import.
    """
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_distributions")]
    if any(finder is not PathFinder for finder in finders):
        return True
    return any(map(_may_name, map(Path, sys.path)))


def _may_name(place: Path) -> bool:
    """Whether an entry of `sys.path` may hold a package that names the group."""
    if not place.is_dir() or place.suffix == ".egg":
        return place.exists()
    for folder in place.iterdir():
        if folder.suffix in {".dist-info", ".egg-info"}:
            with contextlib.suppress(OSError):
                if ENTRY_POINTS.encode() in (folder / "entry_points.txt").read_bytes():
                    return True
    return False


def command_lines() -> dict[str, str]:
    """The command lines of all providers, each as ``"module:attribute"`` of a Typer group.

    A package that cannot be loaded is left out, with a warning of the logger ``dispatchkit``. The command lines of all
    other providers stay usable.
    """
    installed = _installed()
    names = dict.fromkeys((*_BUILT_IN, *_registered, *installed))
    lines = dict[str, str]()
    for name in names:
        if name in _BUILT_IN and isinstance(error := installed.get(name), ValueError):
            _warn(error)
        try:
            provider = find_provider(name)
        except (ImportError, ValueError) as error:
            _warn(error)
            continue
        if provider is not None and provider.command_line is not None:
            lines[name] = provider.command_line
    return lines


def parse_settings(text: str) -> dict[str, str]:
    """The settings of a run, as its ledger holds them.

    Raises:
        LedgerError: They are damaged.
    """
    import json  # noqa: PLC0415 - see above

    parsed: object = None
    with contextlib.suppress(ValueError, RecursionError):
        parsed = json.loads(text)
    fields = cast("dict[str, object]", parsed) if isinstance(parsed, dict) else None
    if fields is None or not all(isinstance(value, str) for value in fields.values()):
        raise _ledger_error("the settings of the run cannot be read: the ledger is damaged, so restore it from a copy")
    return cast("dict[str, str]", fields)


def provider_of(settings: Mapping[str, str]) -> Provider[Never]:
    """The provider that a run was planned for.

    Raises:
        LedgerError: The settings name none, or one that is not installed.
        ImportError: Its package cannot be loaded.
    """
    name = settings.get("provider")
    if name is None:
        raise _ledger_error(
            "the settings of the run name no provider: the ledger is damaged, so restore it from a copy"
        )
    return installed_provider(name)


def installed_provider(name: str) -> Provider[Never]:
    """The provider of a name that a ledger holds.

    Raises:
        LedgerError: It is not installed.
        ImportError: Its package cannot be loaded.
    """
    provider = find_provider(name)
    if provider is None:
        raise _ledger_error(
            f"the ledger names the provider {name!r}, which is not installed: install its package, or upgrade "
            f"dispatchkit. The package has an entry point {name!r} in the group {ENTRY_POINTS!r}"
        )
    return provider


class StoredRun(Protocol):
    """What a ledger holds of a run, as far as its client is concerned."""

    @property
    def settings(self) -> str:
        """What `Client._settings` gave, as JSON."""
        ...

    @property
    def account(self) -> str | None:
        """The name of the account, where it has one."""
        ...

    @property
    def fingerprint(self) -> str:
        """What `Client._token_fingerprint` gave."""
        ...


def connect_run(
    run: StoredRun,
    *,
    base_url: str | None = None,
    token: str | None = None,
    account: str | None = None,
    **options: object,
) -> Client[Never]:
    """Make the client that a run was planned for.

    It has the name of the run's account if its token is the run's: another token may be another account's.

    Args:
        run: The run.
        base_url: The host; None takes the run's.
        token: None takes the environment's.
        account: The name of the account of this token; None: see above.
        options: Further options of the client, such as ``proxy``.

    Raises:
        LedgerError: The run's provider is not installed, or its settings are damaged.
        ImportError: The provider's package cannot be loaded.
        ValueError: There is no token, or an option is out of range.
    """
    settings = parse_settings(run.settings)
    provider = provider_of(settings)
    client = provider.connect(settings, token=token, base_url=base_url, account=account, **options)
    if account is None and run.account is not None and client._token_fingerprint() == run.fingerprint:
        return provider.connect(settings, token=token, base_url=base_url, account=run.account, **options)
    return client


def _load(place: str) -> object:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


def _warn(error: Exception) -> None:
    import logging  # noqa: PLC0415 - see above

    logging.getLogger("dispatchkit").warning("%s", error)


def _ledger_error(message: str) -> LedgerError:
    from dispatchkit.errors import LedgerError  # noqa: PLC0415 - see above

    return LedgerError(message)

"""Profiles: accounts by name, in ``config.toml`` in the user's configuration folder.

    [profiles.retail]
    provider = "direct"
    account = "retail"
    token_command = "pass show direct/retail"
    pace = { rate = 200, concurrency = 64 }

A client takes a profile with ``DirectClient.from_profile("retail")``, the command line with ``--profile retail``. An
argument goes before the environment, the environment before the profile, the profile before defaults.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import subprocess
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import attrs

from dispatchkit.core.pacing.pace import Pace
from dispatchkit.core.secret import Unshown
from dispatchkit.core.transport.url import origin
from dispatchkit.core.validators import label
from dispatchkit.providers import Provider, find_provider, installed_provider

__all__ = [
    "VARIABLE",
    "Profile",
    "client_options",
    "is_loopback",
    "load_profile",
    "profile_name",
    "profiles_file",
    "read_profiles",
]

VARIABLE = "DISPATCHKIT_PROFILE"
"""The environment variable that names a profile where no argument does."""

_KEYS = ("provider", "url", "account", "pace", "token", "token_command", "production")
_PACE = ("rate", "concurrency")
_ALIASES = {
    "base_url": "url",
    "host": "url",
    "rate": "pace = { rate = ... }",
    "concurrency": "pace = { concurrency = ... }",
}
"""Other names of keys: of arguments and of options."""
_HEADER = re.compile(r"\s*\[([^\[\]]+)\]")
_UNQUOTED = re.compile(r"[\s\"']")
_COMMAND_TIMEOUT = 60.0
"""Seconds that a ``token_command`` may take. A person may have to unlock a key."""
_OTHERS, _OTHERS_WRITE = 0o077, 0o022


@attrs.frozen(kw_only=True)
class Profile:
    """One account, as ``config.toml`` names it. No repr shows its token."""

    name: str
    provider: str
    url: str | None = None
    account: str | None = None
    pace: Pace | None = None
    settings: Mapping[str, object] = attrs.field(factory=dict[str, object])
    """The provider's own settings, such as ``wire`` of Altcraft."""
    token: Unshown[str] | None = None
    token_command: tuple[str, ...] = ()
    production: bool | None = None
    """Whether a launch reaches real people; None: any host but this machine does."""

    @property
    def host(self) -> str:
        """The profile's URL, else the provider's own; empty if there is none."""
        return self.url or installed_provider(self.provider).base_url or ""

    @property
    def is_production(self) -> bool:
        """Whether a launch reaches real people."""
        return self.is_production_at(self.host)

    def is_production_at(self, host: str) -> bool:
        """Whether a launch at a host reaches real people. ``production`` speaks for the profile's own host only."""
        if self.production is None or host.rstrip("/") != self.host.rstrip("/"):
            return not is_loopback(host)
        return self.production

    @property
    def token_source(self) -> str:
        """Where the token comes from, if the environment does not hold one."""
        if self.token_command:
            return "token_command"
        return "the file" if self.token is not None else installed_provider(self.provider).token_variable

    def read_token(self) -> str | None:
        """The token of the file or of the command, which runs now; None if the profile has neither.

        Raises:
            ValueError: The command cannot be run, failed, or wrote no token.
        """
        if self.token is not None:
            return self.token.reveal()
        if not self.token_command:
            return None
        try:
            done = subprocess.run(  # noqa: S603 - the user's own command
                self.token_command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=False,
                timeout=_COMMAND_TIMEOUT,
            )
        except OSError as error:
            raise self._failure(f"{self.token_command[0]}: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise self._failure(f"it took longer than {_COMMAND_TIMEOUT:g} s") from None
        if done.returncode:
            raise self._failure(f"exit status {done.returncode}")
        if not (token := done.stdout.decode("ascii", "replace").strip()):
            raise self._failure("it wrote no token")
        return token

    def _failure(self, reason: str) -> ValueError:
        return ValueError(
            f"token_command of profile {self.name!r} failed: {reason}. Run it in a shell to see why, and correct it "
            f"in {profiles_file()}"
        )

    def check_environment(self) -> None:
        """Refuse to send the profile's token to a host that only the environment names.

        Raises:
            ValueError: The environment names another host than the profile, and no token.
        """
        provider = installed_provider(self.provider)
        url = os.environ.get(provider.url_variable or "")
        has_own = self.token is not None or self.token_command
        if url and has_own and not os.environ.get(provider.token_variable) and url.rstrip("/") != self.host.rstrip("/"):
            raise ValueError(
                f"profile {self.name!r} has a token for {self.host or 'no host'}, but {provider.url_variable} names "
                f"another host: unset {provider.url_variable}"
            )


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def profiles_file() -> Path:
    """The file of the profiles. It need not exist.

    Raises:
        ImportError: The extra ``profiles`` is not installed.
    """
    try:
        import platformdirs  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as missing:
        raise ImportError("profiles need an extra: pip install 'dispatchkit[profiles]'") from missing
    return platformdirs.user_config_path("dispatchkit", appauthor=False) / "config.toml"


def load_profile(name: str | None = None, *, provider: str | None = None) -> Profile:
    """The profile of a name.

    Args:
        name: The name; None reads ``DISPATCHKIT_PROFILE``.
        provider: The provider that the profile must be of; None takes any.

    Raises:
        ValueError: There is no such profile, it is of another provider, or the file is damaged or open to others.
        ImportError: The extra ``profiles`` is not installed.
    """
    name = name or os.environ.get(VARIABLE)
    if not name:
        raise ValueError(f"no profile: name one, or set {VARIABLE}")
    profiles, file = read_profiles(), profiles_file()
    if name not in profiles:
        known = (
            f"It has {', '.join(map(repr, profiles))}" if profiles else f"It has none: begin it with [profiles.{name}]"
        )
        raise ValueError(f"there is no profile {name!r} in {file}. {known}{_did_you_mean(name, profiles)}")
    profile = profiles[name]
    if provider is not None and profile.provider != provider:
        fit = ", ".join(repr(other) for other, each in profiles.items() if each.provider == provider)
        what_next = f"Of {provider!r}: {fit}" if fit else f"There is none of {provider!r} in {file}"
        raise ValueError(f"profile {name!r} is of the provider {profile.provider!r}, not {provider!r}. {what_next}")
    return profile


def client_options(provider: str, name: str | None, options: Mapping[str, object]) -> Unshown[dict[str, object]]:
    """The arguments of a client: those that are given, and what a profile adds to them and to the environment.

    Raises:
        ValueError: See `load_profile` and `Profile.read_token`.
        ImportError: The extra ``profiles`` is not installed.
    """
    profile, entry = load_profile(name, provider=provider), installed_provider(provider)
    found: dict[str, object] = {"account": profile.account, "pace": profile.pace, **profile.settings}
    if not os.environ.get(entry.url_variable or ""):
        found["base_url"] = profile.url
    if options.get("base_url") is None:
        profile.check_environment()
    if options.get("token") is None and not os.environ.get(entry.token_variable):
        found["token"] = profile.read_token()
    given = {key: value for key, value in options.items() if value is not None}
    return Unshown({**{key: value for key, value in found.items() if value is not None}, **given})


def profile_name(name: str | None) -> str | None:
    """The name of the profile that is meant, as `load_profile` takes it."""
    return name or os.environ.get(VARIABLE) or None


def read_profiles() -> dict[str, Profile]:
    """All profiles of the file, by name; none without a file.

    Raises:
        ValueError: The file is damaged or open to others, or a profile has an unknown key or a wrong value.
        OSError: The file cannot be read.
        ImportError: The extra ``profiles`` is not installed.
    """
    file = profiles_file()
    try:
        opened = file.open("rb")
    except FileNotFoundError:
        return {}
    import tomllib  # noqa: PLC0415 - most often, there is no file

    with opened:
        mode = os.fstat(opened.fileno()).st_mode & 0o777
        data = opened.read()
    try:
        text = data.decode()
        tables: dict[str, object] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        where = str(error).rpartition(" (")[2].rstrip(")") if "line" in str(error) else "not UTF-8"
        raise ValueError(f"{file} is no TOML ({where}): correct it") from None  # the text itself may hold a token
    try:
        _check_keys("", tables, ("profiles",), what_next="A profile is a table of its own: [profiles.NAME]")
    except _UnknownKeyError as error:
        raise ValueError(f"{file}{_line_of(text, '', error.key)}: {error}") from None
    sections = _table(f"{file}: profiles", tables.get("profiles", {}))
    given = {name: _table(f"{file}: profile {name!r}", section) for name, section in sections.items()}
    _check_mode(file, mode, has_token=any("token" in section for section in given.values()))
    profiles: dict[str, Profile] = {}
    for name, section in given.items():
        try:
            profiles[name] = _profile(name, section)
        except (ValueError, TypeError) as error:
            line = _line_of(text, name, error.key) if isinstance(error, _UnknownKeyError) else ""
            raise ValueError(f"{file}{line}: profile {name!r}: {error}") from None
    return profiles


def _check_mode(file: Path, mode: int, *, has_token: bool) -> None:
    if os.name != "posix" or not mode & (_OTHERS if has_token else _OTHERS_WRITE):
        return
    reason = (
        "holds a token, and others may read it" if has_token else "names hosts and commands, and others may write it"
    )
    raise ValueError(f"{file} {reason} (mode {mode:o}). Close it: chmod 600 {shlex.quote(str(file))}")


def _profile(name: str, section: dict[str, object]) -> Profile:
    provider = _provider(section.get("provider"))
    _check_keys("", section, (*_KEYS, *provider.settings))
    for key in ("url", "account", "token"):
        if key in section and (not isinstance(section[key], str) or not section[key]):
            raise ValueError(f"{key} must be a text that is not empty")
    if "token" in section and "token_command" in section:
        raise ValueError("give either token or token_command, not both")
    url, account, token = (cast("str | None", section.get(key)) for key in ("url", "account", "token"))
    if url is not None:
        try:
            origin(url, insecure=True)
        except ValueError as error:
            raise ValueError(str(error).replace("base_url", "url")) from None
    if account is not None:
        label("account", account)
    production = section.get("production")
    if production is not None and not isinstance(production, bool):
        raise ValueError("production must be true or false")
    return Profile(
        name=label("a profile's name", name),
        provider=provider.name,
        url=url,
        account=account,
        pace=_pace(section.get("pace")),
        settings={key: _setting(provider, key, section[key]) for key in provider.settings if key in section},
        token=None if token is None else Unshown(token),
        token_command=_command(section.get("token_command")),
        production=production,
    )


def _provider(name: object) -> Provider[object]:
    known = ("direct", "altcraft")
    if not isinstance(name, str):
        raise ValueError(f"provider must be one of {', '.join(map(repr, known))}")  # noqa: TRY004 - a file's mistake
    provider = find_provider(name)
    if provider is None:
        raise ValueError(f"there is no provider {name!r}{_did_you_mean(name, known)}")
    return cast("Provider[object]", provider)


def _setting(provider: Provider[object], key: str, value: object) -> object:
    text = ("no", "yes")[value] if isinstance(value, bool) else value
    try:
        return provider.settings[key](text if isinstance(text, str) else "")
    except ValueError as error:
        raise ValueError(f"{key} must be a value that {provider.name} knows, not {value!r}: {error}") from None


def _pace(value: object) -> Pace | None:
    if value is None:
        return None
    pace = _table("pace", value)
    _check_keys("pace: ", pace, _PACE)
    return Pace(**cast("dict[str, int]", pace))


def _command(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    words = shlex.split(value) if isinstance(value, str) else value
    if (
        not isinstance(words, list)
        or not words
        or not all(isinstance(word, str) for word in cast("list[object]", words))
    ):
        raise ValueError("token_command must be a command as one text, or as a list of its words")
    return tuple(cast("list[str]", words))


def _table(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a table")  # noqa: TRY004 - a file's mistake
    return cast("dict[str, object]", value)


class _UnknownKeyError(ValueError):
    """A table has a key that means nothing."""

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


def _check_keys(where: str, table: Collection[str], known: Collection[str], *, what_next: str | None = None) -> None:
    unknown = next((key for key in table if key not in known), None)
    if unknown is None:
        return
    alias = _ALIASES.get(unknown)
    if alias is not None and alias.partition(" ")[0] in known:
        hint = f". Did you mean {alias!r}?"
    else:
        hint = _did_you_mean(unknown, known) or f". {what_next or 'There are ' + ', '.join(known)}"
    raise _UnknownKeyError(f"{where}there is no key {unknown!r}{hint}", unknown)


def _line_of(text: str, profile: str, key: str) -> str:
    """The line of a key in the table of a profile, as text; empty if it is not found. An empty name: no profile's."""
    table, profile, key = "", _UNQUOTED.sub("", profile), _UNQUOTED.sub("", key)
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header is not None:
            table = _UNQUOTED.sub("", header[1]).partition("profiles.")[2]
        elif table != profile or _UNQUOTED.sub("", line.partition("=")[0]) != key:
            continue
        if header is None or (not profile and _UNQUOTED.sub("", header[1]).partition(".")[0] == key):
            return f", line {number}"
    return ""


def _did_you_mean(word: str, known: Collection[str]) -> str:
    close = get_close_matches(word, known, 1)
    return f". Did you mean {close[0]!r}?" if close else ""

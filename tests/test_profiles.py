"""Profiles: what ``config.toml`` may say, and what goes before it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dispatchkit import AltcraftClient, DirectClient, Pace, sync
from dispatchkit.profiles import load_profile, read_profiles
from dispatchkit.sandbox import Sandbox

RETAIL = """
[profiles.retail]
provider = "direct"
account = "retail"
token = "c2VjcmV0"
pace = { rate = 20, concurrency = "auto" }
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("DIRECT_TOKEN", "DIRECT_URL", "ALTCRAFT_TOKEN", "ALTCRAFT_URL"):
        monkeypatch.delenv(f"DISPATCHKIT_{name}", raising=False)
    file = tmp_path / "dispatchkit/config.toml"
    file.parent.mkdir()
    write(file, RETAIL)
    return file


def write(file: Path, text: str, mode: int = 0o600) -> None:
    file.write_text(text)
    file.chmod(mode)


def test_profile_is_read(config: Path) -> None:
    retail = load_profile("retail", provider="direct")
    assert (retail.host, retail.is_production) == ("https://direct.i-dgtl.ru", True)
    assert (retail.account, retail.pace) == ("retail", Pace(rate=20, concurrency="auto"))
    assert "c2VjcmV0" not in repr(retail)


async def test_client_of_profile_launches(config: Path) -> None:
    async with Sandbox() as sandbox:
        write(config, f'[profiles.a]\nprovider = "direct"\nurl = "{sandbox.url}"\ntoken = "{sandbox.direct_token}"\n')
        async with DirectClient.from_profile("a") as direct:
            assert (await direct.start(7)).dispatch_id == 7
        write(
            config,
            f'[profiles.b]\nprovider = "altcraft"\nurl = "{sandbox.url}"\nwire = "xml"\ndeduplicates = true\n'
            f'token_command = ["echo", "{sandbox.altcraft_token}"]\n',
        )
        async with AltcraftClient.from_profile("b", timeout=60) as altcraft:
            assert (await altcraft.activate(7)).mailing_id == 7
            assert altcraft._settings()["wire"] == "xml"
            assert altcraft._settings()["deduplicates"] == "yes"


def test_blocking_client_of_profile(config: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    write(config, f'[profiles.a]\nprovider = "direct"\nurl = "{sandbox.url}"\ntoken = "{sandbox.direct_token}"\n')
    monkeypatch.setenv("DISPATCHKIT_PROFILE", "a")
    with sync.DirectClient.from_profile() as direct:
        direct.start(7)
    write(config, f'[profiles.a]\nprovider = "altcraft"\nurl = "{sandbox.url}"\ntoken = "{sandbox.altcraft_token}"\n')
    with sync.AltcraftClient.from_profile("a") as altcraft:
        altcraft.activate(7)


async def test_arguments_go_first(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = DirectClient.from_profile("retail", base_url="http://127.0.0.1:1", account="other")
    assert (client._settings()["base_url"], client._run_settings().account) == ("http://127.0.0.1:1", "other")
    monkeypatch.setenv("DISPATCHKIT_DIRECT_URL", "http://127.0.0.1:2")
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "b3RoZXI=")
    client = DirectClient.from_profile("retail")
    assert (client._settings()["base_url"], client._run_settings().account) == ("http://127.0.0.1:2", "retail")


def test_token_stays_with_its_host(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_URL", "http://127.0.0.1:2")
    with pytest.raises(
        ValueError, match=r"has a token for https://direct\.i-dgtl\.ru, but DISPATCHKIT_DIRECT_URL names"
    ):
        DirectClient.from_profile("retail")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[profiles.a]\n", "profile 'a': provider must be one of 'direct', 'altcraft'"),
        ("[profiles.a]\nprovider = 'drect'\n", "there is no provider 'drect'. Did you mean 'direct'?"),
        ("[profiles.a]\nprovider = 'direct'\nacount = 'x'\n", "there is no key 'acount'. Did you mean 'account'?"),
        ("[profiles.a]\nprovider = 'direct'\nwire = 'xml'\n", "there is no key 'wire'"),
        ("[profiles.a]\nprovider = 'altcraft'\nwire = 'csv'\n", "not 'csv': give 'json' or 'xml'"),
        ("[profiles.a]\nprovider = 'altcraft'\ndeduplicates = 'si'\n", "not 'si': give true or false"),
        ("[profiles.a]\nprovider = 'direct'\nurl = 'http://h/x'\n", "profile 'a': url must be scheme://host[:port]"),
        (
            "[profiles.b]\nprovider = 'direct'\n[ profiles.'a b' ]\nprovider = 'direct'\n\"base_url\" = 'http://h'\n",
            "config.toml, line 5: profile 'a b': there is no key 'base_url'. Did you mean 'url'?",
        ),
        (
            "[profiles]\na = {provider = 'direct', rate = 5}\n",
            "config.toml: profile 'a': there is no key 'rate'. Did you mean 'pace = { rate = ... }'?",
        ),
        ("\ntoken = 'x'\n", "line 2: there is no key 'token'. A profile is a table of its own: [profiles.NAME]"),
        ("[profiles.a]\nprovider = 'direct'\npace = {rat = 1}\n", "there is no key 'rat'. Did you mean 'rate'?"),
        ("[profiles.a]\nprovider = 'direct'\npace = {rate = 0}\n", "rate must be positive"),
        ("[profiles.a]\nprovider = 'direct'\ntoken = 'x'\ntoken_command = 'x'\n", "either token or token_command"),
        ("[profiles.a]\nprovider = 'direct'\nproduction = 'no'\n", "production must be true or false"),
        ("[profile.a]\nprovider = 'direct'\n", "line 1: there is no key 'profile'. Did you mean 'profiles'?"),
        ("[profiles]\na = 1\n", "profile 'a' must be a table"),
        ("[profiles.a]\ntoken = c2VjcmV0\n", "is no TOML (at line 2"),
    ],
)
def test_damaged_file_is_refused(config: Path, text: str, message: str) -> None:
    write(config, text)
    with pytest.raises(ValueError, match=r"config\.toml") as caught:
        read_profiles()
    assert message in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "mode", "is_refused"),
    [
        (RETAIL, 0o640, True),
        (RETAIL, 0o604, True),
        (RETAIL, 0o600, False),
        ("[profiles.retail]\nprovider = 'direct'\n", 0o644, False),
        ("[profiles.retail]\nprovider = 'direct'\n", 0o664, True),
    ],
)
def test_open_file_is_refused(config: Path, text: str, mode: int, is_refused: bool) -> None:
    write(config, text, mode)
    if not is_refused:
        assert load_profile("retail").name == "retail"
        return
    with pytest.raises(ValueError, match="Close it: ") as caught:
        load_profile("retail")
    subprocess.run(str(caught.value).partition("Close it: ")[2], shell=True, check=True)
    assert load_profile("retail").name == "retail"


def test_unknown_profile_names_others(config: Path) -> None:
    with pytest.raises(
        ValueError, match=r"there is no profile 'retial' in .*\. It has 'retail'\. Did you mean 'retail'\?"
    ):
        load_profile("retial")
    with pytest.raises(ValueError, match="profile 'retail' is of the provider 'direct', not 'altcraft'"):
        AltcraftClient.from_profile("retail")
    config.unlink()
    with pytest.raises(ValueError, match=r"It has none: begin it with \[profiles.retail\]"):
        load_profile("retail")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("false", "failed: exit status 1"),
        ("true", "failed: it wrote no token"),
        ("/no/such/command", "failed: /no/such/command: No such file or directory"),
    ],
)
def test_failing_token_command_is_said(config: Path, command: str, message: str) -> None:
    write(config, f"[profiles.a]\nprovider = 'direct'\ntoken_command = '{command}'\n")
    with pytest.raises(ValueError, match=message):
        DirectClient.from_profile("a")


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ImportError, match=r"pip install 'dispatchkit\[profiles\]'"):
        DirectClient.from_profile("retail")


def test_no_command_line_is_imported() -> None:
    script = "import dispatchkit.profiles, sys; print([name for name in sys.modules if 'dispatchkit.cli' in name])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=30) == "[]\n"


def test_documented_file_is_read(config: Path) -> None:
    text = (Path(__file__).parents[1] / ".github/docs/profiles.md").read_text(encoding="utf-8")
    write(config, text.partition("```toml\n")[2].partition("```")[0])
    assert [profile.is_production for profile in read_profiles().values()] == [True, True, False]

"""``--profile`` and ``dispatchkit profile``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Played, Terminal, run


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, played: Played) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("DIRECT_TOKEN", "ALTCRAFT_TOKEN", "ALTCRAFT_URL"):
        monkeypatch.delenv(f"DISPATCHKIT_{name}")
    file = tmp_path / "dispatchkit/config.toml"
    file.parent.mkdir()
    file.write_text(
        f"[profiles.retail]\nprovider = 'direct'\nurl = '{played.url}'\naccount = 'shop'\n"
        f"token = '{played.sandbox.direct_token}'\npace = {{ rate = 500, concurrency = 8 }}\n"
        f"[profiles.loyalty]\nprovider = 'altcraft'\nurl = '{played.url}'\nwire = 'xml'\n"
        f"token_command = 'echo {played.sandbox.altcraft_token}'\nproduction = true\n"
    )
    file.chmod(0o600)
    return file


def test_launch_takes_profile(config: Path, played: Played) -> None:
    result = run("direct", "start", "1-4", "--yes", "--profile", "retail")
    assert result.code == 0
    assert "  profile  retail\n" in result.out
    assert f"  host     {played.url}\n" in result.out
    assert "  account  'shop', with the token of profile 'retail'\n" in result.out
    assert "-start-retail-" in result.out
    assert run("direct", "status", 1, "--profile", "retail").code == 0
    assert run("direct", "list", "--profile", "retail").code == 0
    assert played.sandbox.launches == dict.fromkeys(range(1, 5), 1)


def test_environment_names_profile(config: Path, monkeypatch: pytest.MonkeyPatch, played: Played) -> None:
    monkeypatch.setenv("DISPATCHKIT_PROFILE", "loyalty")
    result = run("altcraft", "launch", 1, "--yes")
    assert result.code == 0
    assert f"  host     {played.url} (production)\n" in result.out
    assert run("altcraft", "status", 1).code == 0
    assert run("altcraft", "launch", 1, "--sandbox").code == 0
    wrong = run("direct", "start", 1, "--yes")
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err == (
        "dispatchkit: profile 'loyalty' is of the provider 'altcraft', not 'direct'. Of 'direct': 'retail'\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        ("direct", "start", 1, "--profile", "loyalty"),
        ("direct", "stop", 1, "--profile", "nowhere"),
        ("altcraft", "launch", 1, "--profile", "retail"),
        ("altcraft", "launch", 1, "--profile", "loyalty", "--content", "{"),
        ("altcraft", "launch", 1, "--profile", "loyalty", "--list-id", 5),
        ("direct", "stop", "--status", "sending", "--base-url", "http://127.0.0.1:9"),
        ("direct", "stop", "--status", "sending", 1, "--base-url", "http://127.0.0.1:9"),
    ],
    ids=lambda line: "-".join(map(str, line[1:5])),
)
def test_profile_refusal_is_told(config: Path, tmp_path: Path, line: tuple[object, ...]) -> None:
    told = tmp_path / "told"
    script = f"printf %s $DISPATCHKIT_EXIT_STATUS >> {told}"
    assert run(*line, "--yes", "--notify", shlex.join(["sh", "-c", script])).code == 2
    assert told.read_text() == "2"


def test_unknown_key_is_no_option(config: Path) -> None:
    config.write_text("[profiles.retail]\nprovider = 'direct'\nbase_url = 'http://127.0.0.1:9'\n")
    assert run("direct", "start", 1, "--profile", "retail").err == (
        f"dispatchkit: {config}, line 3: profile 'retail': there is no key 'base_url'. Did you mean 'url'?\n"
    )
    config.write_text("[profiles.retail]\nprovider = 'direct'\nurl = 'ftp://127.0.0.1'\n")
    assert "profile 'retail': url must be scheme://host[:port]" in run("direct", "list", "--profile", "retail").err


def test_damaged_config_is_told(config: Path, tmp_path: Path) -> None:
    config.write_text("[profiles.retail")
    told = tmp_path / "told"
    refused = run("direct", "start", 1, "--yes", "--profile", "retail", "--notify", f"touch {told}")
    assert (refused.code, told.exists()) == (2, True)
    told.unlink()
    assert run("direct", "start", 1, "--dry-run", "--profile", "retail", "--notify", f"touch {told}").code == 2
    assert not told.exists()


def test_options_go_first(config: Path, monkeypatch: pytest.MonkeyPatch, played: Played) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "wrong")
    result = run("direct", "start", 1, "--yes", "--profile", "retail", "--account", "other")
    assert "  account  'other', with the token in DISPATCHKIT_DIRECT_TOKEN\n" in result.out
    assert result.code == 1
    assert played.sandbox.launches == {}


def test_token_stays_with_host(config: Path, monkeypatch: pytest.MonkeyPatch, played: Played) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_URL", "http://127.0.0.1:1")
    result = run("direct", "start", 1, "--yes", "--profile", "retail")
    assert result.code == 2
    assert "but DISPATCHKIT_DIRECT_URL names another host: unset DISPATCHKIT_DIRECT_URL" in result.err


def test_resume_takes_profile(config: Path, played: Played) -> None:
    result = run("direct", "start", "1-4", "--yes", "--profile", "retail", "--max-launches", 1)
    line = shlex.split(result.out.partition("To resume the run: dispatchkit ")[2])
    assert line[line.index("--profile") :][:2] == ["--profile", "retail"]
    assert run(*line, "--yes").code == 0
    config.write_text(config.read_text().replace(played.url, "http://127.0.0.1:1"))
    other = run("direct", "start", "5-8", "--yes", "--profile", "retail", "--base-url", played.url, "--max-launches", 1)
    line = shlex.split(other.out.partition("To resume the run: dispatchkit ")[2])
    refused = run(*line, "--yes")
    assert refused.code == 2
    assert "but profile 'retail' names another host" in refused.err


@pytest.mark.second_stage
def test_later_lines_name_profile(config: Path, monkeypatch: pytest.MonkeyPatch, played: Played) -> None:
    monkeypatch.setenv("DISPATCHKIT_LEDGER", str(config.with_name("launch.db")))
    start = ("direct", "start", "1-4", "--yes", "--run", "r")
    assert run(*start, "--profile", "retail", "--max-launches", 1).code == 1
    shown = run("ledger", "show", "r").out
    assert shown.endswith("to resume     dispatchkit resume --run r --profile retail --account shop\n")
    stopped = run("stop-run", "r").out
    line = shlex.split(stopped.partition("To resume it: dispatchkit ")[2])
    monkeypatch.setenv("DISPATCHKIT_PROFILE", "retail")
    assert run(*start).err.endswith(f"To resume it: dispatchkit {shlex.join(line)}\n")
    monkeypatch.delenv("DISPATCHKIT_PROFILE")
    assert run(*line, "--yes").code == 0
    assert played.sandbox.launches == dict.fromkeys(range(1, 5), 1)


def test_foreign_profile_is_not_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_LEDGER", str(config.with_name("launch.db")))
    assert run("direct", "start", "1-4", "--yes", "--run", "r", "--profile", "retail", "--max-launches", 1).code == 1
    config.unlink()
    assert run("ledger", "show", "r").out.endswith("dispatchkit resume --run r --account shop\n")


def test_sandbox_has_no_profile(config: Path) -> None:
    result = run("direct", "start", 1, "--sandbox", "--profile", "retail")
    assert result.code == 2
    assert "--profile does not go with --sandbox" in result.err


def test_production_host_is_red(config: Path) -> None:
    terminal = Terminal("altcraft", "launch", 1, "--profile", "loyalty")
    terminal.read_until("[y/N]")
    terminal.type("n\n")
    assert terminal.end() == 4
    assert "\x1b[1;31m  host     http://127.0.0.1" in terminal.screen
    terminal = Terminal("direct", "start", 1, "--profile", "retail")
    terminal.read_until("[y/N]")
    terminal.type("n\n")
    assert terminal.end() == 4
    assert "\x1b[1;31m" not in terminal.screen


def test_list_shows_no_token(config: Path, played: Played) -> None:
    result = run("profile", "list")
    assert result.code == 0
    assert [line.split()[:2] for line in result.out.splitlines()[1:]] == [["retail", "direct"], ["loyalty", "altcraft"]]
    as_json = run("profile", "list", "--json").out
    assert [json.loads(line)["production"] for line in as_json.splitlines()] == [False, True]
    assert played.sandbox.direct_token not in result.out + as_json


def test_check_sends_nothing(config: Path, played: Played) -> None:
    result = run("profile", "check")
    assert (result.code, played.sandbox.requests) == (0, 0)
    assert result.out.splitlines() == [
        f"retail: direct at {played.url} (not production), account 'shop', token from the file: fine",
        f"loyalty: altcraft at {played.url} (production), token from token_command: fine",
        "No request was sent.",
    ]
    config.write_text(config.read_text().replace("echo ", "false "))
    broken = run("profile", "check", "loyalty")
    assert broken.code == 2
    assert broken.err == (
        "dispatchkit: token_command of profile 'loyalty' failed: exit status 1. Run it in a shell to see why, and "
        f"correct it in {config}\n"
    )


def test_check_names_own_host(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch goes to the host of the environment, so a check says so."""
    monkeypatch.setenv("DISPATCHKIT_DIRECT_URL", "http://127.0.0.1:2")
    refused = run("profile", "check", "retail")
    assert refused.code == 2
    assert "DISPATCHKIT_DIRECT_URL names another host: unset DISPATCHKIT_DIRECT_URL" in refused.err
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "c2VjcmV0")
    assert run("profile", "check", "retail").out.startswith(
        "retail: direct at http://127.0.0.1:2 of DISPATCHKIT_DIRECT_URL (not production), "
    )


def test_check_needs_a_host(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("[profiles.loyalty]\nprovider = 'altcraft'\n")
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_TOKEN", "secret")
    monkeypatch.delenv("DISPATCHKIT_ALTCRAFT_URL", raising=False)
    assert 'has no host of its own: add url = "https://' in run("profile", "check", "loyalty").err
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_URL", "http://127.0.0.1:2")
    assert run("profile", "check", "loyalty").code == 0


def test_open_file_is_refused(config: Path) -> None:
    config.chmod(0o644)
    result = run("direct", "start", 1, "--yes", "--profile", "retail")
    assert result.code == 2
    assert f"Close it: chmod 600 {config}\n" in result.err


def test_dry_run_reads_no_token(config: Path) -> None:
    config.write_text(config.read_text().replace("echo ", "false "))
    assert run("altcraft", "launch", 1, "--profile", "loyalty", "--dry-run").code == 0


def test_no_profiles_is_no_error(config: Path) -> None:
    config.unlink()
    assert run("profile", "list").out == f"There are no profiles in {config}.\n"
    assert run("profile", "check").code == 2

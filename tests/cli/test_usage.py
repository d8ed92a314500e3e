from __future__ import annotations

import inspect
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dispatchkit
from dispatchkit import AltcraftClient, DirectClient, Pace
from dispatchkit.cli import main
from dispatchkit.cli.commands.direct import DirectOptions
from dispatchkit.cli.providers import altcraft
from dispatchkit.cli.settings import AUTO_WORKERS, client_settings, guards
from dispatchkit.core.call.client import ATTEMPT_TIMEOUT, TIMEOUT
from dispatchkit.core.pacing.adaptive_limit import AdaptiveLimit
from tests.cli.conftest import Played, run, run_child
from tests.launcher import COMMAND

HERE = ("--base-url", "http://127.0.0.1:1")


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['dispatchkit', 'direct', 'start', '--help']\n"
        "from dispatchkit.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('HEAVY', [name for name in ('aiohttp', 'attrs', 'asyncio', 'rich') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Usage: dispatchkit direct start" in shown
    assert shown.endswith("HEAVY []\n")


def test_help_shows_client_defaults() -> None:
    shown = " ".join(run("direct", "start", "--help").out.split())
    assert f"Default: {TIMEOUT:g}." in shown
    assert f"Default: {ATTEMPT_TIMEOUT:g}." in shown
    assert DirectOptions().base_url == DirectClient("t")._settings()["base_url"]


def test_every_client_setting_has_option() -> None:
    left_out = {"token", "retry", "pace", "clock", "ssl", "observers", "body_limit", "attachment_limit"}
    for client, command in ((DirectClient, ("direct", "start")), (AltcraftClient, ("altcraft", "launch"))):
        shown = run(*command, "--help").out
        for name in inspect.signature(client).parameters:
            assert name in left_out or f"--{name.replace('_', '-')}" in shown, name


def test_auto_concurrency_sets_workers() -> None:
    options = DirectOptions(concurrency="auto", rate=5.0)
    assert client_settings(options)["pace"] == Pace(concurrency="auto", rate=5.0)
    assert guards(options)["concurrency"] == AUTO_WORKERS == AdaptiveLimit("auto").maximum
    options = DirectOptions(concurrency="7", rate=5.0)
    assert client_settings(options)["pace"] == Pace(rate=5.0)
    assert guards(options)["concurrency"] == 7


def test_the_token_is_no_option() -> None:
    result = run("direct", "start", 1, "--token", "x")
    assert result.code == 2
    assert "--token-file" in result.err


def test_the_version() -> None:
    result = run_child("--version", kind=subprocess.Popen)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("dispatchkit 0.")


def test_missing_extra_is_explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("dispatchkit.cli.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "pip install 'dispatchkit[cli]'" in capsys.readouterr().err


def test_main_runs_without_stdout_file(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.argv", ["dispatchkit", "--version"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert out.getvalue().startswith("dispatchkit ")


@pytest.mark.second_stage
@pytest.mark.skipif(os.name == "nt", reason="its shell closes no stream")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_stream_is_harmless(played: Played, closed: str) -> None:
    command = [*COMMAND, "direct", "start", "1-100", "--yes", "--base-url", played.url]
    ended = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command], check=False, timeout=20)
    assert ended.returncode == 0
    assert sum(played.sandbox.launches.values()) == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["direct", "start"], "no ids: add them"),
        (["direct", "start", "5x"], "'5x' is neither an id nor a range"),
        (["direct", "start", "5", "--from", "f"], "either as arguments or with --from, not both"),
        (["direct", "start", "5", "--column", "f"], "--column goes with --from FILE"),
        (["direct", "start", "5", "--include-unknown"], "--include-unknown goes with --from FILE"),
        (["direct", "start", "5", "--sandbox", "--concurrency", "0"], "--concurrency must be an integer from 1 up"),
        (["altcraft", "launch", "5", *HERE, "--sandbox", "--concurrency", "AUTO"], "1 up, or auto, not 'AUTO'"),
        (["direct", "start", "--from", "-", "--token-file", "-"], "cannot both read standard input"),
        (["direct", "start", "--from", "/nowhere"], "/nowhere: No such file or directory"),
        (["direct", "start", "--from", "/"], "/: Is a directory"),
        (["direct", "start", "--from", "-"], "standard input holds no ids"),
        (["direct", "start", "5"], "no token: set DISPATCHKIT_DIRECT_TOKEN, or add --token-file PATH"),
        (["direct", "start", "5", "--token-file", "/nowhere"], "/nowhere: No such file or directory"),
        (["direct", "start", "5", "--token-file", "/dev/null"], "no token: /dev/null is empty"),
        (["direct", "start", "5", "--token-file", "-"], "no token: - is empty"),
        (["direct", "start", "5", "--dry-run", "--json"], "does not go with --json"),
        (["direct", "start", "5", "--dry-run", "--base-url", "x"], "--base-url must be scheme://host[:port]"),
        (["direct", "start", "5", "--dry-run", "--base-url", ""], "--base-url must be scheme://host[:port]"),
        (["direct", "start", "5", "--dry-run", "--base-url", "http://example.com"], "(--insecure allows it)"),
        (["direct", "start", "5", "--dry-run", "--timeout", "0"], "--timeout must be a number above 0"),
        (["direct", "start", "5", "--dry-run", "--attempt-timeout", "nan"], "--attempt-timeout must be a number"),
        (["direct", "start", "5", "--dry-run", "--proxy", "x"], "--proxy must be"),
        (["altcraft", "launch", "5"], "no host: add --base-url https://your-platform, or set"),
        (["altcraft", "launch", "5", *HERE], "no token: set DISPATCHKIT_ALTCRAFT_TOKEN"),
        (["altcraft", "launch", "5", "--audience", "list"], "--audience must be list:ID or segment:ID"),
        (["altcraft", "launch", "5", "--audience", "all:1"], "--audience must be list:ID or segment:ID"),
        (["altcraft", "launch", "5", "--audience", "list:x"], "--audience must be list:ID or segment:ID"),
        (["altcraft", "launch", "5", "--audience", "list:0"], "must be a positive integer"),
        (["altcraft", "activate", "5", "--audience", "list:1"], "--audience needs --run-now"),
        (["altcraft", "activate", "5", "--audience", "list:1", "--no-run-now"], "--audience needs --run-now"),
        (["altcraft", "launch", "5", "--content", "{"], "--content is not JSON"),
        (["altcraft", "launch", "5", "--content", "[]"], "--content must be a JSON object"),
        (["altcraft", "launch", "5", "--content", "[" * 100_000], "--content is nested too deeply"),
        (["altcraft", "launch", "5", "--content", "@/nowhere"], "/nowhere: No such file or directory"),
        (["altcraft", "launch", "5", "--attach", "/nowhere"], "/nowhere: No such file or directory"),
        (["altcraft", "launch", "5", "--dry-run", *HERE, "--wire", "xml", "--content", '{"a": []}'], "use --wire json"),
    ],
)  # fmt: skip
def test_invalid_command_exits_with_2(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert (result.code, result.out) == (2, ""), result
    assert message in result.err
    assert result.err.startswith("dispatchkit: ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("token", ["two words", "tök"])
def test_invalid_token_is_hidden(token: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    result = run("direct", "start", 5, "--token-file", file)
    assert result.code == 2
    assert "token must be visible ASCII" in result.err
    assert token not in result.err


def test_invalid_content_is_hidden(tmp_path: Path) -> None:
    file = tmp_path / "content.json"
    file.write_bytes(b'{"a": "\xff"}')
    result = run("altcraft", "launch", 5, "--content", f"@{file}")
    assert (result.code, result.err) == (2, f"dispatchkit: {file} is not text in UTF-8: save it in this encoding\n")


def test_typer_error_exits_with_2() -> None:
    assert run("direct", "start", 5, "--max-launches", 0).code == 2
    assert run("altcraft", "launch", 5, "--wire", "yaml").code == 2
    assert run("direct", "nothing").code == 2


def test_unattended_launches_need_yes(played: Played) -> None:
    result = run("direct", "start", "3-7", "--base-url", played.url)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"dispatchkit: this needs a yes, and there is no terminal to ask: start 5 dispatches: 3-7; host {played.url}; "
        "account the token in DISPATCHKIT_DIRECT_TOKEN. Nothing was sent. To go ahead without a question, pass --yes\n"
    )
    assert played.sandbox.requests == 0


def test_dry_run_masks_token(played: Played) -> None:
    result = run("direct", "start", "1-10", "--dry-run", "--base-url", played.url)
    assert result.code == 0
    assert result.out.startswith(
        f"POST {played.url}/api/v1/dispatch/1/start\nAuthorization: Basic ***\nAccept: application/json\n"
        "Accept-Encoding: identity\n"
        f"User-Agent: dispatchkit/{dispatchkit.__version__}\n\n"
    )
    assert result.out.count("POST") == 3
    assert result.out.endswith("10 requests, of which the first 3 are shown. None was sent.\n")
    assert played.sandbox.requests == 0


@pytest.mark.parametrize("wire", ["json", "xml"])
def test_dry_run_shortens_attachments(wire: str, tmp_path: Path) -> None:
    file = tmp_path / "price.bin"
    file.write_bytes(b"\0" * 3000)
    content = tmp_path / "content.json"
    content.write_text('{"field": "значение"}')
    command = ("altcraft", "launch", 5, "--attach", file, "--content", f"@{content}", "--wire", wire)
    result = run(*command, "--dry-run", *HERE)
    assert result.code == 0
    assert "/api/v1.1/campaigns/broadcasts/start\n" in result.out
    assert "***" in result.out
    assert "значение" in result.out
    assert f"base64,{'A' * 24}…" in result.out
    assert "A" * 40 not in result.out
    assert result.out.endswith("1 request. None was sent.\n")


def test_dry_run_shortens_long_body() -> None:
    content = '{"a": "%s", "b": "\u009b"}' % ("x" * 5000)
    result = run("altcraft", "launch", 5, "--dry-run", "--sandbox", "--content", content)
    assert result.code == 0
    assert "x…\n(5," in result.out
    result = run("altcraft", "launch", 5, "--dry-run", "--sandbox", "--content", '{"b": "\u009b"}')
    assert "\\x9b" in result.out
    assert "\u009b" not in result.out


def test_dry_run_has_client_limits() -> None:
    defaults = inspect.signature(AltcraftClient).parameters
    assert defaults["body_limit"].default == altcraft._BODY_LIMIT
    assert defaults["attachment_limit"].default == altcraft._ATTACHMENT_LIMIT


@pytest.mark.parametrize("option", ["--run", "--ledger", "--failures", "--from", "--account", "--token-file"])
@pytest.mark.parametrize("swallowed", ["--json", "--yes", "-y", "--jsno"])
def test_option_swallows_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, swallowed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("direct", "start", "1", "--sandbox", option, swallowed)
    assert result.code == 2
    assert f"{option} needs a value, and {swallowed} is an option" in " ".join(result.err.split())
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "line", [("plan", "--run", "--yes"), ("resume", "x.db", "--run", "--json"), ("direct", "stop", "--status", "--yes")]
)
def test_no_command_swallows_options(line: tuple[str, ...]) -> None:
    result = run(*line, *(("--ledger", "postgresql://h/d", "direct", "start", "1") if line[0] == "plan" else ()))
    assert result.code == 2
    assert "needs a value, and" in " ".join(result.err.split())


def test_minus_is_standard_input() -> None:
    assert run("direct", "start", "--from", "-", "--sandbox", stdin="1\n").code == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            ("ledger", "prune", "--older-than", "0s"),
            "DAYS must be an integer from 1 to 10,000, not '0s'",
        ),
        (("ledger", "prune", "--older-than", "0"), "'--older-than': DAYS must be an integer from 1 to 10,000, not '0'"),
        (("direct", "start", 1, "--canary", "-1"), "'--canary': N must be an integer from 0 to 1,000, not '-1'"),
        (
            ("direct", "start", 1, "--max-launches", "1.5"),
            "N must be an integer from 1 up, not '1.5'",
        ),
        (("direct", "start", 1, "--rate", "fast"), "'--rate': N must be a number, not 'fast'"),
        (("direct", "start", 1, "--timeout", "1m"), "'--timeout': SECONDS must be a number, not '1m'"),
        (("web", "--port", "99999"), "'--port': "),
        (("worker", "--chunks", "none"), "'--chunks': N must be an integer from 1"),
    ],
)
def test_numbers_are_named(line: tuple[object, ...], message: str) -> None:
    refused = run(*line)
    assert refused.code == 2
    assert message in refused.err
    assert "Input should" not in refused.err


@pytest.mark.parametrize("value", ["0", "-5", "nan", "inf", "1e-300"])
@pytest.mark.parametrize(
    ("option", "such_as"),
    [("--rate", "50 launches a second"), ("--timeout", "240 seconds"), ("--attempt-timeout", "70 seconds")],
)
def test_pace_is_above_zero(played: Played, option: str, such_as: str, value: str) -> None:
    refused = run("direct", "start", 1, "--yes", "--base-url", played.url, "--no-ledger", option, value)
    assert (refused.code, refused.out, played.sandbox.requests) == (2, "", 0)
    assert refused.err == f"dispatchkit: {option} must be a number above 0, such as {such_as}, not {float(value):g}\n"


@pytest.mark.parametrize("value", ["0s", "never", "soon"])
def test_interval_has_a_bound(value: str) -> None:
    refused = run("direct", "status", 1, "--watch", "--every", value, *HERE)
    assert refused.code == 2
    assert refused.err == f"dispatchkit: --every must be a time such as 90s, 15m or 1h, not {value!r}\n"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("worker --chunks 2", "put the address here: dispatchkit worker --ledger {url} --chunks 2\n"),
        ("plan --run a direct start 1", "the address here: dispatchkit plan --ledger {url} --run a direct start 1\n"),
        ("worker --ledger l.db", "l.db is a file. Put the address of yours here: dispatchkit worker --ledger {url}\n"),
        ("plan --ledger l.db --run a direct start 1", "dispatchkit plan --ledger {url} --run a direct start 1\n"),
    ],
)
def test_shared_ledger_is_explained(line: str, told: str) -> None:
    result = run(*line.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(told.format(url="postgresql://user@host:port/database")), result


def test_planned_run_needs_name() -> None:
    result = run("plan", "--ledger", "postgresql://h/d", "direct", "start", "1", "--yes")
    assert (result.code, result.out) == (2, "")
    told = r"no name for the run\. To give it one: dispatchkit plan --run \S+-start-\w+ --ledger postgresql://h/d "
    assert re.search(f"{told}direct start 1\n$", result.err), result

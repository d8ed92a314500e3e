"""The table of commands: what each import costs, help, completion and mistyped names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from dispatchkit.cli.app import PROVIDERS, app
from dispatchkit.cli.lazy import CommandRef, GroupRef, LazyGroup, load
from dispatchkit.cli.panels import CONNECTION, GUARDS, IDS, LEDGER, OUTPUT, PACE
from dispatchkit.providers import find_provider
from tests.cli.conftest import Played, run

HEAVY = (
    *("aiohttp", "asyncio", "asyncpg", "attrs", "rich", "ssl"),
    *("dispatchkit.direct", "dispatchkit.altcraft", "dispatchkit.core.events"),
)

NOT_OF_A_PLAIN_LAUNCH = ("rich", "zoneinfo", "asyncpg", "dispatchkit.cli.output.bar", "dispatchkit.core.events")
"""What only a terminal, hours, a PostgreSQL ledger or an observer need."""


def modules_after(
    *arguments: str, also: Sequence[str] = (), environment: Mapping[str, str] = os.environ
) -> tuple[str, list[str]]:
    """What a command prints, and the heavy modules that it has imported."""
    code = (
        f"import sys; sys.argv = ['dispatchkit', *{arguments!r}]\n"
        "from dispatchkit.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', *[name for name in {(*HEAVY, *also)!r} if name in sys.modules])"
    )
    command, env = [sys.executable, "-c", code], {**os.environ, **environment}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    text, _, names = shown.rpartition("HEAVY")
    return text, names.split()


def references(app_: object) -> Iterator[CommandRef]:
    table = app_.info.cls.table  # type: ignore[attr-defined]
    for ref in table.values():
        if isinstance(ref, CommandRef):
            yield ref
        else:
            yield from references(load(ref.app))


def test_dry_run_imports_no_client() -> None:
    line = ("direct", "start", "1", "--dry-run", "--sandbox", "--concurrency", "5")
    text, heavy = modules_after(*line, also=("pydantic", "zoneinfo"))
    assert "1 request. None was sent." in text
    assert heavy == ["attrs", "dispatchkit.direct"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("--help",),
        ("direct", "start", "--help"),
        *(
            pytest.param(words, marks=pytest.mark.second_stage)
            for words in (
                ("direct", "--help"),
                ("altcraft", "launch", "--help"),
                ("ledger", "show", "--help"),
                ("worker", "--help"),
                ("plan", "--ledger", "x", "--run", "x", "direct", "start", "--help"),
            )
        ),
    ],
)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    text, heavy = modules_after(*arguments)
    assert text
    assert heavy == []


def test_command_list_needs_no_metadata() -> None:
    code = (
        "import sys; from dispatchkit.cli.app import app\n"
        "print([*app.info.cls.table], 'importlib.metadata' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("['direct', 'altcraft', 'ledger',")
    assert shown.endswith("] False\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("direct", "start", "1-5", "--dry-run"),
        pytest.param(("direct", "stop", "1-5", "--dry-run", "--sandbox"), marks=pytest.mark.second_stage),
        ("altcraft", "launch", "5", "--dry-run", "--base-url", "https://example.com", "--content", '{"a": 1}'),
        ("plan", "--ledger", "postgresql://h/d", "--run", "x", "direct", "start", "1", "--dry-run"),
    ],
)
def test_dry_run_needs_no_client(arguments: tuple[str, ...]) -> None:
    text, heavy = modules_after(*arguments)
    assert text.endswith("None was sent.\n")
    assert not {"aiohttp", "asyncpg", "rich"} & {*heavy}


@pytest.mark.second_stage
@pytest.mark.parametrize("words", [("list",), ("show", "friday"), ("export", "friday", "--csv")])
def test_ledger_views_need_no_client(played: Played, tmp_path: Path, words: tuple[str, ...]) -> None:
    where = str(tmp_path / "launch.db")
    line = ("direct", "start", "1-5", "--base-url", played.url, "--ledger", where, "--run", "friday", "--yes")
    assert run(*line).code == 0
    text, heavy = modules_after("ledger", words[0], where, *words[1:])
    assert "done" in text
    assert "aiohttp" not in heavy


@pytest.mark.second_stage
def test_plain_launch_loads_no_extras(played: Played, tmp_path: Path) -> None:
    where = ("--ledger", str(tmp_path / "launch.db"), "--run", "one")
    line = ("direct", "start", "1", "--base-url", played.url, *where, "--yes")
    text, heavy = modules_after(*line, also=NOT_OF_A_PLAIN_LAUNCH)
    assert "1 of 1 dispatch" in text
    assert not {*NOT_OF_A_PLAIN_LAUNCH} & {*heavy}


def test_references_exist() -> None:
    refs = [*references(app)]
    assert len(refs) >= 15
    for ref in refs:
        assert callable(load(ref.body))
        assert load(ref.options).__doc__


def test_providers_come_first() -> None:
    shown = run("--help").out
    commands = [line.split()[0] for line in shown.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    order = ["direct", "altcraft", "ledger", "resume", "stop-run", "web", "plan", "worker", "sandbox"]
    assert [name for name in commands if name in order] == order
    assert [*PROVIDERS] == order[:2]


def test_plan_shows_launches_only() -> None:
    plan = ("plan", "--ledger", "x", "--run", "x")
    assert "start" in run(*plan, "direct", "--help").out
    assert run(*plan, "direct", "list").code == 2
    assert run(*plan, "altcraft", "status", 5).code == 2


def test_help_stands_in_panels() -> None:
    shown = run("direct", "start", "--help").out
    titles = [line.removesuffix(":") for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [IDS, GUARDS, LEDGER, PACE, CONNECTION, OUTPUT, "Options"]
    assert shown.rpartition("Options:")[2].split()[:2] == ["-h,", "--help"]


@pytest.mark.parametrize(
    ("typed", "candidates"),
    [
        (["di"], {"direct"}),
        pytest.param(["direct", "st"], {"start", "stop", "status"}, marks=pytest.mark.second_stage),
        pytest.param(["direct", "start", "--exp"], {"--expected"}, marks=pytest.mark.second_stage),
        pytest.param(["altcraft", "launch", "--wire", "x"], {"xml"}, marks=pytest.mark.second_stage),
        (["plan", "--run", "x", "direct", ""], {"start", "stop"}),
    ],
)
def test_completion_of_a_lazy_group(typed: list[str], candidates: set[str]) -> None:
    words = " ".join(["dispatchkit", *typed])
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(len(typed)), "_DISPATCHKIT_COMPLETE": "complete_bash"}
    text, heavy = modules_after(environment=environment)
    assert {*text.split()} == candidates
    assert heavy == []


def test_completion_script_is_shown() -> None:
    code = (
        "import sys; sys.argv = ['dispatchkit', '--show-completion', 'bash']; from dispatchkit.cli import main; main()"
    )
    env = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    assert "_DISPATCHKIT_COMPLETE=complete_bash" in shown


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        (["ledgr"], "'ledger'"),
        (["direct", "lst"], "'list'"),
        (["direct", "strat", "5"], "'status'"),
        (["altcraft", "statu"], "'status'"),
        (["ledger", "failure"], "'failures'"),
    ],
)
def test_commands_that_read_are_suggested(typed: list[str], suggested: str) -> None:
    result = run(*typed)
    assert result.code == 2
    assert f"Did you mean {suggested}?" in result.err


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        (["direct", "launch"], "start, stop, add-messages, status, list"),
        (["direct", "srop", "5"], "start, stop, add-messages, status, list"),
        (
            ["altcraft", "lanch", "5"],
            "activate, launch, launch-regular, deactivate, status, log, mailings, mailing, counters",
        ),
        (["ledger", "lift-paus"], "list, show, failures, export, report, init, prune, lift-pause"),
        (["resum"], "direct, altcraft, ledger, resume, stop-run, web, plan, worker, profile, sandbox"),
    ],
)
def test_acting_commands_are_never_suggested(typed: list[str], names: str) -> None:
    result = run(*typed)
    assert result.code == 2
    assert "Did you mean" not in result.err
    assert result.err.endswith(f"The commands are: {names}.\n")


def test_reading_commands_do_not_launch() -> None:
    for provider in map(find_provider, PROVIDERS):
        assert provider is not None
        reads = {name for name, ref in load(str(provider.command_line)).info.cls.table.items() if ref.reads}
        assert not reads & {*provider.commands}
    assert not [ref for ref in PROVIDERS.values() if ref.reads]
    table = LazyGroup.table
    assert not table
    ledger = GroupRef(help="", app="dispatchkit.cli.commands.ledger:app").build("ledger")
    assert isinstance(ledger, LazyGroup)


def test_environment_names_the_host(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_URL", played.url)
    assert run("direct", "start", 7, "--yes").code == 0
    assert played.sandbox.launches == {7: 1}
    assert run("direct", "list", "--dispatch-id", 7).code == 0


def test_regular_mailings_are_launched() -> None:
    result = run("altcraft", "launch-regular", "90", "--sandbox", "--limit", "5")
    assert result.code == 0
    assert ["done", "1"] in [line.split() for line in result.out.splitlines()]

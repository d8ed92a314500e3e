"""The check before a launch: --check, --skip-unlaunchable, and the table in a question."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any

import pytest
import typer

from dispatchkit.cli.input.ids import Targets
from dispatchkit.cli.invocation import Invocation
from dispatchkit.cli.run import check as check_module
from dispatchkit.cli.run.check import CheckResult
from dispatchkit.cli.run.spec import CheckSpec
from dispatchkit.core.fanout.check import LaunchCheck, Objection
from dispatchkit.sandbox import Call, Fault
from tests.cli.conftest import Played, Terminal, run
from tests.cli.test_repeat_window import plan_two
from tests.cli.test_terminal import plain

STARTED, UNKNOWN = "started already", "unknown to the provider"


@pytest.fixture
def one_started(played: Played) -> Played:
    """A sandbox in which dispatch 8 is being sent."""
    played.sandbox.direct.scheduled = 0
    headers = {"Authorization": f"Basic {played.sandbox.direct_token}"}
    played.sandbox.direct.answer(Call("POST", "/api/v1/dispatch/8/start", headers=headers))
    return played


def start(played: Played, *arguments: object) -> tuple[object, ...]:
    return ("direct", "start", *arguments, "--base-url", played.url)


def test_started_target_refuses_run(one_started: Played) -> None:
    result = run(*start(one_started, "7-9", "--check", "--yes"))
    assert result.code == 2
    assert result.err == (
        f"Something speaks against 1 of 3 dispatches: 8 ({STARTED}). Nothing was sent. To leave it out: dispatchkit "
        f"direct start --base-url {one_started.url} 7-9 --skip-unlaunchable\n"
    )
    assert one_started.sandbox.launches == {8: 1}


def test_unlaunchable_targets_are_skipped(one_started: Played) -> None:
    result = run(*start(one_started, "7-9", 5000, "--skip-unlaunchable", "--yes"))
    assert result.code == 0
    assert f"Something speaks against 2 of 4 dispatches: 8 ({STARTED}), 5000 ({UNKNOWN}). Left out.\n" in result.err
    assert "Start 2 dispatches: 7, 9" in result.out
    assert one_started.sandbox.launches == {7: 1, 8: 1, 9: 1}


@pytest.mark.parametrize("ids", [("7", "8", "9-11"), ("7", "9-11", "8")], ids=["in-part", "after-part"])
def test_truncated_plan_is_checked_again(
    one_started: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DISPATCHKIT_LEDGER", str(tmp_path / "launch.db"))
    with monkeypatch.context() as patch:
        patch.setattr("dispatchkit.ledger.journal.plan", plan_two)
        cut = run(*start(one_started, *ids, "--skip-unlaunchable", "--yes"))
    assert cut.code == 1
    line = shlex.split(cut.out.partition("To complete it: dispatchkit ")[2])
    completed = run(*line, "--yes")
    assert completed.code == 0, completed
    assert f"Something speaks against 1 of 5 dispatches: 8 ({STARTED}). Left out.\n" in completed.err
    assert one_started.sandbox.launches == dict.fromkeys(range(7, 12), 1)


def test_nothing_left_exits_with_2(one_started: Played) -> None:
    result = run(*start(one_started, 8, 5000, "--skip-unlaunchable", "--yes"))
    assert (result.code, one_started.sandbox.launches) == (2, {8: 1})
    assert "against all 2 dispatches" in result.err
    assert result.err.endswith("Nothing was sent.\n")


def test_launchable_targets_are_launched(played: Played) -> None:
    result = run(*start(played, "1-40", "--check", "--yes"))
    assert result.code == 0
    assert "Checking 40 dispatches.\nChecked: nothing is known to speak against all 40 dispatches.\n" in result.err
    assert played.sandbox.requests == 80
    quiet = run(*start(played, "41-80", "--check", "--yes", "--quiet"))
    assert (quiet.code, "heck" in quiet.err) == (0, False)


def test_question_shows_state(one_started: Played) -> None:
    command = Terminal(*start(one_started, "7-8"), columns=80)
    command.read_until("[y/N] ")
    lines = plain(command.screen).splitlines()
    assert lines[3:] == [
        "dispatch  name        status     recipients  against a launch",
        "       7  рассылка 7  initiated        1235  -",
        f"       8  рассылка 8  sending          1235  {STARTED}",
        "Go ahead? [y/N] ",
    ]
    command.type("y\n")
    assert command.end() == 0
    assert one_started.sandbox.launches == {7: 1, 8: 2}


def test_many_targets_are_not_read(played: Played) -> None:
    command = Terminal(*start(played, "1-21"))
    command.read_until("[y/N] ")
    assert played.sandbox.requests == 0
    assert "recipients" not in command.screen
    command.type("n\n")
    assert command.end() == 4


def test_failed_read_keeps_question(played: Played) -> None:
    played.sandbox.order(Fault.http(401, b'{"error": {"code": 4012, "msg": "Bad credentials"}}'))
    command = Terminal(*start(played, 7))
    command.read_until("[y/N] ")
    assert "could not be read: Bad credentials" in plain(command.screen)
    command.type("y\n")
    assert command.end() == 0


@pytest.mark.second_stage
def test_slow_read_is_bounded(played: Played) -> None:
    played.sandbox.latency = 20
    began = time.monotonic()
    command = Terminal(*start(played, 7))
    command.read_until("[y/N] ")
    assert 4 < time.monotonic() - began < 18
    assert "could not be read" in plain(command.screen)
    command.type("n\n")
    assert command.end() == 4


def test_refused_token_refuses_check(played: Played) -> None:
    played.sandbox.order(Fault.http(401, b'{"error": {"code": 4012, "msg": "Bad credentials"}}'))
    result = run(*start(played, "1-9", "--check", "--yes"))
    assert (result.code, played.sandbox.requests) == (1, 1)
    assert "the check could not be made: Bad credentials" in result.err
    assert "Nothing was sent." in result.err


def test_existing_run_is_not_checked(played: Played, tmp_path: Path) -> None:
    words = start(played, "1-5", "--check", "--yes", "--ledger", tmp_path / "l.db", "--run", "r")
    assert run(*words, "--max-launches", 2, "--concurrency", 1).code == 1
    result = run(*words)
    assert result.code == 0
    assert "its targets are not checked again" in result.err
    assert played.sandbox.launches == dict.fromkeys(range(1, 6), 1)


@pytest.mark.parametrize("launches", [None, 2], ids=["complete", "half"])
def test_same_line_skips_again(one_started: Played, tmp_path: Path, launches: int | None) -> None:
    words = start(one_started, "7-10", "--skip-unlaunchable", "--yes", "--ledger", tmp_path / "l.db", "--run", "r")
    more = () if launches is None else ("--max-launches", launches, "--concurrency", 1)
    assert run(*words, *more).code == (0 if launches is None else 1)
    again = run(*words)
    assert again.code == 0, again
    assert f"Something speaks against 1 of 4 dispatches: 8 ({STARTED}). Left out.\n" in again.err
    assert ("Run 'r' is over: no target is left.\n" in again.err) == (launches is None)
    assert one_started.sandbox.launches == dict.fromkeys(range(7, 11), 1)


def test_longer_list_is_another_launch(one_started: Played, tmp_path: Path) -> None:
    more = ("--skip-unlaunchable", "--yes", "--ledger", tmp_path / "l.db", "--run", "r")
    assert run(*start(one_started, "7-9", *more)).code == 0
    longer = run(*start(one_started, "7-10", *more))
    assert longer.code == 2
    assert "run 'r' in " in longer.err
    assert "is another launch" in longer.err
    assert 10 not in one_started.sandbox.launches


@pytest.mark.parametrize(
    "words",
    [
        ("direct", "start", "1-3"),
        ("altcraft", "launch", "1-3", "--audience", "list:1"),
        ("altcraft", "launch-regular", "1-3", "--audience", "segment:5", "--list-id", 1),
        ("altcraft", "activate", 1),
    ],
)
def test_sandbox_checks_its_targets(words: tuple[object, ...]) -> None:
    result = run(*words, "--sandbox", "--check")
    assert result.code == 0
    assert "Checked: nothing is known to speak against" in result.err


def test_altcraft_launch_is_checked(played: Played) -> None:
    played.sandbox.altcraft.audiences["segment", 5] = (1000, 3)
    result = run("altcraft", "launch", "50-51", "--check", "--yes", "--audience", "segment:5", "--list-id", 1)
    assert result.code == 2
    assert "50 (few recipients), 51 (not active, few recipients)" in result.err
    assert run("altcraft", "launch", "50-51", "--skip-unlaunchable", "--yes").code == 0
    assert played.sandbox.launches == {50: 1}


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("--audience", "list:1", "--list-id", 1), "--list-id needs --audience segment:ID"),
        (("--list-id", 1), "--list-id needs --audience segment:ID"),
        (("--resource-id", 1), "--resource-id needs --audience"),
    ],
)
def test_counted_audience_must_fit(played: Played, words: tuple[object, ...], needed: str) -> None:
    for command in ("launch", "launch-regular"):
        result = run("altcraft", command, 50, *words, "--yes")
        assert (result.code, played.sandbox.requests) == (2, 0)
        assert needed in result.err


def test_check_needs_connection(played: Played) -> None:
    result = run(*start(played, 7, "--check", "--dry-run"))
    assert (result.code, played.sandbox.requests) == (2, 0)
    assert "--dry-run opens no connection, and --check reads the provider" in result.err


def test_stop_has_no_check() -> None:
    assert run("direct", "stop", 7, "--check").code == 2
    assert run("altcraft", "deactivate", 7, "--check").code == 2


def test_unread_rest_refuses_launch(capsys: pytest.CaptureFixture[str]) -> None:
    async def read_one(client: object, ids: Iterable[int], timeout: float | None) -> AsyncGenerator[Any]:
        del client, timeout
        yield 0, LaunchCheck(target=next(iter(ids)))

    client: Any = None
    spec: CheckSpec[Any] = CheckSpec(read=read_one, is_demanded=True, skips=True)
    with pytest.raises(typer.Exit) as ended:
        check_module.check_or_refuse(
            spec, contextlib.nullcontext(client), Targets([(1, 3)]), ("dispatch", "dispatches"), Invocation()
        )
    assert ended.value.exit_code == 1
    assert "only 1 of 3 dispatches were read. Nothing was sent." in capsys.readouterr().err


def test_message_names_ten() -> None:
    result = CheckResult()
    for index in reversed(range(100)):
        result.add(index, LaunchCheck(target=1000 + index, objections=(Objection.STOPPED,)))
    names = ", ".join(f"{number} (stopped)" for number in range(1000, 1010))
    assert result.reasons == f"{names}, and 90 more"
    assert (len(result.first), len(result.named)) == (check_module.SHOWN, 10)


def test_ctrl_c_ends_slow_check(played: Played) -> None:
    played.sandbox.latency = 20
    command = Terminal(*start(played, 7))
    played.wait_for_requests(1)
    command.interrupt()
    assert command.end() == 130
    assert plain(command.screen).endswith("Nothing was sent.\n")


def plan(*arguments: object) -> tuple[object, ...]:
    return ("plan", "--ledger", "postgresql://nobody@127.0.0.1:1/none", "--run", "r", *arguments)


def test_plan_is_checked_first(one_started: Played) -> None:
    result = run(*plan(*start(one_started, "7-9", "--check", "--yes")))
    assert result.code == 2
    assert f"against 1 of 3 dispatches: 8 ({STARTED}). Nothing was sent." in result.err


def test_check_of_plan_needs_token(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPATCHKIT_DIRECT_TOKEN")
    result = run(*plan(*start(played, "7-9", "--check", "--yes", "--account", "shop")))
    assert (result.code, played.sandbox.requests) == (2, 0)
    assert "--check reads the provider: set DISPATCHKIT_DIRECT_TOKEN, or add --token-file PATH" in result.err

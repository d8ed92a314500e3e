from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, Terminal
from tests.cli.test_runs import counts

pytestmark = pytest.mark.second_stage  # real processes, sockets and databases


def plain(screen: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).replace("\r", "")


def test_terminal_asks_and_shows_bar(played: Played) -> None:
    played.sandbox.latency = 0.15
    command = Terminal("direct", "start", "1999-2003", "--concurrency", 2, "--base-url", played.url)
    command.read_until("[y/N] ")
    assert plain(command.screen) == (
        f"Start 5 dispatches: 1999-2003\n  host     {played.url}\n"
        "  account  the token in DISPATCHKIT_DIRECT_TOKEN\n"
        "dispatch  name           status     recipients  against a launch\n"
        "    1999  рассылка 1999  initiated        1235  -\n"
        "    2000  рассылка 2000  initiated        1235  -\n"
        "    2001  -              -          -           unknown to the provider\n"
        "    2002  -              -          -           unknown to the provider\n"
        "    2003  -              -          -           unknown to the provider\n"
        "Go ahead? [y/N] "
    )
    assert not played.sandbox.acts
    command.type("y\n")
    assert command.end() == 1
    assert "━" in command.screen
    assert re.search(r"\d/5 ", plain(command.screen))
    assert "2 done  3 rejected  0 in flight" in plain(command.screen)
    assert "2001: rejected: Dispatch 2001 not found" in plain(command.screen)
    assert counts(plain(command.screen)) == {"done": 2, "rejected": 3, "not sent": 0, "unknown": 0}


def test_confirmation_defaults_to_no(played: Played) -> None:
    command = Terminal("altcraft", "activate", "1-2", "--run-now")
    command.read_until("Activate and launch 2 mailings: 1, 2")
    command.type("\n")
    assert command.end() == 4
    assert "Nothing was sent." in command.screen
    assert not played.sandbox.acts


def test_confirmation_ctrl_c_exits_130(played: Played) -> None:
    command = Terminal("direct", "start", "1-2", "--base-url", played.url)
    command.read_until("[y/N] ")
    time.sleep(0.05)
    command.interrupt()
    assert command.end() == 130
    assert plain(command.screen).endswith("[y/N] \nNothing was sent.\n")
    assert not played.sandbox.acts


def test_one_id_is_asked_about(played: Played) -> None:
    command = Terminal("direct", "start", 1, "--base-url", played.url)
    command.read_until("Start 1 dispatch: 1")
    command.type("n\n")
    assert command.end() == 4
    assert not played.sandbox.acts


def test_a_sandbox_asks_nothing() -> None:
    command = Terminal("direct", "start", "1-50", "--sandbox")
    assert command.end() == 0
    assert "[y/N]" not in command.screen


def test_ctrl_c_during_terminal_run(played: Played) -> None:
    played.sandbox.latency = 0.3
    command = Terminal("direct", "start", "1-1000", "--yes", "--concurrency", 8, "--base-url", played.url)
    played.wait_for_requests(15)  # 1, 2, 4, 8
    command.interrupt()
    assert command.end() == 130
    assert "Interrupted: nothing new is started" in plain(command.screen)
    assert counts(plain(command.screen))["not started"] == 985


def test_bar_leaves_json_intact(played: Played) -> None:
    command = Terminal("direct", "start", "1-20", "--yes", "--json", "--base-url", played.url)
    assert command.end() == 0
    assert "━" not in command.screen
    assert command.screen.count('{"index": ') == 20


def test_bar_stays_out_of_file(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    command = Terminal("direct", "start", "1-20", "--yes", "--json", "--base-url", played.url, output=file)
    assert command.end() == 0
    assert file.read_text().count('{"index": ') == len(file.read_text().splitlines()) == 20
    assert '{"index"' not in command.screen
    assert "20/20" in plain(command.screen)


def test_terminal_text_is_escaped(played: Played) -> None:
    played.sandbox.order(Fault.http(404, b'{"error": {"code": 4040, "msg": "[bold]x\\u001b]0;owned\\u0007[/nope]"}}'))
    command = Terminal("direct", "start", 1, "--yes", "--base-url", played.url)
    assert command.end() == 1
    assert "\x1b]0;" not in command.screen
    assert "\x07" not in command.screen
    assert "[bold]x" in plain(command.screen)
    assert "[/nope]" in plain(command.screen)

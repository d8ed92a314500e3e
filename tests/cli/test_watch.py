"""``status --watch``: what is shown, and the exit status."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from dispatchkit.sandbox import Call, Fault
from tests.cli.conftest import Played, Terminal, run
from tests.cli.test_terminal import plain


def start(played: Played, *ids: int) -> None:
    headers = {"Authorization": f"Basic {played.sandbox.direct_token}"}
    for number in ids:
        played.sandbox.direct.answer(Call("POST", f"/api/v1/dispatch/{number}/start", headers=headers))


@pytest.fixture
def fast(played: Played) -> Played:
    """A sandbox in which dispatches take a second."""
    direct = played.sandbox.direct
    direct.scheduled, direct.sending, direct.awaiting = 0.0, 0.4, 0.4
    return played


def watch(played: Played, *arguments: object) -> tuple[object, ...]:
    return ("direct", "status", *arguments, "--watch", "--every", "0.1s", "--base-url", played.url)


def without_times(text: str) -> list[str]:
    return [re.sub(r"^[-0-9]{10} [0-9:]{8} UTC  ", "", line) for line in text.splitlines()]


def test_changes_are_lines(fast: Played) -> None:
    start(fast, 7)
    result = run(*watch(fast, 7))
    assert result.code == 0
    lines = without_times(result.out)
    possible = [
        "7: sending, total 1235, sending 1235",
        "7: awaiting, total 1235, sent 1235",
        "7: done, total 1235, delivered 1235",
    ]
    assert lines == possible[-len(lines) :]  # a slow machine misses the first ones
    assert result.err == "1 dispatch: 1 done.\n"


def test_changes_are_objects(fast: Played) -> None:
    start(fast, 7)
    result = run(*watch(fast, 7, "--json"))
    told = [json.loads(line) for line in result.out.splitlines()]
    assert (result.code, told[-1]["status"]) == (0, "done")
    assert (told[-1]["end"], told[-1]["is_well"], told[-1]["messages"]["delivered"]) == ("final", True, 1235)


def test_unknown_id_exits_with_1(fast: Played) -> None:
    start(fast, 7)
    result = run(*watch(fast, 7, 5000))
    assert result.code == 1
    assert "5000: unknown to the provider\n" in result.out
    assert "1 unknown to the provider" in result.err


def test_stall_exits_with_6(played: Played) -> None:
    result = run(*watch(played, 7, "--stalled-after", "0.3s"))
    assert result.code == 6
    assert without_times(result.out)[-1] == "7: initiated, stalled, total 1235, unsent 1235"
    again = f"dispatchkit direct status --base-url {played.url} --watch --every 0.1s --stalled-after 0.3s 7"
    assert result.err == f"1 dispatch: 1 initiated, stalled. To watch on: {again}\n"


def test_deadline_exits_with_6(played: Played) -> None:
    result = run(*watch(played, 7, 5000, "--deadline", "0.3s"))
    assert result.code == 6
    assert without_times(result.out)[-1].startswith("7: initiated, deadline passed")


@pytest.mark.second_stage
@pytest.mark.parametrize("columns", [80, 120])
def test_terminal_has_one_table(fast: Played, columns: int) -> None:
    start(fast, 7, 8)
    command = Terminal(*watch(fast, "7-8"), columns=columns)
    assert command.end() == 0
    lines = [plain(line.rpartition("\x1b[2K")[2]) for line in command.screen.splitlines()]
    *_, names, first, second, end = lines
    assert names.split()[:5] == ["dispatch", "state", "name", "total", "delivered"]
    assert first.split()[:2] == ["7", "done"]
    assert second.split()[:2] == ["8", "done"]
    assert end == "2 dispatches: 2 done."
    assert max(map(len, lines)) <= columns


def test_many_targets_are_summed_up(fast: Played) -> None:
    start(fast, *range(1, 31))
    command = Terminal(*watch(fast, "1-30", 5000), columns=80)
    assert command.end() == 1
    *_, named, last = plain(command.screen).splitlines()
    assert named == "Not well: 5000 (unknown to the provider)."
    assert last == "31 dispatches: 30 done; 1 unknown to the provider."


def test_summary_needs_no_change(played: Played) -> None:
    command = Terminal(*watch(played, "1-30"), columns=120)
    command.read_until("30 dispatches: 30 initiated.")
    command.interrupt()
    assert command.end() == 130
    assert "To watch on:" in plain(command.screen)


def test_refused_token_exits_with_1(played: Played) -> None:
    played.sandbox.order(Fault.http(401, b'{"error": {"code": 4012, "msg": "Bad credentials"}}'))
    result = run(*watch(played, 7, 8))
    assert result.code == 1
    assert "the provider could not be read: Bad credentials" in result.err


def test_ctrl_c_ends_watch(played: Played) -> None:
    command = Terminal(*watch(played, 7))
    command.read_until("initiated")
    command.interrupt()
    assert command.end() == 130


def test_mailing_is_watched(played: Played) -> None:
    played.sandbox.altcraft.run_seconds = 0.3
    since = datetime.now(UTC).isoformat()
    run("altcraft", "launch", 5, "--yes", "--no-ledger")
    words = ("altcraft", "status", 5, "--since", since)
    result = run(*words, "--watch", "--every", "0.1s")
    assert (result.code, result.err) == (0, "1 mailing: 1 completed.\n")
    assert without_times(result.out)[-1] == "5: completed, starts 1, ends 1"
    played.sandbox.altcraft.log_error(5)
    result = run(*words, "--watch")
    assert result.code == 1
    assert without_times(result.out) == ["5: completed, starts 1, ends 1, errors 1, Messages could not be handed over"]
    once = run(*words)
    assert once.code == 1
    assert once.out.splitlines()[1].split()[:7] == ["5", "completed", "yes", "yes", "1", "1", "1"]
    assert json.loads(run(*words, "--json").out)["errors"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--every", "5s"), "--every goes with --watch"),
        (("--deadline", "5s"), "--deadline goes with --watch"),
        (("--stalled-after", "5s"), "--stalled-after goes with --watch"),
        (("--watch", "--every", "soon"), "--every must be a time such as 90s"),
        (("--watch", "--every", "never"), "--every must be a time such as 90s, 15m or 1h, not"),
    ],
)
def test_times_are_checked(played: Played, options: tuple[str, ...], message: str) -> None:
    result = run("direct", "status", 7, *options, "--base-url", played.url)
    assert (result.code, played.sandbox.requests) == (2, 0)
    assert message in result.err

"""What the question says before a launch, and the report after it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dispatchkit.cli.input.ids import Targets, from_arguments
from dispatchkit.cli.input.question import describe_ids
from dispatchkit.cli.text import counted
from tests.cli.conftest import Played, Terminal, run
from tests.cli.test_terminal import plain


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ("5", "5"),
        ("5,7", "5, 7"),
        ("5,7,100-102,9", "5, 7, 100-102, 9"),
        ("1-10", "1-10"),
        ("9,8,7", "9, 8, 7"),
        ("1-11", "first 1, last 11, no gaps"),
        ("1-1000000", "first 1, last 1000000, no gaps"),
        ("1-20,22", "first 1, last 22, 1 gap: 1-20, 22"),
        ("1-5000,6000-9000,7", "first 1, last 9000, 1 gap: 1-5000, 6000-9000"),
        ("1-2000,2001,2002", "first 1, last 2002, no gaps"),
        (
            ",".join(map(str, range(1, 40, 2))),
            "first 1, last 39, 19 gaps: 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, ...",
        ),
    ],
)
def test_ids_are_described(ids: str, text: str) -> None:
    assert describe_ids(from_arguments([ids])) == text


def test_huge_range_is_not_walked() -> None:
    assert describe_ids(Targets([(1, 10**12)])) == f"first 1, last {10**12}, no gaps"


@pytest.mark.parametrize(("count", "text"), [(0, "0 ids"), (1, "1 id"), (2, "2 ids"), (1000, "1,000 ids")])
def test_counts_agree_in_number(count: int, text: str) -> None:
    assert counted(count, "id") == text
    assert counted(count, "dispatch", "dispatches").endswith("es") == (count != 1)


def test_question_names_what_launch_overrides(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "price.pdf"
    file.write_bytes(b"x" * 1500)
    content = '{"name": "SECRET", "sum": 5}'
    overrides = ("--audience", "segment:5", "--limit", 300, "--content", content, "--attach", file)
    command = Terminal("altcraft", "launch", 5, 7, *overrides, "--account", "retail")
    command.read_until("[y/N] ")
    assert plain(command.screen) == (
        "Launch 2 mailings: 5, 7\n"
        f"  host        {played.url}\n"
        "  account     'retail', with the token in DISPATCHKIT_ALTCRAFT_TOKEN\n"
        "  audience    segment 5\n"
        "  limit       300\n"
        "  content     2 keys (28 bytes): name, sum\n"
        "  attachment  price.pdf (1,500 bytes)\n"
        "mailing  name        status  recipients  against a launch\n"
        "      5  рассылка 5  Active  ~1000       -\n"
        "      7  рассылка 7  Active  ~1000       -\n"
        "Go ahead? [y/N] "
    )
    command.type("y\n")
    assert command.end() == 0
    report = plain(command.screen).partition("[y/N] ")[2]
    assert "Launch 2 mailings: 5, 7\n" in report
    assert "  content     2 keys (28 bytes): name, sum\n" in report
    assert "SECRET" not in command.screen


def test_one_id_needs_yes(played: Played) -> None:
    result = run("direct", "start", 5, "--base-url", played.url)
    assert result.code == 2
    assert "pass --yes" in result.err
    assert "1 dispatch: 5" in result.err
    assert played.sandbox.requests == 0
    assert run("direct", "start", 5, "--yes", "--base-url", played.url).code == 0


def test_no_is_exit_status_4(played: Played, tmp_path: Path) -> None:
    command = Terminal("direct", "start", "1-5", "--base-url", played.url, "--ledger", tmp_path / "l.db", "--run", "r")
    command.read_until("[y/N] ")
    command.type("no\n")
    assert command.end() == 4
    assert not (tmp_path / "l.db").exists()
    assert re.search("4: the answer", " ".join(run("--help").out.split()))


def test_resume_names_what_is_left(played: Played, tmp_path: Path) -> None:
    ledger = ("--ledger", tmp_path / "l.db", "--run", "r")
    run("direct", "start", "1-5", "--yes", "--base-url", played.url, *ledger, "--max-launches", 2, "--concurrency", 1)
    result = run("resume", tmp_path / "l.db")
    assert result.code == 2
    assert "resume run 'r': 3 of 5 dispatches are left: 3-5; command StartDispatch; host " in result.err
    command = Terminal("resume", tmp_path / "l.db")
    command.read_until("are left: 3-5")
    command.type("y\n")
    assert command.end() == 0
    assert played.sandbox.launches == dict.fromkeys(range(1, 6), 1)

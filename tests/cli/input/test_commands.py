# ruff: noqa: RUF001 - Russian words
"""``--from`` on the command line: what dispatchkit prints goes back in, and what is left out is said."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, Terminal, run, run_child
from tests.cli.input.workbooks import workbook


def start(played: Played, *arguments: object) -> tuple[object, ...]:
    return ("direct", "start", "--yes", "--base-url", played.url, *arguments)


def lose(played: Played, number: int) -> None:
    played.sandbox.order(Fault.lost_answer(), path_contains=f"/{number}/start")
    played.sandbox.order(Fault.lost_answer(), times=100, path_contains="dispatch?")
    played.sandbox.direct.read_lag = 60


def told(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith(("Left out", "1 of", "2 of"))]


@pytest.mark.second_stage
@pytest.mark.parametrize("view", ["export", "failures"])
@pytest.mark.parametrize("form", ["--csv", "--json"])
def test_a_ledger_goes_back_in(played: Played, tmp_path: Path, view: str, form: str) -> None:
    lose(played, 3)
    ledger = tmp_path / "launch.db"
    options = ("--ledger", ledger, "--run", "a", "--concurrency", 1, "--timeout", 0.5, "--max-launches", 3)
    assert run(*start(played, "1-3", 2001, 5, *options)).code == 3
    printed = tmp_path / "printed"
    printed.write_text(run("ledger", view, ledger, "a", form).out)
    played.sandbox.direct.read_lag = 0
    result = run(*start(played, "--from", printed, "--json"))
    assert result.code == 1, result
    assert played.sandbox.launches == dict.fromkeys((1, 2, 3, 5), 1)
    lines = told(result.err)
    assert ("Left out 2 ids that are done." in lines) == (view == "export")
    assert any(line.startswith("Left out 1 id whose outcome is unknown. Check with the provider") for line in lines)
    assert any("left in a run of a ledger" in line for line in lines)


def test_json_outcomes_go_back_in(played: Played, tmp_path: Path) -> None:
    played.sandbox.order(Fault.http(404, b'{"error": {"code": 4040, "msg": "not yet"}}'), path_contains="/5/")
    printed = tmp_path / "outcomes.jsonl"
    printed.write_text(run(*start(played, "1-6", "--json")).out)
    result = run(*start(played, "--from", printed))
    assert (result.code, told(result.err)) == (0, ["Left out 5 ids that are done."])
    assert played.sandbox.launches == dict.fromkeys(range(1, 7), 1)


@pytest.mark.parametrize(
    "content", [b"1\n2\n", gzip.compress(b"1\n2\n"), workbook([[1], [2]])], ids=["text", "gz", "xlsx"]
)
def test_standard_input_takes_every_form(played: Played, content: bytes) -> None:
    assert run(*start(played, "--from", "-"), stdin=content).code == 0
    assert played.sandbox.launches == {1: 1, 2: 1}


def test_one_bad_row_launches_nothing(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_text("name,id\nA,1\nDiscount 10,5,7\nB,\u200b8\n")
    result = run(*start(played, "--from", file, "--column", "id"))
    assert (result.code, result.out) == (2, "")
    lines = result.err.splitlines()
    assert lines[0] == f"dispatchkit: {file}: 2 rows cannot be used, so nothing was started:"
    assert lines[1].startswith("  line 3: this row has 3 fields of 2")
    assert lines[2].startswith(r"  line 4: '\u200b8' is not an id")
    assert len(lines) == 3
    assert played.sandbox.requests == 0


def test_bad_row_cannot_colour_screen(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_text("id,state\n1,\x1b[31m\n1,\x1b[32m\n")
    result = run(*start(played, "--from", file))
    assert result.code == 2
    assert "\x1b" not in result.err


def test_exact_line_for_encoding(tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_bytes("имя;id\nновости;5\n".encode("cp1251"))
    line = ("direct", "start", "--from", file, "--column", "id", "--sandbox")
    result = run_child(*line)
    assert result.code == 2
    suggested = f"dispatchkit {' '.join(map(str, line))} --encoding cp1251"
    assert result.err.endswith(f"It is probably cp1251; if so: {suggested}\n")
    assert run_child(*suggested.split()[1:]).code == 0


@pytest.mark.parametrize("option", ["--sheet", "--encoding"])
def test_options_of_file_need_one(option: str) -> None:
    result = run("direct", "start", "5", option, "x")
    assert (result.code, result.err) == (2, f"dispatchkit: {option} goes with --from FILE\n")


def test_the_question_tells_of_repeats(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("1\n2\n1\n")
    terminal = Terminal("direct", "start", "--base-url", played.url, "--from", file)
    terminal.read_until("Left out 1 repeated id.")
    terminal.read_until("Start 2 dispatches: 1, 2")
    terminal.read_until("[y/N]")
    terminal.type("n\n")
    assert terminal.end() == 4
    assert not played.sandbox.acts


def test_title_above_header_is_said(tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_text("Report of March\n\nid,name\n5,x\n")
    result = run("direct", "start", "--from", file, "--column", "id", "--sandbox")
    assert result.code == 0
    assert "Took line 3 for the header, and left out what stands above it.\n" in result.err

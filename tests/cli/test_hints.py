"""Each command line that is printed is complete: the real parser takes it, and most of them are run here."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

import dispatchkit.cli
from dispatchkit.cli import invocation
from dispatchkit.cli.app import app
from dispatchkit.redaction import without_passwords
from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, Result, Terminal, run

HINT = re.compile(r"dispatchkit (?:direct|altcraft|ledger|resume|stop-run|plan|worker|sandbox)\b.*")


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The lines that were made for hints. Each of them is parsed when the test ends."""
    lines: list[str] = []

    class Recorder:
        @staticmethod
        def join(words: list[str]) -> str:
            lines.append(shlex.join(words))
            return lines[-1]

    monkeypatch.setattr(invocation, "shlex", Recorder)
    monkeypatch.setattr("dispatchkit.ledger.ledger.CLAIM_AGE", 0.1)
    yield lines
    assert lines
    for line in lines:
        parse(line)


def parse(line: str) -> None:
    """Parse a line with the real parser, without running it."""
    words = shlex.split(line)
    assert words.pop(0) == "dispatchkit"
    command = typer.main.get_command(app)
    context = command.make_context("dispatchkit", words)
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, words, parent=context)


def hint(result: Result, made: list[str]) -> list[str]:
    """The words of the one line that a command printed, which is a line that was made."""
    found = [each for text in (result.out, result.err) for each in HINT.findall(text)]
    assert len(found) == 1, result
    assert any(found[0].startswith(line) for line in made)
    return shlex.split(max((line for line in made if found[0].startswith(line)), key=len))[1:]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "the launch's ledger.db"


@pytest.fixture
def start(played: Played, ledger: Path) -> tuple[object, ...]:
    named = ("--ledger", ledger, "--run", "it's friday")
    return ("direct", "start", "1-9", "--yes", "--base-url", played.url, "--rate", 500, "--account", "a b", *named)


def test_resume_keeps_what_was_given(played: Played, start: tuple[object, ...], made: list[str]) -> None:
    line = hint(run(*start, "--max-launches", 4), made)
    assert line[0] == "resume"
    assert {"--rate", "--account", "it's friday"} <= {*line}
    assert not {"--yes", "--max-launches"} & {*line}
    assert run(*line, "--yes").code == 0
    assert played.sandbox.launches == dict.fromkeys(range(1, 10), 1)


def test_stopped_run_is_resumed(played: Played, start: tuple[object, ...], made: list[str], ledger: Path) -> None:
    assert run(*start, "--max-launches", 4).code == 1
    stopped = run("stop-run", ledger, "it's friday")
    assert "--account" in hint(stopped, made)
    refused = run(*start)
    assert run(*hint(refused, made), "--yes").code == 0
    assert len(played.sandbox.launches) == 9


def test_views_print_whole_lines(start: tuple[object, ...], made: list[str], ledger: Path) -> None:
    assert run(*start, "--max-launches", 4).code == 1
    assert "--account" in hint(run("ledger", "show", ledger), made)
    assert "--account" in hint(run("ledger", "failures", ledger, "--csv"), made)
    assert hint(run("resume", ledger, "it's friday", "--yes"), made)[:2] == ["resume", str(ledger)]
    listed = hint(run("stop-run", ledger), made)
    assert run(*listed).code == 0


def test_another_launch_and_another_account(
    played: Played, start: tuple[object, ...], made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*start, "--max-launches", 4).code == 1
    other = hint(run(*start, 10), made)
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "b3RoZXI6dG9rZW4=")
    refused = run(*start, "--account", "c")
    line = hint(refused, made)
    assert line[-1] == "--account-changed"
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", played.sandbox.direct_token)
    assert run(*other, "--yes").code == 0


@pytest.mark.second_stage
@pytest.mark.timeout(180)  # the state of a copy's targets is believed after a minute
def test_copy_goes_on(start: tuple[object, ...], made: list[str], ledger: Path) -> None:
    assert run(*start, "--max-launches", 4).code == 1
    copy = ledger.with_name("copy.db")
    shutil.copy(ledger, copy)
    line = hint(run(*start, "--ledger", copy), made)
    assert line[-1] == "--copied"
    assert run(*line, "--yes").code == 0


def test_refused_are_launched_from_file(
    start: tuple[object, ...], made: list[str], monkeypatch: pytest.MonkeyPatch, played: Played, tmp_path: Path
) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "wrong")
    result = run(*start)
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", played.sandbox.direct_token)
    last = HINT.findall(result.out)[-1]
    assert last in made
    failures = tmp_path / "failures.csv"
    failures.write_text(run(*shlex.split(last)[1:]).out)
    assert run("direct", "start", "--from", failures, "--yes", "--base-url", played.url).code == 0
    assert "--account" in shlex.split(HINT.findall(result.out)[0])


@pytest.mark.parametrize("where", ["server", "sandbox"])
def test_failures_are_tried_again(played: Played, made: list[str], tmp_path: Path, where: str) -> None:
    host = ("--sandbox",) if where == "sandbox" else ("--no-ledger", "--base-url", played.url)
    file = tmp_path / "failed ids.csv"
    result = run("direct", "start", "1-9", "--yes", *host, "--max-launches", 4, "--failures", file, "--expected", 9)
    line = hint(result, made)
    assert {*host} <= {*line}
    assert "--expected" not in line
    assert "--max-launches" not in line
    second = run(*line, "--yes", "--max-launches", 4)
    assert second.code == 1  # again the first four
    assert run(*hint(second, made), "--yes").code == 0


def test_line_is_made_from_words(made: list[str]) -> None:
    invocation.command_line("direct", "start", "1", "--base-url", "http://127.0.0.1:1")
    assert made == ["dispatchkit direct start 1 --base-url http://127.0.0.1:1"]


def test_password_is_in_no_line(made: list[str]) -> None:
    invocation.command_line("ledger", "list", without_passwords("postgresql://u:secret@h/d"))
    assert made == ["dispatchkit ledger list postgresql://u@h/d"]
    assert without_passwords("postgresql://u@h/d?password=secret&port=5") == "postgresql://u@h/d?port=5"
    assert without_passwords("postgresql://u@h/d?port=5&password=secret") == "postgresql://u@h/d?port=5"
    assert without_passwords("a:b@c.db") == "a:b@c.db"


def test_made_run_name_is_printed(
    played: Played, made: list[str], ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHKIT_LEDGER", str(ledger))
    played.sandbox.order(Fault.html(500, acts=False), path_contains="/2/")
    result = run("direct", "start", "1-3", "--yes", "--base-url", played.url, "--max-launches", 1)
    name = re.search(r"The launch is run '(\d{8}-\d{6}-start-[0-9a-f]{4})' in ", result.err)
    assert name is not None
    assert hint(result, made) == ["resume", "--run", name[1]]
    sandboxed = run("direct", "start", "1-3", "--sandbox")
    assert (sandboxed.code, sandboxed.err) == (0, "")


def test_no_hint_is_handwritten(made: list[str]) -> None:
    made.append("dispatchkit ledger list x.db")
    folder = Path(dispatchkit.cli.__file__).parent
    for file in folder.rglob("*.py"):
        if file.parent.name == "commands" or file.name == "app.py":
            continue  # help, which shows examples
        tree = ast.parse(file.read_text())
        documents = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
                assert not HINT.search(node.value) or "``" in node.value, f"{file}: {node.value}"


def test_encoding_hint_hides_password(tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_bytes("id;имя\n5;Скидка\n".encode("cp1251"))
    ledger = "host=127.0.0.1 password=hunter2 dbname=x"
    result = run("direct", "start", "--from", file, "--column", "id", "--ledger", ledger, "--yes", "--sandbox")
    assert result.code == 2
    assert "--encoding cp1251" in result.err
    assert "hunter2" not in result.err
    assert "--yes" not in result.err


def test_retry_hint_drops_id_options(played: Played, tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("id,state\n100001,unknown\n")
    failures = tmp_path / "failed.csv"
    played.sandbox.order(Fault.http(404, b'{"error": {"code": 4040, "msg": "gone"}}'))
    result = run(
        *("direct", "start", "--from", tmp_path / "ids.csv", "--column", "id", "--include-unknown"),
        *("--encoding", "utf-8", "--failures", failures, "--base-url", played.url, "--yes", "--no-ledger"),
    )
    (line,) = HINT.findall(result.out)
    assert "--include-unknown" not in line
    assert "--encoding" not in line


def test_resume_question_names_command(played: Played, tmp_path: Path) -> None:
    ledger = ("--ledger", tmp_path / "l.db", "--run", "a")
    run(
        *("altcraft", "activate", "1-3", "--run-now", "--audience", "list:1", "--content", '{"field": "hunter2"}'),
        *("--base-url", played.url, "--yes", "--max-launches", 1, *ledger),
    )
    terminal = Terminal("resume", tmp_path / "l.db", "--run", "a")
    terminal.read_until("ActivateMailing")
    terminal.read_until("[y/N]")
    terminal.type("n\n")
    assert terminal.end() == 4
    assert "field" in terminal.screen
    assert "hunter2" not in terminal.screen


def test_content_is_in_no_line(played: Played, made: list[str], tmp_path: Path) -> None:
    launch = ("altcraft", "activate", 1, 101, "--run-now", "--yes", "--no-ledger", "--content", '{"it": "s3cret"}')
    result = run(*launch, "--failures", tmp_path / "f.csv")
    line = hint(result, made)
    assert line[line.index("--content") + 1] == "@FILE"
    file = tmp_path / "ids"
    file.write_bytes("имя;id\nновости;5\n".encode("cp1251"))  # noqa: RUF001 - Russian words
    refused = run("altcraft", "launch", "--from", file, "--column", "id", "--content", '{"it": "s3cret"}')
    for each in (result, refused):
        assert "s3cret" not in each.out + each.err
    given = tmp_path / "content.json"
    given.write_text('{"it": "s3cret"}')
    again = run(*launch[:-1], f"@{given}", "--failures", tmp_path / "g.csv")
    assert f"@{given}" in hint(again, made)

"""A catalogue puts every text into brackets. What then stands outside of them must be data."""

from __future__ import annotations

import getpass
import html
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dispatchkit.sandbox import Call, Fault
from tests.cli.conftest import Played, Result, Terminal, run_child
from tests.cli.test_terminal import plain
from tests.cli.translations import bracketed, compiled, marked_up, words_outside

pytestmark = pytest.mark.second_stage

HELP = """
import getpass
import html
import json
import re
import socket
import typer.main
from dispatchkit.cli.app import app

pages = {}

def add(command, parent, name):
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    pages[context.command_path] = command.get_help(context)
    for child in getattr(command, "table", ()):
        add(command.get_command(context, child), context, child)

add(typer.main.get_command(app), None, "dispatchkit")
print(json.dumps(pages))
"""
"""Prints the help page of each command."""

METAVARS = ("<int>", "<list[str]>", "<str>", "N|auto", "<json|xml>", "<broadcast|regular>")
"""What stands for a value, beside words in capitals."""


@pytest.fixture(scope="module")
def catalogues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a catalogue that puts texts into brackets."""
    return compiled(bracketed(), tmp_path_factory.mktemp("locale"))


@pytest.fixture(autouse=True)
def _brackets(catalogues: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of this module use it."""
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("DISPATCHKIT_LOCALE_DIR", str(catalogues))
    monkeypatch.setenv("PYTHONUTF8", "1")


def help_pages() -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, check=True, timeout=60)
    pages: dict[str, str] = json.loads(done.stdout)
    return pages


def test_help_pages_are_translated() -> None:
    pages = help_pages()
    assert len(pages) > 30
    names = {name for path in pages for name in path.split()}
    for path, page in pages.items():
        words = [word for word in words_outside(page, METAVARS) if word not in names and not word.startswith("-")]
        assert words == [], path


def check(result: Result, *data: str) -> None:
    """Fail if the output has words outside of brackets that are no data."""
    words = [word for text in (result.out, result.err) for word in words_outside(text, data)]
    assert not words, f"{words} in {result}"
    assert "\u27e6" in result.out + result.err


CSV = "target,outcome,code,message,request_id\n2,rejected,4040,gone,\n"


@pytest.fixture
def recorded(played: Played, tmp_path: Path) -> Path:
    """A ledger with a run of five dispatches: two are done, one is refused, and two are left."""
    where = tmp_path / "ledger.db"
    played.sandbox.order(Fault.http(404, b'{"error": {"code": 4040, "msg": "gone"}}'), path_contains="/2/")
    options = ("--max-launches", 3, "--concurrency", 1, "--failures", tmp_path / "left.csv")
    result = run_child(*start(played, "1-5"), "--yes", "--ledger", where, "--run", "friday", *options)
    assert result.code == 1
    check(result, *DATA)
    return where


DATA = (
    "gone (code 4040, HTTP 404)",
    "the account that owns it.",
    "StartDispatch",
    "friday",
    "direct",
    "SQLite",
    "json",
)
"""What the provider says, and names."""
SETTINGS = ("base url", "provider")
"""Names of a run's settings."""
NAMES = ("Active", "broadcast", "email", "sms")
"""The platform's own words."""


def start(played: Played, *ids: object) -> tuple[object, ...]:
    return ("direct", "start", *ids, "--base-url", played.url)


def test_run_is_translated(played: Played) -> None:
    played.sandbox.order(Fault.lost_answer(), times=9, path_contains="/7/")
    result = run_child(*start(played, "1-20"), "--yes", "--no-ledger", "--never-repeat")
    check(result, "OutcomeUnknownError:")


def test_interrupted_run_is_translated(played: Played) -> None:
    command = Terminal(*start(played, "1-2000"), "--yes", "--rate", "50")
    played.wait_for_requests(1)
    command.interrupt()
    assert command.end() == 130
    assert [*words_outside(plain(command.screen))] == []


@pytest.mark.parametrize("answer", ["y", "n"])
def test_question_is_translated(answer: str, played: Played) -> None:
    command = Terminal(*start(played, 7, 9), "--account", "retail", *(("--canary", 1) if answer == "n" else ()))
    command.read_until("[y/N] ")
    command.type(f"{answer}\n")
    assert command.end() == (0 if answer == "y" else 4)
    assert [*words_outside(plain(command.screen), ("'retail'",))] == []


def test_dry_run_is_translated(played: Played) -> None:
    result = run_child(*start(played, 7, 9), "--dry-run")
    lines = result.out.splitlines()
    assert [*words_outside(lines[-1])] == []


REFUSED = [
    ("direct", "start"),
    ("direct", "start", "7", "--column", "id"),
    ("direct", "start", "0007"),
    ("direct", "start", "9-7"),
    ("direct", "start", "x"),
    ("direct", "start", "7", "--rate", "--json"),
    ("direct", "start", "7", "--concurrency", "much"),
    ("direct", "start", "7", "--give-up-after", "soon"),
    ("direct", "start", "7", "--repeat-window", "never"),
    ("direct", "start", "7", "--not-before", "2001-01-01T09:00Z"),
    ("direct", "start", "7", "--not-before", "09:00"),
    ("direct", "start", "7", "--zone", "Mars"),
    ("direct", "start", "7", "--expected", "8", "--yes"),
    ("direct", "start", "7", "--client-key", "key.pem"),
    ("direct", "start", "7", "--notify", ""),
    ("direct", "start", "7", "--yes", "--run", ""),
    ("direct", "start", "7", "--yes", "--sandbox", "--run", "r"),
    ("direct", "start", "7", "--yes", "--sandbox", "--profile", "p"),
    ("direct", "start", "7"),
    ("direct", "statr"),
    ("direct", "list", "--created-from", "x"),
    ("direct", "list", "--status", "sendin"),
    ("direct", "stop", "7", "--status", "sending"),
    ("direct", "status", "7", "--every", "1s"),
    ("altcraft", "activate", "7", "--audience", "list:1"),
    ("altcraft", "launch", "7", "--audience", "x"),
    ("altcraft", "launch", "7", "--content", "["),
    ("altcraft", "launch", "7", "--list-id", "1"),
    ("altcraft", "mailings", "--json", "--csv"),
    ("ledger", "show", "none.db", "run"),
    ("ledger", "show", "a", "b", "c"),
    ("ledger", "report", "none.db"),
    ("profile", "check"),
    ("resume", "none.db"),
    ("web", "--host", "0.0.0.0"),
]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_refusals_are_translated(words: tuple[str, ...], played: Played) -> None:
    result = run_child(*words, *(("--base-url", played.url) if words[0] == "direct" and len(words) > 2 else ()))
    assert result.code in {1, 2}
    check(result, "dispatchkit:", *TYPER)


TYPER = ("Error: Invalid value for '--rate':", "Error:", "Try '", "' for help.", "dispatchkit", "direct", "start")
"""Its errors are in English."""


@pytest.mark.parametrize(
    "content",
    [
        "",
        "1 2\n",
        "name;id\n",
        "id\n1E+15\n1,000,000\nx\n=A1\n'5\n+7\n1-2\n007\n0\n99999999999999999999\n7.0\n2026-01-31\n",
        "id,state\n7,perhaps\n",
        "id,id\n1,2\n",
        "7\n\u0668\n8\u00a09\n",
        '{"target": 7}\n',
        '{"target": 7, "state": "done"}\n',
        "[\n",
        "\0",
        "%PDF",
    ],
)
def test_bad_files_are_translated(content: str, played: Played, tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_text(content, "utf-8")
    result = run_child(*start(played), "--from", file, "--yes")
    assert result.code == 2
    check(result, "dispatchkit:", str(file))


def test_ledger_is_translated(recorded: Path, tmp_path: Path) -> None:
    for words in (("list",), ("show",), ("failures",), ("export",)):
        result = run_child("ledger", *words, recorded)
        assert result.code == 0
        check(result, *DATA, *SETTINGS, str(recorded))


def test_report_is_translated(recorded: Path, tmp_path: Path) -> None:
    result = run_child("ledger", "report", recorded, "-o", "-")
    assert result.code == 0
    assert '<body lang="de">' in result.out
    body = re.sub("<(svg|style).*?</(svg|style)>", "", result.out, flags=re.DOTALL)
    texts = html.unescape(re.sub("<[^>]*>", "\n", body))
    assert [*words_outside(texts, (*DATA, *SETTINGS, str(recorded), getpass.getuser(), socket.gethostname()))] == []


def test_reads_are_translated(played: Played) -> None:
    played.sandbox.direct.scheduled = 0
    headers = {"Authorization": f"Basic {played.sandbox.direct_token}"}
    played.sandbox.direct.answer(Call("POST", "/api/v1/dispatch/8/start", headers=headers))
    for words in (
        ("direct", "status", 7, 8, "--base-url", played.url),
        ("direct", "status", 8, "--watch", "--every", "0.1s", "--deadline", "1s", "--base-url", played.url),
        ("direct", "list", "--base-url", played.url),
        ("altcraft", "status", 7),
        ("altcraft", "status", 7, "--watch", "--every", "0.1s", "--deadline", "1s"),
        ("altcraft", "log", 7),
        ("altcraft", "mailings", "--limit", 2),
        ("altcraft", "counters", "list:1"),
    ):
        check(run_child(*words), *NAMES)


def test_check_is_translated(played: Played) -> None:
    check(run_child(*start(played, 7, 5000), "--check", "--yes"))
    check(run_child(*start(played, 7, 5000), "--skip-unlaunchable", "--yes"))


def test_rest_of_ledger_is_translated(recorded: Path, played: Played) -> None:
    for words in (
        ("resume", recorded, "--run", "friday"),
        ("resume", recorded, "--run", "friday", "--yes"),
        ("resume", recorded, "--run", "friday", "--yes"),
        ("ledger", "prune", recorded, "--yes"),
        ("ledger", "init", recorded),
        (*start(played, "1-5"), "--yes", "--ledger", recorded),
        (*start(played, "1-9"), "--yes", "--ledger", recorded),
    ):
        check(run_child(*words), *DATA, str(recorded))


def test_added_messages_are_translated(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "messages.csv"
    file.write_text("destination,name\n79990000001,A\n79990000002,B\n")
    words = ("direct", "add-messages", 7, "--from", file, "--base-url", played.url)
    for more in (("--yes",), (), ("--expected", 3)):
        check(run_child(*words, *more), "dispatchkit:")
    assert [*words_outside(run_child(*words, "--dry-run").out.splitlines()[-1])] == []


def test_markup_of_catalogue_is_text(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_LOCALE_DIR", str(compiled(marked_up(), tmp_path / "locale")))
    result = run_child(*start(played, "1-3"), "--yes", "--no-ledger")
    assert (result.code, result.out.count("done[/b]")) == (0, 1)
    for words in (("direct", "list", "--base-url", played.url), ("direct", "status", 7, "--base-url", played.url)):
        result = run_child(*words)
        assert (result.code, "status[/b]" in result.out) == (0, True)
    command = Terminal(*start(played, "4-90"), "--no-ledger", "--rate", 100)
    command.read_until("[y/N] ")
    command.type("y\n")
    assert command.end() == 0

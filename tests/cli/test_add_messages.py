"""``direct add-messages``: the file, the question, the run and what is said of it."""

from __future__ import annotations

import csv
import itertools
import json
import stat
import tracemalloc
from pathlib import Path

import pytest

from dispatchkit.cli.providers.message_file import MessageFile
from dispatchkit.sandbox import Call, Fault
from tests.cli.conftest import Played, Result, Terminal, run

HEAD = "destination,name\n"


def write(folder: Path, text: str, name: str = "messages.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def people(count: int) -> str:
    return HEAD + "".join(f"{79810000000 + number},Anna\n" for number in range(count))


def add(played: Played, file: Path, *arguments: object) -> Result:
    return run("direct", "add-messages", 7, "--from", file, *arguments, "--base-url", played.url)


def test_messages_are_added_in_batches(played: Played, tmp_path: Path) -> None:
    result = add(played, write(tmp_path, people(25)), "--yes", "--batch-size", 10)
    assert (result.code, result.err) == (0, "")
    assert result.out == "Added 25 messages to dispatch 7; 0 refused, 0 unknown, 0 not sent.\n"
    assert [act.action for act in played.sandbox.acts] == ["add_messages"] * 3
    assert not played.sandbox.launches


def test_refused_lines_are_named(played: Played, tmp_path: Path) -> None:
    result = add(played, write(tmp_path, f"{HEAD}79818269375,Anna\nnobody,Bob\n"), "--yes")
    assert result.code == 1
    assert result.err == "line 3: the provider refused the message with code 7401\n"
    assert result.out == "Added 1 message to dispatch 7; 1 refused, 0 unknown, 0 not sent.\n"


def test_results_are_written(played: Played, tmp_path: Path) -> None:
    file, results = write(tmp_path, f"{HEAD}79818269375,Anna\nnobody,Bob\n"), tmp_path / "results.csv"
    told = add(played, file, "--yes", "--json", "--results", results).out
    assert "79818269375" not in told
    first, second = [json.loads(line) for line in told.splitlines()]
    assert (first["line"], first["state"], second["state"], second["error_code"]) == (2, "added", "refused", 7401)
    with results.open(encoding="utf-8") as stream:
        rows = [*csv.DictReader(stream)]
    assert [(row["line"], row["destination"], row["state"]) for row in rows] == [
        ("2", "79818269375", "added"),
        ("3", "nobody", "refused"),
    ]
    assert stat.S_IMODE(results.stat().st_mode) == 0o600
    again = add(played, file, "--yes", "--results", results)
    assert (again.code, "is not empty" in again.err) == (2, True)


def test_json_lines_are_read(played: Played, tmp_path: Path) -> None:
    lines = [{"destination": "79818269375", "substitutions": {"price": 3, "text": "a\u2028b"}}, {"destination": "7981"}]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    assert add(played, write(tmp_path, text, "messages.jsonl"), "--yes").code == 0
    shown = add(played, write(tmp_path, text, "messages.jsonl"), "--dry-run")
    assert '"substitutions":{"price":3,"text":"a' in shown.out


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty"),
        (HEAD, "holds no messages"),
        ("phone,name\n79818269375,Anna\n", "the header must name a column 'destination'"),
        ("destination,name,NAME\n1,a,b\n", "each column of the header must have a name of its own"),
        (f"{HEAD}79818269375\n", "line 2: this row has 1 fields of 2"),
        (f"{HEAD}79818269375,Anna, B\n", "line 2: this row has 3 fields of 2"),
        (f"{HEAD},Anna\n", "line 2: destination must be printable text"),
        (f"{HEAD}7.98183E+10,Anna\n", "line 2: a spreadsheet has damaged the destination"),
        (f"{HEAD}###,Anna\n", "line 2: a spreadsheet has damaged the destination"),
        (f"{HEAD}79818269375,A\n1234,B\n79818269375,C\n", "line 4: this destination stands in line 2, too"),
        ("name,destination\nA,79818269375\nA,7981", "line 3: the last line has no line end"),
        ('{"destination": 7}\n', "line 1: destination must be text"),
        ('{"destination": "7", "name": "A"}\n', "line 1: an object has the keys"),
        ('{"destination": "7", "substitutions": []}\n', "line 1: substitutions must be a JSON object"),
        ('{"destination": "7", "destination": "8"}\n', "line 1: this is no JSON object, or it has a key twice"),
    ],
)
def test_bad_file_sends_nothing(played: Played, tmp_path: Path, text: str, problem: str) -> None:
    result = add(played, write(tmp_path, text), "--yes")
    assert result.code == 2
    assert problem in result.err
    assert "79818269375" not in result.err
    assert played.sandbox.requests == 0


def test_started_dispatch_takes_no_messages(played: Played, tmp_path: Path) -> None:
    headers = {"Authorization": f"Basic {played.sandbox.direct_token}"}
    played.sandbox.direct.answer(Call("POST", "/api/v1/dispatch/7/start", headers=headers))
    result = add(played, write(tmp_path, people(1)), "--yes")
    assert result.code == 2
    assert "it was started, so it takes no more messages. Nothing was sent" in result.err
    assert [act.action for act in played.sandbox.acts] == ["start"]


def test_unclear_batch_ends_the_run(played: Played, tmp_path: Path) -> None:
    file, results = write(tmp_path, people(30)), tmp_path / "results.csv"
    played.sandbox.order(Fault.lost_answer(), path_contains="messages")
    result = add(played, file, "--yes", "--batch-size", 10, "--results", results)
    assert result.code == 3
    assert result.out == "Added 0 messages to dispatch 7; 0 refused, 10 unknown, 20 not sent.\n"
    assert "Lines 2 to 11: unknown: " in result.err
    assert "do not add them again" in result.err
    assert f"To add the rest: dispatchkit direct add-messages 7 --from {file} --batch-size 10 " in result.err
    assert "--skip 10" in result.err
    assert len(played.sandbox.acts) == 1
    rest = add(played, file, "--yes", "--skip", 10)
    assert rest.out == "Added 20 messages to dispatch 7; 0 refused, 0 unknown, 0 not sent.\n"


def test_refused_batch_is_left(played: Played, tmp_path: Path) -> None:
    file = write(tmp_path, people(3))
    terminal = Terminal("direct", "add-messages", "7", "--from", file, "--base-url", played.url)
    terminal.read_until("[y/N]")
    headers = {"Authorization": f"Basic {played.sandbox.direct_token}"}
    played.sandbox.direct.answer(Call("POST", "/api/v1/dispatch/7/start", headers=headers))
    terminal.type("y\n")
    terminal.read_until("Lines 2 to 4: rejected: Inappropriate dispatch status")
    terminal.read_until("3 not sent.")
    terminal.read_until("--skip 0")
    assert terminal.end() == 1
    assert [act.action for act in played.sandbox.acts] == ["start"]


def test_wrong_counts_send_nothing(played: Played, tmp_path: Path) -> None:
    result = add(played, write(tmp_path, people(3)), "--yes", "--skip", 5)
    assert (result.code, "--skip 5 leaves none of 3 messages" in result.err) == (2, True)
    result = add(played, write(tmp_path, people(3)), "--yes", "--expected", 4)
    assert (result.code, "there are 3 messages, but --expected is 4" in result.err) == (2, True)
    assert not played.sandbox.acts


def test_question_names_dispatch_and_variables(played: Played, tmp_path: Path) -> None:
    result = add(played, write(tmp_path, people(3)))
    assert result.code == 2
    assert "add 3 messages to dispatch 7, which sends none of them yet" in result.err
    assert "dispatch рассылка 7, initiated" in result.err
    assert "variables name" in result.err
    assert "pass --yes" in result.err
    assert not played.sandbox.acts


def test_answer_no_sends_nothing(played: Played, tmp_path: Path) -> None:
    file = write(tmp_path, people(3))
    terminal = Terminal("direct", "add-messages", "7", "--from", file, "--base-url", played.url)
    terminal.read_until("[y/N]")
    terminal.type("n\n")
    assert terminal.end() == 4
    assert not played.sandbox.acts


def test_dry_run_needs_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPATCHKIT_DIRECT_TOKEN", raising=False)
    file = write(tmp_path, people(25))
    shown = run("direct", "add-messages", 7, "--from", file, "--dry-run", "--batch-size", 10)
    assert shown.code == 0
    assert "POST https://direct.i-dgtl.ru/api/v1/dispatch/7/messages" in shown.out
    assert shown.out.endswith("3 requests with 25 messages. None was sent.\n")
    played = run("direct", "add-messages", 7, "--from", file, "--sandbox")
    assert (played.code, played.out) == (0, "Added 25 messages to dispatch 7; 0 refused, 0 unknown, 0 not sent.\n")


def test_standard_input_is_refused(played: Played) -> None:
    result = run("direct", "add-messages", 7, "--from", "-", "--yes", "--base-url", played.url)
    assert (result.code, "must name a regular file" in result.err) == (2, True)


def test_unknown_dispatch_is_said(played: Played, tmp_path: Path) -> None:
    file = write(tmp_path, people(1))
    result = run("direct", "add-messages", 9999, "--from", file, "--yes", "--base-url", played.url)
    assert result.code == 1
    assert "no dispatch of this id is listed" in result.err


def test_changed_file_ends_the_run(tmp_path: Path) -> None:
    file = write(tmp_path, people(4))
    messages = MessageFile(str(file), None, str)
    messages.check()
    batches = messages.batches(2)
    assert len(next(batches)) == 2
    write(tmp_path, people(5))
    with pytest.raises(ValueError, match="has changed since it was checked"):
        next(batches)


@pytest.mark.second_stage
def test_memory_holds_few_messages(tmp_path: Path) -> None:
    file = write(tmp_path, HEAD + "".join(f"{79810000000 + number},{'x' * 500}\n" for number in range(20_000)))
    messages = MessageFile(str(file), None, str)
    tracemalloc.start()
    try:
        messages.check()
        assert sum(map(len, messages.batches(1000))) == messages.count == 20_000
        assert tracemalloc.get_traced_memory()[1] < 5_000_000  # the file has 10 MB
    finally:
        tracemalloc.stop()


class Adding:
    """``add-messages`` of 30 messages in batches of 10, on a terminal, with the states of its results."""

    def __init__(self, played: Played, folder: Path, *more: object, columns: int = 80) -> None:
        self._results = folder / "results.csv"
        self.terminal = Terminal(
            "direct", "add-messages", "7", "--from", write(folder, people(30)), "--base-url", played.url,
            "--batch-size", 10, "--results", self._results, *more, columns=columns,
        )  # fmt: skip

    def states(self) -> list[tuple[str, int]]:
        with self._results.open(encoding="utf-8") as stream:
            rows = [*csv.DictReader(stream)]
        assert [int(row["line"]) for row in rows] == list(range(2, 32)), "each destination has one row"
        return [(state, len([*group])) for state, group in itertools.groupby(row["state"] for row in rows)]


@pytest.mark.second_stage
def test_ctrl_c_ends_after_batch(played: Played, tmp_path: Path) -> None:
    played.sandbox.order(Fault.slow(1.0), times=10, path_contains="messages")
    adding = Adding(played, tmp_path, "--yes")
    adding.terminal.read_until("10 of 30")
    played.wait_for_requests(3)  # the dispatch, and two batches
    adding.terminal.interrupt()
    adding.terminal.read_until("Stopping after the batch that is under way. Ctrl-C again cancels it.\r\n")
    assert adding.terminal.end() == 130
    assert "Added 20 messages to dispatch 7; 0 refused, 0 unknown, 10 not sent.\r\n" in adding.terminal.screen
    assert "--skip 20" in adding.terminal.screen
    assert adding.states() == [("added", 20), ("not_sent", 10)]


@pytest.mark.second_stage
def test_second_ctrl_c_cancels_batch(played: Played, tmp_path: Path) -> None:
    played.sandbox.order(Fault.slow(0.0), path_contains="messages")
    played.sandbox.order(Fault.silent(), times=10, path_contains="messages")
    adding = Adding(played, tmp_path, "--yes")
    adding.terminal.read_until("10 of 30")
    played.wait_for_requests(3)  # the dispatch, and two batches
    adding.terminal.interrupt()
    adding.terminal.read_until("Ctrl-C again cancels it.")
    adding.terminal.interrupt()
    assert adding.terminal.end() == 3
    assert "Lines 12 to 21: unknown: " in adding.terminal.screen
    assert "Added 10 messages to dispatch 7; 0 refused, 10 unknown, 10 not sent.\r\n" in adding.terminal.screen
    assert "--skip 20" in adding.terminal.screen
    assert adding.states() == [("added", 10), ("unknown", 10), ("not_sent", 10)]


@pytest.mark.second_stage
def test_ctrl_c_ends_a_pause(played: Played, tmp_path: Path) -> None:
    played.sandbox.order(Fault.slow(0.0), path_contains="messages")
    played.sandbox.order(Fault.throttled(60), times=10, path_contains="messages")
    adding = Adding(played, tmp_path, "--yes")
    adding.terminal.read_until("10 of 30")
    played.wait_for_requests(3)
    adding.terminal.interrupt()
    status = adding.terminal.end()
    assert status == 130, adding.terminal.screen
    assert "Added 10 messages to dispatch 7; 0 refused, 0 unknown, 20 not sent.\r\n" in adding.terminal.screen
    assert adding.states()[0] == ("added", 10)


@pytest.mark.second_stage
def test_interrupted_question_sends_nothing(played: Played, tmp_path: Path) -> None:
    adding = Adding(played, tmp_path)
    adding.terminal.read_until("[y/N]")
    adding.terminal.interrupt()
    assert adding.terminal.end() == 130
    assert "Nothing was sent." in adding.terminal.screen
    assert not played.sandbox.acts


@pytest.mark.second_stage
def test_interrupted_read_sends_nothing(played: Played, tmp_path: Path) -> None:
    played.sandbox.order(Fault.silent(), times=10)
    adding = Adding(played, tmp_path)
    played.wait_for_requests(1)
    adding.terminal.interrupt()
    assert adding.terminal.end() == 130
    assert "Traceback" not in adding.terminal.screen
    assert "Nothing was sent." in adding.terminal.screen


def test_unsent_messages_are_listed(played: Played, tmp_path: Path) -> None:
    played.sandbox.order(Fault.lost_answer(), path_contains="messages")
    told = add(played, write(tmp_path, people(30)), "--yes", "--batch-size", 10, "--json").out
    states = [json.loads(line)["state"] for line in told.splitlines()]
    assert states == ["unknown"] * 10 + ["not_sent"] * 20

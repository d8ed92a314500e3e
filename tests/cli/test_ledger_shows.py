"""What a ledger shows: its runs, one of them, and its targets, as a table, JSON and CSV."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import sqlite3
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dispatchkit.cli.output import tables
from dispatchkit.cli.output.tables import Form, Rows
from dispatchkit.cli.views.snapshot import RunSnapshot
from dispatchkit.ledger.chunk import Holder
from dispatchkit.ledger.run import Counts, Run
from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, Result, Terminal, run, start_child
from tests.cli.test_runs import objects
from tests.cli.test_terminal import plain
from tests.rights import without_rights

NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)


@pytest.fixture
def ledger(played: Played, tmp_path: Path) -> Path:
    """Two runs. The first has five dispatches: one is refused, two are left. The second has a single mailing."""
    where = tmp_path / "launch.db"
    remembered = ("--yes", "--base-url", played.url, "--ledger", where)
    played.sandbox.order(Fault.http(404, b'{"error": {"code": 4040, "msg": "gone"}}'), path_contains="/2/")
    options = ("--max-launches", 3, "--concurrency", 1)
    assert run("direct", "start", "1-5", *remembered, "--run", "friday", *options).code == 1
    assert run("altcraft", "launch", 7, "--yes", *remembered, "--run", "sunday").code == 0
    return where


def shown(*arguments: object) -> Result:
    result = run("ledger", *arguments)
    assert result.code == 0, result
    return result


def as_csv(result: Result) -> list[dict[str, str]]:
    return [*csv.DictReader(io.StringIO(result.out))]


def test_runs_are_listed_newest_first(ledger: Path) -> None:
    header, newest, oldest = shown("list", ledger).out.splitlines()
    assert header.split()[:4] == ["run", "state", "created", "total"]
    assert re.fullmatch(r"sunday  over        [-\d]{10} [:\d]{8} UTC      1     1 .*", newest)
    assert oldest.startswith("friday  unfinished  ")
    told = objects(shown("list", ledger, "--json"))[1]
    assert (told["run"]["name"], told["run"]["total"], told["state"], told["left"]) == ("friday", 5, "unfinished", 2)
    assert told["counts"] == dict.fromkeys(told["counts"], 0) | {"done": 2, "rejected": 1, "planned": 2}
    row = as_csv(shown("list", ledger, "--csv"))[1]
    assert (row["run_name"], row["run_total"], row["state"], row["holders"]) == ("friday", "5", "unfinished", "0")
    assert (row["counts_done"], row["counts_rejected"], row["counts_planned"]) == ("2", "1", "2")


def test_run_shows_settings_and_resume(played: Played, ledger: Path) -> None:
    told = dict(line.split("  ", 1) for line in shown("show", ledger, "friday").out.splitlines())
    told = {name: value.strip() for name, value in told.items()}
    assert told["provider"] == "direct"
    assert told["base url"] == played.url
    assert (told["targets"], told["done"], told["rejected"], told["planned"]) == ("5", "2", "1", "2")
    assert told["held by"] == "no process"
    assert told["to resume"] == f"dispatchkit resume {ledger} --run friday --concurrency 1"
    assert "to resume" not in shown("show", ledger, "sunday").out
    [sunday] = objects(shown("show", ledger, "sunday", "--json"))
    settings = {"provider": "altcraft", "base_url": played.url, "wire": "json", "deduplicates": "no"}
    assert sunday["run"]["settings"] == settings
    assert (sunday["run"]["plan_complete"], sunday["run"]["stopped"], sunday["holders"]) == (True, False, [])
    assert as_csv(shown("show", ledger, "sunday", "--csv"))[0]["counts_done"] == "1"


def test_failures_are_all_not_done(ledger: Path) -> None:
    told = objects(shown("failures", ledger, "friday", "--json"))
    assert [(entry["target"], entry["state"], entry["code"], entry["attempts"]) for entry in told] == [
        (2, "rejected", 4040, 1),
        (4, "planned", None, 0),
        (5, "planned", None, 0),
    ]
    assert told[0]["summary"] == "gone (code 4040, HTTP 404)"
    table = shown("failures", ledger, "friday").out.splitlines()
    assert len(table) == 4
    assert re.match(r" +1 +2 +StartDispatch +rejected +4040 +gone \(code 4040, HTTP 404\) +- +1 +\d{4}-", table[1])


FOR_GOOD = (
    "1 target stays unknown, and a resume leaves it alone. Check the mailing's log, and launch what did not start in "
    "another run.\n"
)


def test_unsettleable_run_promises_no_resume(played: Played, tmp_path: Path) -> None:
    where = tmp_path / "lost.db"
    played.sandbox.order(Fault.lost_answer(), times=9, path_contains="broadcasts/start")
    launch = ("altcraft", "launch", 7, "--yes", "--base-url", played.url, "--ledger", where, "--run", "friday")
    for _ in range(2):
        result = run(*launch, "--deduplicates")
        assert result.code == 3
        assert "To resume" not in result.out
        assert "1 left" not in result.out
        told = shown("show", where).out
        assert re.search(r"state +over", told)
        assert "to resume" not in told
    resumed = run("resume", where, "--yes")
    assert resumed.code == 3
    assert resumed.out == f"Nothing is left to resume in run 'friday'. {FOR_GOOD}"
    failures = run("ledger", "failures", where, "--csv")
    assert "7,unknown," in failures.out
    assert failures.err == FOR_GOOD
    assert as_csv(shown("export", where, "--csv"))[0]["state"] == "unknown"


def test_export_has_targets_and_ids(ledger: Path) -> None:
    told = as_csv(shown("export", ledger, "friday", "--csv"))
    assert [(entry["index"], entry["target"], entry["state"]) for entry in told] == [
        ("0", "1", "done"),
        ("1", "2", "rejected"),
        ("2", "3", "done"),
        ("3", "4", "planned"),
        ("4", "5", "planned"),
    ]
    [mailing] = objects(shown("export", ledger, "sunday", "--json"))
    assert (mailing["command"]["type"], mailing["state"]) == ("LaunchBroadcast", "done")
    assert re.fullmatch(r"[-0-9a-f]{36}", str(mailing["request_id"]))
    assert datetime.fromisoformat(str(mailing["at"])).tzinfo is not None
    assert len(shown("export", ledger, "friday").out.splitlines()) == 6


def test_broken_pipe_ends_export(ledger: Path) -> None:
    with start_child("ledger", "export", ledger, "friday") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait(20) == 0


def test_finished_run_stops_following(ledger: Path) -> None:
    assert shown("show", ledger, "sunday", "--follow").out == "sunday: over: 1 done of 1\n"
    [told] = objects(shown("show", ledger, "sunday", "--follow", "--json"))
    assert told["state"] == "over"
    terminal = Terminal("ledger", "show", ledger, "sunday", "--follow")
    assert terminal.end() == 0
    assert re.search(r"state +over", plain(terminal.screen))


def test_terminal_follows_until_ctrl_c(ledger: Path) -> None:
    terminal = Terminal("ledger", "show", ledger, "friday", "--follow")
    terminal.read_until("unfinished")
    terminal.interrupt()
    assert terminal.end() == 130
    assert "Traceback" not in terminal.screen
    assert terminal.screen.rindex("\x1b[?25h") > terminal.screen.rindex("\x1b[?25l")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list", "{ledger}", "friday"), "too many arguments: there are 2, for LEDGER"),
        (
            ("show", "{ledger}"),
            "{ledger} holds 2 runs: name one of 'sunday', 'friday'. To list them: dispatchkit ledger list {ledger}",
        ),
        (("show", "{ledger}", "monday"), "the ledger holds no run 'monday'; it holds 'sunday', 'friday'"),
        (("show", "{ledger}", "friday", "--follow", "--csv"), "--follow does not go with --csv: a CSV has one header"),
        (("export", "{ledger}", "friday", "--json", "--csv"), "give either --json or --csv, not both"),
        (("failures", "none.db"), "there is no ledger none.db: no such file. Check its name and its folder"),
    ],
)
def test_invalid_command_is_one_line(ledger: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("ledger", *(argument.format(ledger=ledger) for argument in arguments))
    assert (result.code, result.out) == (2, "")
    assert result.err == f"dispatchkit: {message.format(ledger=ledger)}\n"
    assert not Path("none.db").exists()


@pytest.mark.usefixtures("_short_claims")
def test_stop_needs_existing_run(ledger: Path) -> None:
    result = run("stop-run", ledger)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"dispatchkit: name the run to stop, after the ledger. To see the runs: dispatchkit ledger list {ledger}\n"
    )
    assert run("stop-run", ledger, "monday").code == 2
    result = run("stop-run", ledger, "friday")
    assert "Run 'friday' is stopped (no process holds it). Waiting until " in result.err
    assert "state         stopped\n" in shown("show", ledger, "friday").out


def test_finished_run_is_not_stopped(ledger: Path) -> None:
    result = run("stop-run", ledger, "sunday")
    assert (result.code, result.out, result.err) == (0, "Run 'sunday' is over: nothing to stop.\n", "")
    assert "state         over\n" in shown("show", ledger, "sunday").out


def test_resume_explains_run_option(ledger: Path) -> None:
    result = run("resume", ledger, "friday", "--yes")
    assert result.err == f"dispatchkit: name the run with --run: dispatchkit resume {ledger} --run friday\n"
    assert (result.code, result.out) == (2, "")


def test_run_state_is_one_word() -> None:
    whole = Run(1, "friday", "{}", NOW, 5, plan_complete=True, stopped=False)
    partly = Run(1, "friday", "{}", NOW, 5, plan_complete=False, stopped=False)
    stopped = Run(1, "friday", "{}", NOW, 5, plan_complete=True, stopped=True)
    held = [Holder("token", 7, "here")]
    for run_, counts, holders, state, over in (
        (whole, Counts(planned=5), held, "running", False),
        (whole, Counts(done=5), held, "running", False),
        (whole, Counts(planned=5), [], "unfinished", False),
        (whole, Counts(done=4, not_sent=1), [], "unfinished", True),
        (whole, Counts(done=4, rejected=1), [], "over", True),
        (partly, Counts(planned=5), [], "plan not complete", False),
        (stopped, Counts(planned=5), held, "stopping", False),
        (stopped, Counts(planned=5), [], "stopped", True),
    ):
        seen = RunSnapshot(run_, counts, holders)
        assert (seen.state, seen.over) == (state, over)
    assert RunSnapshot(whole, Counts(planned=2, done=3), [], launched_elsewhere=2).over


def test_rows_are_written_in_batches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tables, "_BATCH_SIZE", 2)
    rows = Rows("table", Counts, ("id", "word", "at"))
    assert rows.add(Counts(), 1, "short", NOW)
    assert rows.add(Counts(), 20, "\x1b[31m рассылка", None)
    rows.add(Counts(), 300, "", None)
    rows.flush()
    assert capsys.readouterr().out == (
        "id  word               at\n"
        " 1  short              2026-01-31 09:00:00 UTC\n"
        "20  \\x1b[31m рассылка  -\n"
        "300  -                  -\n"
    )
    header = "planned,sending,done,rejected,not_sent,unknown,unknown_for_good\n"
    forms: list[tuple[Form, str]] = [("csv", header), ("json", "")]
    for form, text in forms:
        rows = Rows(form, Counts, ("id", "word"))
        rows.flush()
        assert capsys.readouterr().out == text
    rows = Rows("csv", Counts, ())
    for done in (2, 3, 4):
        rows.add(Counts(done=done))
    rows.flush()
    assert capsys.readouterr().out == f"{header}0,0,2,0,0,0,0\n0,0,3,0,0,0,0\n0,0,4,0,0,0,0\n"


@pytest.mark.parametrize(
    "line", [("ledger", "list"), ("ledger", "show"), ("ledger", "export"), ("stop-run",), ("resume",)]
)
def test_reads_leave_empty_file(tmp_path: Path, line: tuple[str, ...]) -> None:
    file = tmp_path / "empty.csv"
    file.touch()
    result = run(*line, file, *(["a"] if line == ("stop-run",) else []))
    assert (result.code, result.err) == (
        2,
        f"dispatchkit: {file} holds no ledger: the file is empty. Name another file\n",
    )
    assert (file.stat().st_size, [*tmp_path.iterdir()]) == (0, [file])


def test_launch_takes_empty_file(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    file.touch()
    assert run("direct", "start", "1", "--yes", "--base-url", played.url, "--ledger", file).code == 0


@pytest.mark.skipif(os.name != "posix", reason="Windows has other rights")
def test_reads_need_no_rights(played: Played) -> None:
    with tempfile.TemporaryDirectory() as name:  # not pytest's own folder, which other users may not enter
        file = Path(name) / "launch.db"
        line = ("direct", "start", "1-3", "--yes", "--base-url", played.url, "--ledger", file, "--run", "a")
        assert run(*line).code == 0
        lines = [
            ("ledger", "list", file),
            ("ledger", "show", file, "a"),
            ("ledger", "show", file, "--follow", "--json"),
            ("ledger", "failures", file),
            ("ledger", "export", file, "--csv"),
            ("ledger", "report", file, "--json"),
        ]
        before = [run(*line) for line in lines]
        file.chmod(0o444)
        Path(name).chmod(0o555)
        with without_rights():
            after = [run(*line) for line in lines]
            refused = run("direct", "start", 9, *line[3:-1], "b")
        Path(name).chmod(0o755)
    assert [(result.code, result.err) for result in after] == [(0, "")] * len(lines)
    assert [result.out for result in after[:-1]] == [result.out for result in before[:-1]]
    assert after[-1].out.partition(",")[2] == before[-1].out.partition(",")[2]
    assert (refused.code, played.sandbox.requests) == (2, 3), refused
    assert "cannot be written: allow this user to write the file and its directory" in refused.err


def test_reads_leave_another_database(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.execute("CREATE TABLE x (y)")
    before = file.read_bytes()
    result = run("ledger", "list", file)
    assert (result.code, file.read_bytes(), [*tmp_path.iterdir()]) == (2, before, [file])
    assert "another program's database" in result.err


def test_run_is_no_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run("resume", "it's friday").err == (
        "dispatchkit: there is no ledger it's friday: no such file. If it is the name of a run: dispatchkit resume "
        "--run 'it'\"'\"'s friday'\n"
    )
    assert run("stop-run", "friday").err == (
        "dispatchkit: there is no ledger friday: no such file. Check its name and its folder\n"
    )
    assert "no launch was recorded yet" in run("stop-run").err


def test_directory_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    result = run("ledger", "list", tmp_path)
    assert (result.code, result.err) == (
        2,
        f"dispatchkit: the ledger {tmp_path} is a directory: name a file in it\n",
    )


def test_clean_run_has_no_failures(played: Played, tmp_path: Path) -> None:
    where = tmp_path / "clean.db"
    assert run("direct", "start", "1-3", "--yes", "--base-url", played.url, "--ledger", where, "--run", "a").code == 0
    shown = run("ledger", "failures", where)
    assert (shown.code, shown.out) == (0, "All 3 targets of run 'a' are done.\n")
    assert run("ledger", "failures", where, "--json").out == ""
    assert run("ledger", "failures", where, "--csv").out == "id,outcome,code,error,request_id\n"

"""``--failures``, and what ``--from`` makes of it."""

from __future__ import annotations

import csv
import json
import shlex
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatchkit.cli.input.ids import Targets
from dispatchkit.cli.output.tables import as_csv
from dispatchkit.json_rows import Scalar
from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, run, start_child, wait_until
from tests.cli.test_runs import counts, objects

HEADER = "id,outcome,code,error,request_id\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "failed.csv"


def rows(file: Path) -> dict[str, str]:
    """Of each id its outcome."""
    with file.open(newline="") as lines:
        found = [*csv.DictReader(lines)]
    outcomes = {row["id"]: row["outcome"] for row in found}
    assert len(outcomes) == len(found)
    return outcomes


def start(played: Played, *arguments: object) -> tuple[object, ...]:
    """The command, without a record unless it names one: then the file is written as outcomes come."""
    record = () if "--ledger" in arguments else ("--no-ledger",)
    return ("direct", "start", "--yes", "--base-url", played.url, *record, *arguments)


def lose(played: Played, number: int) -> None:
    """The outcome of this one is unknown for good."""
    played.sandbox.order(Fault.lost_answer(), path_contains=f"/{number}/start")
    played.sandbox.order(Fault.lost_answer(), times=100, path_contains="dispatch?")
    played.sandbox.direct.read_lag = 60


def test_failures_file_lists_reasons(played: Played, file: Path) -> None:
    played.sandbox.order(
        Fault.http(404, b'{"error": {"code": 4040, "msg": "say \\"a, b\\"\\n=1"}}'), path_contains="/7/"
    )
    result = run(*start(played, "5-7", 2001, "--failures", file, "--concurrency", 1))
    assert result.code == 1
    assert file.read_text() == (
        f'{HEADER}7,rejected,4040,"say ""a, b"" =1 (code 4040, HTTP 404)",\n'
        '2001,rejected,4040,"Dispatch 2001 not found (code 4040, HTTP 404)",\n'
    )
    again = result.out.splitlines()[-1].partition("To try again those that may be: ")[2]
    assert shlex.split(again)[:3] == ["dispatchkit", "direct", "start"]
    assert again.endswith(f" --from {file} --failures {file.with_name('failed-2.csv')}")
    assert f"\n2 targets are not done: see {file}. " in result.out
    assert not {"5-7", "2001"} & {*shlex.split(again)}
    assert run(*shlex.split(again)[1:], "--yes").code == 1
    assert rows(file.with_name("failed-2.csv")) == {"2001": "rejected"}


FORMULAS = ("=1+1", "+7", "-7", "@SUM(1)", " =1", "'=1")


def test_no_cell_is_a_formula(played: Played, file: Path) -> None:
    for number, text in enumerate(FORMULAS, 1):
        body = json.dumps({"error": {"code": 4040, "msg": text}}).encode()
        played.sandbox.order(Fault.http(404, body), path_contains=f"/{number}/")
    run(*start(played, "1-6", "--failures", file, "--concurrency", 1))
    with file.open(newline="") as lines:
        cells = [row["error"] for row in csv.DictReader(lines)]
    assert [cell.partition(" (code")[0].lstrip("'").strip() for cell in cells] == [t.strip(" '") for t in FORMULAS]
    assert all(cell.startswith("'") for cell in cells)
    again = run(*start(played, "--from", file))
    assert counts(again.out)["done"] == 6


def test_harmless_text_stays() -> None:
    rows: list[dict[str, Scalar]] = [
        {"a": -7, "b": -1.5, "c": "a=b", "d": "5-9", "e": None, "f": "", "g": "\tx", "h": "'a"}
    ]
    assert as_csv(None, rows) == "-7,-1.5,a=b,5-9,,,'\tx,'a\n"


def test_failures_row_has_request_id(played: Played, file: Path) -> None:
    result = run("altcraft", "launch", 60, "--yes", "--json", "--failures", file)
    assert result.code == 1
    [told] = objects(result)
    assert told["request_id"] is not None
    assert file.read_text().endswith(f",{told['request_id']}\n")


def test_successful_run_leaves_empty_file(played: Played, file: Path) -> None:
    for _ in range(2):
        result = run(*start(played, "1-5", "--failures", file))
        assert (result.code, file.read_text()) == (0, "")
        assert str(file) not in result.out


def test_retry_file_excludes_unknown(played: Played, file: Path, tmp_path: Path) -> None:
    played.sandbox.order(Fault.http(404, b'{"error": {"code": 4040, "msg": "not yet"}}'), path_contains="/5/")
    lose(played, 7)
    result = run(*start(played, "1-20", "--failures", file, "--timeout", 0.5, "--max-launches", 10))
    assert result.code == 3, result
    expected = {"5": "rejected", "7": "unknown"} | {str(number): "not_started" for number in range(11, 21)}
    assert rows(file) == expected

    second = tmp_path / "failed-2.csv"
    result = run(*start(played, "--from", file, "--failures", second, "--expected", 11))
    assert result.code == 0, result
    assert result.err == (
        "Left out 1 id whose outcome is unknown. Check with the provider whether it was launched. --include-unknown "
        "takes such ids, too.\n"
    )
    assert played.sandbox.launches == dict.fromkeys(range(1, 21), 1)

    for options, count in ((), 11), (("--include-unknown",), 12):
        result = run(*start(played, "--from", file, "--dry-run", *options))
        assert result.out.endswith(f"{count} requests, of which the first 3 are shown. None was sent.\n")
        assert ("Left out" in result.err) == (not options)


def test_file_of_unknown_targets_explains(played: Played, file: Path) -> None:
    file.write_text(f"{HEADER}7,unknown,,no answer,\n8,unknown,,no answer,\n")
    result = run(*start(played, "--from", file))
    assert result.code == 2
    assert result.err == (
        f"dispatchkit: {file} holds no ids but 2 whose outcome is unknown: --include-unknown takes them\n"
    )


@pytest.mark.parametrize("header", ["outcome;mailing", "Outcome;mailing", " OUTCOME ;mailing"])
def test_state_filter_with_named_column(played: Played, file: Path, header: str) -> None:
    file.write_text(f"\ufeff{header}\nunknown;7\nrejected;8\n")
    assert run(*start(played, "--from", file, "--column", "mailing")).code == 0
    assert played.sandbox.launches == {8: 1}


def test_input_and_output_differ(played: Played, file: Path) -> None:
    before = f"{HEADER}7,rejected,,no,\n"
    file.write_text(before)
    result = run(*start(played, "--from", file, "--failures", file))
    assert (result.code, result.out) == (2, "")
    assert result.err == f"dispatchkit: {file} is not empty, and --failures writes over nothing: name another file\n"
    assert file.read_text() == before
    assert played.sandbox.requests == 0


def test_unwritable_failures_file_fails_first(played: Played, tmp_path: Path) -> None:
    result = run(*start(played, "1-5", "--failures", tmp_path / "none" / "failed.csv"))
    assert result.code == 2
    folder = tmp_path / "none"
    assert f"none/failed.csv: No such file or directory. There is no folder {folder}: make it, or name " in result.err
    assert played.sandbox.requests == 0


def test_dry_run_writes_no_file(file: Path) -> None:
    assert run("direct", "start", "1-5", "--sandbox", "--dry-run", "--failures", file).code == 0
    assert not file.exists()


def test_unstarted_range_is_one_row(played: Played, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "wrong")
    result = run(*start(played, "1-1000000000000", "--failures", file, "--concurrency", 4))
    assert result.code == 1
    found = rows(file)
    assert len(found) < 50
    assert found.popitem()[0].endswith("-1000000000000")

    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", played.sandbox.direct_token)
    result = run(*start(played, "--from", file, "--expected", 10**12, "--max-launches", 60))
    assert sorted(played.sandbox.launches) == list(range(1, 61))


def test_unstarted_ids_round_trip(played: Played, file: Path) -> None:
    ids = "\n".join(map(str, range(1, 20_001)))
    assert run(*start(played, "--from", "-", "--max-launches", 3, "--failures", file), stdin=ids).code == 1
    assert len(rows(file)) == 19_997
    assert run(*start(played, "--from", file, "--expected", 19_997, "--max-launches", 3)).code == 1
    assert played.sandbox.launches == dict.fromkeys(range(1, 7), 1)


@pytest.mark.second_stage
def test_failures_file_resumes_interrupted_run(played: Played, file: Path) -> None:
    played.sandbox.latency = 0.2
    # At this rate most workers hold an id and wait for its turn: it was not started.
    command = start(played, "1-40", "--failures", file, "--concurrency", 16, "--rate", 20)
    with start_child(*command) as child:
        played.wait_for_requests(4)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert child.returncode == 130, (out, err)
    done = set(played.sandbox.launches)
    assert rows(file) == {str(number): "not_started" for number in range(1, 41) if number not in done}
    assert counts(out)["not started"] == 40 - len(done)
    assert f"{40 - len(done)} targets are not done: see {file}" in out
    played.sandbox.latency = 0
    assert run(*start(played, "--from", file)).code == 0
    assert played.sandbox.launches == dict.fromkeys(range(1, 41), 1)


def test_killed_run_leaves_failures(played: Played, file: Path) -> None:
    played.sandbox.order(Fault.silent(acts=False), times=10_000, path_contains="/1/")
    with start_child(*start(played, 2001, 2002, 1, "--failures", file)) as child:
        wait_until(lambda: file.exists() and file.read_text().count("\n") == 3)
        child.kill()
        child.wait()
    assert rows(file) == {"2001": "rejected", "2002": "rejected"}


def test_full_disk_stops_run(played: Played) -> None:
    result = run(*start(played, "2001-2100", "--failures", "/dev/full", "--concurrency", 1))
    assert result.code == 1
    assert result.err.count("The outcomes can no longer be written, so nothing new is started.\n") == 1
    assert "/dev/full is not complete: it could not be written to its end.\n" in result.out
    assert counts(result.out)["not started"] > 90


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}7,done,,,\n", "holds no ids but 1 that are done: there is nothing to launch"),
        (f"{HEADER}7,Unclear,,,\n", "line 2: 'Unclear' is no outcome"),
        (f"{HEADER}12345,rejected,,no,\n123", "line 3: this row has 1 fields of 5"),
        (f"{HEADER}1-2000,not_sta", "line 2: this row has 2 fields of 5"),
        (f"{HEADER}x,unknown,,,\n", "line 2: 'x' is not an id"),
        (f"{HEADER}9-3,not_started,,,\n", "line 2: '9-3' is a range that ends before it begins: did you mean 3-9?"),
        ("id,outcome,Outcome\n7,not_sent,unknown\n", "line 1: the header names 'outcome' more than once"),
        (HEADER, "holds no ids: name another file\n"),
    ],
)
def test_incomplete_failures_file_is_refused(played: Played, file: Path, text: str, message: str) -> None:
    file.write_text(text)
    result = run(*start(played, "--from", file))
    assert result.code == 2
    assert message in result.err
    assert result.err.startswith(f"dispatchkit: {file}")
    assert result.err.count("\n") == 1
    assert played.sandbox.requests == 0


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5000), st.sampled_from([0, 3, 1023, 2000]))).map(
        lambda spans: [(low, low + more) for low, more in spans]
    ),
    st.integers(0, 3000),
)
def test_remaining_ids_follow_first_ones(spans: list[tuple[int, int]], count: int) -> None:
    targets = Targets(spans)
    rest = [number for low, high in targets.after(count) for number in range(low, high + 1)]
    assert rest == [*targets][count:]

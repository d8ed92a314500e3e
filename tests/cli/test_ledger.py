"""Launches that a ledger remembers: the same line again, ``resume``, ``stop-run``, and what can kill a run."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shlex
import signal
import socket
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.cli.output import progress
from dispatchkit.ledger.chunk import Holder
from dispatchkit.ledger.sqlite.store import SqliteStore
from dispatchkit.sandbox import Fault
from tests.cli.conftest import Played, Result, Terminal, run, run_child, start_child, wait_until
from tests.cli.test_failures import lose, rows
from tests.cli.test_reads import objects
from tests.cli.test_runs import counts


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "launch.db"


def line(played: Played, ledger: Path, *arguments: object) -> tuple[object, ...]:
    return ("direct", "start", "--yes", "--base-url", played.url, "--ledger", ledger, "--run", "friday", *arguments)


def resume(ledger: Path, *arguments: object) -> Result:
    return run("resume", ledger, "--yes", *arguments)


def to_resume(ledger: Path, *options: object) -> str:
    return (
        f"To resume the run: {shlex.join(map(str, ('dispatchkit', 'resume', ledger, '--run', 'friday', *options)))}\n"
    )


def once(played: Played, last: int) -> bool:
    return bool(played.sandbox.launches == dict.fromkeys(range(1, last + 1), 1))


def test_same_command_launches_nothing_twice(played: Played, ledger: Path) -> None:
    first = run(*line(played, ledger, "1-200"))
    assert (first.code, first.err) == (0, "")
    assert "earlier" not in first.out
    again = run(*line(played, ledger, "1-200"))
    assert (again.code, again.err) == (0, "Run 'friday' is over: no target is left.\n")
    assert counts(again.out)["done"] == 200
    assert "200 of 200 dispatches" in again.out
    assert "; 200 of them earlier.\n" in again.out
    assert "To resume" not in again.out
    assert played.sandbox.requests == 200


def test_resume_continues_after_guard(played: Played, ledger: Path) -> None:
    result = run(*line(played, ledger, "1-20", "--max-launches", 5))
    assert result.code == 1
    assert counts(result.out) == {"done": 5, "rejected": 0, "not sent": 0, "unknown": 0, "not started": 15}
    assert result.out.endswith(f"15 dispatches are left. {to_resume(ledger)}")
    command = result.out.splitlines()[-1].partition("dispatchkit ")[2]
    result = run(*shlex.split(command), "--yes", "--json", "--stop-after-failures", 1)
    assert result.code == 0
    assert {told["target"] for told in objects(result)} == {*range(6, 21)}
    assert "20 of 20 dispatches" in result.err
    assert "; 5 of them earlier.\n" in result.err
    assert once(played, 20)
    assert resume(ledger).out == "Run 'friday' is over: no target is left.\n"
    assert resume(ledger).code == 0
    assert once(played, 20)


LAUNCHES = {"direct": ("direct", "start"), "altcraft": ("altcraft", "activate", "--run-now")}


def come_to_a_halt(played: Played) -> None:
    """From now on no answer comes, and each task that waits for one has sent all."""
    played.sandbox.latency = 30
    before = -1
    while played.sandbox.requests != before:
        before = played.sandbox.requests
        time.sleep(0.2)


@pytest.mark.second_stage
@pytest.mark.parametrize("provider", LAUNCHES)
def test_resume_after_kill_launches_once(played: Played, ledger: Path, provider: str) -> None:
    played.sandbox.latency = 0.02
    options = ("--yes", "--concurrency", 3, "--base-url", played.url, "--ledger", ledger, "--run", "friday")
    with start_child(*LAUNCHES[provider], "1-90", *options) as child:
        played.wait_for_requests(30)
        come_to_a_halt(played)
        child.send_signal(signal.SIGKILL)
        child.wait(20)
    played.sandbox.latency = 0
    [seen] = objects(run("ledger", "show", ledger, "--json"))
    assert (seen["state"], seen["counts"]["sending"], seen["holders"]) == ("unfinished", 3, [])
    result = resume(ledger)
    assert result.code == 0, result
    assert counts(result.out)["done"] == 90
    assert f"; {seen['counts']['done']} of them earlier.\n" in result.out
    assert once(played, 90)


@pytest.mark.second_stage
@pytest.mark.usefixtures("_short_claims")
def test_run_has_one_process(played: Played, ledger: Path) -> None:
    played.sandbox.latency = 0.05
    again = line(played, ledger, "1-1000", "--concurrency", 4)
    with start_child(*again) as child:
        played.wait_for_requests(12)
        for refused in (run(*again), resume(ledger), run(*again, "--end-holder"), resume(ledger, "--end-holder")):
            assert (refused.code, refused.out) == (2, "")
            assert refused.err == (
                f"dispatchkit: run 'friday' is held by process {child.pid} on {socket.gethostname()}, which works on "
                f"it: nothing was sent. Wait until it ends. To stop the run: dispatchkit stop-run {ledger} friday\n"
            )
        assert child.poll() is None
        [seen] = objects(run("ledger", "show", ledger, "--json"))
        assert seen["state"] == "running"
        (holder,) = seen["holders"]
        assert (holder["pid"], holder["host"]) == (child.pid, socket.gethostname())
        assert (
            datetime.fromisoformat(seen["run"]["created"])
            <= datetime.fromisoformat(holder["since"])
            <= datetime.now(UTC)
        )
        shown = run("ledger", "show", ledger).out
        assert f"held by       process {child.pid} on {socket.gethostname()} since {holder['since'][:10]} " in shown

        with start_child("ledger", "show", ledger, "friday", "--follow") as follower:
            assert follower.stdout is not None
            followed = follower.stdout.readline()
            began = time.monotonic()
            stopped = run("stop-run", ledger, "friday")
            out, err = child.communicate(timeout=20)
            assert time.monotonic() - began < 15  # it looks once a second
            followed += follower.communicate(timeout=20)[0]
    assert stopped.code == 0
    assert re.fullmatch(
        r"Run 'friday' is stopped \(\d+ calls? in flight\). Waiting until \d\d:\d\d:\d\d UTC.\n", stopped.err
    )
    promised, told = stopped.out.split(" UTC.\n")
    assert promised.startswith("Run 'friday' is stopped: no process launches any more of it after ")
    assert told == to_resume(ledger, "--concurrency", 4).replace("the run", "it")
    assert child.returncode == 1
    assert err == "The run was stopped by another process: nothing new was started.\n"
    assert out.endswith(to_resume(ledger, "--concurrency", 4))
    assert follower.returncode == 0
    assert followed.startswith("friday: running: ")
    assert followed.splitlines()[-1].startswith("friday: stopped: ")
    assert sum(played.sandbox.launches.values()) == counts(out)["done"]

    played.sandbox.latency = 0
    refused = run(*again)
    assert (refused.code, refused.err) == (
        2,
        f"dispatchkit: run 'friday' was stopped. {to_resume(ledger, '--concurrency', 4).replace('the run', 'it')}",
    )
    result = resume(ledger)
    assert (result.code, result.err) == (0, "Run 'friday' was stopped. This command lets it launch again.\n")
    assert once(played, 1000)


@pytest.mark.second_stage
async def test_resume_alone_clears_stop(played: Played, ledger: Path) -> None:
    assert await asyncio.to_thread(lambda: run_child(*line(played, ledger, "1-5", "--max-launches", 1)).code) == 1
    store = SqliteStore(ledger)
    await store.open()
    (chunk,) = await store.chunks(1)
    assert (
        await store.acquire(1, chunk.number, Holder("token", os.getpid(), socket.gethostname()), attempt_timeout=1)
        is None
    )
    await store.stop(1)
    result = await asyncio.to_thread(run_child, "resume", ledger, "--yes")
    assert result.code == 2
    assert f"run 'friday' is held by process {os.getpid()} on " in result.err
    assert (await store.heartbeat(1, chunk.number, "token")).stopped
    await store.close()


@pytest.mark.second_stage
def test_full_disk_ends_run_cleanly(played: Played, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("COV")]:
        monkeypatch.delenv(name)  # what measures coverage writes files of its own
    played.sandbox.latency = 0.05
    with start_child(*line(played, ledger, "1-300", "--concurrency", 3)) as child:
        played.wait_for_requests(20)
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (1, 1))
        out, err = child.communicate(timeout=20)
    assert child.returncode == 1, (out, err)
    assert err.startswith(
        f"the ledger {ledger} cannot be read or written, because the disk fails or a quota is reached: "
    )
    assert err.endswith(". Nothing new is started.\n")
    assert err.count("\n") == 1
    assert out.endswith(to_resume(ledger, "--concurrency", 3))
    assert sum(played.sandbox.launches.values()) < 40
    played.sandbox.latency = 0
    assert resume(ledger).code == 0
    assert once(played, 300)


@pytest.mark.second_stage
def test_ctrl_c_explains_resume(played: Played, ledger: Path) -> None:
    played.sandbox.latency = 0.3
    with start_child(*line(played, ledger, "1-1000", "--concurrency", 8)) as child:
        played.wait_for_requests(15)  # 1, 2, 4, 8
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert err == "Interrupted: nothing new is started, and 8 calls in flight can end. Ctrl-C again cancels them.\n"
    assert counts(out)["not started"] == 985
    assert out.endswith(f"985 dispatches are left. {to_resume(ledger, '--concurrency', 8)}")


@pytest.mark.second_stage
def test_truncated_plan_needs_first_command(played: Played, ledger: Path) -> None:
    again = line(played, ledger, "1-100000000", "--max-launches", 3)
    with start_child(*again) as child:
        log = ledger.with_name("launch.db-wal")
        wait_until(lambda: log.exists() and log.stat().st_size > 1_000_000)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert child.returncode == 130, (out, err)
    options = ("--max-launches", 3, "--ledger", ledger, "--run", "friday", "--base-url", played.url)
    text, _, hint = out.splitlines()[-1].partition("dispatchkit direct start ")
    assert text == "The plan of run 'friday' is not complete. To complete it: "
    assert sorted(shlex.split(hint)) == sorted(map(str, ("1-100000000", *options)))
    assert "0 of 100,000,000 dispatches" in out
    result = resume(ledger)
    assert result.code == 2
    assert result.err == (
        "dispatchkit: the plan of run 'friday' is not complete. Run the command that launched it again: it completes "
        "the plan and launches the rest\n"
    )
    assert played.sandbox.requests == 0
    result = run(*line(played, ledger, "1-1000,1002-1003", "--max-launches", 3))
    assert result.code == 2
    assert f"run 'friday' in {ledger} is another launch, of " in result.err
    assert " so far: number 1,001 is 'start' of 1001. " in result.err
    assert played.sandbox.requests == 0


def test_the_plan_is_followed(played: Played, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    result = run(*line(played, ledger, "1-20000", "--max-launches", 2))
    assert result.err.startswith("planning … ")
    assert re.search(r"\n2 of 2 \(100%\): 2 done; 0 in flight.*\nStopped after 2 launches .*\n$", result.err), result
    assert "19,998 dispatches are left." in result.out


@pytest.mark.second_stage
def test_terminal_shows_plan_and_history(played: Played, ledger: Path) -> None:
    assert run(*line(played, ledger, "1-30", "--max-launches", 20)).code == 1
    played.sandbox.latency = 0.3
    command = Terminal("resume", ledger, "--run", "friday", "--concurrency", 4)
    command.read_until("Resume run 'friday': 10 of 30 dispatches are left: 21-30")
    command.type("y\n")
    command.read_until("20/30")
    assert command.end() == 0
    assert once(played, 30)


def test_a_resume_is_asked_for(played: Played, ledger: Path) -> None:
    assert run(*line(played, ledger, "1-30", "--max-launches", 20)).code == 1
    result = run("resume", ledger)
    assert result.code == 2
    assert result.err == (
        "dispatchkit: this needs a yes, and there is no terminal to ask: resume run 'friday': 10 of 30 dispatches are "
        f"left: 21-30; command StartDispatch; host {played.url}; "
        "account the token in DISPATCHKIT_DIRECT_TOKEN. Nothing was sent. To go ahead "
        "without a question, pass --yes\n"
    )
    assert once(played, 20)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (("start", "1-29"), "of 30 dispatches: 'start' from 1 on"),
        (("start", "2-31"), "of 30 dispatches: 'start' from 1 on"),
        (("stop", "1-30"), "of 30 dispatches: 'start' from 1 on"),
        (("start", "1-19,40,21-30"), "of 30 dispatches: number 20 is 'start' of 20"),
        (("start", "1-29,31"), "of 30 dispatches: number 30 is 'start' of 30"),
    ],
)
def test_another_launch_needs_another_name(played: Played, ledger: Path, other: tuple[str, ...], what: str) -> None:
    again = ("--base-url", played.url, "--ledger", ledger, "--run", "friday", "--yes")
    assert run("direct", "start", "1-30", *again, "--max-launches", 10).code == 1
    result = run("direct", *other, *again)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"dispatchkit: run 'friday' in {ledger} is another launch, {what}. "
        "Nothing was sent. Give this launch another --run, or resume that run: "
        f"dispatchkit resume {ledger} --run friday\n"
    )
    assert once(played, 10)
    assert played.sandbox.requests == 10


@pytest.mark.second_stage
def test_failures_cover_whole_run(played: Played, ledger: Path, tmp_path: Path) -> None:
    missing = Fault.http(404, b'{"error": {"code": 4040, "msg": "not yet"}}')
    played.sandbox.order(missing, path_contains="/5/")
    lose(played, 7)
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    result = run(*line(played, ledger, "1-20", "--timeout", 1, "--max-launches", 10, "--failures", first))
    assert result.code == 3
    left = {"5": "rejected", "7": "unknown"} | {str(number): "planned" for number in range(11, 21)}
    assert rows(first) == left
    assert f"\n12 targets are not done: see {first}.\n11 dispatches are left. To resume the run: " in result.out

    exported = run("ledger", "failures", ledger, "--csv")
    assert exported.out == first.read_text()
    assert exported.err == (
        "A resume of the run launches 11 of these, too. Do one of the two: use this CSV, or resume: dispatchkit resume "
        f"{ledger} --run friday --timeout 1\n"
    )
    result = run("direct", "start", "--from", first, "--dry-run")
    assert "\n11 requests, of which the first 3 are shown." in result.out
    assert "Left out 1 id whose outcome is unknown" in result.err

    result = resume(ledger, "--timeout", 1, "--failures", second)
    assert result.code == 3
    assert rows(second) == {"5": "rejected", "7": "unknown"}  # what is unknown was only looked at
    assert result.out.endswith(
        f"\n2 targets are not done: see {second}.\n1 dispatch is left. {to_resume(ledger, '--timeout', 1)}"
    )
    assert played.sandbox.launches == dict.fromkeys({*range(1, 21)} - {5}, 1)


def test_ledger_from_environment(played: Played, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_LEDGER", str(ledger))
    assert run("direct", "start", 1, "--yes", "--base-url", played.url).code == 0
    [made] = objects(run("ledger", "list", "--json"))
    assert re.fullmatch(r"\d{8}-\d{6}-start-[0-9a-f]{4}", str(made["run"]["name"]))
    result = run(
        "direct", "start", "1-5", "--yes", "--base-url", played.url, "--run", "friday", "--max-launches", 2, "--again"
    )
    assert result.out.endswith("3 dispatches are left. To resume the run: dispatchkit resume --run friday\n")
    assert run("resume", "--run", "friday", "--yes").code == 0
    assert run("ledger", "list").out.splitlines()[1].split()[:2] == ["friday", "over"]
    assert '"done": 5' in run("ledger", "show", "friday", "--json").out
    assert run("stop-run", "friday").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--run", "friday", "--no-ledger"), "--ledger and --run do not go with --no-ledger: it records nothing"),
        (("--repeat-window", "1h", "--no-ledger"), "--repeat-window does not go with --no-ledger: it needs a ledger"),
        (("--run", "", "--ledger", "launch.db"), "--run needs a name that is not empty"),
        (("--run", "x" * 201, "--ledger", "x.db"), "--run must be a name of at most 200 characters, not of 201"),
        (("--account", "x" * 201), "--account must be a name of at most 200 characters, not of 201"),
        (("--end-holder",), "--end-holder needs --run NAME: it is about a run of a ledger"),
        (("--copied",), "--copied needs --run NAME: it is about a run of a ledger"),
        (("--account-changed",), "--account-changed needs --run NAME: it is about a run of a ledger"),
        (
            ("--run", "friday", "--ledger", "x.db", "--sandbox"),
            "--ledger and --run do not go with --sandbox: the",
        ),
        (
            ("--run", "friday", "--ledger", "http://host/x"),
            "a ledger must be a file or 'postgresql://...', not another",
        ),
        (
            ("--run", "friday", "--ledger", "none/x.db"),
            "the ledger none/x.db cannot be opened: check that its directory",
        ),
        (("--run", "friday", "--ledger", "junk.db"), "the ledger junk.db is another kind of file, not a ledger"),
        (("--run", "friday", "--ledger", "other.db"), "other.db is another program's database, not a ledger"),
    ],
)
def test_invalid_ledger_is_reported_first(
    played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("junk.db").write_text("not a database")
    with sqlite3.connect("other.db") as other:
        other.execute("CREATE TABLE guests (name TEXT)")
    other.close()
    result = run("direct", "start", 7, "--yes", "--base-url", played.url, *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("dispatchkit: ")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert played.sandbox.requests == 0


def test_token_stays_with_its_platform(played: Played, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--yes", "--ledger", ledger, "--run", "friday", "--max-launches", 1)
    assert run("altcraft", "launch", "1-3", "--no-deduplicates", "--wire", "xml", *options).code == 1
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_URL", "https://hunter2@example.com")
    result = resume(ledger)
    assert result.code == 2
    assert result.err == (
        f"dispatchkit: the run goes to {played.url}, but DISPATCHKIT_ALTCRAFT_URL names another host: unset it, or set "
        "it to the run's\n"
    )
    monkeypatch.delenv("DISPATCHKIT_ALTCRAFT_URL")
    assert resume(ledger).code == 0  # in the run's own wire, and its own word on deduplication
    assert once(played, 3)


def test_resume_needs_provider_token(played: Played, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(*line(played, ledger, "1-3", "--max-launches", 1)).code == 1
    monkeypatch.delenv("DISPATCHKIT_DIRECT_TOKEN")
    result = resume(ledger)
    assert result.code == 2
    assert result.err == "dispatchkit: no token: set DISPATCHKIT_DIRECT_TOKEN, or add --token-file PATH\n"
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "wrong")
    result = resume(ledger, "--concurrency", 1, "--account-changed")
    assert result.code == 1
    assert "The token was refused: nothing new is started.\n" in result.err
    assert result.out.endswith(
        f"1 dispatch is left. {to_resume(ledger, '--concurrency', 1)}"
        "Rejected targets are not retried, including 1 rejected only for the token, the account or the rate limit. "
        "To launch those, start a new run --from the file that this writes: "
        f"dispatchkit ledger failures {ledger} friday --csv\n"
    )
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", played.sandbox.direct_token)
    assert resume(ledger, "--account-changed").code == 1
    written = run(*shlex.split(result.out.splitlines()[-1].partition("dispatchkit ")[2]))
    left = ledger.with_name("left.csv")
    left.write_text(written.out)
    assert run("direct", "start", "--from", left, "--base-url", played.url, "--yes").code == 0
    assert once(played, 3)


def test_a_dry_run_remembers_nothing(ledger: Path, played: Played) -> None:
    assert run(*line(played, ledger, "1-3", "--dry-run")).code == 0
    assert not ledger.exists()


def test_resume_shows_the_rest(ledger: Path, played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(*line(played, ledger, "1-4", "--concurrency", 1, "--max-launches", 2)).code == 1
    monkeypatch.delenv("DISPATCHKIT_DIRECT_TOKEN")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    files = ("--failures", tmp_path / "f.csv", "--log-file", tmp_path / "log", "--notify", f"touch {tmp_path / 'told'}")
    shown = run("resume", ledger, "--dry-run", "--max-launches", 1, *files)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("Resume run 'friday': 2 of 4 dispatches are left: 3, 4\n  command ")
    assert played.url in shown.out
    assert re.search(r"\n  state +unfinished\n", shown.out)
    assert shown.out.endswith("A resume settles or launches 2 dispatches. Nothing was sent.\n")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert played.sandbox.launches == {1: 1, 2: 1}
    assert "it does not go with --json" in run("resume", ledger, "--dry-run", "--json").err


def test_database_password_is_hidden() -> None:
    place = LedgerRef("postgresql://me:secret@host/db?password=hidden&port=1", "friday")
    for text in (str(place), repr(place), place.resume("friday")):
        assert "secret" not in text
        assert "hidden" not in text
    assert str(place) == "postgresql://me:***@host/db?password=***&port=1"
    assert str(LedgerRef("/tmp/a:b@c.db")) == "/tmp/a:b@c.db"

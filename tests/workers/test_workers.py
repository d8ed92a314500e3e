"""Real workers, killed, stopped and cut off: everything is launched, and nothing twice."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dispatchkit import RetryPolicy
from dispatchkit.cli.app import app
from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.cli.run.worker import Reach
from dispatchkit.sandbox import Fault
from tests.launcher import COMMAND, Process, complete
from tests.postgres import Server
from tests.workers.conftest import DatabaseProxy, Field, Lines, wait_until


@pytest.mark.second_stage
def test_killed_worker_is_replaced(field: Field) -> None:
    field.sandbox.latency = 0.02
    field.plan(300, size=25)
    killed, other = (field.worker("--concurrency", 3) for _ in range(2))
    wait_until(lambda: field.launched() >= 75)
    # Everything that is in flight has arrived, and nothing is answered: the state of the provider tells that it
    # happened. What was claimed and never sent is denied by it, which is believed only after a minute.
    field.sandbox.latency = 5.0
    field.wait_until_all_arrived()
    killed.kill()
    killed.wait()
    field.sandbox.latency = 0.02
    field.wait_until_done(300)
    assert set(field.sandbox.launches) == set(range(1, 301))
    assert set(field.sandbox.launches.values()) == {1}
    assert other.poll() is None


@pytest.mark.second_stage
def test_workers_survive_database_outage(field: Field, postgres: Server) -> None:
    field.sandbox.latency = 0.02
    field.plan(500)
    workers = [field.worker("--concurrency", 8) for _ in range(2)]
    wait_until(lambda: field.launched() >= 100)
    postgres.stop()
    field.wait_until_still()  # what was granted leaves
    assert field.launched() < 500
    postgres.start()
    field.wait_until_done(500)
    assert set(field.sandbox.launches.values()) == {1}
    assert [worker.poll() for worker in workers] == [None, None]


@pytest.mark.second_stage
def test_orphaned_chunk_is_found(field: Field) -> None:
    field.plan(100, queue=False)
    field.worker()
    field.wait_until_done(100)


@pytest.mark.second_stage
def test_a_stop_reaches_all_workers(field: Field) -> None:
    field.sandbox.latency = 0.02
    field.plan(2000, size=200, rate=200)
    for _ in range(2):
        field.worker("--concurrency", 8)
    wait_until(lambda: field.launched() >= 100)
    field.stop()
    time.sleep(2.0)
    before = field.launched()
    time.sleep(0.4)
    assert field.launched() == before < 1000
    assert field.counts().sending == 0


@pytest.mark.second_stage
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_worker_releases_chunk(field: Field, number: signal.Signals) -> None:
    field.sandbox.latency = 0.1
    field.plan(100, size=100)
    worker = field.worker("--concurrency", 4)
    wait_until(lambda: field.launched() >= 8)
    worker.send_signal(number)
    _, said = worker.communicate(timeout=10)
    assert worker.returncode == 0, said
    assert "Interrupted: the worker starts nothing new" in said
    left = field.counts()
    assert left.sending == 0
    assert left.done < 100
    field.sandbox.latency = 0.0
    field.worker()
    field.wait_until_done(100)
    assert set(field.sandbox.launches.values()) == {1}


@pytest.mark.second_stage
def test_one_429_pauses_workers(field: Field) -> None:
    field.sandbox.latency = 0.02
    field.plan(3000, size=100, rate=400)
    for _ in range(2):
        field.worker("--concurrency", 8)
    wait_until(lambda: field.launched() >= 200)
    field.sandbox.order(Fault.throttled(retry_after=2))
    time.sleep(0.8)
    before = field.launched()
    time.sleep(0.6)
    assert field.launched() == before
    wait_until(lambda: field.launched() > before)


@pytest.mark.second_stage
def test_workers_keep_account_rate(field: Field) -> None:
    field.plan(1000, size=100, rate=100)
    for _ in range(2):
        field.worker()
    wait_until(lambda: field.launched() >= 150)
    wait_until(lambda: [round(rate) for rate in field.leased_rates()] == [50, 50])
    began = time.monotonic()
    before = field.launched()
    time.sleep(2)
    assert field.launched() - before <= 105 * (time.monotonic() - began)


@pytest.mark.second_stage
def test_refused_token_ends_worker(field: Field) -> None:
    field.plan(200, size=100)
    field.execute("UPDATE dispatchkit.run SET account = 'shop'")
    environment = {**field.environment(), "DISPATCHKIT_DIRECT_TOKEN": "wrong"}
    command = [*COMMAND, "worker", "--url", f"direct={field.sandbox.url}", "--concurrency", "4", "--account", "shop"]
    ended = complete(command, env=environment)
    assert ended.returncode == 1, ended.stderr
    assert "Check the token" in ended.stderr
    assert field.counts().rejected == 1
    assert field.launched() == 0


@pytest.mark.second_stage
def test_silent_provider_returns_chunk(field: Field) -> None:
    field.plan(500)  # the breaker opens long before the last of them
    field.sandbox.order(Fault.http(503, acts=False), times=10**6)
    lines = Lines(worker := field.worker("--give-up-after", "0.5s"))
    wait_until(lambda: "the run 'r' is not launched here: the provider has answered nothing since " in lines.text)
    assert worker.poll() is None
    assert field.counts().done == 0
    field.sandbox._faults._orders.clear()
    field.worker()
    wait_until(lambda: field.launched() > 0)


@pytest.mark.second_stage
def test_other_account_leaves_run_alone(field: Field) -> None:
    field.plan(200, size=20)
    other = field.worker(token="other")
    lines = Lines(other)
    wait_until(lambda: "planned for another account" in lines.text)
    assert re.search(r"new token or name: dispatchkit resume --run r --account-changed\b", lines.text)
    assert field.sandbox.requests == 0
    field.sandbox.latency = 0.02
    field.worker("--concurrency", 8)
    field.wait_until_done(200)
    assert set(field.sandbox.launches.values()) == {1}
    assert lines.text.count("planned for another account") == 1


def _invalid_runs(field: Field) -> None:
    """Runs that this release cannot launch, before a good one, in the queue and in the ledger."""
    changes = {
        "broken-json": "settings = '{'",
        "no-object": "settings = '[]'",
        "unknown-provider": """settings = '{"provider": "fancy", "wire": "json"}'""",
        "unknown-wire": """settings = '{"provider": "altcraft", "wire": "morse"}'""",
        "elsewhere": """settings = '{"provider": "direct", "base_url": "https://example.com"}'""",
        "other-account": "fingerprint = 'x'",
        "long-name": f"name = '{random.Random(0).randbytes(1346).hex()}'",
        "longer-name": f"name = '{'x' * 100_000}'",
        "odd-name": r"name = E'a\nb'",
    }
    for name, change in changes.items():
        field.plan(30, size=10, name=name, queue=name in {"broken-json", "other-account"})
        field.execute(f"UPDATE dispatchkit.run SET {change} WHERE name = '{name}'")
    field.plan(30, size=10, name="newer-command", queue=False)
    newer = """{"type": "direct.fly", "version": 1, "dispatch_id": 1}"""
    change = f"UPDATE dispatchkit.target SET command = '{newer}' WHERE run ="
    field.execute(f"{change} (SELECT number FROM dispatchkit.run WHERE name = 'newer-command')")


@pytest.mark.second_stage
def test_invalid_runs_delay_none(field: Field) -> None:
    _invalid_runs(field)
    field.plan(100, size=100, name="good", queue=False)
    worker = field.worker(_LOOK_EVERY=5.0)  # a look for each invalid run would take a minute
    lines = Lines(worker)
    field.wait_until_done(100, "good")
    wait_until(lambda: lines.text.count("is not launched here") >= 10)
    time.sleep(1)  # none is told of twice
    told = [line for line in lines.text.splitlines() if "is not launched here" in line]
    assert len(told) == len(set(told)) == 10, lines.text
    assert max(map(len, told)) < 1000
    assert "ConnectorException" not in lines.text  # names of any length go into the queue
    assert worker.poll() is None
    assert set(field.sandbox.launches) == set(range(1, 101))


@pytest.mark.second_stage
def test_held_chunk_delays_no_run(field: Field) -> None:
    field.plan(60, size=20)
    held = "SET token = 'x', pid = 7, host = 'other', seen = clock_timestamp() + interval '1 hour'"
    field.execute(f"UPDATE dispatchkit.chunk {held} WHERE number = 0")
    field.worker()
    wait_until(lambda: field.launched() == 40)
    field.execute("UPDATE dispatchkit.chunk SET seen = seen - interval '2 hours' WHERE token = 'x'")
    field.wait_until_done(60)


@pytest.mark.second_stage
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_interrupt_gives_up(field: Field, number: signal.Signals) -> None:
    field.sandbox.latency = 20.0
    field.plan(10)
    worker = field.worker("--concurrency", 3)
    wait_until(lambda: field.launched() == 3)
    worker.send_signal(number)
    time.sleep(0.5)
    assert worker.poll() is None
    worker.send_signal(number)
    _, said = worker.communicate(timeout=8)
    assert worker.returncode == 0, said
    assert "calls in flight were cancelled" in said
    assert (field.counts().unknown, field.counts().planned) == (3, 7)


@pytest.mark.second_stage
@pytest.mark.parametrize("at_work", [True, False])
@pytest.mark.parametrize("away", ["stopped", "silent"])
def test_worker_ends_without_the_database(field: Field, postgres: Server, away: str, at_work: bool) -> None:
    if at_work:
        field.sandbox.latency = 0.02
        field.plan(5000, size=5000, rate=100)
    with DatabaseProxy(field.dsn) as proxy:
        worker = field.worker("--concurrency", 4, dsn=proxy.dsn)
        lines = Lines(worker)
        wait_until(lambda: not at_work or field.launched() >= 20)
        time.sleep(0.5)
        postgres.stop("immediate") if away == "stopped" else proxy.silence()
        try:
            time.sleep(1.0)
            worker.send_signal(signal.SIGTERM)
            worker.wait(timeout=5)
        finally:
            if away == "stopped":
                postgres.start()
    assert worker.returncode == 0, lines.text
    assert max(field.sandbox.launches.values(), default=1) == 1


@pytest.mark.second_stage
@pytest.mark.parametrize("away", ["stopped", "silent"])
def test_planning_ends_without_the_database(field: Field, postgres: Server, away: str) -> None:
    with DatabaseProxy(field.dsn) as proxy:
        command = [*COMMAND, "direct", "start", "1-400000", "--run", "p", "--yes", "--quiet"]
        command += ["--base-url", field.sandbox.url, "--ledger", proxy.dsn]
        process = Process(command, stderr=subprocess.PIPE, text=True, env=field.environment())
        wait_until(lambda: field.planned("p") > 0)
        postgres.stop("immediate") if away == "stopped" else proxy.silence()
        try:
            time.sleep(1.0)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=5)
        finally:
            if away == "stopped":
                postgres.start()
    assert process.returncode == 130, said
    assert field.launched() == 0


def test_worker_options_reach_client(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[RetryPolicy | None, str | None, float | None]] = []

    async def run_worker(_: LedgerRef, reach: Reach, **settings: Any) -> None:
        given.append((settings["retry"], reach.account, settings["give_up_after"]))

    monkeypatch.setattr("dispatchkit.cli.run.worker.run_worker", run_worker)
    for options in ([], ["--never-repeat", "--account", "shop", "--give-up-after", "15m"]):
        ended = CliRunner().invoke(app, ["worker", "--ledger", "postgresql://localhost/x", *options])
        assert ended.exit_code == 0, ended.output
    assert given == [(None, None, 3600.0), (RetryPolicy(repeat_unclear=False), "shop", 900.0)]


@pytest.mark.second_stage
def test_command_line_plans_chunks(field: Field) -> None:
    plan = [*COMMAND, "plan", "--run", "cli", "--chunk-size", "20", "--from", "-"]
    launch = ["direct", "start", "--base-url", field.sandbox.url, "--yes"]
    ids = "\n".join(map(str, range(1, 51)))
    for _ in range(2):  # the second time it is all there
        ended = complete([*plan, *launch], input=ids, env=field.environment())
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout == (
            "Planned 50 dispatches in 3 chunks as run 'cli'. "
            f"To launch them: dispatchkit worker --url direct={field.sandbox.url}\n"
        )
    assert field.launched() == 0
    field.worker("--chunks", 2)
    field.wait_until_done(50, "cli")
    assert set(field.sandbox.launches.values()) == {1}


@pytest.mark.parametrize(
    ("launch", "line"),
    [
        (["direct", "start"], ""),
        (["direct", "start", "--account", "my shop"], " --account 'my shop'"),
        (["direct", "start", "--base-url", "https://example.com"], " --url direct=https://example.com"),
        (["altcraft", "activate", "--base-url", "https://example.com"], " --url altcraft=https://example.com"),
        (["altcraft", "activate"], ""),
        (
            [
                "direct",
                "start",
                "--base-url",
                "http://example.com",
                "--insecure",
                "--proxy",
                "http://me:secret@proxy:1",
            ],
            " --url direct=http://example.com --proxy http://me@proxy:1 --insecure",
        ),
    ],
    ids=["default", "account", "host", "no-default", "environment", "proxy"],
)
@pytest.mark.parametrize("variable", [True, False], ids=["ledger-of-environment", "ledger-option"])
def test_plan_prints_whole_worker_line(
    monkeypatch: pytest.MonkeyPatch, launch: list[str], line: str, variable: bool
) -> None:
    async def plan(*_: object) -> int:
        return 1

    monkeypatch.setattr("dispatchkit.cli.run.plan._plan", plan)
    monkeypatch.delenv("DISPATCHKIT_DIRECT_URL", raising=False)
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_URL", "https://altcraft.example/")
    for name in ("DIRECT", "ALTCRAFT"):
        monkeypatch.setenv(f"DISPATCHKIT_{name}_TOKEN", "t")
    ledger = "postgresql://me:secret@db/x"
    monkeypatch.setenv("DISPATCHKIT_LEDGER", ledger if variable else "other.db")
    option = [] if variable else ["--ledger", ledger]
    ended = CliRunner().invoke(app, ["plan", "--run", "r", *option, *launch, "1", "--yes"])
    assert ended.exit_code == 0, ended.output
    words = "" if variable else " --ledger postgresql://me@db/x"
    assert ended.stdout.endswith(f"To launch them: dispatchkit worker{words}{line}\n")


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ([], ["--sandbox"], "--sandbox does not go with plan"),
        *(
            pytest.param(*given, marks=pytest.mark.second_stage)
            for given in (
                ([], ["--give-up-after", "1h"], "--give-up-after does not go with plan"),
                ([], ["--rate", "5"], "before the launch"),
                (["--from", "a"], ["--from", "b"], "--from is given twice"),
            )
        ),
        (["--ledger", "file.db"], ["1", "--yes"], "share a ledger in PostgreSQL, and file.db is a file"),
    ],
)
def test_invalid_options_are_refused(
    field: Field, before: list[str], after: list[str], says: str, tmp_path: Path
) -> None:
    # Never the default host: if it were launched after all, it must not be there.
    command = [*COMMAND, "plan", "--run", "x", *before, "direct", "start", "--base-url", field.sandbox.url, *after]
    ended = complete(command, env=field.environment(), cwd=tmp_path)
    assert ended.returncode == 2, ended
    assert says in ended.stderr
    assert field.sandbox.requests == 0
    assert list(tmp_path.iterdir()) == []


def test_a_worker_needs_a_database(tmp_path: Path) -> None:
    ended = complete([*COMMAND, "worker", "--ledger", "file.db"], cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "share a ledger in PostgreSQL, and file.db is a file" in ended.stderr
    assert list(tmp_path.iterdir()) == []

"""Real workers, killed, stopped and cut off: everything is launched, and nothing twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from dispatchkit.sandbox import Fault
from tests.launcher import COMMAND, complete
from tests.postgres import Server
from tests.spread.conftest import Field, wait_until


def test_two_workers_share_a_run_and_one_that_is_killed_is_replaced(field: Field) -> None:
    field.sandbox.latency = 0.02
    field.spread(300, size=25)
    killed, other = (field.worker("--concurrency", 3) for _ in range(2))
    wait_until(lambda: field.launched() >= 75)
    # Everything that is in flight has arrived, and nothing is answered: the state of the provider tells that it
    # happened. What was claimed and never sent is denied by it, which is believed only after a minute.
    field.sandbox.latency = 1.0
    time.sleep(0.5)
    killed.kill()
    killed.wait()
    field.sandbox.latency = 0.02
    field.wait_until_done(300)
    assert set(field.sandbox.launches) == set(range(1, 301))
    assert set(field.sandbox.launches.values()) == {1}
    assert other.poll() is None


def test_workers_come_back_when_the_database_does_and_launch_nothing_without_it(field: Field, postgres: Server) -> None:
    field.sandbox.latency = 0.02
    field.spread(500)
    workers = [field.worker("--concurrency", 8) for _ in range(2)]
    wait_until(lambda: field.launched() >= 100)
    postgres.stop()
    time.sleep(0.3)  # what was granted leaves
    before = field.launched()
    time.sleep(0.5)
    assert field.launched() == before
    postgres.start()
    field.wait_until_done(500)
    assert set(field.sandbox.launches.values()) == {1}
    assert [worker.poll() for worker in workers] == [None, None]


def test_what_was_never_enqueued_is_found_in_the_ledger(field: Field) -> None:
    field.spread(100, queue=False)
    field.worker()
    field.wait_until_done(100)


def test_a_stop_reaches_all_workers_within_a_second(field: Field) -> None:
    field.sandbox.latency = 0.02
    field.spread(2000, size=200, rate=200)
    for _ in range(2):
        field.worker("--concurrency", 8)
    wait_until(lambda: field.launched() >= 100)
    field.stop()
    time.sleep(1.0)
    before = field.launched()
    time.sleep(0.4)
    assert field.launched() == before < 1000
    assert field.counts().sending == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_end_lets_go_of_its_chunk_and_another_goes_on(
    field: Field, number: signal.Signals
) -> None:
    field.sandbox.latency = 0.1
    field.spread(100, size=100)
    worker = field.worker("--concurrency", 4)
    wait_until(lambda: field.launched() >= 8)
    worker.send_signal(number)
    _, said = worker.communicate(timeout=10)
    assert worker.returncode == 0, said
    assert "Interrupted: nothing new is started" in said
    left = field.counts()
    assert left.sending == 0
    assert left.done < 100
    field.sandbox.latency = 0.0
    field.worker()
    field.wait_until_done(100)
    assert set(field.sandbox.launches.values()) == {1}


def test_one_answer_429_pauses_all_workers(field: Field) -> None:
    field.sandbox.latency = 0.02
    field.spread(3000, size=100, rate=400)
    for _ in range(2):
        field.worker("--concurrency", 8)
    wait_until(lambda: field.launched() >= 200)
    field.sandbox.order(Fault.throttled(retry_after=2))
    time.sleep(0.8)
    before = field.launched()
    time.sleep(0.6)
    assert field.launched() == before
    wait_until(lambda: field.launched() > before)


def test_together_they_keep_the_rate_of_the_account(field: Field) -> None:
    field.spread(1000, size=100, rate=100)
    for _ in range(2):
        field.worker()
    wait_until(lambda: field.launched() >= 150)
    before, began = field.launched(), time.monotonic()
    time.sleep(2)
    assert 133 <= field.launched() - before <= 105 * (time.monotonic() - began)


def test_a_token_that_is_refused_ends_the_worker_and_leaves_the_rest_to_others(field: Field) -> None:
    field.spread(200, size=100)
    environment = {**field.environment(), "DISPATCHKIT_DIRECT_TOKEN": "wrong"}
    command = [*COMMAND, "worker", "--direct-url", field.sandbox.url, "--concurrency", "4"]
    ended = complete(command, env=environment)
    assert ended.returncode == 1, ended.stderr
    assert "Check the token" in ended.stderr
    assert field.counts().rejected <= 4
    assert field.launched() == 0


def test_the_command_line_plans_what_workers_launch(field: Field) -> None:
    spread = [*COMMAND, "spread", "--run", "cli", "--chunk-size", "20", "--from", "-"]
    launch = ["direct", "start", "--base-url", field.sandbox.url, "--yes"]
    ids = "\n".join(map(str, range(1, 51)))
    for _ in range(2):  # the second time it is all there
        ended = complete([*spread, *launch], input=ids, env=field.environment())
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "Planned 50 dispatches in 3 chunks as the run 'cli'." in ended.stdout
    assert field.launched() == 0
    field.worker("--chunks", 2)
    field.wait_until_done(50, "cli")
    assert set(field.sandbox.launches.values()) == {1}


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ([], ["--sandbox"], "--sandbox does not go with spread"),
        ([], ["--rate", "5"], "stand before the launch"),
        (["--from", "a"], ["--from", "b"], "--from is given twice"),
        (["--ledger", "file.db"], ["1", "--yes"], "through a ledger in PostgreSQL"),
    ],
)
def test_what_makes_no_sense_is_refused(
    field: Field, before: list[str], after: list[str], says: str, tmp_path: Path
) -> None:
    # Never the default host: if it were launched after all, it must not be there.
    command = [*COMMAND, "spread", "--run", "x", *before, "direct", "start", "--base-url", field.sandbox.url, *after]
    ended = complete(command, env=field.environment(), cwd=tmp_path)
    assert ended.returncode == 2, ended
    assert says in ended.stderr
    assert field.sandbox.requests == 0
    assert list(tmp_path.iterdir()) == []


def test_a_worker_needs_a_database(tmp_path: Path) -> None:
    ended = complete([*COMMAND, "worker", "--ledger", "file.db"], cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "through a ledger in PostgreSQL" in ended.stderr
    assert list(tmp_path.iterdir()) == []

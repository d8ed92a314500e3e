"""Launches and ``resume`` with a ledger in PostgreSQL: they wait for leases, and share the account's pace."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import time

import pytest

from dispatchkit import Ledger
from dispatchkit.workers.chunk import in_postgres
from tests.cli.conftest import Result, run_child, start_child
from tests.workers.conftest import DatabaseProxy, Field, Lines, wait_until

SHORT_LEASE = {"dispatchkit.ledger.postgres.holds:LEASE_TIMEOUT": 3.0}


def launch(field: Field, ids: str, *options: object) -> tuple[object, ...]:
    return ("direct", "start", ids, "--yes", "--base-url", field.sandbox.url, "--run", "friday", *options)


@pytest.mark.second_stage
@pytest.mark.parametrize("command", ["start", "resume"])
def test_worker_and_command_share_rate(field: Field, command: str) -> None:
    field.plan(3000, size=3000, rate=100)
    words = launch(field, "5001-8000")
    if command == "resume":
        assert run_child(*words, "--max-launches", 1).code == 1
        words = ("resume", "--run", "friday", "--yes")
    field.worker()

    def launched() -> tuple[int, int]:
        numbers = [*field.sandbox.direct.launches]
        return sum(number <= 3000 for number in numbers), sum(number > 3000 for number in numbers)

    wait_until(lambda: launched()[0] >= 50)
    with start_child(*words) as child:
        wait_until(lambda: launched()[1] >= 50)
        before, began = launched(), time.monotonic()
        time.sleep(2)
        after, elapsed = launched(), time.monotonic() - began
        shares = [(late - early) / elapsed for early, late in zip(before, after, strict=True)]
        assert sum(shares) <= 105
        assert min(shares) >= 30
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=20)
    assert child.returncode == 130, err
    assert field.workers[0].poll() is None


@pytest.mark.second_stage
def test_commands_keep_smaller_rate(field: Field) -> None:
    both = (
        launch(field, "1-3000", "--rate", 60),
        ("direct", "start", "5001-8000", "--yes", "--base-url", field.sandbox.url, "--run", "other", "--rate", 90),
    )
    with start_child(*both[0]), start_child(*both[1]):
        wait_until(lambda: {number > 3000 for number in [*field.sandbox.direct.launches]} == {True, False})
        time.sleep(1.5)  # until each has learnt of the other
        before, began = field.launched(), time.monotonic()
        time.sleep(2)
        assert field.launched() - before <= 63 * (time.monotonic() - began)


@pytest.mark.second_stage
def test_late_responses_pause_command(field: Field) -> None:
    with DatabaseProxy(field.dsn) as proxy:
        words = launch(field, "1-5000", "--rate", 20, "--ledger", proxy.dsn)
        with start_child(*words) as child:
            lines = Lines(child)
            wait_until(lambda: field.launched() >= 20)
            proxy.delay = 6.0
            told = "The run pauses: the database answers in 6 s; the limit is 5 s."
            wait_until(lambda: told in lines.text)
            proxy.delay = 0.0
            before = field.launched()
            wait_until(lambda: field.launched() >= before + 20)
            assert lines.text.count("The run pauses: ") == 1
            proxy.delay = 6.0
            time.sleep(1.0)
            child.send_signal(signal.SIGTERM)
            child.wait(timeout=5)
    assert child.returncode == 130, lines.text
    assert max(field.sandbox.launches.values()) == 1


def stop_and_hold(field: Field) -> None:
    """Stop the run, and let its second chunk be held by a process that was killed just now."""

    async def write() -> None:
        async with Ledger(field.dsn) as ledger:
            number = (await ledger.run("r")).number
            store = await in_postgres(ledger)
            await store.stop(number)
            await store.connection.run(
                lambda connection: connection.execute(
                    "UPDATE dispatchkit.chunk SET token = 'dead', pid = 7, host = 'gone', seen = clock_timestamp() "
                    "WHERE run = $1 AND number = 1",
                    number,
                )
            )

    asyncio.run(write())


@pytest.mark.second_stage
def test_resume_waits_for_dead_lease(field: Field) -> None:
    field.plan(20, size=10, queue=False)
    stop_and_hold(field)
    result = run_child("resume", "--run", "r", "--yes", constants=SHORT_LEASE)
    assert result.code == 0, result
    told = r"Run 'r' was stopped\. This command lets it launch again\.\n"
    told += r"The run 'r' was held by process 7 on gone: waiting for the end of its lease at \d\d:\d\d:\d\d UTC\.\n"
    assert re.fullmatch(told, result.err), result
    assert field.sandbox.launches == dict.fromkeys(range(1, 21), 1)


@pytest.mark.second_stage
def test_waiting_resume_can_be_interrupted(field: Field) -> None:
    field.plan(20, size=10, queue=False)
    stop_and_hold(field)
    with start_child("resume", "--run", "r", "--yes") as child:
        assert child.stderr is not None
        assert "was stopped" in child.stderr.readline()
        assert "waiting for the end of its lease" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=5)
    assert child.returncode == 130, err
    assert out.endswith("20 dispatches are left. To resume the run: dispatchkit resume --run r\n")
    assert field.launched() == 0


def plan(field: Field, *options: object) -> Result:
    return run_child("plan", "--run", "r", "direct", "start", "1-3", "--yes", "--base-url", field.sandbox.url, *options)


@pytest.mark.second_stage
def test_plan_has_one_account(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", "old")
    assert plan(field).code == 0
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", field.sandbox.direct_token)
    refused = plan(field)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("dispatchkit: run 'r' was planned for another account, or with another token: ")
    hint = refused.err.partition("with a new token or name: ")[2]
    assert shlex.split(hint)[:6] == ["dispatchkit", "plan", "--run", "r", "direct", "start"]
    assert hint.endswith(" --account-changed\n")
    assert run_child(*shlex.split(hint)[1:], "--yes").code == 0
    assert run_child("resume", "--run", "r", "--yes").code == 0
    assert field.launched() == 3


@pytest.mark.second_stage
def test_named_account_needs_no_token(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPATCHKIT_DIRECT_TOKEN")
    refused = plan(field)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("dispatchkit: no token: set DISPATCHKIT_DIRECT_TOKEN, ")
    assert plan(field, "--account", "acme").code == 0
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", field.sandbox.direct_token)
    assert "was planned for the account 'acme'" in run_child("resume", "--run", "r", "--yes").err
    assert run_child("resume", "--run", "r", "--yes", "--account", "acme").code == 0


@pytest.mark.parametrize("option", ["--never-repeat", "--copied", "--end-holder"])
def test_plan_refuses_launch_option(field: Field, option: str) -> None:
    refused = plan(field, option)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == f"dispatchkit: {option} does not go with plan: it only plans the run, and workers launch it\n"


@pytest.mark.second_stage
def test_refused_plan_is_explained(field: Field) -> None:
    url = field.sandbox.url
    assert run_child(*launch(field, "1-3")).code == 0
    plan = ("plan", "--ledger", field.dsn, "--run", "tuesday", "direct", "start", "2-4", "--base-url", url, "--yes")
    refused = run_child(*plan, "--repeat-window", "1h")
    assert refused.code == 2
    assert "2 of these ids were launched, or may have been: 2 in run 'friday'." in refused.err
    assert "StartDispatch(" not in refused.err
    line = shlex.split(refused.err.rstrip().partition("as another run: ")[2])
    assert (line[0], line[line.index("--run") + 1]) == ("dispatchkit", "tuesday-2")
    assert run_child(*line[1:], "--yes").code == 0

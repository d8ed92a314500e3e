"""The README's examples of workers: the command line as it stands, of the engines what runs without them."""

from __future__ import annotations

import ast
import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import AltcraftClient, ChunkHeldError, LaunchBroadcast, Ledger, RunStoppedError
from dispatchkit.sandbox import Sandbox
from dispatchkit.workers import plan_chunks
from dispatchkit.workers.chunk import in_postgres
from tests.launcher import COMMAND, complete
from tests.test_readme import block
from tests.workers.conftest import Field, wait_until


@pytest.mark.second_stage
def test_worker_command_line_example_runs(field: Field, tmp_path: Path) -> None:
    export, plan, worker = block("sh", "dispatchkit plan").splitlines()
    assert export.startswith("export DISPATCHKIT_LEDGER=postgresql://")
    (tmp_path / "ids.csv").write_text("\n".join(map(str, range(1, 51))))
    words = [*shlex.split(plan)[1:], "--base-url", field.sandbox.url]
    complete([*COMMAND, *words], cwd=tmp_path, env=field.environment()).check_returncode()
    assert worker == "dispatchkit worker"
    field.worker()
    field.wait_until_done(50, "black-friday")


class Retry(Exception):  # noqa: N818 - its name in Celery
    """Celery's, as it is raised by a task."""


class Failed(Exception):  # noqa: N818 - it stands for AirflowFailException
    """Airflow's for a task that is not retried."""


class Task:
    """A bound Celery task."""

    countdown: float | None = None

    def retry(self, *, exc: Exception, countdown: float) -> Retry:
        assert isinstance(exc, ChunkHeldError)
        self.countdown = countdown
        return Retry()


def launch_task(engine: str) -> Callable[..., object]:
    """The body of a task as the README has it, without its engine."""
    tree = ast.parse(block("python", {"celery": "import ChunkHeldError", "airflow": "from airflow"}[engine]))
    (task,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "launch"]
    task.decorator_list = []
    ours = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    ours = [node for node in ours if engine not in ast.unparse(node)]
    names: dict[str, Any] = {"Task": Task, "AirflowFailException": Failed}
    exec(compile(ast.Module([*ours, task], []), engine, "exec"), names)
    launch: Callable[..., object] = names["launch"]
    return launch


@pytest.fixture
def planned(dsn: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHKIT_LEDGER", dsn)
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_URL", sandbox.url)
    monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_TOKEN", sandbox.altcraft_token)

    async def plan() -> None:
        async with AltcraftClient() as altcraft:
            await altcraft.activate(7)
            await plan_chunks(dsn, "black-friday", altcraft, [LaunchBroadcast(7)])

    asyncio.run(plan())


def execute(dsn: str, statement: str) -> None:
    async def write() -> None:
        async with Ledger(dsn) as ledger:
            await (await in_postgres(ledger)).connection.run(lambda connection: connection.execute(statement))

    asyncio.run(write())


TASKS = [("celery", (Task(), "black-friday", 0)), ("airflow", (0,))]


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize(("engine", "given"), TASKS)
def test_other_engines_launch_chunk(engine: str, given: tuple[object, ...]) -> None:
    assert launch_task(engine)(*given) == 1


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize(("engine", "given"), TASKS)
def test_tasks_retry_held_chunk(engine: str, given: tuple[object, ...], dsn: str) -> None:
    execute(dsn, "UPDATE dispatchkit.chunk SET token = 'x', pid = 7, host = 'other', seen = clock_timestamp()")
    with pytest.raises(Retry if engine == "celery" else ChunkHeldError):
        launch_task(engine)(*given)
    if engine == "celery":
        assert isinstance(given[0], Task)
        assert given[0].countdown is not None
        assert 25 < given[0].countdown <= 30
    execute(dsn, "UPDATE dispatchkit.chunk SET seen = seen - interval '31 seconds'")
    assert launch_task(engine)(*given) == 1


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize(("engine", "given"), TASKS)
def test_stopped_run_is_not_retried(engine: str, given: tuple[object, ...], dsn: str) -> None:
    execute(dsn, "UPDATE dispatchkit.run SET stopped = true")
    with pytest.raises(RunStoppedError if engine == "celery" else Failed):
        launch_task(engine)(*given)


TASK = """
from dispatchkit.core import secret
secret.FINGERPRINT_ROUNDS = 1  # as in these tests
import asyncio, os, sys, time
import dispatchkit.ledger.journal, dispatchkit.ledger.postgres.holds, dispatchkit.ledger.postgres.store
from dispatchkit import ChunkHeldError, DirectClient
from dispatchkit.workers import launch_chunk

dispatchkit.ledger.postgres.holds.LEASE_TIMEOUT = 5.0  # instead of 30

async def launch():
    async with DirectClient(base_url=os.environ["URL"]) as client:
        return await launch_chunk(os.environ["DISPATCHKIT_LEDGER"], "r", 0, client=client, concurrency=3)

retries = 0
while True:
    try:
        report = asyncio.run(launch())
        break
    except ChunkHeldError as held:
        retries += 1
        time.sleep(held.retry_after)
print(report.done, report.total, retries)
"""


@pytest.mark.second_stage
def test_killed_task_moves_to_host(field: Field, tmp_path: Path) -> None:
    script = tmp_path / "task.py"
    script.write_text(TASK)
    field.plan(200, size=200, queue=False)
    field.sandbox.latency = 0.05
    environment = {**field.environment(), "URL": field.sandbox.url}

    def task(host: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(script)]
        if os.geteuid() == 0:
            command = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', host, *command]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    with task("airflow-1") as first:
        wait_until(lambda: field.launched() >= 20)
        # All that was claimed has arrived, and nothing is answered: the state of the provider shows it. With four
        # workers or more, one claims ahead, which is settled only after more than two minutes.
        field.sandbox.latency = 20.0
        field.wait_until_all_arrived()
        first.kill()
    field.sandbox.latency = 0.0
    with task("airflow-2") as retry:
        said, _ = retry.communicate(timeout=40)
    done, total, retries = map(int, said.split())
    assert (done, total) == (200, 200)
    assert retries >= 1
    assert field.sandbox.launches == dict.fromkeys(range(1, 201), 1)

"""The recipe for Celery, with a real worker and Redis: JSON results, and no second launch after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import sync
from dispatchkit.sandbox import Sandbox
from tests.recipes.recipe import BLOCKS, environment, free_port, launched, python, require, running, wait_until

pytestmark = pytest.mark.second_stage

IDS = list(range(1, 41))

SEND = """
import json, sys
from launches import launch
sent = launch.apply_async([list(range(1, 41))], task_id=sys.argv[1])
if sys.argv[2:]:
    print(json.dumps(sent.get(timeout=float(sys.argv[2]))))
"""
SHORT = "from launches import app\napp.conf.broker_transport_options = {'visibility_timeout': 1}\n"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """The address of a Redis of the test's own."""
    program = shutil.which("redis-server")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs Redis: apt-get install redis-server")
    folder = tmp_path / "redis"
    folder.mkdir()
    port = free_port()
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with running(command, cwd=folder, env=dict(os.environ)):
        wait_until(lambda: is_open(port))
        yield f"redis://127.0.0.1:{port}/0"


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


class Queue:
    """The recipe's application: its tasks, and its workers."""

    def __init__(self, folder: Path, sandbox: Sandbox, redis: str) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.ledger = str(folder / "launch.db")
        self.environment = environment(sandbox, REDIS_URL=redis, DISPATCHKIT_LEDGER=self.ledger)
        (folder / "launches.py").write_text(BLOCKS["Celery"])
        (folder / "short.py").write_text(SHORT)
        (folder / "send.py").write_text(SEND)

    def worker(self, app: str = "launches") -> Any:
        command = python("celery", "-A", app, "worker", "--concurrency", "1", "--without-mingle", "--without-gossip")
        return running([*command, "--loglevel", "INFO"], cwd=self.folder, env=self.environment)

    def send(self, name: str, *, timeout: float | None = None) -> str:
        """Send the task, and return its result if there is a time to wait for it."""
        words = [sys.executable, "send.py", name, *([] if timeout is None else [str(timeout)])]
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, done.stderr + self.log
        return done.stdout

    def send_and_wait(self, name: str) -> None:
        """Send the task, and wait until the sandbox has some launches and all that was claimed, and answers nothing.

        What was claimed and never sent is denied by the provider's state. That is believed only after a minute.
        """
        self.sandbox.latency = 1.0
        self.send(name)
        wait_until(lambda: launched(self.sandbox) >= 4)
        self.sandbox.latency = 20.0
        with sync.Ledger(self.ledger) as ledger:

            def holds() -> bool:
                before = launched(self.sandbox)
                time.sleep(1.5)  # longer than the first latency: later answers come after the kill
                counts = ledger.counts(f"celery-{name}")
                return counts.sending + counts.done == launched(self.sandbox) == before

            wait_until(holds)
        assert launched(self.sandbox) < len(IDS)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait_for(self, text: str) -> None:
        try:
            wait_until(lambda: text in self.log)
        except AssertionError:
            pytest.fail(self.log)


@pytest.fixture
def queue(tmp_path: Path, sandbox: Sandbox, redis: str) -> Queue:
    require("celery", "redis")
    return Queue(tmp_path, sandbox, redis)


def child_of(pid: int) -> int:
    """The one process of the pool."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def test_result_is_report(queue: Queue) -> None:
    with queue.worker() as worker:
        for _ in range(2):  # the same id is the same launch
            assert '"done": 40, "rejected": 0' in queue.send("first", timeout=30)
        worker.send_signal(signal.SIGTERM)
        worker.wait(timeout=20)
    assert dict(queue.sandbox.launches) == dict.fromkeys(IDS, 1)
    assert "Traceback" not in queue.log


def test_killed_process_resumes(queue: Queue) -> None:
    with queue.worker() as worker:
        queue.send_and_wait("second")
        os.kill(child_of(worker.pid), signal.SIGKILL)
        queue.sandbox.latency = 0.0
        queue.wait_for("Task launches.launch[second] succeeded")
    assert "WorkerLostError" in queue.log
    assert dict(queue.sandbox.launches) == dict.fromkeys(IDS, 1)


def test_killed_worker_is_replaced(queue: Queue) -> None:
    with queue.worker():
        queue.send_and_wait("third")
    queue.sandbox.latency = 0.0
    with queue.worker("short"):
        queue.wait_for("Task launches.launch[third] succeeded")
    assert dict(queue.sandbox.launches) == dict.fromkeys(IDS, 1)


def test_second_delivery_waits(queue: Queue) -> None:
    queue.sandbox.latency = 2.0
    with queue.worker("short"):
        queue.send("fourth")
        wait_until(lambda: launched(queue.sandbox) >= 2)
        with queue.worker("short"):  # it restores what has no acknowledgement for longer than a second
            queue.wait_for("RunHeldError")
            queue.sandbox.latency = 0.0
            queue.wait_for("'previously_finished': 40")
    assert queue.log.count("Task launches.launch[fourth] succeeded") == 2
    assert dict(queue.sandbox.launches) == dict.fromkeys(IDS, 1)

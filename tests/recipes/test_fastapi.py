"""The recipe for FastAPI, on uvicorn: progress over SSE, a stop that lasts, and a clean end at SIGTERM."""

from __future__ import annotations

import contextlib
import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchkit.sandbox import Sandbox
from tests.recipes.recipe import BLOCKS, environment, free_port, launched, python, require, running, wait_until

pytestmark = pytest.mark.second_stage


class Service:
    """The recipe, served on a port of its own."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        (folder / "launches.py").write_text(BLOCKS["FastAPI"])

    @contextlib.contextmanager
    def serve(self) -> Iterator[Any]:
        self.port = free_port()
        command = python("uvicorn", "launches:app", "--port", str(self.port))
        with running(command, cwd=self.folder, env=environment(self.sandbox)) as process:
            wait_until(self.is_up)
            yield process

    def is_up(self) -> bool:
        with contextlib.suppress(OSError), self.ask("/openapi.json"):
            return True
        return False

    def ask(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        return urllib.request.urlopen(request, timeout=30)

    def snapshots(self) -> Iterator[Any]:
        with self.ask("/progress") as stream:
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            for line in stream:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
def service(tmp_path: Path, sandbox: Sandbox) -> Service:
    require("uvicorn")
    return Service(tmp_path, sandbox)


def test_progress_is_streamed(service: Service) -> None:
    with service.serve() as process:
        snapshots = list(service.snapshots())
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
    assert snapshots[-1]["is_over"]
    assert snapshots[-1]["report"]["done"] == 1000
    assert dict(service.sandbox.launches) == dict.fromkeys(range(1, 1001), 1)
    assert "Application shutdown complete" in service.log
    assert "Error" not in service.log


def test_sigterm_ends_open_stream(service: Service) -> None:
    service.sandbox.latency = 0.3
    with service.serve() as process:
        stream = service.snapshots()
        assert not next(stream)["is_over"]
        wait_until(lambda: launched(service.sandbox) >= 3)
        process.send_signal(signal.SIGTERM)
        *_, last = stream
        process.wait(timeout=5)
    # uvicorn sends itself the signal again, once it has ended in good order.
    assert process.returncode == -signal.SIGTERM
    assert "Application shutdown complete" in service.log
    assert "Error" not in service.log
    assert last["is_over"]
    assert last["report"]["done"] == launched(service.sandbox) < 1000
    service.sandbox.latency = 0
    with service.serve():
        assert list(service.snapshots())[-1]["report"]["done"] == 1000
    assert dict(service.sandbox.launches) == dict.fromkeys(range(1, 1001), 1)


def test_stop_outlasts_restart(service: Service) -> None:
    service.sandbox.latency = 0.3
    with service.serve() as process:
        wait_until(lambda: launched(service.sandbox) >= 3)
        service.ask("/stop", "POST").close()
        stopped = launched(service.sandbox)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
    assert "Error" not in service.log
    with service.serve() as process:
        assert list(service.snapshots())[-1]["is_over"]
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
    assert launched(service.sandbox) == stopped < 1000
    assert "RunStoppedError" in service.log
    assert "Application shutdown complete" in service.log

"""The recipe for Kubernetes: its container's command in a read-only mount namespace, its probe and its end."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import Counts
from dispatchkit.core.fanout.options import FanOutSettings
from dispatchkit.sandbox import Sandbox
from tests.recipes.recipe import BLOCKS, environment, python, require, running, wait_until
from tests.workers.conftest import Field

pytestmark = pytest.mark.second_stage

# How a node mounts the root and /run for a container with a read-only root and an emptyDir in memory.
MOUNT = """
mount -t tmpfs tmpfs /run && mkdir -p "$1" && mount -t tmpfs tmpfs "$1" && mount -o remount,ro /run &&
mount -o remount,bind,ro / && cd / && shift && exec "$@"
"""


def manifest() -> Any:
    require("yaml")
    return importlib.import_module("yaml").safe_load(BLOCKS["Kubernetes"])


class Pod:
    """One replica of the manifest."""

    def __init__(self, field: Field, folder: Path) -> None:
        self.field = field
        self.folder = folder
        self.spec = manifest()["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]
        (mount,) = self.container["volumeMounts"]
        (volume,) = self.spec["volumes"]
        assert (volume["name"], mount["name"]) == ("alive", "alive")
        assert self.container["securityContext"]["readOnlyRootFilesystem"] is True
        self.writable: str = mount["mountPath"]

    def plan(self, ids: str) -> None:
        # A process of its own: within the suite, tokens have quicker fingerprints.
        sandbox = self.field.sandbox
        command = python(
            "dispatchkit", "plan", "--run", "r", "direct", "start", ids, "--base-url", sandbox.url, "--yes"
        )
        subprocess.run(command, env=environment(sandbox, DISPATCHKIT_LEDGER=self.field.dsn), check=True)

    @contextlib.contextmanager
    def run(self) -> Iterator[subprocess.Popen[str]]:
        if os.geteuid() or shutil.which("unshare") is None:
            pytest.skip("needs root and unshare")
        user = str(self.spec["securityContext"]["runAsUser"])
        # As root, mounts; then as the pod's user, the container's own words.
        drop = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", *self.container["command"]]
        command = ["unshare", "--mount", "sh", "-euc", MOUNT, "sh", self.writable, *drop]
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": "/",
            "DISPATCHKIT_LEDGER": self.field.dsn,
            "DISPATCHKIT_DIRECT_TOKEN": self.field.sandbox.direct_token,
            "DISPATCHKIT_DIRECT_URL": self.field.sandbox.url,
        }
        with running(command, cwd=self.folder, env=environment) as process:
            try:
                wait_until(lambda: "Ready" in self.log)
            except AssertionError:
                pytest.fail(self.log)
            yield process

    def inside(self, process: subprocess.Popen[str], *command: str) -> int:
        """The exit status of a command in the container."""
        words = ["nsenter", "--target", str(process.pid), "--mount", "--", *command]
        return subprocess.run(words, check=False, stderr=subprocess.DEVNULL).returncode

    def is_alive(self, process: subprocess.Popen[str]) -> bool:
        probe: Sequence[str] = self.container["livenessProbe"]["exec"]["command"]
        return self.inside(process, *probe) == 0

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
def pod(dsn: str, sandbox: Sandbox, tmp_path: Path) -> Pod:
    return Pod(Field(dsn, sandbox), tmp_path)


def test_manifest_fits_schema() -> None:
    require("kubernetes_validate")
    kubernetes: Any = importlib.import_module("kubernetes_validate")
    kubernetes.validate(manifest(), kubernetes.latest_version(), strict=True)


def test_sigterm_loses_nothing(pod: Pod) -> None:
    field = pod.field
    field.sandbox.latency = 1.0
    pod.plan("1-60")
    grace: float = pod.spec["terminationGracePeriodSeconds"]
    assert grace >= FanOutSettings().grace_period + 10
    with pod.run() as worker:
        for folder in ("/", "/tmp", "/run", "/var/tmp"):
            assert pod.inside(worker, "touch", f"{folder}/written") != 0, folder
        wait_until(lambda: field.launched() >= 3)
        assert pod.is_alive(worker)
        began = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=grace) == 0
        assert time.monotonic() - began < 15  # calls in flight took a second
    left = field.counts()
    assert (left.sending, left.unknown, left.done) == (0, 0, field.launched())
    assert 3 <= left.done < 60
    field.sandbox.latency = 0.0
    with pod.run():
        wait_until(lambda: field.counts() == Counts(done=60))
    assert set(field.sandbox.launches.values()) == {1}


def test_probe_tells_hanging_worker(pod: Pod) -> None:
    *_, alive = pod.container["command"]
    with pod.run() as worker:
        assert pod.is_alive(worker)
        worker.send_signal(signal.SIGSTOP)
        assert pod.inside(worker, "touch", "--date", "30 seconds ago", alive) == 0
        assert not pod.is_alive(worker)
        worker.send_signal(signal.SIGCONT)
        wait_until(lambda: pod.is_alive(worker), seconds=5)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=10) == 0

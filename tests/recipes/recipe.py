"""What the tests of the recipes share: the text of each recipe, and processes of other people's programs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from dispatchkit.sandbox import Sandbox

RECIPES = (Path(__file__).parents[2] / ".github/docs/recipes.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^## (\w+)\n(?:(?!```|## ).*\n)*```\w+\n((?:(?!```).*\n)*)```$", RECIPES, re.MULTILINE))
"""The code of each recipe, by heading."""


def require(*modules: str) -> None:
    """Skip the test where the extra `recipes` is not installed. In CI it fails."""
    if missing := [name for name in modules if find_spec(name) is None]:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs .[recipes]: {missing[0]} is not installed")


def wait_until(holds: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def environment(sandbox: Sandbox, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "DISPATCHKIT_DIRECT_URL": sandbox.url,
        "DISPATCHKIT_DIRECT_TOKEN": sandbox.direct_token,
        **more,
    }


def launched(sandbox: Sandbox) -> int:
    return sum(sandbox.direct.launches.values())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def running(command: Sequence[str], *, cwd: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program in a session of its own, of which nothing is left at the end. It writes to the file ``log``."""
    with (cwd / "log").open("a") as log:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def python(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]

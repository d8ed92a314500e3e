"""Each promise of the blocking face is kept in a process of its own: a script, its exact lines, and nothing on stderr.

Scripts run on the interpreter of this run, and on those that ``DISPATCHKIT_PYTHONS`` names (paths, separated like
PATH) if they have what dispatchkit needs; each on asyncio's loop and, where it is installed, on uvloop's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from dispatchkit.sandbox import Sandbox

ROOT = Path(__file__).parent.parent.parent

PRELUDE = """
import os, signal, sys, threading, time, warnings
if os.environ["LOOP"] == "asyncio":
    sys.modules["uvloop"] = None
import dispatchkit
from dispatchkit import sync
from dispatchkit.core.retry import RetryPolicy
URL, TOKEN = os.environ["URL"], os.environ["TOKEN"]

def client(**settings):
    return sync.DirectClient(settings.pop("token", TOKEN), base_url=URL, **settings)

def press_ctrl_c(after):
    def press():
        global pressed
        time.sleep(after)
        pressed = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=press, daemon=True).start()

def since_pressed():
    took = time.monotonic() - pressed
    return "at once" if took < 0.2 else f"after {took:.0f} s"
"""


def _has_what_it_takes(python: str, module: str) -> bool:
    names = ["aiohttp", "attrs", "cattrs", "tenacity", module]
    probe = f"from importlib.util import find_spec; assert all(map(find_spec, {names}))"
    return subprocess.run([python, "-c", probe], capture_output=True, check=False, timeout=30).returncode == 0


def _worlds() -> Iterator[tuple[str, str]]:
    named = [each for each in os.environ.get("DISPATCHKIT_PYTHONS", "").split(os.pathsep) if each]
    for python in [sys.executable, *named]:
        for loop in ("asyncio", "uvloop"):
            if _has_what_it_takes(python, loop):
                yield python, loop


def _name(world: tuple[str, str]) -> str:
    python, loop = world
    ask = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return f"{subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()}-{loop}"


WORLDS = [pytest.param(world, id=_name(world)) for world in _worlds()]


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> tuple[str, str]:
    """An interpreter and an event loop."""
    return request.param


Play: TypeAlias = Callable[..., list[str]]


@pytest.fixture
def play(world: tuple[str, str], sandbox: Sandbox, tmp_path: Path) -> Play:
    """Run a script against the sandbox, and return the lines that it printed. It must not complain of anything."""
    python, loop = world

    def run(script: str, *options: str, status: int = 0, stderr: str = "") -> list[str]:
        path = tmp_path / "script.py"
        path.write_text(PRELUDE + textwrap.dedent(script), encoding="utf-8")
        env = {**os.environ, "LOOP": loop, "URL": sandbox.url, "TOKEN": sandbox.direct_token, "PYTHONPATH": str(ROOT)}
        command = [python, "-W", "error", *options, str(path)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
        assert (done.stderr, done.returncode) == (stderr, status), done.stdout
        return done.stdout.splitlines()

    return run

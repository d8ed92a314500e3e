"""Each promise of the blocking clients has its own process: a script, its exact lines, and an empty stderr.

Scripts run on the interpreter of this run. They also run on those of ``DISPATCHKIT_PYTHONS`` (paths, separated like
PATH) that have dispatchkit's dependencies. The loop is uvloop's where it is installed. In the second stage, it is also
asyncio's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from dispatchkit.sandbox import Sandbox
from tests.launcher import complete

ROOT = Path(__file__).parent.parent.parent

PRELUDE = """
import os, signal, sys, threading, time, warnings
if os.environ["LOOP"] == "asyncio":
    sys.modules["uvloop"] = None
import tenacity

import dispatchkit
from dispatchkit import sync
from dispatchkit.core.call.retry import RetryPolicy
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
    return "at once" if took < 0.8 else f"after {took:.2f} s"

def start_all_at_once():
    "Let a run begin with all its workers."
    from dispatchkit.core.pacing.adaptive_limit import AdaptiveLimit
    AdaptiveLimit.ramp = lambda self: None

def set_cancel_timeout(seconds):
    "Replace the two seconds of the product."
    from dispatchkit.sync import portal_call
    from dispatchkit.sync import portal
    from dispatchkit.sync import fan_out as run
    for module in (portal_call, portal, run):
        module.CANCEL_TIMEOUT = seconds
"""


PROBE = """
import sys
from importlib.util import find_spec
loops = ["asyncio", "uvloop"] if find_spec("uvloop") else ["asyncio"]
print("%d.%d" % sys.version_info[:2], *loops * all(map(find_spec, ["aiohttp", "attrs", "cattrs", "tenacity"])))
"""


def _worlds() -> Iterator[Any]:
    # Not asked of this run's own interpreter, as every process that shares the suite comes by here.
    known = {sys.executable: ["{}.{}".format(*sys.version_info), "asyncio", *filter(find_spec, ["uvloop"])]}
    for python in filter(None, [sys.executable, *os.environ.get("DISPATCHKIT_PYTHONS", "").split(os.pathsep)]):
        version, *loops = known.get(python) or subprocess.check_output([python, "-c", PROBE], text=True).split()
        for loop in loops:
            later = [pytest.mark.second_stage] if loop != loops[-1] else []
            yield pytest.param((python, loop), id=f"{version}-{loop}", marks=later)


@pytest.fixture(params=_worlds())
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
        given = {"PYTHONPATH": str(ROOT), "LOOP": loop, "URL": sandbox.url, "TOKEN": sandbox.direct_token}
        done = complete([python, "-W", "error", *options, str(path)], env={**os.environ, **given})
        assert (done.stderr, done.returncode) == (stderr, status), done.stdout
        return done.stdout.splitlines()

    return run

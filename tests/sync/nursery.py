"""A process that scripts are forked from. It has imported what all of them need, which takes longer than they do.

dispatchkit itself is not imported here but by each script, so what begins with its import (locks, exit handlers, what
to do at a fork) begins there, as in any other process.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import aiohttp  # noqa: F401
import attrs  # noqa: F401
import cattrs  # noqa: F401
import tenacity  # noqa: F401

ROOT = Path(__file__).parent.parent.parent


class Nursery:
    """The process, as seen from the suite: one line of JSON orders a script, and one line answers with its status."""

    def __init__(self, *command: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([*command, __file__], env=env, stdin=pipe, stdout=pipe, text=True)

    def run(self, script: Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end, for 30 seconds at most."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"script": str(script), "env": env}), file=self._process.stdin, flush=True)
        status = int(self._process.stdout.readline())
        stdout, stderr = (script.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".out", ".err"))
        return subprocess.CompletedProcess([str(script)], status, stdout, stderr)

    def close(self) -> None:
        self._process.communicate(timeout=10)


def take_orders() -> dict[str, Any]:
    """Return in the child of each order; the process itself ends with its input."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return json.loads(line)  # type: ignore[no-any-return]
        signal.signal(signal.SIGALRM, lambda *_, child=child: os.kill(child, signal.SIGKILL))
        signal.alarm(30)
        _, status = os.waitpid(child, 0)
        signal.alarm(0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


def begin(script: Path, env: dict[str, str]) -> types.ModuleType:
    """Look like a process that the script was started in. Returns its main module."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    places = ((os.devnull, os.O_RDONLY), (script.with_suffix(".out"), writing), (script.with_suffix(".err"), writing))
    for number, (place, flags) in enumerate(places):
        opened = os.open(place, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.update(env)
    sys.argv[:] = [str(script)]
    sys.path[0] = str(script.parent)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = str(script)
    return main


if __name__ == "__main__":
    gc.freeze()  # a script's own collector and exit need not go through all that was imported
    order = take_orders()
    script = Path(order["script"])
    exec(compile(script.read_bytes(), script, "exec"), vars(begin(script, order["env"])))

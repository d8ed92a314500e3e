"""Commands and scripts as processes, without an interpreter that imports everything again.

Two thirds of what a short command takes is importing other people's packages. One process for each interpreter and its
options, which runs this file, does that once and forks for each command. The result is a process like any other, with
streams, a terminal, signals and an exit status of its own. It imports dispatchkit itself, which shows that a command
can. Locks, exit handlers and fork handlers begin there.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import inspect
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any, NoReturn, TextIO

__all__ = ["COMMAND", "CONSTANTS", "Process", "complete"]

COMMAND = [sys.executable, "-m", "dispatchkit"]
"""What every command of ours begins with."""

CONSTANTS: dict[str, float] = {}
"""What every command finds in place of a module's own, by ``module:NAME``."""

_SCRIPTS = ("aiohttp", "attrs", "cattrs", "tenacity")
_COMMANDS = (
    *_SCRIPTS,
    "aiohttp.web",
    "asyncpg",
    "defusedxml.ElementTree",
    "encodings.idna",
    "orjson",
    "procrastinate.schema",
    "psycopg_pool",
    "rich.live",
    "rich.progress",
    "rich.table",
    "typer._adapters",
    "uvloop",
    "xml.sax.saxutils",
)
"""What scripts and commands import that is not ours. A missing module costs time. So does a needless one: each process
takes it down at its end.
"""

_COVERAGE = "COVERAGE_PROCESS_CONFIG"
"""The environment variable that has coverage measured in a process."""

_NUMBER = 4
"""Bytes of each number that is told of a process: its id, and how it ended."""


class Process(subprocess.Popen[str]):
    """As `subprocess.Popen`, of ``python [option] ... -m module`` or ``python [option] ... script.py``.

    Args:
        constants: What the process is to find in place of a module's own, by ``module:NAME``.
    """

    def __init__(self, command: list[str], *, constants: dict[str, float] | None = None, **settings: Any) -> None:
        self._constants = constants or {}
        if "-m" in command:
            self._constants = CONSTANTS | self._constants
        super().__init__(command, **settings)

    def _execute_child(self, *values: Any) -> None:
        given = inspect.signature(super()._execute_child).bind(*values).arguments  # type: ignore[misc] # not public
        streams = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        self._told, tells = os.pipe()
        descriptors = [number if stream == -1 else stream for number, stream in enumerate(streams)]
        words, environment = given["args"], dict(os.environ if given["env"] is None else given["env"])
        options = next(at for at, word in enumerate(words) if word == "-m" or word.endswith(".py"))
        request = {
            "words": words[options:],
            "environment": environment,
            "directory": str(given["cwd"] or Path.cwd()),
            "session": given["start_new_session"],
            "constants": self._constants,
        }
        shared = _COMMANDS if words[options] == "-m" else _SCRIPTS
        with _turn:
            launcher = _launcher(*words[:options], shared=shared, path=environment.get("PYTHONPATH", ""))
        socket.send_fds(launcher, [json.dumps(request).encode()], [*descriptors, tells])
        os.close(tells)
        self.pid = self._number()
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in ends))  # type: ignore[attr-defined]

    def poll(self) -> int | None:
        """See `subprocess.Popen.poll`."""
        return self._end(0)

    def wait(self, timeout: float | None = None) -> int:
        """See `subprocess.Popen.wait`."""
        ended = self._end(timeout)
        if ended is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return ended

    def _end(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(self._number())
            os.close(self._told)
        return self.returncode

    def _number(self) -> int:
        told = os.read(self._told, _NUMBER)
        assert len(told) == _NUMBER, "the launcher is gone"
        return int.from_bytes(told, "little")


def complete(command: list[str], *, timeout: float = 30, **settings: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run`, of a command, and with all that it writes."""
    text = settings.pop("input", "")
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with Process(command, **pipes, text=True, **settings) as process:
        try:
            out, err = process.communicate(text, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


_turn = threading.Lock()


@functools.cache
def _launcher(*interpreter: str, shared: tuple[str, ...], path: str) -> socket.socket:
    """Where to ask for processes of an interpreter with options, which takes PYTHONPATH to heart as it starts."""
    local_socket, remote_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "PYTHONPATH": path}
    if environment.pop(_COVERAGE, None):  # each measures its own
        shared += ("coverage",)
    command = [*interpreter, "-P", __file__, str(remote_socket.fileno()), *shared]
    with remote_socket:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=[remote_socket.fileno()], env=environment
        )

    @atexit.register
    def end() -> None:
        local_socket.close()
        started.wait()

    return local_socket


def _serve(asked: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for each request. It returns, with the request and its descriptors, in the process that is to become it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, and that ends this
    signal.signal(signal.SIGCHLD, _reap)
    with asked:
        while (received := socket.recv_fds(asked, 2**20, 4))[0]:
            request, descriptors = received[:2]
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                if not (pid := os.fork()):
                    return json.loads(request), descriptors
                _wait(pid, descriptors[-1])
            for descriptor in descriptors:
                os.close(descriptor)
    raise SystemExit


def _reap(*_: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _wait(pid: int, tells: int) -> NoReturn:
    """Tell the id of a process and, in time, how it ended."""
    os.closerange(0, tells)  # which belongs to the process alone, or to the tests
    with contextlib.suppress(BrokenPipeError):  # the reader is gone
        os.write(tells, pid.to_bytes(_NUMBER, "little"))
        os.write(tells, os.waitpid(pid, 0)[1].to_bytes(_NUMBER, "little"))
    os._exit(0)


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Give this process what it would have if it had been executed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["session"]:
        os.setsid()
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.stdin, sys.stdout, sys.stderr = _text(sys.stdin), _text(sys.stdout), _text(sys.stderr, buffering=1)


def _text(before: TextIO, *, buffering: int = -1) -> Any:
    """A standard stream as it is made when an interpreter starts."""
    return open(before.fileno(), before.mode, buffering, before.encoding, before.errors, closefd=False)


def _run(words: list[str], constants: dict[str, float]) -> None:
    """Do what an interpreter does with the words that follow its options."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    named = words[0] == "-m"
    sys.argv[:] = words[1:] if named else words
    sys.path.insert(0, str(Path.cwd() if named else Path(words[0]).parent))
    if coverage := sys.modules.get("coverage"):
        coverage.process_startup()  # which looks whether the environment still asks for it
    for place, value in constants.items():
        module, name = place.split(":")
        assert hasattr(importlib.import_module(module), name)
        setattr(sys.modules[module], name, value)
    if named:
        runpy._run_module_as_main(words[1])  # type: ignore[attr-defined]
    else:
        main.__file__ = words[0]
        exec(compile(Path(words[0]).read_bytes(), words[0], "exec", dont_inherit=True), vars(main))


if __name__ == "__main__":
    for name in sys.argv[2:]:
        with contextlib.suppress(Exception):  # the import that needs it will fail
            importlib.import_module(name)
    gc.freeze()  # no collector need go through all that was imported
    request, descriptors = _serve(socket.socket(fileno=int(sys.argv[1])))
    _become(request, descriptors)
    _run(request["words"], request["constants"])

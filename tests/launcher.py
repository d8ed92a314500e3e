"""The command line as a process, without the wait for an interpreter that imports everything anew.

Two thirds of what a short command takes is importing other people's packages. One process, which runs this file, does
that once and forks for each command. What comes of it is a process like any other, with streams, a terminal, signals
and an exit status of its own; and it imports dispatchkit itself, so that it shows whether a command can.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import inspect
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

__all__ = ["COMMAND", "Process", "complete"]

COMMAND = [sys.executable, "-m", "dispatchkit"]
"""What every command begins with."""

_SHARED = (
    "aiohttp.web",
    "asyncpg",
    "attrs",
    "cattrs",
    "coverage",
    "defusedxml.ElementTree",
    "encodings.idna",
    "orjson",
    "procrastinate.schema",
    "psycopg_pool",
    "rich.live",
    "rich.progress",
    "rich.table",
    "tenacity",
    "typer._adapters",
    "uvloop",
    "xml.sax.saxutils",
)
"""What commands import that is not ours. What one of them imports besides only takes longer."""

_COVERAGE = "COVERAGE_PROCESS_CONFIG"
"""The environment variable that has coverage measured in a process."""

_NUMBER = 4
"""Bytes of each number that is told of a process: its id, and how it ended."""


class Process(subprocess.Popen[str]):
    """As `subprocess.Popen`, of a command and nothing else.

    Args:
        constants: What the process is to find in place of a module's own, by ``module:NAME``.
    """

    def __init__(self, command: list[str], *, constants: dict[str, float] | None = None, **settings: Any) -> None:
        self._constants = constants or {}
        super().__init__(command, **settings)

    def _execute_child(self, *values: Any) -> None:
        given = inspect.signature(super()._execute_child).bind(*values).arguments
        assert given["args"][: len(COMMAND)] == COMMAND
        streams = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        self._told, tells = os.pipe()
        descriptors = [number if stream == -1 else stream for number, stream in enumerate(streams)]
        settings = {
            "arguments": given["args"][len(COMMAND) :],
            "environment": dict(os.environ if given["env"] is None else given["env"]),
            "directory": str(given["cwd"] or Path.cwd()),
            "session": given["start_new_session"],
            "constants": self._constants,
        }
        with _turn:
            socket.send_fds(_launcher(), [json.dumps(settings).encode()], [*descriptors, tells])
        os.close(tells)
        self.pid = self._number()
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in ends))

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
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with Process(command, **pipes, text=True, **settings) as process:
        try:
            out, err = process.communicate(text, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


_turn = threading.Lock()


@functools.cache
def _launcher() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if name != _COVERAGE}  # each measures its own
    command = [sys.executable, "-P", __file__, str(theirs.fileno())]
    with theirs:
        started = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment)

    @atexit.register
    def end() -> None:
        ours.close()
        started.wait()

    return ours


def _serve(asked: socket.socket) -> None:
    """Fork for each request. It returns in the processes that are to become a command."""
    running: dict[int, int] = {}

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                _tell(running[ended[0]], ended[1])
                os.close(running.pop(ended[0]))

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, and that ends this
    signal.signal(signal.SIGCHLD, reap)
    while True:
        request, descriptors, *_ = socket.recv_fds(asked, 2**20, 4)
        if not request:
            raise SystemExit
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # nobody ends before he is known
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            _become(json.loads(request), descriptors)
            return
        *streams, running[pid] = descriptors
        for stream in streams:
            os.close(stream)
        _tell(running[pid], pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _tell(descriptor: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know
        os.write(descriptor, number.to_bytes(_NUMBER, "little"))


def _become(settings: dict[str, Any], descriptors: list[int]) -> None:
    """Make this process what it would be if it had been executed."""
    if settings["session"]:
        os.setsid()
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(settings["environment"])
    sys.stdin, sys.stdout, sys.stderr = _text(sys.stdin), _text(sys.stdout), _text(sys.stderr, lines=True)
    os.chdir(settings["directory"])
    sys.path.insert(0, settings["directory"])
    sys.argv[1:] = settings["arguments"]
    if _COVERAGE in os.environ:
        importlib.import_module("coverage").process_startup()
    for place, value in settings["constants"].items():
        module, name = place.split(":")
        assert hasattr(importlib.import_module(module), name)
        setattr(sys.modules[module], name, value)


def _text(before: io.TextIOWrapper, *, lines: bool = False) -> io.TextIOWrapper:
    """A standard stream as it is made when an interpreter starts."""
    number, unbuffered = before.fileno(), before is not sys.stdin and bool(os.environ.get("PYTHONUNBUFFERED"))
    raw = open(number, "rb" if before is sys.stdin else "wb", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(
        raw,
        before.encoding,
        before.errors,
        line_buffering=lines or os.isatty(number),
        write_through=unbuffered,
    )


if __name__ == "__main__":
    for name in _SHARED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("dispatchkit", run_name="__main__", alter_sys=True)

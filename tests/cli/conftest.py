"""A sandbox beside the test, and three ways to run the command: in process, as a child, on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import pty
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import typer.testing

from dispatchkit.cli.app import app
from dispatchkit.cli.streams import unwritable
from dispatchkit.sandbox import Sandbox
from tests.launcher import COMMAND, Process
from tests.workers.conftest import Field

# Otherwise each run would build all commands again, which is half of its time.
typer.testing._get_command = functools.cache(typer.testing._get_command)  # type: ignore[attr-defined]


class Played:
    """A sandbox on a thread of its own, so that the command may block this one or be another process."""

    def __init__(self) -> None:
        self.sandbox = Sandbox(dispatches=range(1, 2001), mailings=range(1, 101), active=range(1, 51))
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with self.sandbox:
            self.url = self.sandbox.url
            self._ready.set()
            await self._over.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def wait_for_requests(self, count: int) -> None:
        wait_until(lambda: self.sandbox.requests >= count)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


class Result:
    """What came of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    """A sandbox, whose host and tokens are in the environment."""
    with Played() as played:
        monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", played.sandbox.direct_token)
        monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_TOKEN", played.sandbox.altcraft_token)
        monkeypatch.setenv("DISPATCHKIT_ALTCRAFT_URL", played.url)
        yield played


@pytest.fixture
def field(dsn: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    """A database and a sandbox, named in the environment."""
    monkeypatch.setenv("DISPATCHKIT_LEDGER", dsn)
    monkeypatch.setenv("DISPATCHKIT_DIRECT_TOKEN", sandbox.direct_token)
    field = Field(dsn, sandbox)
    yield field
    field.end()


@pytest.fixture
def _short_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, ``stop-run`` waits a moment only."""
    monkeypatch.setattr("dispatchkit.ledger.ledger.CLAIM_AGE", 0.1)


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DIRECT_TOKEN", "DIRECT_URL", "ALTCRAFT_TOKEN", "ALTCRAFT_URL", "LEDGER"):
        monkeypatch.delenv(f"DISPATCHKIT_{name}", raising=False)
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_lost_output() -> Iterator[None]:
    """What a test could not write must not end a command of the next one."""
    yield
    unwritable()


def run(*arguments: object, stdin: str | bytes = "") -> Result:
    """The command in this process."""
    result = typer.testing.CliRunner().invoke(
        app, [str(argument) for argument in arguments], input=stdin, prog_name="dispatchkit"
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Result(result.exit_code, result.stdout, result.stderr)


@contextlib.contextmanager
def start_child(
    *arguments: object,
    kind: type[subprocess.Popen[str]] = Process,
    constants: dict[str, float] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which does not outlive the block."""
    command = [*COMMAND, *map(str, arguments)]
    start: Any = functools.partial(kind, constants=constants) if constants else kind  # type: ignore[arg-type]
    with start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def run_child(
    *arguments: object,
    kind: type[subprocess.Popen[str]] = Process,
    constants: dict[str, float] | None = None,
) -> Result:
    with start_child(*arguments, kind=kind, constants=constants) as child:
        out, err = child.communicate(timeout=30)
    return Result(child.returncode, out, err)


class Terminal:
    """The command on a terminal of its own, which is what it believes its three streams to be."""

    def __init__(self, *arguments: object, output: Path | None = None, columns: int = 100) -> None:
        self._master, slave = pty.openpty()
        out = slave if output is None else os.open(output, os.O_WRONLY | os.O_CREAT)
        self._child = Process(
            [*COMMAND, *map(str, arguments)],
            stdin=slave,
            stdout=out,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns)},
        )
        for descriptor in {slave, out}:
            os.close(descriptor)
        self.screen = ""

    def read_until(self, text: str) -> None:
        while text not in self.screen:
            assert self._read(), f"it ended without {text!r}: {self.screen}"

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        self._child.send_signal(signal.SIGINT)

    def hang_up(self) -> int:
        """Close the terminal window, and return the exit status."""
        os.close(self._master)
        self._child.send_signal(signal.SIGHUP)  # the kernel's, were it the controlling terminal
        return self._child.wait(20)

    def end(self) -> int:
        """Read to the end and return the exit status."""
        while self._read():
            pass
        os.close(self._master)
        return self._child.wait(20)

    def _read(self) -> bool:
        assert select.select([self._master], [], [], 20)[0], f"it is silent: {self.screen}"
        with contextlib.suppress(OSError):  # Linux: the other end is closed
            read = os.read(self._master, 65536)
            self.screen += read.decode(errors="replace")
            return bool(read)
        return False
